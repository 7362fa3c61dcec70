"""How the manifest is fetched: which requests the resolver's actions cause, and when the client gives up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from msd.client.manifest.look_up import find_manifest
from msd.client.network.progress_timeout import ProgressMade
from msd.client.network.session import Session
from msd.client.network_events import NetworkEvent, ReplyReceived, SnapshotReceived
from msd.wire.errors import NotFoundError, UsageError
from msd.wire.protocol.messages import MAX_NAME, Describe, Described, DigestPage, Digests, List, Message, Refusal
from msd.wire.protocol.segments import Manifest, digest, segment_count, segment_size
from msd.wire.protocol.states import RefusalReason, WorkerState
from tests.connections import opened
from tests.unit.snapshots import snapshot

CATALOGUE = b"c" * 32
STAR = Manifest.build("Star.mp4", 245, digest(b"star") * segment_count(245), mtime_ns=1)


class FakePool:
    """A pool with one worker that shares STAR. Each poll takes a second."""

    worker_numbers = (1,)
    stalled_seconds = 0.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = 1000.0
        self.requests: list[Message] = []
        self.progress: list[ProgressMade] = []
        self.progress_timeout = SimpleNamespace(handle=lambda event, now: self.progress.append(event))
        self._incoming: list[NetworkEvent] = []
        #: Why workers cannot read their files, now and before; the next digests are refused for these reasons.
        self.read_errors: dict[int, str] = {}
        self.seen: list[dict[int, str]] = []
        self.refusals: list[str] = []
        monkeypatch.setattr("time.monotonic", lambda: self._now)

    def wait(self, deadline: float) -> None:
        self._now += 1.0

    def events(self) -> list[NetworkEvent]:
        self.seen.append(dict(self.read_errors))
        incoming, self._incoming = self._incoming, []
        return incoming

    def current_state(self) -> list[NetworkEvent]:
        return [SnapshotReceived(snapshot(WorkerState.AWAKE, catalogue=CATALOGUE)), opened(1, catalogue=CATALOGUE)]

    def request(self, worker: int, request: Message) -> None:
        self.requests.append(request)
        self._incoming.append(self._reply(worker, request))

    def _reply(self, worker: int, request: Any) -> ReplyReceived:
        match request:
            case Describe(name=None | STAR.name):
                size, rid = STAR.size, request.rid
                reply = Described(
                    rid=rid, epoch=7, name=STAR.name, size=size, mtime_ns=1, segment_size=segment_size(size), id=STAR.id
                )
                return ReplyReceived(worker, request, reply, None)
            case Digests() if self.refusals:
                refusal = Refusal(
                    rid=request.rid, epoch=7, reason=RefusalReason.UNAVAILABLE, detail=self.refusals.pop(0)
                )
                return ReplyReceived(worker, request, refusal, None)
            case Digests():
                page = DigestPage(rid=request.rid, epoch=7, start=request.start)
                return ReplyReceived(worker, request, page, zmq.Frame(STAR.digests))
            case _:
                refusal = Refusal(rid=request.rid, epoch=7, reason=RefusalReason.UNKNOWN)
                return ReplyReceived(worker, request, refusal, None)


def find(pool: FakePool, name: str | None = None, **options: Any) -> tuple[Manifest, bytes]:
    return find_manifest(Session(pool), name, None, **options)  # type: ignore[arg-type]


def test_the_manifest_is_returned_with_the_published_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FakePool(monkeypatch)
    assert find(pool, STAR.name) == (STAR, CATALOGUE)
    assert [type(request) for request in pool.requests] == [Describe, Digests]
    assert pool.progress == [ProgressMade()] * 2, "each useful reply is progress"


def test_names_are_requested_for_an_unknown_file(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FakePool(monkeypatch)
    with pytest.raises(NotFoundError, match="'Moon' is not shared"):
        find(pool, "Moon")
    assert [type(request) for request in pool.requests] == [Describe, List]


@pytest.mark.parametrize("name", ["", "x" * (MAX_NAME + 1), "a\x1bb"])
def test_an_impossible_name_is_not_requested(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pool = FakePool(monkeypatch)
    error = NotFoundError if name else UsageError  # An empty name is a slip, such as "$UNSET" in a script.
    with pytest.raises(error, match="cannot be the name of a shared file" if name else "the name is empty"):
        find(pool, name)
    assert pool.requests == []
    assert find(pool, fallback_name=name)[0] == STAR


def test_the_pool_learns_why_a_small_file_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FakePool(monkeypatch)
    pool.refusals = ["s3://films: connection refused"]
    assert find(pool, STAR.name) == (STAR, CATALOGUE)
    assert {1: "s3://films: connection refused"} in pool.seen
    assert pool.read_errors == {}
