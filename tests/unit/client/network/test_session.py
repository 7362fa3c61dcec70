"""The event loop of a client: which task receives which event, and when the loop ends."""

from __future__ import annotations

import math
from typing import Any

import pytest

from msd.client.network.session import Session, Task
from msd.client.network_events import ConnectionClosed, NetworkEvent, ReplyReceived
from msd.wire.errors import SourceError
from msd.wire.protocol.messages import Correlated, List, Refusal, new_rid
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Stalled
from tests.connections import opened


class FakePool:
    """A pool that returns prepared events: one list for each poll."""

    def __init__(self, *polls: list[NetworkEvent]) -> None:
        self.polls = [*polls]
        self.deadlines: list[float] = []
        self.requests: list[tuple[int, Correlated]] = []
        self.stalled_seconds = 0.0

    def current_state(self) -> list[NetworkEvent]:
        return [opened(1)]

    def wait(self, deadline: float) -> None:
        self.deadlines.append(deadline)

    def events(self) -> list[NetworkEvent]:
        return self.polls.pop(0)

    def request(self, worker: int, request: Correlated) -> None:
        self.requests.append((worker, request))


class FakeTask(Task):
    """Records its events, and is done after ``events`` of them."""

    def __init__(self, events: int, deadline: float = math.inf) -> None:
        self.events: list[object] = []
        self._count = events
        self._deadline = deadline

    def handle(self, event: NetworkEvent | Stalled) -> None:
        self.events.append(event)
        self.is_done = len(self.events) >= self._count

    def pass_time(self) -> float:
        return self._deadline


def reply_to(request: Correlated, worker: int = 1) -> ReplyReceived:
    refusal = Refusal(rid=request.rid, epoch=7, reason=RefusalReason.BUSY)
    return ReplyReceived(worker, request, refusal, None)


def session_of(pool: FakePool) -> Any:
    return Session(pool)  # type: ignore[arg-type]


def test_a_reply_reaches_only_the_task_that_sent_the_request() -> None:
    first, second = List(rid=new_rid()), List(rid=new_rid())
    pool = FakePool([reply_to(second), reply_to(first)], [ConnectionClosed(1)])
    session, other, task = session_of(pool), FakeTask(99, deadline=7.0), FakeTask(3)
    session.start(other)
    session.request(other, 1, first)
    session.request(task, 1, second)
    session.run(task)
    assert pool.requests == [(1, first), (1, second)]
    assert task.events == [opened(1), reply_to(second), ConnectionClosed(1)]
    assert other.events == [opened(1), reply_to(first), ConnectionClosed(1)]
    assert pool.deadlines == [7.0, 7.0], "the first deadline of all tasks"


def test_a_task_that_is_done_receives_no_more_events() -> None:
    request = List(rid=new_rid())
    pool = FakePool([opened(2), reply_to(request), opened(3)])
    session, other, task = session_of(pool), FakeTask(2), FakeTask(3)
    session.start(other)
    session.request(other, 1, request)
    session.run(task)
    assert other.events == [opened(1), opened(2)]
    assert task.events == [opened(1), opened(2), opened(3)]


def test_the_reply_of_an_earlier_connection_reaches_no_task() -> None:
    request = List(rid=new_rid())
    pool = FakePool([ConnectionClosed(1), opened(1), reply_to(request)])
    session, task = session_of(pool), FakeTask(3)
    session.request(task, 1, request)
    session.run(task)
    assert task.events == [opened(1), ConnectionClosed(1), opened(1)]


def test_all_tasks_learn_of_a_stall() -> None:
    pool = FakePool([])
    pool.stalled_seconds = 2.5
    task = FakeTask(2)
    session_of(pool).run(task)
    assert task.events == [opened(1), Stalled(2.5)]


def test_a_task_that_fails_is_removed() -> None:
    class FailingTask(FakeTask):
        def pass_time(self) -> float:
            raise SourceError("no worker is left")

    pool = FakePool([opened(2)])
    session, task = session_of(pool), FakeTask(2)
    with pytest.raises(SourceError, match="no worker is left"):
        session.run(FailingTask(9))
    session.run(task)
    assert task.events == [opened(1), opened(2)]


def test_a_task_that_is_done_at_once_does_not_poll() -> None:
    pool = FakePool()
    session_of(pool).run(FakeTask(1))
    assert pool.deadlines == []
