"""Which worker is asked for which page of a listing. What is planned: tests/unit/client/plan."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from msd.client.manifest.awaited_workers import Majority
from msd.client.manifest.lister import (
    MAJORITY_TIMEOUT_S,
    PUBLISHED_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    RETRY_DELAY_S,
    TRANSITIONS,
    Action,
    Completed,
    Event,
    Fail,
    Listed,
    Lister,
    Phase,
    Request,
    Restarted,
)
from msd.client.network_events import ConnectionClosed, ReplyReceived, SnapshotReceived
from msd.wire.protocol.messages import CataloguePage, List, Refusal
from msd.wire.protocol.states import RefusalReason, WorkerState
from msd.wire.support.core import TimePassed
from tests.connections import opened
from tests.listings import entry, page_of
from tests.unit.snapshots import snapshot

OLD, NEW = b"o" * 32, b"n" * 32


def page(*names: str, catalogue: bytes = NEW, more: bool = False) -> CataloguePage:
    return CataloguePage(rid=0, epoch=7, catalogue=catalogue, entries=[entry(name) for name in names], more=more)


class Scene:
    """A lister of the folder ``d``, and a clock that the test controls."""

    def __init__(self, workers: Sequence[int] = (1, 2)) -> None:
        self.lister = Lister(("d/",), (), workers)
        self.now = 100.0
        self.requests: dict[int, List] = {}

    @property
    def planned(self) -> list[str]:
        plan = self.lister.planner.plan
        return [plan.entry(number).name for number in range(len(plan))]

    def feed(self, event: Event, later: float = 0.0) -> list[Action]:
        """Returns the actions, with 0 instead of the ids of the requests and without ``Listed``."""
        self.now += later
        before = self.lister.phase
        actions = self.lister.handle(event, self.now)
        self.lister.check_invariants()
        assert self.lister.phase is before or (before, self.lister.phase) in TRANSITIONS
        self.requests |= {action.worker: action.message for action in actions if isinstance(action, Request)}
        return [
            Request(action.worker, replace(action.message, rid=0)) if isinstance(action, Request) else action
            for action in actions
            if not isinstance(action, Listed)
        ]

    def publish(self, catalogue: bytes = NEW) -> list[Action]:
        return self.feed(SnapshotReceived(snapshot(catalogue=catalogue, workers=[])))

    def reply(self, worker: int, reply: CataloguePage | Refusal) -> list[Action]:
        return self.feed(ReplyReceived(worker, self.requests[worker], reply, None))

    def wait(self) -> list[Action]:
        deadline = self.lister.next_deadline(self.now)
        assert deadline is not None
        assert deadline > self.now
        assert self.feed(TimePassed()) == []
        self.now = deadline
        return self.feed(TimePassed())


def asks(worker: int, after: str = "", catalogue: bytes | None = None) -> Request:
    return Request(worker, List(rid=0, after=after, prefix="d/", catalogue=catalogue))


def refusal(reason: RefusalReason) -> Refusal:
    return Refusal(rid=0, epoch=7, reason=reason)


@pytest.fixture
def listing() -> Scene:
    """Worker 1 has listed the file ``d/a`` and is asked for the next page; worker 2 is connected, too."""
    scene = Scene()
    scene.publish()
    assert scene.feed(opened(1, catalogue=NEW)) == [asks(1)]
    scene.feed(opened(2, catalogue=NEW))
    assert scene.reply(1, page("d/a", more=True)) == [asks(1, "d/a", NEW)]
    return scene


def test_the_published_catalogue_is_listed_page_by_page() -> None:
    scene = Scene()
    scene.publish()
    assert scene.feed(opened(2, catalogue=OLD)) == []
    assert scene.feed(opened(1, catalogue=NEW)) == [asks(1)]
    assert scene.reply(1, page("d/a", "d/b", more=True)) == [asks(1, "d/b", NEW)]
    assert scene.reply(1, page("d/c")) == [Completed()]
    assert scene.lister.majority is None
    assert scene.planned == ["d/a", "d/b", "d/c"]
    assert scene.feed(opened(2, catalogue=NEW)) == []


def test_without_server_5_the_catalogue_of_most_workers_is_listed() -> None:
    scene = Scene(workers=(1, 2, 3, 4))
    for worker, catalogue in ((1, OLD), (2, NEW), (3, NEW)):
        assert scene.feed(opened(worker, catalogue=catalogue)) == []
    assert scene.lister.next_deadline(scene.now) == scene.now + MAJORITY_TIMEOUT_S
    assert scene.wait() == [asks(2)]


def test_once_all_workers_are_connected_the_majority_decides_at_once() -> None:
    scene = Scene()
    assert scene.feed(opened(1, catalogue=OLD)) == []
    assert scene.feed(opened(2, catalogue=OLD)) == [asks(1)]


def test_without_a_published_catalogue_only_workers_that_are_awake_are_waited_for() -> None:
    scene = Scene(workers=())
    status = snapshot(WorkerState.AWAKE, WorkerState.AWAKE, WorkerState.LOST, WorkerState.ASLEEP, catalogue=b"")
    workers = [replace(worker, host="192.0.2.1", catalogue=NEW) for worker in status.workers]
    scene.feed(SnapshotReceived(replace(status, workers=workers)))
    assert scene.feed(opened(1, catalogue=OLD)) == []
    assert scene.feed(opened(2, catalogue=OLD)) == [asks(1)]
    assert scene.lister.majority is None, "they agree"


def test_a_worker_that_has_not_answered_yet_may_have_another_catalogue() -> None:
    scene = Scene(workers=())
    status = snapshot(*[WorkerState.AWAKE] * 3, catalogue=b"")
    workers = [replace(worker, host="192.0.2.1", catalogue=NEW) for worker in status.workers]
    scene.feed(SnapshotReceived(replace(status, workers=workers)))
    assert scene.feed(opened(1, catalogue=OLD)) == []
    assert scene.feed(opened(2, catalogue=OLD)) == []
    assert scene.wait() == [asks(1)]
    assert scene.lister.majority == Majority(2, 2)


def given_catalogue() -> Scene:
    """A lister of one catalogue, which workers 2 and 3 serve, although server 5 publishes another one."""
    scene = Scene()
    scene.lister = Lister(("d/",), (), (2, 3), catalogue=OLD)
    scene.publish(NEW)
    scene.feed(opened(1, catalogue=NEW))
    return scene


def test_a_given_catalogue_is_listed_only_by_the_workers_that_serve_it() -> None:
    scene = given_catalogue()
    assert scene.feed(opened(2, catalogue=OLD)) == [asks(2, catalogue=OLD)]
    assert scene.feed(opened(3, catalogue=OLD)) == []
    assert scene.reply(2, refusal(RefusalReason.UNKNOWN)) == [asks(3, catalogue=OLD)]
    assert scene.reply(3, page("d/a", catalogue=OLD)) == [Completed()]


def test_the_listing_of_a_given_catalogue_fails_if_no_worker_has_it_any_more() -> None:
    scene = given_catalogue()
    scene.feed(opened(2, catalogue=OLD))
    (action,) = scene.reply(2, refusal(RefusalReason.UNKNOWN))
    assert isinstance(action, Fail)


def test_the_workers_of_a_given_catalogue_have_two_seconds_to_connect() -> None:
    scene = given_catalogue()
    assert scene.lister.next_deadline(scene.now) == scene.now + PUBLISHED_TIMEOUT_S
    (action,) = scene.wait()
    assert isinstance(action, Fail)


def test_a_worker_without_the_published_catalogue_is_asked_only_after_a_while() -> None:
    scene = Scene()
    scene.publish()
    assert scene.feed(opened(1, catalogue=OLD)) == []
    assert scene.lister.next_deadline(scene.now) == scene.now + PUBLISHED_TIMEOUT_S
    assert scene.wait() == [asks(1)]


def test_after_a_lost_connection_another_worker_continues_in_the_same_catalogue(listing: Scene) -> None:
    assert listing.feed(ConnectionClosed(1)) == [asks(2, "d/a", NEW)]
    assert listing.reply(2, page("d/b")) == [Completed()]


def test_a_worker_that_does_not_answer_is_replaced(listing: Scene) -> None:
    assert listing.lister.next_deadline(listing.now) == listing.now + REPLY_TIMEOUT_S
    late = listing.requests[1]
    assert listing.wait() == [asks(2, "d/a", NEW)]
    assert listing.feed(ReplyReceived(1, late, page("d/b"), None)) == []
    assert listing.reply(2, page("d/b")) == [Completed()]
    assert listing.planned == ["d/a", "d/b"]


@pytest.mark.parametrize("reason", [RefusalReason.BUSY, RefusalReason.SLEEPING])
def test_after_a_temporary_refusal_another_worker_is_asked_a_moment_later(
    listing: Scene, reason: RefusalReason
) -> None:
    assert listing.reply(1, refusal(reason)) == []
    assert listing.lister.next_deadline(listing.now) == pytest.approx(listing.now + RETRY_DELAY_S)
    assert listing.wait() == [asks(2, "d/a", NEW)]


def test_if_no_worker_has_the_catalogue_any_more_the_listing_begins_again(listing: Scene) -> None:
    assert listing.reply(1, refusal(RefusalReason.UNKNOWN)) == [asks(2, "d/a", NEW)]
    assert listing.reply(2, refusal(RefusalReason.UNKNOWN)) == [Restarted(), asks(1)]
    assert listing.reply(1, page("d/b", catalogue=OLD)) == [Completed()]
    assert listing.planned == ["d/b"]


def test_a_worker_with_an_invalid_page_is_not_asked_again(listing: Scene) -> None:
    assert listing.reply(1, page("d/../b")) == [asks(2, "d/a", NEW)]
    (action,) = listing.reply(2, page("d/x/", "d/x//y"))
    assert isinstance(action, Fail)
    assert "no worker returned a valid list" in str(action.error)
    assert listing.lister.phase is Phase.DONE


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), names=st.sets(st.sampled_from("abcdefgh"), max_size=8))
def test_faults_do_not_change_what_is_planned(seed: int, names: set[str]) -> None:
    """Two workers share the same files; their connections are lost, and their replies are late or missing."""
    rng = random.Random(seed)
    scene = Scene()
    files = [entry(f"d/{name}") for name in sorted(names)]
    pending: dict[int, list[List]] = {}
    for _ in range(10_000):
        worker = rng.choice([1, 2])
        if worker not in pending:
            pending[worker] = []
            actions = scene.feed(opened(worker, catalogue=NEW))
        elif pending[worker] and rng.random() < 0.7:
            request = pending[worker].pop(0)
            actions = scene.feed(ReplyReceived(worker, request, page_of(files, request, rng.randint(1, 3), NEW), None))
        elif rng.random() < 0.2:
            del pending[worker]
            actions = scene.feed(ConnectionClosed(worker))
        else:
            actions = scene.feed(TimePassed(), later=rng.choice([0.0, 0.4, 1.1]))
        for action in actions:
            if isinstance(action, Request):
                pending[action.worker].append(scene.requests[action.worker])
            else:
                assert action == Completed()
                assert scene.planned == [file.name for file in files]
                return
    raise AssertionError("the listing did not end")
