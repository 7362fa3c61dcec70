"""A connection pool with one worker that shares files in memory, for tests of a client's tasks."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import zmq

from msd.client.network_events import NetworkEvent, ReplyReceived
from msd.wire.protocol.messages import (
    FILE_OK,
    Bundle,
    Correlated,
    Describe,
    Described,
    DigestPage,
    Digests,
    DownloadProgress,
    Entry,
    Get,
    GetBundle,
    List,
    Refusal,
    Segment,
)
from msd.wire.protocol.segments import Manifest, content_id, cut, digest, segment_size
from msd.wire.protocol.states import RefusalReason
from tests.connections import opened
from tests.listings import CATALOGUE, page_of


def manifest_of(name: str, data: bytes) -> Manifest:
    return Manifest.build(name, len(data), b"".join(map(digest, cut(memoryview(data)))))


def entry_of(name: str, data: bytes) -> Entry:
    """The entry of a file, or of a folder if ``name`` ends in ``/``."""
    if name.endswith("/"):
        return Entry(name=name, size=0, mtime_ns=7, mode=0o755)
    return Entry(name=name, size=len(data), mtime_ns=7, mode=0o644, id=content_id(memoryview(data)))


class MemoryWorker:
    """A pool that is connected to worker 1, which shares ``files`` and lists them in pages of ``page_size`` entries.

    It lists the files that it shares when it is created. ``requests`` holds the requests that it has received. Files
    ``refused_in_bundles`` it sends only by segments.
    """

    worker_numbers: tuple[int, ...] = (1,)
    stalled_seconds = 0.0
    read_until = math.inf
    status = control = peers = None
    session = 1
    local_reason = ""

    def __init__(self, files: dict[str, bytes], page_size: int = 100) -> None:
        self.files = files
        self.requests: list[Correlated] = []
        self.refused_in_bundles: set[str] = set()
        self.progress_timeout = SimpleNamespace(handle=lambda event, now: [])
        self.file_reasons: dict[object, str] = {}
        self.read_errors: dict[int, str] = {}
        self.read_error = ""
        self.places: dict[int, str] = {}
        self.ready = {1: opened(1, catalogue=CATALOGUE)}
        self._listing = [entry_of(name, data) for name, data in sorted(files.items())]
        self._page_size = page_size
        self._replies: list[ReplyReceived] = []

    def current_state(self) -> list[NetworkEvent]:
        return [*self.ready.values()]

    def wait(self, deadline: float) -> None:
        assert self._replies or deadline < math.inf, "nothing would ever happen"

    def events(self) -> list[ReplyReceived]:
        replies, self._replies = self._replies, []
        return replies

    def request(self, worker: int, request: Correlated) -> None:
        self.requests.append(request)
        reply, data = self._answer(request)
        payload: Any = zmq.Frame(data) if data is not None else None
        self._replies.append(ReplyReceived(worker, request, reply, payload))

    def report_progress(self, progress: DownloadProgress) -> None: ...

    def _find(self, id: bytes) -> tuple[str, bytes] | None:
        return next(((name, data) for name, data in self.files.items() if entry_of(name, data).id == id), None)

    def _answer(self, request: Any) -> tuple[Any, bytes | None]:
        rid = request.rid
        unknown = Refusal(rid=rid, epoch=7, reason=RefusalReason.UNKNOWN), None
        match request:
            case List():
                return page_of(self._listing, request, self._page_size), None
            case Describe(name=name) if name in self.files:
                manifest = manifest_of(name, self.files[name])
                size = manifest.size
                described = Described(
                    rid=rid,
                    epoch=7,
                    name=name,
                    size=size,
                    mtime_ns=7,
                    segment_size=segment_size(size),
                    id=manifest.id,
                )
                return described, None
            case Digests(id=id, start=start) if found := self._find(id):
                return DigestPage(rid=rid, epoch=7, start=start), manifest_of(*found).digests[32 * start :]
            case Get(id=id, index=index, start=start, length=length) if found := self._find(id):
                segment = bytes(cut(memoryview(found[1]))[index])[start:]
                return Segment(rid=rid, epoch=7, index=index, start=start), segment[:length]
            case GetBundle(ids=ids, start=start, length=length):
                left = math.inf if length is None else length
                contents: list[bytes | None] = []
                for position in range(0, len(ids), 32):
                    found = self._find(ids[position : position + 32])
                    is_refused = found is None or found[0] in self.refused_in_bundles
                    data = found[1][start if not position else 0 :] if found and not is_refused else None
                    if data is not None:
                        data = data[: int(min(left, len(data)))]
                        left -= len(data)
                    contents.append(data)
                statuses = [FILE_OK if data is not None else "changed" for data in contents]
                sent = [data or b"" for data in contents]
                return Bundle(rid=rid, epoch=7, statuses=statuses, lengths=[*map(len, sent)]), b"".join(sent)
        return unknown
