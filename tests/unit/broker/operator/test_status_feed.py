"""What keeps a console up to date, against a broker that answers as a test says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import pytest

from msd.broker.operator import status_feed
from msd.broker.operator.status_feed import Heard, Lost, Note, StatusFeed
from msd.wire.protocol.messages import Message, Rejected, Status, StatusReport, StatusRequest, Toggle, Toggled
from msd.wire.protocol.states import WorkerState
from tests.system import wait_for
from tests.unit.broker.operator.test_operator_client import FakeBroker

H = TypeVar("H", Status, Lost, Note)


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    made = FakeBroker()
    yield made
    made.close()


class Listener:
    """A feed, and all that it has heard."""

    def __init__(self, broker: FakeBroker) -> None:
        self.feed = StatusFeed(broker.servers)
        self._heard: list[Heard] = []

    def of(self, kind: type[H]) -> list[H]:
        # An answer's status is as good as one that was published.
        self._heard += [heard.status if isinstance(heard, StatusReport) else heard for heard in self.feed.heard()]
        return [heard for heard in self._heard if isinstance(heard, kind)]

    def has(self, seq: int) -> bool:
        return any(status.seq == seq for status in self.of(Status))


@pytest.fixture
def listener(broker: FakeBroker) -> Iterator[Listener]:
    made = Listener(broker)
    wait_for("the first snapshot", lambda: made.has(10))
    yield made
    made.feed.close()


def test_what_server_5_publishes_is_heard_at_once(broker: FakeBroker, listener: Listener) -> None:
    broker.publish(broker.status(11), broker.status(12))
    wait_for("both", lambda: listener.has(11) and listener.has(12))


def test_the_status_is_asked_for_between_its_publications(
    broker: FakeBroker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_feed, "ASK", 0.05)
    numbers = iter(range(20, 100_000))

    def report(request: Message) -> Message:
        assert isinstance(request, StatusRequest)
        return StatusReport(rid=request.rid, status=broker.status(next(numbers)))

    broker.answer = report
    wait_for("the third answer", lambda: listener.has(22))


def test_an_order_that_fails_is_noted_and_one_that_works_is_not(broker: FakeBroker, listener: Listener) -> None:
    def answer(request: Message) -> Message | None:
        if not isinstance(request, Toggle):
            return None
        if request.number == 2:
            return Rejected(rid=request.rid, message="orders are an operator's to give", denied=True)
        state = WorkerState.SILENT if request.number == 3 else WorkerState.ASLEEP
        return Toggled(rid=request.rid, number=request.number, state=state, reached=state is WorkerState.ASLEEP)

    broker.answer = answer
    for number in (1, 2, 3):
        listener.feed.toggle(number)
    wait_for("two notes", lambda: len(listener.of(Note)) == 2)
    assert [note.text for note in listener.of(Note)] == [
        "not done: orders are an operator's to give",
        "worker 3 did not get there within 3 s: it is silent",
    ]


def test_a_broker_that_is_gone_is_lost_and_orders_for_it_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_feed, "RETRY", 0.2)
    broker = FakeBroker()
    listener = Listener(broker)
    try:
        wait_for("the first snapshot", lambda: listener.has(10))
        broker.close()
        wait_for("its loss", lambda: listener.of(Lost))
        assert "does not answer: is msd serve running there?" in listener.of(Lost)[0].why
        listener.feed.toggle(1)
        wait_for("a note", lambda: listener.of(Note))
        assert listener.of(Note)[0].text == "worker 1 not toggled: server 5 is lost"
    finally:
        listener.feed.close()


def test_one_that_says_nothing_is_asked_again_on_a_new_connection(
    broker: FakeBroker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new connection is welcomed with the newest snapshot."""
    monkeypatch.setattr(status_feed, "ASK", 0.02)
    monkeypatch.setattr(status_feed, "SILENCE", 0.1)
    wait_for("a second welcome", lambda: len(listener.of(Status)) >= 2)
    assert not listener.of(Lost)
