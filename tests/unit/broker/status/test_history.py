"""The events, rates and rows that a console derives from consecutive snapshots."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from msd.broker.status.history import MAX_EVENTS, MAX_RATES, MAX_REPORTED_EVENTS, History, newest
from msd.broker.views import console_lines
from msd.wire.protocol.messages import Status, StatusReport
from msd.wire.protocol.states import WantedState, WorkerState
from tests.unit.snapshots import snapshot, with_worker

NOW = 1_700_000_000.0


def history_of(*statuses: Status) -> History:
    """A history that has received these snapshots one second apart."""
    history = History()
    for seconds, status in enumerate(statuses):
        history.on_snapshot(status, NOW + seconds)
    return history


def shown_events(history: History) -> list[tuple[float, str, bool]]:
    """The time, text and ``is_failure`` of all events, newest first."""
    return [(event.time, event.sentence, event.is_failure) for event in history.events]


def new_events(*statuses: Status) -> list[str]:
    """The events since the first snapshot, oldest first."""
    return [event.sentence for event in reversed(history_of(*statuses).events)][1:]


def test_a_history_without_a_snapshot_is_empty() -> None:
    history = History()
    assert (history.rows(NOW), history.clients, list(history.events)) == ([], 0, [])


def test_a_row_has_the_values_of_the_snapshot() -> None:
    status = with_worker(
        snapshot(),
        3,
        restarts=2,
        clients=1,
        rate=5e6,
        bytes_sent=9,
        complaints=4,
        malformed_messages=5,
        rejected_connections=6,
    )
    row = history_of(status).rows(NOW)[2]
    assert (row.number, row.port, row.state, row.is_alive) == (3, 35416, WorkerState.AWAKE, True)
    assert (row.restarts, row.clients, row.rate, row.bytes_sent, row.complaints) == (2, 1, 5e6, 9, 4)
    assert row.rejections == 11


def test_uptimes_increase_between_snapshots_but_not_while_server_5_is_lost() -> None:
    history = history_of(snapshot(WorkerState.AWAKE, WorkerState.DEAD))
    assert [row.uptime for row in history.rows(NOW + 7)] == [67.0, 0.0]
    history.on_lost("gone", NOW + 7)
    assert [row.uptime for row in history.rows(NOW + 99)] == [60.0, 0.0]


@pytest.mark.parametrize(
    ("before", "after", "text", "is_failure"),
    [
        (WorkerState.AWAKE, WorkerState.ASLEEP, "worker 1 fell asleep", False),
        (WorkerState.ASLEEP, WorkerState.AWAKE, "worker 1 woke up", False),
        (WorkerState.AWAKE, WorkerState.SILENT, "worker 1 is silent: heartbeats missing", True),
        (WorkerState.SILENT, WorkerState.AWAKE, "worker 1 answers again", False),
        (WorkerState.AWAKE, WorkerState.DEAD, "worker 1 died: killed by SIGKILL", True),
        (
            WorkerState.AWAKE,
            WorkerState.FAILED,
            "worker 1 failed: killed by SIGKILL; not restarted until toggled",
            True,
        ),
        (WorkerState.DEAD, WorkerState.STARTING, "worker 1 is restarting", False),
        (WorkerState.STARTING, WorkerState.AWAKE, "worker 1 is alive", False),
    ],
)
def test_a_new_state_is_an_event_with_its_time(
    before: WorkerState, after: WorkerState, text: str, is_failure: bool
) -> None:
    reason = "killed by SIGKILL" if after in (WorkerState.DEAD, WorkerState.FAILED) else ""
    history = history_of(snapshot(before), with_worker(snapshot(after), 1, reason=reason))
    event = history.events[0]
    assert (event.sentence, event.time, event.is_failure) == (text, NOW + 1, is_failure)


def test_equal_snapshots_cause_no_event() -> None:
    assert new_events(snapshot(), snapshot(), snapshot()) == []


def test_a_worker_that_was_restarted_between_two_snapshots_has_died() -> None:
    assert new_events(snapshot(), with_worker(snapshot(), 2, epoch=999)) == ["worker 2 died and was restarted"]


def test_a_complaint_is_an_event() -> None:
    (text,) = new_events(snapshot(), with_worker(snapshot(), 4, complaints=3))
    assert text == "worker 4 sent a corrupt segment (reported by a client, 3 so far)"


def test_the_first_catalogue_and_a_new_catalogue_are_events() -> None:
    assert new_events(
        snapshot(WorkerState.STARTING, catalogue=b"", files=0),
        snapshot(WorkerState.STARTING, files=1),
        snapshot(WorkerState.STARTING, catalogue=b"d" * 32, files=1200),
    ) == ["sharing 1 file", "shared files changed: now 1,200 files"]


@pytest.mark.parametrize(("epoch", "text"), [(1, "answers again"), (2, "restarted")])
def test_losing_server_5_is_one_event_and_its_return_another(epoch: int, text: str) -> None:
    history = history_of(snapshot())
    history.on_lost("no answer", NOW + 10)
    history.on_lost("no answer", NOW + 11)
    assert (history.lost_at, history.lost_reason) == (NOW + 10, "no answer")
    history.on_snapshot(snapshot(epoch=epoch), NOW + 20)
    assert history.lost_at is None
    assert [event.sentence for event in history.events][:2] == [f"server 5 {text}", "server 5 lost: no answer"]


def test_servers_that_start_after_their_console_are_reported_as_alive() -> None:
    history = History()
    history.on_lost("no answer", NOW)
    history.on_snapshot(snapshot(), NOW + 5)
    assert [event.sentence for event in history.events] == [
        "server 5 reports 4 of 4 workers alive",
        "server 5 lost: no answer",
    ]


def test_a_new_broker_causes_no_events_about_its_workers() -> None:
    """The new broker's workers have new epochs, and their complaint counts start at 0."""
    before = with_worker(snapshot(), 1, complaints=5)
    assert new_events(before, with_worker(snapshot(epoch=2), 1, epoch=999)) == []


def test_a_stale_snapshot_is_ignored() -> None:
    older = snapshot(WorkerState.DEAD)
    history = history_of(snapshot(WorkerState.AWAKE), older)
    assert history.rows(NOW)[0].is_alive
    assert len(history.events) == 1


@pytest.mark.parametrize(
    ("state", "values", "remark"),
    [
        (WorkerState.AWAKE, {}, ""),
        (WorkerState.AWAKE, {"wanted": WantedState.ASLEEP}, "going to sleep"),
        (WorkerState.ASLEEP, {}, "asleep"),
        (WorkerState.ASLEEP, {"wanted": WantedState.AWAKE}, "asleep, waking up"),
        (WorkerState.SILENT, {"wanted": WantedState.ASLEEP}, "silent, ordered to sleep"),
        (WorkerState.DEAD, {}, "restart pending"),
        (WorkerState.DEAD, {"reason": "killed by SIGKILL"}, "killed by SIGKILL"),
        (WorkerState.FAILED, {"reason": "exited with code 1"}, "failed: exited with code 1"),
    ],
)
def test_the_remark_of_each_state(state: WorkerState, values: dict[str, object], remark: str) -> None:
    assert history_of(with_worker(snapshot(state), 1, **values)).rows(NOW)[0].remark == remark


def test_one_rate_per_second_is_kept() -> None:
    history = History()
    for tenth in range(1000):
        history.on_snapshot(with_worker(snapshot(), 1, rate=float(tenth)), NOW + tenth / 10)
    rates = history.rows(NOW)[0].rates
    assert len(rates) == MAX_RATES
    assert {later - earlier for earlier, later in pairwise(rates)} <= {9.0, 10.0}


def test_a_clock_that_is_set_back_does_not_stop_the_rates() -> None:
    history = history_of(snapshot())
    history.on_snapshot(snapshot(), NOW - 5000)
    assert len(history.rows(NOW)[0].rates) == 2


def test_the_oldest_events_are_dropped() -> None:
    history = History()
    for number in range(MAX_EVENTS + 50):
        history.add(f"note {number}", NOW)
    assert len(history.events) == MAX_EVENTS
    assert history.events[0].sentence == f"note {MAX_EVENTS + 49}"


def test_clients_connecting_and_disconnecting_do_not_displace_failures() -> None:
    history = history_of(snapshot(), snapshot(WorkerState.DEAD), snapshot())
    for _ in range(MAX_EVENTS):
        for clients in (1, 0):
            history.on_snapshot(snapshot(clients=clients), NOW + 9)
    assert len(history.events) == MAX_EVENTS
    events, _ = history.recent()
    assert len(events) == MAX_REPORTED_EVENTS
    assert [event.text for event in events if event.is_failure] == ["worker 1 died"]
    assert events[0].text == "client disconnected: now serving 0"
    assert "worker 1 died" in console_lines.overview(history, "msd download", 80, NOW)


def test_failures_do_not_displace_all_other_events() -> None:
    history = History()
    history.add("something else", NOW)
    for number in range(MAX_EVENTS):
        history.add(f"failure {number}", NOW, is_failure=True)
        history.add(f"note {number}", NOW)
    assert [event.text for event in newest(history.events, 4)] == [
        f"note {MAX_EVENTS - 1}", f"failure {MAX_EVENTS - 1}", f"note {MAX_EVENTS - 2}", f"failure {MAX_EVENTS - 2}"
    ]  # fmt: skip
    assert sum(event.is_failure for event in history.events) == MAX_EVENTS // 2


def test_clients_are_counted_by_server_5_or_else_by_the_workers() -> None:
    assert history_of(snapshot(clients=3)).clients == 3
    assert history_of(with_worker(snapshot(), 2, clients=2)).clients == 2


def test_clients_connecting_and_disconnecting_are_events() -> None:
    assert new_events(snapshot(), snapshot(clients=1), snapshot(clients=3), snapshot(clients=2), snapshot(epoch=2)) == [
        "client connected: now serving 1",
        "2 clients connected: now serving 3",
        "client disconnected: now serving 2",
    ]


def test_adding_a_snapshot_returns_its_new_events() -> None:
    history = history_of(snapshot())
    new = history.on_snapshot(with_worker(snapshot(WorkerState.AWAKE, WorkerState.ASLEEP), 1, complaints=1), NOW)
    assert [(event.source, event.text, event.is_failure) for event in new] == [
        ("worker 1", "sent a corrupt segment (reported by a client, 1 so far)", True),
        ("worker 2", "fell asleep", False),
    ]
    assert history.on_snapshot(snapshot(WorkerState.AWAKE, WorkerState.ASLEEP), NOW) == []


def test_a_report_of_one_history_can_be_merged_into_another() -> None:
    first = history_of(with_worker(snapshot(), 2, rate=5.0), snapshot(WorkerState.ASLEEP), snapshot(WorkerState.AWAKE))
    events, rates = first.recent()
    other = History()
    other.merge(StatusReport(rid=1, status=snapshot(), events=events, rates=rates))
    assert shown_events(other) == shown_events(first)
    other.on_snapshot(snapshot(WorkerState.AWAKE), NOW + 9)
    assert shown_events(other) == shown_events(first)  # a snapshot of the merged state causes no event
    assert first.rows(NOW)[0].rates == (0.0, 0.0, 0.0)


def test_merging_does_not_duplicate_events() -> None:
    status = snapshot(WorkerState.ASLEEP)
    local, remote = history_of(snapshot(), status), history_of(snapshot(), status)
    before = [*local.events]
    events, rates = remote.recent()
    local.merge(StatusReport(rid=1, status=status, events=events, rates=rates))
    assert [*local.events] == before


@pytest.mark.parametrize("difference", [-3600.0, 0.0, 3600.0])
def test_merging_is_complete_if_the_clocks_differ(difference: float) -> None:
    remote = history_of(snapshot(), snapshot(WorkerState.ASLEEP), snapshot(WorkerState.AWAKE))
    events, rates = remote.recent()
    local = History()
    local.on_snapshot(snapshot(WorkerState.AWAKE), NOW + 3 + difference)
    local.merge(StatusReport(rid=1, status=snapshot(WorkerState.AWAKE), events=events, rates=rates))
    assert {event.sentence for event in local.events} == {
        "server 5 reports 1 of 1 workers alive",
        "worker 1 woke up",
        "worker 1 fell asleep",
        "server 5 reports 4 of 4 workers alive",
    }
    times = [event.time for event in local.events]
    assert times == sorted(times, reverse=True)


def test_a_console_started_before_the_servers_merges_their_start() -> None:
    remote = history_of(snapshot(WorkerState.STARTING), snapshot(WorkerState.AWAKE))
    events, rates = remote.recent()
    local = History()
    local.on_lost("no answer", NOW - 5)
    local.on_snapshot(snapshot(WorkerState.AWAKE), NOW + 3)
    local.merge(StatusReport(rid=1, status=snapshot(WorkerState.AWAKE), events=events, rates=rates))
    assert [event.sentence for event in local.events] == [
        "server 5 reports 1 of 1 workers alive",
        "worker 1 is alive",
        "server 5 reports 0 of 1 workers alive",
        "server 5 lost: no answer",
    ]


def test_merging_keeps_the_latest_rates() -> None:
    local = history_of(with_worker(snapshot(WorkerState.AWAKE), 1, rate=100.0))
    local.merge(StatusReport(rid=1, status=snapshot(WorkerState.AWAKE), rates=[[float(rate) for rate in range(99)]]))
    assert local.rows(NOW)[0].rates == (*map(float, range(99 - MAX_RATES + 1, 99)), 100.0)


def test_a_refusal_after_a_loss_is_a_second_event() -> None:
    history = history_of(snapshot())
    history.on_lost("no answer", NOW + 10)
    history.on_lost("not admitted", NOW + 20, refused=True)
    history.on_lost("not admitted", NOW + 30, refused=True)
    assert [event.sentence for event in history.events][:2] == [
        "server 5 refuses this operator: not admitted",
        "server 5 lost: no answer",
    ]
    assert history.lost_at == NOW + 10


def test_a_snapshot_from_an_older_broker_version_is_accepted() -> None:
    header = msgspec.to_builtins(snapshot())
    del header["clients"], header["workers"][0]["uptime"]
    history = history_of(msgspec.convert(header, Status))
    assert (history.clients, history.rows(NOW)[0].uptime) == (0, 0.0)
