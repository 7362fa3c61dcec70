"""The events and rows of a console: from snapshots, from reports and from the connection."""

from __future__ import annotations

import msgspec
import pytest

from msd.broker.status.history import MAX_EVENTS, History, newest
from msd.broker.views.overview import overview
from msd.broker.views.status_table import SuggestedCommand
from msd.wire.protocol.messages import Status
from msd.wire.protocol.states import WantedState, WorkerState
from tests.unit.snapshots import report, snapshot, with_worker

NOW = 1_700_000_000.0


def history_of(*statuses: Status) -> History:
    """A history that has received these snapshots one second apart."""
    history = History()
    for seconds, status in enumerate(statuses):
        history.on_status(status, NOW + seconds)
    return history


def texts(history: History) -> list[str]:
    """The texts of all events, newest first."""
    return [event.text for event in history.events]


def test_a_history_without_a_snapshot_is_empty() -> None:
    history = History()
    assert (history.rows(NOW), history.events) == ([], [])


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
    assert row.worker == status.workers[2]
    assert (row.port, row.is_alive, row.rejections) == (35416, True, 11)


def test_uptimes_increase_between_snapshots_but_not_while_server_5_is_lost() -> None:
    history = history_of(snapshot(WorkerState.AWAKE, WorkerState.DEAD))
    assert [row.uptime for row in history.rows(NOW + 7)] == [67.0, 0.0]
    history.on_lost("gone", NOW + 7)
    assert [row.uptime for row in history.rows(NOW + 99)] == [60.0, 0.0]


def test_snapshots_cause_no_events() -> None:
    assert history_of(snapshot(), snapshot(WorkerState.DEAD), snapshot(clients=3)).events == []


@pytest.mark.parametrize(("epoch", "text"), [(1, "answers again"), (2, "restarted")])
def test_losing_server_5_is_one_event_and_its_return_another(epoch: int, text: str) -> None:
    history = history_of(snapshot())
    history.on_lost("no answer", NOW + 10)
    history.on_lost("no answer", NOW + 11)
    assert (history.lost_at, history.lost_reason) == (NOW + 10, "no answer")
    history.on_status(snapshot(epoch=epoch), NOW + 20)
    assert history.lost_at is None
    assert [event.text for event in history.events][:2] == [f"server 5 {text}", "server 5 lost: no answer"]


def test_servers_that_start_after_their_console_answer_again() -> None:
    history = History()
    history.on_lost("no answer", NOW)
    history.on_status(snapshot(epoch=7), NOW + 5)
    assert texts(history) == ["server 5 answers again", "server 5 lost: no answer"]


def test_a_stale_snapshot_is_ignored() -> None:
    older = snapshot(WorkerState.DEAD)
    history = history_of(snapshot(WorkerState.AWAKE), older)
    assert history.rows(NOW)[0].is_alive


@pytest.mark.parametrize(
    ("state", "values", "remark"),
    [
        (WorkerState.AWAKE, {}, ""),
        (WorkerState.AWAKE, {"wanted": WantedState.ASLEEP}, "going to sleep"),
        (WorkerState.ASLEEP, {}, ""),
        (WorkerState.ASLEEP, {"wanted": WantedState.AWAKE}, "waking up"),
        (WorkerState.SILENT, {"wanted": WantedState.ASLEEP}, "ordered to sleep"),
        (
            WorkerState.UNREACHABLE,
            {"reason": "no route", "wanted": WantedState.ASLEEP},
            "no route, ordered to sleep",
        ),
        (WorkerState.LOST, {"reason": "it has left"}, "it has left"),
        (
            WorkerState.LOST,
            {"reason": "it has left", "wanted": WantedState.ASLEEP},
            "it has left, ordered to sleep",
        ),
        (WorkerState.DEAD, {}, ""),
        (WorkerState.DEAD, {"reason": "killed by SIGKILL"}, "killed by SIGKILL"),
        (WorkerState.FAILED, {"reason": "exited with code 1"}, "exited with code 1"),
    ],
)
def test_the_remark_of_each_state(state: WorkerState, values: dict[str, object], remark: str) -> None:
    assert history_of(with_worker(snapshot(state), 1, **values)).rows(NOW)[0].remark == remark


def test_the_oldest_events_are_dropped() -> None:
    history = History()
    for number in range(MAX_EVENTS + 50):
        history.add(f"note {number}", NOW)
    assert len(history.events) == MAX_EVENTS
    assert history.events[0].text == f"note {MAX_EVENTS + 49}"


def test_clients_connecting_and_disconnecting_do_not_displace_failures() -> None:
    history = history_of(snapshot())
    history.add("worker 1 died", NOW, is_failure=True)
    for _ in range(MAX_EVENTS):
        history.add("client connected: now serving 1", NOW)
    assert len(history.events) == MAX_EVENTS
    assert texts(history)[-1] == "worker 1 died"
    assert "worker 1 died" in overview(history, SuggestedCommand("Command for a client", "msd"), 80, NOW)


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


def test_each_event_of_a_broker_is_added_once() -> None:
    history = History()
    history.on_report(report(snapshot(), "worker 1 died", time=NOW), NOW)
    history.on_report(report(snapshot(), "worker 1 died", "worker 1 is alive", time=NOW), NOW)
    assert texts(history) == ["worker 1 is alive", "worker 1 died"]


def test_events_with_the_same_text_are_all_added() -> None:
    history = History()
    history.on_report(report(snapshot(), "worker 1 died", "worker 1 died", time=NOW), NOW)
    assert texts(history) == ["worker 1 died", "worker 1 died"]


def test_the_events_of_a_restarted_broker_are_added() -> None:
    history = History()
    history.on_report(report(snapshot(epoch=1), "worker 1 died", "worker 1 is alive", time=NOW), NOW)
    history.on_report(report(snapshot(epoch=2), "sharing 1 file", time=NOW + 9), NOW + 9)
    assert texts(history) == ["sharing 1 file", "worker 1 is alive", "worker 1 died"]


@pytest.mark.parametrize("difference", [-3600.0, 0.0, 3600.0])
def test_events_are_in_order_if_the_clocks_differ(difference: float) -> None:
    """The report's clock is ahead by ``difference``. Its events are 4, 3, 2 and 1 second old."""
    history = History()
    history.add("you toggled worker 1", NOW - 2.5)
    history.on_report(report(snapshot(), "a", "b", "c", "d", time=NOW + difference), NOW)
    assert [(event.text, event.time) for event in history.events] == [
        ("d", NOW - 1),
        ("c", NOW - 2),
        ("you toggled worker 1", NOW - 2.5),
        ("b", NOW - 3),
        ("a", NOW - 4),
    ]


def test_the_rates_are_those_of_the_last_report() -> None:
    history = history_of(snapshot())
    assert history.rows(NOW)[3].rates == []
    history.on_report(report(snapshot(), rates=[[1.0], [], [], [2.0, 3.0]]), NOW)
    history.on_status(snapshot(), NOW)
    assert [row.rates for row in history.rows(NOW)] == [[1.0], [], [], [2.0, 3.0]]


def test_a_worker_does_not_inherit_the_rates_of_the_one_before_it() -> None:
    """Worker 2 is lost and worker 3 takes its number; a new worker 2 shifts the rows."""
    first = snapshot(WorkerState.AWAKE, WorkerState.AWAKE)
    attic = with_worker(first, 2, name="attic", host="10.0.0.7")
    history = history_of(attic)
    history.on_report(report(with_worker(attic, 1), rates=[[1.0], [2.0]]), NOW)
    assert [row.rates for row in history.rows(NOW)] == [[1.0], [2.0]]
    history.on_status(with_worker(attic, 2, name="cellar"), NOW)
    assert [row.rates for row in history.rows(NOW)] == [[1.0], []]
    history.on_status(with_worker(attic, 1, number=3), NOW)
    assert [row.rates for row in history.rows(NOW)] == [[], [2.0]]


def test_a_row_says_that_its_worker_is_slow() -> None:
    rates = [5e6, 1e6, 6e6, 7e6]
    status = snapshot()
    for number, rate in enumerate(rates, 1):
        status = with_worker(status, number, rate=rate, clients=1)
    history = History()
    history.on_report(report(status, rates=[[rate] * 9 for rate in rates]), NOW)
    assert [row.others_rate for row in history.rows(NOW)] == [0.0, 6e6, 0.0, 0.0]
    assert [row.is_slow for row in history.rows(NOW)] == [False, True, False, False]


def test_the_uptime_of_a_worker_without_a_process_of_the_broker_increases_too() -> None:
    joined = with_worker(snapshot(WorkerState.AWAKE), 1, name="attic", host="10.0.0.7", pid=0)
    assert history_of(joined).rows(NOW + 7)[0].uptime == 67.0


@pytest.mark.parametrize(
    ("host", "catalogue", "vouched", "is_other"),
    [
        ("10.0.0.7", b"d" * 32, b"c" * 32, True),
        ("10.0.0.7", b"c" * 32, b"c" * 32, False),
        ("10.0.0.7", b"", b"c" * 32, False),
        ("10.0.0.7", b"d" * 32, b"", False),
        ("", b"d" * 32, b"c" * 32, False),
    ],
)
def test_only_a_worker_that_has_joined_can_have_another_list(
    host: str, catalogue: bytes, vouched: bytes, is_other: bool
) -> None:
    status = with_worker(snapshot(WorkerState.AWAKE, catalogue=vouched), 1, host=host, catalogue=catalogue)
    assert history_of(status).rows(NOW)[0].has_other_list == is_other


def test_a_refusal_after_a_loss_is_a_second_event() -> None:
    history = history_of(snapshot())
    history.on_lost("no answer", NOW + 10)
    history.on_lost("not admitted", NOW + 20, refused=True)
    history.on_lost("not admitted", NOW + 30, refused=True)
    assert [event.text for event in history.events][:2] == [
        "server 5 refuses this operator: not admitted",
        "server 5 lost: no answer",
    ]
    assert history.lost_at == NOW + 10


def test_a_snapshot_from_an_older_broker_version_is_accepted() -> None:
    header = msgspec.to_builtins(snapshot())
    del header["workers"][0]["uptime"]
    history = history_of(msgspec.convert(header, Status))
    assert history.rows(NOW)[0].uptime == 0.0
