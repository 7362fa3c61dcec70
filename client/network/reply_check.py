"""Checks a worker's reply against the request, as far as both alone tell. Pure.

A reply that fails is malformed, like a frame that cannot be decoded. Whether its data is right is checked where the
data is used.
"""

from __future__ import annotations

from itertools import pairwise

from msd.wire.errors import ProtocolError
from msd.wire.protocol.messages import (
    FILE_OK,
    Bundle,
    CataloguePage,
    Correlated,
    DataReply,
    Describe,
    Described,
    DigestPage,
    Digests,
    Get,
    GetBundle,
    Held,
    Hello,
    Holds,
    List,
    Refusal,
    Segment,
    Welcome,
)
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_BUNDLE_SIZE

#: The type of the reply to each request of which nothing else is checked.
_REPLIES = {Hello: Welcome, Describe: Described, Digests: DigestPage, Holds: Held}


def check_reply(request: Correlated, reply: DataReply, size: int) -> None:
    """Raises ``ProtocolError`` if ``reply`` with a payload of ``size`` bytes cannot be the reply to ``request``."""
    match reply:
        # By far the most frequent reply comes first.
        case Segment() if isinstance(request, Get):
            is_range = reply.index == request.index and reply.start == request.start
            is_valid = is_range and size == (request.length or size) > 0
        case Bundle(statuses=statuses, lengths=lengths) if isinstance(request, GetBundle):
            is_valid = (
                len(statuses) == len(lengths) == len(request.ids) // DIGEST_SIZE
                and sum(lengths) == size <= min(request.length or MAX_BUNDLE_SIZE, MAX_BUNDLE_SIZE)
                and all(status == FILE_OK or not sent for status, sent in zip(statuses, lengths, strict=True))
            )
        case CataloguePage(entries=entries, more=more) if isinstance(request, List):
            names = [request.after, *(entry.name for entry in entries)]
            is_valid = (
                request.catalogue in (None, reply.catalogue)
                and (bool(entries) or not more)
                and all(earlier < later for earlier, later in pairwise(names))
                and all(entry.name.startswith(request.prefix) for entry in (*entries[:1], *entries[-1:]))
            )
        case Refusal():
            is_valid = True
        case _:
            is_valid = type(reply) is _REPLIES.get(type(request))
    if not is_valid:
        raise ProtocolError(f"the reply to {type(request).__name__} does not fit")
