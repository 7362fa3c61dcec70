"""The servers' log: a line for each event, and the events and rates in a status report."""

from __future__ import annotations

import pytest

from msd.broker.status.event_log import (
    MAX_EVENTS,
    MAX_RATES,
    MAX_REFUSED,
    MAX_TOTAL_RATES,
    REFUSED_AGAIN_S,
    EventLog,
)
from msd.broker.supervision import supervisor_events
from msd.broker.supervision.supervisor import NO_HEARTBEATS
from msd.broker.supervision.supervisor_events import ComplaintCounted, StateChanged
from msd.wire.protocol.child_messages import IndexLeftOut, IndexSkipped, IndexSkips
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import ControlReply, StatusReport
from msd.wire.protocol.states import WantedState, WorkerState
from msd.wire.support.core import Stalled, TimePassed
from tests.unit.snapshots import heard, joined, snapshot, with_worker

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
        (supervisor_events.Spawned(2, 4711), ("info", "worker 2", "started (pid 4711)")),
        (supervisor_events.ToggleReceived(3, None, "anna"), ("info", "worker 3", "toggled by anna")),
        (
            supervisor_events.ToggleReceived(3, WantedState.ASLEEP),
            ("info", "worker 3", "wanted state set to asleep by an operator"),
        ),
        (supervisor_events.CatalogueReady(7), ("info", "server 5", "catalogue edition 7 is ready")),
        (supervisor_events.QuitReceived(), ("info", "server 5", "shutting down")),
        (Stalled(2.5), ("warning", "server 5", "event loop stalled for 2.5 s")),
    ],
)
def test_an_event_is_logged_as_one_line(
    event_log: EventLog, lines: list[Line], event: supervisor_events.Event, line: Line
) -> None:
    event_log.on_event(event)
    assert lines == [line]


def test_a_disconnected_subscriber_is_a_failure(event_log: EventLog, lines: list[Line]) -> None:
    event_log.on_misuse("mallory", NOW)
    text = "disconnected mallory: too many subscriptions to unknown topics"
    assert lines == [("warning", "server 5", text)]
    ((seen, is_failure),) = [(event.text, event.is_failure) for event in event_log.report(1, snapshot(), NOW).events]
    assert (seen, is_failure) == (text, True)


def test_heartbeats_and_time_are_not_logged(event_log: EventLog, lines: list[Line]) -> None:
    event_log.on_event(TimePassed())
    event_log.on_event(heard(1, 2))
    assert lines == []


def test_workers_that_exit_during_a_shutdown_are_not_logged(event_log: EventLog, lines: list[Line]) -> None:
    event_log.on_event(supervisor_events.QuitReceived())
    event_log.on_change(StateChanged(1, WorkerState.AWAKE, WorkerState.DEAD, "exited with code 0"), NOW)
    assert lines == [("info", "server 5", "shutting down")]
    assert event_log.report(1, snapshot(), NOW).events == []


@pytest.mark.parametrize(
    ("before", "after", "text", "is_failure"),
    [
        (WorkerState.AWAKE, WorkerState.ASLEEP, "fell asleep", False),
        (WorkerState.ASLEEP, WorkerState.AWAKE, "woke up", False),
        (WorkerState.AWAKE, WorkerState.SILENT, "is silent: heartbeats missing", True),
        (WorkerState.LOST, WorkerState.AWAKE, "answers again", False),
        (WorkerState.LOST, WorkerState.STARTING, "has joined again", False),
        (WorkerState.SILENT, WorkerState.AWAKE, "answers again", False),
        (WorkerState.AWAKE, WorkerState.DEAD, "died: killed by SIGKILL", True),
        (WorkerState.AWAKE, WorkerState.FAILED, "failed: killed by SIGKILL; not restarted until toggled", True),
        (WorkerState.DEAD, WorkerState.STARTING, "is restarting", False),
        (WorkerState.STARTING, WorkerState.AWAKE, "is alive", False),
    ],
)
def test_a_new_state_is_logged_and_reported_with_its_time(
    event_log: EventLog, lines: list[Line], before: WorkerState, after: WorkerState, text: str, is_failure: bool
) -> None:
    reason = "killed by SIGKILL" if after in (WorkerState.DEAD, WorkerState.FAILED) else ""
    event_log.on_change(StateChanged(1, before, after, reason), NOW)
    (event,) = event_log.report(1, snapshot(), NOW + 1).events
    assert (event.text, event.time, event.is_failure) == (f"worker 1 {text}", NOW, is_failure)
    assert lines == [("warning" if is_failure else "info", "worker 1", text)]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (WorkerState.AWAKE, WorkerState.ASLEEP, "was put to sleep by {}"),
        (WorkerState.STARTING, WorkerState.ASLEEP, "is asleep: put to sleep by {}"),
        (WorkerState.SILENT, WorkerState.ASLEEP, "is asleep: put to sleep by {}"),
        (WorkerState.ASLEEP, WorkerState.AWAKE, "was woken up by {}"),
        (WorkerState.FAILED, WorkerState.STARTING, "is restarting, ordered by {}"),
    ],
)
def test_an_ordered_change_names_the_operator_and_only_to_operators(
    event_log: EventLog, lines: list[Line], before: WorkerState, after: WorkerState, text: str
) -> None:
    event_log.on_catalogue(1, NOW, is_first=True)
    event_log.on_change(StateChanged(1, before, after, "", "the operator anna"), NOW)
    own, public = (event_log.report(1, snapshot(), NOW, is_operator=is_operator) for is_operator in (True, False))
    assert own.events[0].text == f"worker 1 {text.format('the operator anna')}"
    assert public.events[0].text == f"worker 1 {text.format('an operator')}"
    assert own.events[1:] == public.events[1:]
    assert lines[1] == ("info", "worker 1", text.format("the operator anna"))
    for _ in range(MAX_EVENTS):
        event_log.on_catalogue(2, NOW, is_first=False)
    assert not event_log._public_texts


def test_a_worker_that_has_joined_is_called_by_number_and_name(event_log: EventLog, lines: list[Line]) -> None:
    event_log.on_event(joined(5, 0, name="attic", host="10.0.0.7"))
    event_log.on_change(StateChanged(5, WorkerState.STARTING, WorkerState.AWAKE, ""), NOW)
    event_log.on_event(supervisor_events.ToggleReceived(5, None))
    event_log.on_event(joined(5, 0, name="cellar", host="10.0.0.8"))
    event_log.on_change(ComplaintCounted(5, 1, "alice"), NOW)
    event_log.on_event(joined(2, 4711))
    event_log.on_event(supervisor_events.Spawned(2, 4711))
    assert lines == [
        ("info", "worker 5 (attic)", "joined from 10.0.0.7"),
        ("info", "worker 5 (attic)", "is alive"),
        ("info", "worker 5 (attic)", "toggled by an operator"),
        ("info", "worker 5 (cellar)", "joined from 10.0.0.8"),
        ("warning", "worker 5 (cellar)", "sent a corrupt segment (reported by alice, 1 so far)"),
        ("info", "worker 2", "started (pid 4711)"),
    ]
    texts = [event.text for event in event_log.report(1, snapshot(), NOW).events]
    assert texts == [
        "worker 5 (cellar) sent a corrupt segment (reported by alice, 1 so far)", "worker 5 (attic) is alive"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "is_failure"),
    [(supervisor_events.LEFT, False), (supervisor_events.REVOKED, True), (NO_HEARTBEATS, True)],
)
def test_the_loss_of_a_worker_is_a_failure_unless_it_has_left(
    event_log: EventLog, reason: str, is_failure: bool
) -> None:
    event_log.on_change(StateChanged(5, WorkerState.AWAKE, WorkerState.LOST, reason), NOW)
    (event,) = event_log.report(1, snapshot(), NOW).events
    assert (event.text, event.is_failure) == (f"worker 5 is lost: {reason}", is_failure)


def test_a_complaint_is_a_failure(event_log: EventLog, lines: list[Line]) -> None:
    event_log.on_change(ComplaintCounted(4, 3, "alice"), NOW)
    assert lines == [("warning", "worker 4", "sent a corrupt segment (reported by alice, 3 so far)")]


def test_the_first_catalogue_and_a_new_catalogue_are_events(event_log: EventLog, lines: list[Line]) -> None:
    event_log.on_catalogue(1, NOW, is_first=True)
    event_log.on_catalogue(1200, NOW, is_first=False)
    assert lines == [
        ("info", "server 5", "sharing 1 file"),
        ("info", "server 5", "shared files changed: now 1,200 files"),
    ]


def test_clients_connecting_and_disconnecting_are_events(event_log: EventLog, lines: list[Line]) -> None:
    for clients in (0, 1, 3, 3, 2):
        event_log.sample(snapshot(clients=clients), NOW)
    assert [text for _, _, text in lines] == [
        "client connected: now serving 1",
        "2 clients connected: now serving 3",
        "client disconnected: now serving 2",
    ]


def test_only_operators_are_told_which_clients_connect(event_log: EventLog, lines: list[Line]) -> None:
    event_log.sample(snapshot(clients=1), NOW, frozenset({7}), {7: "anna@laptop"})
    text, public = "client anna@laptop connected: now serving 1", "client connected: now serving 1"
    assert lines == [("info", "server 5", text)]
    for is_operator, expected in ((True, text), (False, public)):
        (event,) = event_log.report(1, snapshot(), NOW, is_operator=is_operator).events
        assert event.text == expected


def test_a_report_contains_the_newest_events_with_their_numbers(event_log: EventLog) -> None:
    event_log.on_change(ComplaintCounted(2, 1, "alice"), NOW)
    for number in range(2 * MAX_EVENTS):
        event_log.on_catalogue(number, NOW + number, is_first=False)
    status = snapshot()
    report = event_log.report(5, status, NOW + 99)
    assert (report.rid, report.status, report.time) == (5, status, NOW + 99)
    assert len(report.events) == MAX_EVENTS
    assert report.events[0].text == f"shared files changed: now {2 * MAX_EVENTS - 1} files"
    numbers = [event.seq for event in report.events]
    # The failure is kept although it is older than all other events.
    assert numbers == [*range(2 * MAX_EVENTS + 1, MAX_EVENTS + 2, -1), 1]


def test_a_report_contains_the_last_rates_of_each_worker(event_log: EventLog) -> None:
    for second in range(MAX_RATES + 9):
        event_log.sample(with_worker(snapshot(), 2, rate=float(second)), NOW + second)
    rates = event_log.report(1, snapshot(), NOW).rates
    assert rates == [[0.0] * MAX_RATES, [*map(float, range(9, MAX_RATES + 9))], [0.0] * MAX_RATES, [0.0] * MAX_RATES]


def test_the_rates_of_a_worker_begin_when_it_becomes_alive(event_log: EventLog) -> None:
    for rate in (5.0, 0.0, 0.0):
        event_log.sample(with_worker(snapshot(), 2, rate=rate), NOW)
    event_log.on_change(StateChanged(2, WorkerState.ASLEEP, WorkerState.AWAKE, ""), NOW)
    event_log.sample(with_worker(snapshot(), 2, rate=7.0), NOW)
    assert [len(rates) for rates in event_log.report(1, snapshot(), NOW).rates] == [4, 1, 4, 4]
    event_log.on_change(StateChanged(2, WorkerState.AWAKE, WorkerState.ASLEEP, ""), NOW)
    assert event_log.report(1, snapshot(), NOW).rates[1] == [7.0], "what it sent before it fell asleep can be seen"


def test_a_report_contains_the_mean_rates_of_all_workers_together(event_log: EventLog) -> None:
    for rate in (1.0, 3.0, 10.0):
        event_log.sample(with_worker(with_worker(snapshot(), 1, rate=rate), 2, rate=5.0), NOW)
    assert event_log.report(1, snapshot(), NOW).total_rates == [7.0]
    for _ in range(2 * MAX_TOTAL_RATES + 1):
        event_log.sample(snapshot(), NOW)
    assert event_log.report(1, snapshot(), NOW).total_rates == [0.0] * MAX_TOTAL_RATES


def test_the_total_of_the_highest_rates_can_be_sent(event_log: EventLog) -> None:
    """A worker says itself how much it has sent."""
    highest = with_worker(with_worker(snapshot(), 1, rate=2.0**63), 2, rate=2.0**63)
    for _ in range(2):
        event_log.sample(highest, NOW)
    report = event_log.report(1, highest, NOW)
    assert decode(encode(report), StatusReport) == report


def test_an_event_has_the_number_of_its_worker(event_log: EventLog) -> None:
    event_log.on_change(StateChanged(3, WorkerState.AWAKE, WorkerState.DEAD, "killed"), NOW)
    event_log.on_catalogue(3, NOW, is_first=True)
    assert [event.worker for event in event_log.report(1, snapshot(), NOW).events] == [None, 3]


def test_events_for_operators_are_shown_with_their_source() -> None:
    shown: list[tuple[str, bool]] = []
    event_log = EventLog(lambda *_: None, lambda text, is_failure: shown.append((text, is_failure)))
    event_log.on_event(supervisor_events.Spawned(2, 4711))
    event_log.on_change(StateChanged(1, WorkerState.AWAKE, WorkerState.SILENT, ""), NOW)
    event_log.on_catalogue(2, NOW, is_first=True)
    assert shown == [("worker 1 is silent: heartbeats missing", True), ("sharing 2 files", False)]


def test_what_is_left_out_is_kept_for_operators(event_log: EventLog, lines: list[Line]) -> None:
    event_log.on_left_out(IndexLeftOut(text="2 hidden (--hidden)"), NOW)
    assert [event.text for event in event_log.report(1, snapshot(), NOW).events] == ["not shared: 2 hidden (--hidden)"]
    assert lines == []


def test_the_first_files_that_cannot_be_shared_are_named_and_all_are_counted(event_log: EventLog) -> None:
    """Only operators see the names and the numbers."""
    skips = "20 files: Permission denied (20)"
    for number in range(20):
        event_log.on_left_out(IndexSkipped(name=f"film\n{number}", reason="Permission denied"), NOW)
    event_log.on_left_out(IndexSkips(text=skips), NOW)
    report = event_log.report(1, snapshot(), NOW)
    assert [event.text for event in report.events] == [
        f"not shared: {skips}",
        *(f"not shared: film\\n{number}: Permission denied" for number in (2, 1, 0)),
    ]
    assert all(event.is_failure for event in report.events)
    assert report.not_shared == [skips]
    public = event_log.report(1, snapshot(), NOW, is_operator=False)
    assert (public.not_shared, public.events[-1].text) == ([], "not shared: a file: Permission denied")
    event_log.on_left_out(IndexSkips(text=""), NOW)
    assert event_log.report(1, snapshot(), NOW).not_shared == []


def test_what_an_awake_worker_cannot_read_is_recorded_once_and_its_end(event_log: EventLog, lines: list[Line]) -> None:
    awake, trouble = WorkerState.AWAKE, "s3://films: 503 Slow Down"
    for reason in ("", trouble, trouble, "s3://films: no answer in time", ""):
        event_log.sample(with_worker(snapshot(awake, awake), 2, reason=reason), NOW)
    assert lines == [
        ("warning", "worker 2", "cannot read some files: s3://films: 503 Slow Down"),
        ("warning", "worker 2", "cannot read some files: s3://films: no answer in time"),
        ("info", "worker 2", "reads its files again"),
    ]


def test_a_worker_that_falls_asleep_in_trouble_does_not_read_again(event_log: EventLog, lines: list[Line]) -> None:
    event_log.sample(with_worker(snapshot(WorkerState.AWAKE), 1, reason="503"), NOW)
    event_log.sample(snapshot(WorkerState.ASLEEP), NOW)
    event_log.sample(snapshot(WorkerState.AWAKE), NOW)
    assert len(lines) == 1


def test_a_refused_join_is_recorded_once_for_each_host_and_reason(event_log: EventLog, lines: list[Line]) -> None:
    for second in range(120):
        event_log.on_join_refused("attic", "192.0.2.7", "its name is in use", NOW + second)
    event_log.on_join_refused("attic", "192.0.2.8", "its name is in use", NOW + 120)
    event_log.on_join_refused("attic", "192.0.2.7", "there are already 64 workers", NOW + 120)
    event_log.on_join_refused("attic", "192.0.2.7", "its name is in use", NOW + 119 + REFUSED_AGAIN_S)
    assert [text for _, _, text in lines] == [
        "refused worker attic from 192.0.2.7: its name is in use",
        "refused worker attic from 192.0.2.8: its name is in use",
        "refused worker attic from 192.0.2.7: there are already 64 workers",
        "refused worker attic from 192.0.2.7: its name is in use",
    ]


def test_a_reason_that_quotes_control_characters_can_be_sent_to_operators(event_log: EventLog) -> None:
    event_log.on_join_refused("attic", "192.0.2.7", "\x1b[2J\ud800 is not an address" + "." * 2000, NOW)
    report = event_log.report(1, snapshot(), NOW)
    assert decode(encode(report), ControlReply) == report


def test_a_flood_of_refused_joins_does_not_push_out_other_events(event_log: EventLog, lines: list[Line]) -> None:
    event_log.on_catalogue(3, NOW, is_first=True)
    for number in range(10_000):
        event_log.on_join_refused("attic", "192.0.2.7", f"reason {number}", NOW + number / 1000)
    assert len(lines) == 1 + MAX_REFUSED
    assert "sharing 3 files" in [event.text for event in event_log.report(1, snapshot(), NOW).events]
    assert len(event_log._refused) == MAX_REFUSED


def test_a_receiver_that_sends_wrong_data_is_named_by_key_and_address_to_operators(
    event_log: EventLog, lines: list[Line]
) -> None:
    event_log.on_receiver_banned("anna", "192.0.2.7:24018", NOW)
    event_log.on_receiver_banned("", "192.0.2.8:24018", NOW)
    text = "has sent wrong data to others: it is not named to them any more"
    assert [line[2] for line in lines] == [
        f"receiver anna at 192.0.2.7:24018 {text}",
        f"the receiver at 192.0.2.8:24018 {text}",
    ]
    public = event_log.report(1, snapshot(), NOW, is_operator=False)
    assert [event.text for event in public.events] == [f"a receiver {text}"] * 2
