"""Answers requests: computes the reply from the request, the catalogue and the worker's state.

Reads no shared file and sends nothing: a request whose reply has a payload becomes a ``Job``.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import asdict

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
    GetBundle,
    Hello,
    Holds,
    List,
    Refusal,
    Welcome,
)
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_BUNDLE_SIZE, MAX_FILE_SIZE, segment_size, span
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.presentable_names import presentable
from msd.workers.source.catalogue import Catalogue, SharedFile
from msd.workers.source.listing import Listings

#: Requests with large replies, which go through the fair queue. All others are answered immediately, so that a client
#: can measure the round-trip time with a ``hello``: its reply does not wait for the client's queued requests.
QUEUED_REQUESTS = (List, Digests, Get, GetBundle)


class QueuedList(Struct, frozen=True):
    """A ``List`` in the queue: positions in the listing of a catalogue."""

    rid: int
    catalogue: bytes
    first: int
    end: int


class QueuedBundle(Struct, frozen=True):
    """A ``GetBundle`` in the queue. ``ids`` holds None for each file that is not shared."""

    rid: int
    ids: tuple[bytes | None, ...]
    start: int
    length: int | None


QueuedRequest = QueuedList | Digests | Get | QueuedBundle


class SegmentJob(Struct, frozen=True):
    """A reply whose payload must still be read: ``length`` bytes of a segment of ``file``, from ``start`` on, which is
    ``offset`` in the file.
    """

    rid: int
    file: SharedFile
    index: int
    start: int
    offset: int
    length: int


class DigestsJob(Struct, frozen=True):
    """A reply whose payload must still be read: digests of the segments of ``file``, from ``start`` on."""

    rid: int
    file: SharedFile
    start: int


class BundleJob(Struct, frozen=True):
    """A reply whose payload must still be read: ranges of files (offset and length), None for each file that is not
    shared.
    """

    rid: int
    ranges: list[tuple[SharedFile, int, int] | None]


Job = SegmentJob | DigestsJob | BundleJob


class Identity(Struct, frozen=True):
    """Identifies a worker process: its number, a random number for this run of the process, and its features."""

    number: int
    epoch: int
    features: tuple[str, ...] = ()


def answer(
    request: DataRequest | QueuedRequest, identity: Identity, catalogue: Catalogue, listings: Listings, *, awake: bool
) -> DataReply | Job | None:
    """Returns the reply to ``request``, or the job that produces the reply, or None if the request has no reply."""
    if isinstance(request, Bye):
        return None
    if not awake:
        return refusal(request.rid, identity, RefusalReason.SLEEPING)
    match request:
        # The most frequent requests come first: there may be thousands per second.
        case Get(rid=rid, id=id, index=index) | Digests(rid=rid, id=id, start=index):
            file = catalogue.find(None, id)
            if file is None:
                return refusal(rid, identity, RefusalReason.UNKNOWN)
            first, size = span(file.size, index)
            if size <= 0:
                return refusal(rid, identity, RefusalReason.BAD_REQUEST, f"segment {index} of {file.segments}")
            if isinstance(request, Digests):
                return DigestsJob(rid, file, index)
            start, length = request.start, size - request.start if request.length is None else request.length
            if length <= 0 or start + length > size:
                return refusal(rid, identity, RefusalReason.BAD_REQUEST, f"{length} bytes from {start} on, of {size}")
            return SegmentJob(rid, file, index, start, first + start, length)
        case GetBundle() | List():
            compacted = compact_request(request, catalogue, listings)
            return answer(compacted, identity, catalogue, listings, awake=awake)
        case QueuedBundle():
            return _bundle(request, identity, catalogue)
        case Hello(rid=rid, version=version) if version != PROTOCOL_VERSION:
            detail = f"this worker speaks protocol version {PROTOCOL_VERSION}, not {version}"
            return refusal(rid, identity, RefusalReason.VERSION, detail, versions=[PROTOCOL_VERSION])
        case Hello(rid=rid):
            return Welcome(
                rid=rid,
                version=PROTOCOL_VERSION,
                epoch=identity.epoch,
                number=identity.number,
                files=catalogue.file_count,
                catalogue=catalogue.id,
                features=[*identity.features],
            )
        case Holds(rid=rid):
            return refusal(rid, identity, RefusalReason.BAD_REQUEST, "this worker has all units")
        case QueuedList(rid=rid, catalogue=id, first=first, end=end):
            listing = listings.find(id)
            if listing is None:
                return refusal(rid, identity, RefusalReason.UNKNOWN, "that catalogue is not kept any more")
            entries, more = listing.page(range(first, end))
            return CataloguePage(rid=rid, epoch=identity.epoch, catalogue=id, entries=entries, more=more)
        case Describe(rid=rid, name=name, id=id):
            file = catalogue.find(name, id)
            if file is None:
                return refusal(rid, identity, RefusalReason.UNKNOWN)
            size = segment_size(file.size)
            return Described(rid=rid, epoch=identity.epoch, segment_size=size, **asdict(file.entry))


def _bundle(request: QueuedBundle, identity: Identity, catalogue: Catalogue) -> BundleJob | Refusal:
    """Returns the ranges of the files in a bundle."""
    ranges: list[tuple[SharedFile, int, int] | None] = []
    start, left = request.start, MAX_FILE_SIZE if request.length is None else request.length
    size = 0
    for id in request.ids:
        file = catalogue.find(None, id) if id is not None else None
        if file is None:
            ranges.append(None)
        elif file.size > MAX_BUNDLE_SIZE or start > max(0, file.size - 1):
            detail = f"bytes from {start} on of a file of {file.size}, which may have {MAX_BUNDLE_SIZE} in a bundle"
            return refusal(request.rid, identity, RefusalReason.BAD_REQUEST, detail)
        else:
            length = min(file.size - start, left)
            ranges.append((file, start, length))
            left -= length
            size += length
        start = 0
    if size > MAX_BUNDLE_SIZE:
        detail = f"{size} bytes in all, of {MAX_BUNDLE_SIZE} at most"
        return refusal(request.rid, identity, RefusalReason.BAD_REQUEST, detail)
    return BundleJob(request.rid, ranges)


def compact_request(
    request: List | Digests | Get | GetBundle, catalogue: Catalogue, listings: Listings, scope: str = ""
) -> QueuedRequest:
    """Returns an equivalent request that contains no text and no ids sent by the client, so that hundreds of queued
    requests need little memory. ``scope`` is the only file or folder that may be listed; empty for everything.
    """
    match request:
        case List(rid=rid, after=after, prefix=prefix, catalogue=id):
            listing = listings.current if id is None else listings.find(id)
            if listing is None:
                return QueuedList(rid, b"", 0, 0)
            selected = listing.select(after, prefix, scope)
            return QueuedList(rid, listing.id, selected.start, selected.stop)
        case GetBundle(rid=rid, ids=ids):
            shared = tuple(catalogue.own_id(ids[at : at + DIGEST_SIZE]) for at in range(0, len(ids), DIGEST_SIZE))
            return QueuedBundle(rid, shared, request.start, request.length)
    return request


def refusal(
    rid: int, identity: Identity, reason: RefusalReason, detail: str = "", versions: Sequence[int] = ()
) -> Refusal:
    return Refusal(
        rid=rid, epoch=identity.epoch, reason=reason, detail=presentable(detail[:1024])[:1024], versions=[*versions]
    )
