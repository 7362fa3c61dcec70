"""``StatusFeed`` turns the snapshots and replies of a fake broker into events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import pytest
from msgspec.structs import replace

from msd.broker.operator import status_feed
from msd.broker.operator.operator_client import Reply
from msd.broker.operator.status_feed import FeedEvent, OrderFailed, Server5Lost, StatusFeed
from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    Message,
    Rejected,
    Status,
    StatusReport,
    StatusRequest,
    Toggle,
    Toggled,
)
from msd.wire.protocol.states import WantedState, WorkerState
from tests.processes import wait_for
from tests.unit.broker.operator.test_operator_client import FakeBroker
from tests.unit.snapshots import snapshot, with_worker

E = TypeVar("E", Status, Server5Lost, OrderFailed)


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    fake_broker = FakeBroker()
    yield fake_broker
    fake_broker.close()


class RecordingFeed:
    """Collects all events from a feed."""

    def __init__(self, broker: FakeBroker) -> None:
        self.feed = StatusFeed(broker.servers)
        self._events: list[FeedEvent] = []

    def events(self, kind: type[E]) -> list[E]:
        # Treat the status in a report like a published one.
        self._events += [event.status if isinstance(event, StatusReport) else event for event in self.feed.poll()]
        return [event for event in self._events if isinstance(event, kind)]

    def has_status(self, seq: int) -> bool:
        return any(status.seq == seq for status in self.events(Status))


@pytest.fixture
def recorder(broker: FakeBroker) -> Iterator[RecordingFeed]:
    recording = RecordingFeed(broker)
    wait_for("the first snapshot", lambda: recording.has_status(10))
    yield recording
    recording.feed.close()


def test_published_snapshots_are_received_at_once(broker: FakeBroker, recorder: RecordingFeed) -> None:
    for seq in (11, 12):
        broker.publish(broker.status(seq))
        wait_for("the snapshot", lambda: recorder.has_status(seq))  # noqa: B023


def test_the_status_is_requested_between_published_snapshots(
    broker: FakeBroker, recorder: RecordingFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_feed, "REQUEST_INTERVAL_S", 0.05)
    numbers = iter(range(20, 100_000))

    def report(request: Message) -> Message:
        assert isinstance(request, StatusRequest)
        return StatusReport(rid=request.rid, status=broker.status(next(numbers)), time=0.0)

    broker.answer = report
    wait_for("the third report", lambda: recorder.has_status(22))


def test_only_a_snapshot_with_another_state_is_a_reason_to_request_the_events_at_once() -> None:
    feed = StatusFeed.__new__(StatusFeed)
    feed._states = []
    woken = snapshot(WorkerState.AWAKE)
    ordered = with_worker(woken, 1, wanted=WantedState.ASLEEP)
    messages: list[list[Status | Reply]] = [[woken], [snapshot(WorkerState.AWAKE)], [], [woken, ordered], [ordered]]
    messages.append([snapshot(WorkerState.AWAKE)])
    assert [feed._has_change(each) for each in messages] == [True, False, False, True, False, True]


def test_only_failed_orders_become_events(broker: FakeBroker, recorder: RecordingFeed) -> None:
    def answer(request: Message) -> Message | None:
        if not isinstance(request, Toggle):
            return None
        if request.number == 2:
            return Rejected(rid=request.rid, message="only operators may give orders", denied=True)
        state = WorkerState.SILENT if request.number == 3 else WorkerState.ASLEEP
        return Toggled(rid=request.rid, number=request.number, state=state, reached=state is WorkerState.ASLEEP)

    broker.answer = answer
    for number in (1, 2, 3):
        recorder.feed.toggle(number)
    wait_for("two failed orders", lambda: len(recorder.events(OrderFailed)) == 2)
    assert [failure.text for failure in recorder.events(OrderFailed)] == [
        "order rejected: only operators may give orders",
        "worker 3 did not change state within 3 s: it is silent",
    ]


def test_a_failed_order_names_a_worker_that_has_joined(broker: FakeBroker, recorder: RecordingFeed) -> None:
    joined = with_worker(snapshot(), 4, number=6, name="attic", host="10.0.0.7")
    status = replace(broker.status(11), workers=joined.workers)
    broker.publish(status)
    wait_for("the snapshot", lambda: recorder.has_status(11))

    def answer(request: Message) -> Message | None:
        if not isinstance(request, Toggle):
            return None
        return Toggled(rid=request.rid, number=request.number, state=WorkerState.LOST, reached=False)

    broker.answer = answer
    recorder.feed.toggle(6)
    wait_for("the failed order", lambda: recorder.events(OrderFailed))
    text = "worker 6 (attic) is lost, and gets the order when it returns"
    assert recorder.events(OrderFailed)[0].text == text


def test_orders_are_dropped_while_the_broker_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_feed, "CONNECT_TIMEOUT_S", 0.2)
    broker = FakeBroker()
    recorder = RecordingFeed(broker)
    try:
        wait_for("the first snapshot", lambda: recorder.has_status(10))
        broker.close()
        wait_for("the loss of server 5", lambda: recorder.events(Server5Lost))
        assert "does not answer: is msd serve running there?" in recorder.events(Server5Lost)[0].reason
        recorder.feed.toggle(1)
        wait_for("the failed order", lambda: recorder.events(OrderFailed))
        assert recorder.events(OrderFailed)[0].text == "worker 1 not toggled: server 5 does not answer"
    finally:
        recorder.feed.close()


def test_the_feed_reconnects_to_a_silent_broker(
    broker: FakeBroker, recorder: RecordingFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker sends its latest snapshot to each new connection, so a second snapshot proves that the feed has
    reconnected.
    """
    monkeypatch.setattr(status_feed, "REQUEST_INTERVAL_S", 0.02)
    monkeypatch.setattr(status_feed, "SILENCE_TIMEOUT_S", 0.1)
    wait_for("a second welcome", lambda: len(recorder.events(Status)) >= 2)
    assert not recorder.events(Server5Lost)


def test_another_protocol_version_is_a_refusal(broker: FakeBroker, recorder: RecordingFeed) -> None:
    broker.publish(broker.status(11, version=PROTOCOL_VERSION + 1))
    wait_for("the refusal", lambda: recorder.events(Server5Lost))
    assert recorder.events(Server5Lost)[0].refused
