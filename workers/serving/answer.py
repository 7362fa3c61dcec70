"""What a worker answers: a function of the request, the catalogue and the worker's state.

Reads no file and sends nothing: a request whose reply has a payload becomes a ``Job``.
"""

from __future__ import annotations

from msgspec import Struct

from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    Bye,
    CataloguePage,
    DataReply,
    DataRequest,
    Describe,
    Described,
    Digests,
    Get,
    Hello,
    List,
    Refusal,
    Welcome,
)
from msd.wire.protocol.segments import segment_size
from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import Catalogue, SharedFile

#: The requests with large replies: they wait for their turn. All others are answered at once, so
#: that a client's ``hello`` measures the round trip and not its own queue.
LARGE = (List, Digests, Get)


class Job(Struct, frozen=True):
    """A request whose reply has a payload: a segment of ``file``, or digests from ``index`` on."""

    rid: int
    file: SharedFile
    index: int
    digests: bool = False


class Identity(Struct, frozen=True):
    """Who answers: the worker's number, and a random number for this run of its process."""

    number: int
    epoch: int


def answer(request: DataRequest, me: Identity, catalogue: Catalogue, *, awake: bool) -> DataReply | Job | None:
    """The reply to ``request``, the job it makes, or None where there is nothing to say."""
    if isinstance(request, Bye):
        return None
    if not awake:
        return refusal(request.rid, me, RefusalReason.SLEEPING)
    match request:
        # First what comes a thousand times a second.
        case Get(rid=rid, id=id, index=index) | Digests(rid=rid, id=id, start=index):
            file = catalogue.find(None, id)
            if file is None:
                return refusal(rid, me, RefusalReason.UNKNOWN)
            if index >= file.segments:
                return refusal(rid, me, RefusalReason.BAD_REQUEST, f"segment {index} of {file.segments}")
            return Job(rid, file, index, digests=isinstance(request, Digests))
        case Hello(rid=rid):
            return Welcome(
                rid=rid,
                version=PROTOCOL_VERSION,
                epoch=me.epoch,
                number=me.number,
                files=len(catalogue.files),
                catalogue=catalogue.id,
            )
        case List(rid=rid, after=after):
            entries, more = catalogue.page(after)
            return CataloguePage(rid=rid, epoch=me.epoch, entries=entries, more=more)
        case Describe(rid=rid, name=name, id=id):
            file = catalogue.find(name, id)
            if file is None:
                return refusal(rid, me, RefusalReason.UNKNOWN)
            return Described(
                rid=rid,
                epoch=me.epoch,
                name=file.name,
                size=file.size,
                mtime_ns=file.mtime_ns,
                segment_size=segment_size(file.size),
                id=file.id,
            )


def to_keep(request: DataRequest, catalogue: Catalogue) -> DataRequest:
    """A request of the same answer that may wait for its turn: it holds no text of the client's,
    so that hundreds of them take little memory.
    """
    if isinstance(request, List):
        return List(rid=request.rid, after=catalogue.shared_before(request.after))
    return request


def refusal(rid: int, me: Identity, reason: RefusalReason, detail: str = "") -> Refusal:
    return Refusal(rid=rid, epoch=me.epoch, reason=reason, detail=detail[:1024])
