"""What a console makes of one snapshot after the other."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from msd.broker.status.history import EVENTS, RATES, TOLD, History, newest
from msd.broker.views import table
from msd.wire.protocol.messages import Status, StatusReport
from msd.wire.protocol.states import WantedState, WorkerState
from tests.unit.snapshots import snapshot, with_worker

NOW = 1_700_000_000.0


def told(*statuses: Status) -> History:
    """The history after these snapshots, a second apart."""
    history = History()
    for seconds, status in enumerate(statuses):
        history.snapshot(status, NOW + seconds)
    return history


def sentences(history: History) -> list[tuple[float, str, bool]]:
    """What is shown of the events, newest first."""
    return [(event.time, event.sentence, event.bad) for event in history.events]


def news(*statuses: Status) -> list[str]:
    """What happened since the first snapshot, oldest first."""
    return [event.sentence for event in reversed(told(*statuses).events)][1:]


def test_before_the_first_snapshot_there_is_nothing_to_show() -> None:
    history = History()
    assert (history.rows(NOW), history.clients, list(history.events)) == ([], 0, [])


def test_a_row_says_what_the_snapshot_says() -> None:
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
    row = told(status).rows(NOW)[2]
    assert (row.number, row.port, row.state, row.is_alive) == (3, 35416, WorkerState.AWAKE, True)
    assert (row.restarts, row.clients, row.rate, row.bytes_sent, row.complaints) == (2, 1, 5e6, 9, 4)
    assert row.strangers == 11


def test_an_uptime_goes_on_between_two_snapshots_but_not_without_server_5() -> None:
    history = told(snapshot(WorkerState.AWAKE, WorkerState.DEAD))
    assert [row.uptime for row in history.rows(NOW + 7)] == [67.0, 0.0]
    history.lost("gone", NOW + 7)
    assert [row.uptime for row in history.rows(NOW + 99)] == [60.0, 0.0]


@pytest.mark.parametrize(
    ("before", "after", "text", "bad"),
    [
        (WorkerState.AWAKE, WorkerState.ASLEEP, "worker 1 fell asleep", False),
        (WorkerState.ASLEEP, WorkerState.AWAKE, "worker 1 woke up", False),
        (WorkerState.AWAKE, WorkerState.SILENT, "worker 1 is silent: its heartbeats are missing", True),
        (WorkerState.SILENT, WorkerState.AWAKE, "worker 1 answers again", False),
        (WorkerState.AWAKE, WorkerState.DEAD, "worker 1 died: killed by SIGKILL", True),
        (
            WorkerState.AWAKE,
            WorkerState.FAILED,
            "worker 1 failed: killed by SIGKILL; it is not started again until toggled",
            True,
        ),
        (WorkerState.DEAD, WorkerState.STARTING, "worker 1 is being started again", False),
        (WorkerState.STARTING, WorkerState.AWAKE, "worker 1 is alive", False),
    ],
)
def test_a_new_state_is_an_event_with_its_time(before: WorkerState, after: WorkerState, text: str, bad: bool) -> None:
    reason = "killed by SIGKILL" if after in (WorkerState.DEAD, WorkerState.FAILED) else ""
    history = told(snapshot(before), with_worker(snapshot(after), 1, reason=reason))
    event = history.events[0]
    assert (event.sentence, event.time, event.bad) == (text, NOW + 1, bad)


def test_what_stays_as_it_is_is_no_event() -> None:
    assert news(snapshot(), snapshot(), snapshot()) == []


def test_a_worker_that_came_back_between_two_snapshots_has_died_all_the_same() -> None:
    assert news(snapshot(), with_worker(snapshot(), 2, epoch=999)) == ["worker 2 died and was started again"]


def test_a_complaint_is_an_event() -> None:
    (text,) = news(snapshot(), with_worker(snapshot(), 4, complaints=3))
    assert text == "worker 4 sent a corrupt segment: a client complains (3 so far)"


def test_another_catalogue_is_an_event_and_the_first_one_too() -> None:
    assert news(
        snapshot(WorkerState.STARTING, catalogue=b"", files=0),
        snapshot(WorkerState.STARTING, files=1),
        snapshot(WorkerState.STARTING, catalogue=b"d" * 32, files=1200),
    ) == ["1 file shared", "the shared files changed: 1,200 files now"]


@pytest.mark.parametrize(("epoch", "how"), [(1, "answers again"), (2, "was started again")])
def test_server_5_is_lost_once_and_comes_back(epoch: int, how: str) -> None:
    history = told(snapshot())
    history.lost("no answer", NOW + 10)
    history.lost("no answer", NOW + 11)
    assert (history.lost_at, history.lost_why) == (NOW + 10, "no answer")
    history.snapshot(snapshot(epoch=epoch), NOW + 20)
    assert history.lost_at is None
    assert [event.sentence for event in history.events][:2] == [f"server 5 {how}", "server 5 lost: no answer"]


def test_servers_that_come_after_their_console_are_greeted_like_any() -> None:
    history = History()
    history.lost("no answer", NOW)
    history.snapshot(snapshot(), NOW + 5)
    assert [event.sentence for event in history.events] == [
        "server 5 says: 4 of 4 workers alive",
        "server 5 lost: no answer",
    ]


def test_a_new_broker_does_not_make_its_workers_dead_ones() -> None:
    """Their epochs are others, their complaints counted anew."""
    before = with_worker(snapshot(), 1, complaints=5)
    assert news(before, with_worker(snapshot(epoch=2), 1, epoch=999)) == []


def test_an_older_snapshot_is_not_believed() -> None:
    older = snapshot(WorkerState.DEAD)
    history = told(snapshot(WorkerState.AWAKE), older)
    assert history.rows(NOW)[0].is_alive
    assert len(history.events) == 1


@pytest.mark.parametrize(
    ("state", "values", "remark"),
    [
        (WorkerState.AWAKE, {}, ""),
        (WorkerState.AWAKE, {"wanted": WantedState.ASLEEP}, "going to sleep"),
        (WorkerState.ASLEEP, {}, "asleep"),
        (WorkerState.ASLEEP, {"wanted": WantedState.AWAKE}, "asleep, waking up"),
        (WorkerState.SILENT, {"wanted": WantedState.ASLEEP}, "silent, told to sleep"),
        (WorkerState.DEAD, {}, "restart pending"),
        (WorkerState.DEAD, {"reason": "killed by SIGKILL"}, "killed by SIGKILL"),
        (WorkerState.FAILED, {"reason": "ended with code 1"}, "failed: ended with code 1"),
    ],
)
def test_a_remark_says_why(state: WorkerState, values: dict[str, object], remark: str) -> None:
    assert told(with_worker(snapshot(state), 1, **values)).rows(NOW)[0].remark == remark


def test_rates_are_kept_one_a_second_whatever_comes() -> None:
    history = History()
    for tenth in range(1000):
        history.snapshot(with_worker(snapshot(), 1, rate=float(tenth)), NOW + tenth / 10)
    rates = history.rows(NOW)[0].rates
    assert len(rates) == RATES
    assert {later - earlier for earlier, later in pairwise(rates)} <= {9.0, 10.0}


def test_a_clock_that_is_set_back_does_not_stop_the_rates() -> None:
    history = told(snapshot())
    history.snapshot(snapshot(), NOW - 5000)
    assert len(history.rows(NOW)[0].rates) == 2


def test_the_oldest_events_are_forgotten() -> None:
    history = History()
    for number in range(EVENTS + 50):
        history.note(f"note {number}", NOW)
    assert len(history.events) == EVENTS
    assert history.events[0].sentence == f"note {EVENTS + 49}"


def test_clients_who_come_and_go_do_not_push_out_what_went_wrong() -> None:
    history = told(snapshot(), snapshot(WorkerState.DEAD), snapshot())
    for _ in range(EVENTS):
        for clients in (1, 0):
            history.snapshot(snapshot(clients=clients), NOW + 9)
    assert len(history.events) == EVENTS
    events, _ = history.told()
    assert len(events) == TOLD
    assert [event.text for event in events if event.bad] == ["worker 1 died"]
    assert events[0].text == "a client left: 0 served now"
    assert "worker 1 died" in table.overview(history, "msd download", 80, NOW)


def test_failures_do_not_push_out_all_else_either() -> None:
    history = History()
    history.note("something else", NOW)
    for number in range(EVENTS):
        history.note(f"failure {number}", NOW, bad=True)
        history.note(f"note {number}", NOW)
    assert [event.text for event in newest(history.events, 4)] == [
        f"note {EVENTS - 1}", f"failure {EVENTS - 1}", f"note {EVENTS - 2}", f"failure {EVENTS - 2}"
    ]  # fmt: skip
    assert sum(event.bad for event in history.events) == EVENTS // 2


def test_clients_are_counted_by_server_5_and_where_it_does_not_by_the_workers() -> None:
    assert told(snapshot(clients=3)).clients == 3
    assert told(with_worker(snapshot(), 2, clients=2)).clients == 2


def test_a_client_that_comes_or_goes_is_an_event() -> None:
    assert news(snapshot(), snapshot(clients=1), snapshot(clients=3), snapshot(clients=2), snapshot(epoch=2)) == [
        "a client came: 1 served now",
        "2 clients came: 3 served now",
        "a client left: 2 served now",
    ]


def test_a_snapshot_tells_what_is_new_in_it() -> None:
    history = told(snapshot())
    new = history.snapshot(with_worker(snapshot(WorkerState.AWAKE, WorkerState.ASLEEP), 1, complaints=1), NOW)
    assert [(event.who, event.text, event.bad) for event in new] == [
        ("worker 1", "sent a corrupt segment: a client complains (1 so far)", True),
        ("worker 2", "fell asleep", False),
    ]
    assert history.snapshot(snapshot(WorkerState.AWAKE, WorkerState.ASLEEP), NOW) == []


def test_what_is_told_to_others_can_be_recalled_by_them() -> None:
    one = told(with_worker(snapshot(), 2, rate=5.0), snapshot(WorkerState.ASLEEP), snapshot(WorkerState.AWAKE))
    events, rates = one.told()
    other = History()
    other.recall(StatusReport(rid=1, status=snapshot(), events=events, rates=rates))
    assert sentences(other) == sentences(one)
    other.snapshot(snapshot(WorkerState.AWAKE), NOW + 9)
    assert sentences(other) == sentences(one)  # and no word of how it found them
    assert one.rows(NOW)[0].rates == (0.0, 0.0, 0.0)


def test_what_is_recalled_does_not_repeat_what_was_seen() -> None:
    status = snapshot(WorkerState.ASLEEP)
    here, there = told(snapshot(), status), told(snapshot(), status)
    before = [*here.events]
    events, rates = there.told()
    here.recall(StatusReport(rid=1, status=status, events=events, rates=rates))
    assert [*here.events] == before


@pytest.mark.parametrize("fast", [-3600.0, 0.0, 3600.0])
def test_what_is_recalled_is_complete_whatever_the_other_clock_says(fast: float) -> None:
    there = told(snapshot(), snapshot(WorkerState.ASLEEP), snapshot(WorkerState.AWAKE))
    events, rates = there.told()
    here = History()
    here.snapshot(snapshot(WorkerState.AWAKE), NOW + 3 + fast)
    here.recall(StatusReport(rid=1, status=snapshot(WorkerState.AWAKE), events=events, rates=rates))
    assert {event.sentence for event in here.events} == {
        "server 5 says: 1 of 1 workers alive",
        "worker 1 woke up",
        "worker 1 fell asleep",
        "server 5 says: 4 of 4 workers alive",
    }
    times = [event.time for event in here.events]
    assert times == sorted(times, reverse=True)


def test_a_console_that_was_there_first_recalls_how_its_servers_started() -> None:
    there = told(snapshot(WorkerState.STARTING), snapshot(WorkerState.AWAKE))
    events, rates = there.told()
    here = History()
    here.lost("no answer", NOW - 5)
    here.snapshot(snapshot(WorkerState.AWAKE), NOW + 3)
    here.recall(StatusReport(rid=1, status=snapshot(WorkerState.AWAKE), events=events, rates=rates))
    assert [event.sentence for event in here.events] == [
        "server 5 says: 1 of 1 workers alive",
        "worker 1 is alive",
        "server 5 says: 0 of 1 workers alive",
        "server 5 lost: no answer",
    ]


def test_of_more_rates_than_are_kept_the_last_ones_are_recalled() -> None:
    here = told(with_worker(snapshot(WorkerState.AWAKE), 1, rate=100.0))
    here.recall(StatusReport(rid=1, status=snapshot(WorkerState.AWAKE), rates=[[float(rate) for rate in range(99)]]))
    assert here.rows(NOW)[0].rates == (*map(float, range(99 - RATES + 1, 99)), 100.0)


def test_a_refusal_after_a_loss_is_told_too() -> None:
    history = told(snapshot())
    history.lost("no answer", NOW + 10)
    history.lost("not admitted", NOW + 20, refused=True)
    history.lost("not admitted", NOW + 30, refused=True)
    assert [event.sentence for event in history.events][:2] == [
        "server 5 refuses: not admitted",
        "server 5 lost: no answer",
    ]
    assert history.lost_at == NOW + 10


def test_a_snapshot_of_an_older_broker_can_be_shown() -> None:
    header = msgspec.to_builtins(snapshot())
    del header["clients"], header["workers"][0]["uptime"]
    history = told(msgspec.convert(header, Status))
    assert (history.clients, history.rows(NOW)[0].uptime) == (0, 0.0)
