"""What the servers log: a line for each event, and what they remember for operators who come later."""

from __future__ import annotations

import pytest

from msd.broker.status.event_log import EventLog
from msd.broker.supervision import supervisor
from msd.wire.protocol.messages import Load
from msd.wire.protocol.states import WantedState, WorkerState
from msd.wire.support.time_passed import TimePassed
from tests.unit.snapshots import snapshot, with_worker

NOW = 1_700_000_000.0
Line = tuple[str, str, str]


@pytest.fixture
def lines() -> list[Line]:
    return []


@pytest.fixture
def journal(lines: list[Line]) -> EventLog:
    return EventLog(lambda level, who, text: lines.append((level, who, text)))


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (supervisor.Spawned(2, 4711), ("info", "worker 2", "is process 4711")),
        (supervisor.ToggleReceived(3, None), ("info", "worker 3", "is toggled")),
        (supervisor.ToggleReceived(3, WantedState.ASLEEP), ("info", "worker 3", "is told to be asleep")),
        (supervisor.CatalogueReady(7), ("info", "server 5", "edition 7 of the catalogue is ready")),
        (supervisor.QuitReceived(), ("info", "server 5", "ends, and all workers")),
        (supervisor.Stalled(2.5), ("warning", "server 5", "did not look for 2.5 s")),
    ],
)
def test_an_event_is_a_line(journal: EventLog, lines: list[Line], event: supervisor.Event, line: Line) -> None:
    journal.take(event)
    assert lines == [line]


def test_heartbeats_and_time_are_not_logged(journal: EventLog, lines: list[Line]) -> None:
    journal.take(TimePassed())
    journal.take(
        supervisor.HeartbeatReceived(1, 2, 3, WorkerState.AWAKE, 1, Load(clients=0, bytes_sent=0), frozenset())
    )
    assert lines == []


def test_what_ends_because_it_was_ordered_is_no_failure(journal: EventLog, lines: list[Line]) -> None:
    journal.snapshot(snapshot(), NOW)
    journal.take(supervisor.QuitReceived())
    ended = with_worker(snapshot(WorkerState.DEAD, WorkerState.AWAKE), 1, reason="ended with code 0")
    journal.snapshot(ended, NOW + 1)
    assert lines == [("info", "server 5", "says: 4 of 4 workers alive"), ("info", "server 5", "ends, and all workers")]
    assert not any(event.bad for event in journal.report(1, ended).events)


def test_what_snapshots_tell_is_logged_and_remembered(journal: EventLog, lines: list[Line]) -> None:
    journal.snapshot(snapshot(), NOW)
    journal.snapshot(with_worker(snapshot(WorkerState.DEAD, WorkerState.AWAKE), 1, reason="killed by SIGKILL"), NOW + 1)
    status = with_worker(snapshot(WorkerState.DEAD, WorkerState.AWAKE), 2, complaints=1)
    journal.snapshot(status, NOW + 2)
    assert lines == [
        ("info", "server 5", "says: 4 of 4 workers alive"),
        ("warning", "worker 1", "died: killed by SIGKILL"),
        ("warning", "worker 2", "sent a corrupt segment: a client complains (1 so far)"),
    ]
    report = journal.report(5, status)
    assert (report.rid, report.status) == (5, status)
    assert [(event.time, event.bad) for event in report.events] == [(NOW + 2, True), (NOW + 1, True), (NOW, False)]
    assert report.events[1].text == "worker 1 died: killed by SIGKILL"
    assert len(report.rates[0]) == 3
