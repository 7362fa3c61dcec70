"""The servers' log: a line for each event, and the events and rates in a status report."""

from __future__ import annotations

import pytest

from msd.broker.status.event_log import EventLog
from msd.broker.supervision import supervisor
from msd.wire.protocol.states import WantedState, WorkerState
from msd.wire.support.core import Stalled, TimePassed
from tests.unit.snapshots import heard, snapshot, with_worker

NOW = 1_700_000_000.0
Line = tuple[str, str, str]


@pytest.fixture
def lines() -> list[Line]:
    return []


@pytest.fixture
def event_log(lines: list[Line]) -> EventLog:
    return EventLog(lambda level, source, text: lines.append((level, source, text)))


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (supervisor.Spawned(2, 4711), ("info", "worker 2", "started (pid 4711)")),
        (supervisor.ToggleReceived(3, None), ("info", "worker 3", "toggled")),
        (supervisor.ToggleReceived(3, WantedState.ASLEEP), ("info", "worker 3", "wanted state set to asleep")),
        (supervisor.CatalogueReady(7), ("info", "server 5", "catalogue edition 7 is ready")),
        (supervisor.QuitReceived(), ("info", "server 5", "shutting down")),
        (Stalled(2.5), ("warning", "server 5", "event loop stalled for 2.5 s")),
    ],
)
def test_an_event_is_logged_as_one_line(
    event_log: EventLog, lines: list[Line], event: supervisor.Event, line: Line
) -> None:
    event_log.on_event(event)
    assert lines == [line]


def test_heartbeats_and_time_are_not_logged(event_log: EventLog, lines: list[Line]) -> None:
    event_log.on_event(TimePassed())
    event_log.on_event(heard(1, 2))
    assert lines == []


def test_workers_that_exit_during_a_shutdown_are_not_logged(event_log: EventLog, lines: list[Line]) -> None:
    event_log.on_snapshot(snapshot(), NOW)
    event_log.on_event(supervisor.QuitReceived())
    exited = with_worker(snapshot(WorkerState.DEAD, WorkerState.AWAKE), 1, reason="exited with code 0")
    event_log.on_snapshot(exited, NOW + 1)
    assert lines == [("info", "server 5", "reports 4 of 4 workers alive"), ("info", "server 5", "shutting down")]
    assert not any(event.is_failure for event in event_log.report(1, exited).events)


def test_changes_between_snapshots_are_logged_and_reported(event_log: EventLog, lines: list[Line]) -> None:
    event_log.on_snapshot(snapshot(), NOW)
    event_log.on_snapshot(
        with_worker(snapshot(WorkerState.DEAD, WorkerState.AWAKE), 1, reason="killed by SIGKILL"), NOW + 1
    )
    status = with_worker(snapshot(WorkerState.DEAD, WorkerState.AWAKE), 2, complaints=1)
    event_log.on_snapshot(status, NOW + 2)
    assert lines == [
        ("info", "server 5", "reports 4 of 4 workers alive"),
        ("warning", "worker 1", "died: killed by SIGKILL"),
        ("warning", "worker 2", "sent a corrupt segment (reported by a client, 1 so far)"),
    ]
    report = event_log.report(5, status)
    assert (report.rid, report.status) == (5, status)
    assert [(event.time, event.is_failure) for event in report.events] == [
        (NOW + 2, True),
        (NOW + 1, True),
        (NOW, False),
    ]
    assert report.events[1].text == "worker 1 died: killed by SIGKILL"
    assert len(report.rates[0]) == 3
