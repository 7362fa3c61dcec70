"""Messages to frames and back: the only place that knows msgpack.

Nothing received is trusted: every frame is bounded, unpacked with limits and checked against the
type of its message. Whatever is wrong with it becomes one ``ProtocolError``.
"""

from __future__ import annotations

from functools import cache
from types import UnionType
from typing import Any

import msgpack
import msgspec

from msd.wire.errors import ProtocolError
from msd.wire.protocol.messages import Message

#: No header is larger: a page of a catalogue is the largest one, see ``workers/source/catalogue.py``.
MAX_HEADER = 1 << 20
#: Every snapshot begins with this: what a SUB socket subscribes to.
STATUS_TOPIC = b"msd1:"


def encode(message: Message) -> bytes:
    """The header frame of ``message``."""
    return bytes(msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,))))


def decode(frame: bytes | memoryview, family: UnionType | type[Message]) -> Any:
    """The message in a header frame, which must be of ``family``: one type, or a union of some.

    Raises ``ProtocolError``, and nothing else, whatever the frame holds.
    """
    if len(frame) > MAX_HEADER:
        raise ProtocolError(f"a header of {len(frame)} bytes")
    try:
        header = _unpack(frame)
        if not isinstance(header, dict) or "type" not in header:  # a lone type would pass without
            raise ValueError("no type")
        return msgspec.convert({"message": header}, _box(family), builtin_types=(bytes,)).message
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not a message: {error}") from None


@cache
def _box(family: UnionType | type[Message]) -> Any:
    """A struct that holds a message of ``family``: msgspec remembers how to convert to a struct, but
    works it out anew for every union.
    """
    return msgspec.defstruct("Box", [("message", family)])


def _unpack(frame: bytes | memoryview) -> Any:
    return msgpack.unpackb(
        frame,
        raw=False,
        strict_map_key=True,
        max_str_len=8192,
        max_bin_len=4096,
        max_array_len=1024,
        max_map_len=64,
        max_ext_len=0,
        timestamp=0,
    )
