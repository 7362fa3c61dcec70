"""Encodes messages into header frames and decodes them; the limits of frames. The only module that uses msgpack.

Received frames are not trusted: their size is bounded, they are unpacked with limits, and every field is checked
against its type. All failures become ``ProtocolError``. ``msgspec.msgpack`` encodes messages, but ``msgpack`` unpacks
them, because ``msgspec.msgpack`` does not check the values of unknown keys. Does not read payload frames.
"""

from __future__ import annotations

from functools import cache
from types import UnionType
from typing import Any

import msgpack
import msgspec

from msd.wire.errors import ProtocolError
from msd.wire.protocol.messages import MAX_BUNDLE_FILES, MAX_ENTRIES, Message
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_SEGMENT_SIZE

#: Maximum size of a header in bytes. Catalogue pages come closest to this limit, see ``workers/source/catalogue.py``.
MAX_HEADER = 1 << 20
# The largest frame that each socket accepts, in bytes (``ZMQ_MAXMSGSIZE``): ZeroMQ disconnects a peer that sends more.
#: A request to a worker or to the broker.
MAX_REQUEST_FRAME = 65536
#: A worker's reply: the payload of one segment, plus some reserve.
MAX_REPLY_FRAME = MAX_SEGMENT_SIZE + 4096
#: A snapshot of server 5; a snapshot of 64 workers fits.
MAX_SNAPSHOT_FRAME = 65536
#: A subscription to the status socket. Not below 1024, because the limit also applies to CURVE handshakes.
MAX_SUBSCRIPTION_FRAME = 1024
#: The prefix of every snapshot; SUB sockets subscribe to it.
STATUS_TOPIC = b"msd1:"


def encode(message: Message) -> bytes:
    """Returns the header frame of ``message``."""
    return msgspec.msgpack.encode(message)


def decode(frame: bytes | memoryview, family: UnionType | type[Message]) -> Any:
    """Returns the message in a header frame. ``family`` is the expected type or union of types.

    Raises ``ProtocolError``, and no other exception, if the frame is malformed.
    """
    if len(frame) > MAX_HEADER:
        raise ProtocolError(f"a header of {len(frame)} bytes is too large")
    header = None
    try:
        header = _unpack(frame)
        if not isinstance(header, dict) or "type" not in header:  # msgspec requires the tag only for a union
            raise ValueError("no type")
        return msgspec.convert({"message": header}, _box(family), builtin_types=(bytes,)).message
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        # The path in the text of msgspec begins with the field of the box.
        raise ProtocolError(f"not a message: {error}".replace("`$.message", "`$"), _rid(header)) from None


def _rid(header: Any) -> int | None:
    """Returns the ``rid`` in a malformed header, None if there is no valid one."""
    rid = header.get("rid") if isinstance(header, dict) else None
    return rid if type(rid) is int and 0 <= rid < 1 << 63 else None


@cache
def _box(family: UnionType | type[Message]) -> Any:
    """Returns a struct type with one field of type ``family``. Converting to it is faster than converting to ``family``
    itself: msgspec caches its analysis of a struct type, but analyses a union again in every call.
    """
    return msgspec.defstruct("Box", [("message", family)])


def _unpack(frame: bytes | memoryview) -> Any:
    return msgpack.unpackb(
        frame,
        raw=False,
        strict_map_key=True,
        max_str_len=8192,
        max_bin_len=DIGEST_SIZE * MAX_BUNDLE_FILES,
        max_array_len=MAX_ENTRIES,
        max_map_len=64,
        max_ext_len=0,
        timestamp=0,
    )
