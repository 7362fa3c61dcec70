"""The console's lines fit their width and say the same without colours."""

from __future__ import annotations

import time

import msgspec
import pytest

from msd.broker.status.history import History, HistoryEvent, Row
from msd.broker.views import table
from msd.wire.protocol.messages import LoggedEvent
from msd.wire.protocol.states import WorkerState
from tests.unit.snapshots import snapshot, with_worker


def row(state: WorkerState = WorkerState.AWAKE, remark: str = "", **values: object) -> Row:
    settings: dict[str, object] = {
        "number": 1,
        "endpoint": "tcp://127.0.0.1:21018",
        "pid": 4711,
        "state": state,
        "remark": remark,
        "uptime": 3725.0,
        "restarts": 0,
        "clients": 2,
        "rate": 7.3e6,
        "rates": (1.0, 2.0, 4.0),
        "bytes_sent": 123_400_000,
        "complaints": 0,
        "malformed_messages": 0,
        "rejected_connections": 0,
    }
    return Row(**{**settings, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [80, 100, 133, 200])
def test_a_line_is_as_wide_as_its_heading_and_fits(width: int) -> None:
    longest = row(
        WorkerState.FAILED,
        "failed: " + "x" * 200,
        number=64,
        endpoint="tcp://127.0.0.1:65535",
        uptime=1e10,
        restarts=12345,
        clients=54321,
        rate=9.99e14,
        rates=(1.0,) * 30,
        bytes_sent=2**63 - 1,
        complaints=123456,
        malformed_messages=123456,
    )
    for each in (row(), longest):
        line = table.line(each, width, 4.0, selected=True, known=False)
        assert len(line) == len(table.heading(width)) <= width


def test_alive_and_dead_differ_by_more_than_colour() -> None:
    alive, dead = (table.line(row(state), 80, 1.0) for state in (WorkerState.AWAKE, WorkerState.ASLEEP))
    assert "● " in alive
    assert "Alive" in alive
    assert "○ " in dead
    assert "Dead" in dead


def test_a_dead_worker_says_why() -> None:
    assert "Dead: killed by SIGKILL " in table.line(row(WorkerState.DEAD, "killed by SIGKILL"), 120, 1.0)


def test_what_nobody_knows_any_more_has_a_question_mark() -> None:
    assert "Alive? " in table.line(row(), 80, 1.0, known=False)


def test_the_selected_row_is_marked() -> None:
    assert table.line(row(), 80, 1.0, selected=True).startswith("›")
    assert not table.line(row(), 80, 1.0).startswith("›")


@pytest.mark.parametrize(
    ("rates", "top", "bars"),
    [((0.0, 1.0, 4.0, 8.0), 8.0, " ▂▅█"), ((), 8.0, ""), ((0.0, 0.0), 0.0, "  "), (tuple(range(9)), 8.0, "▂▃▄▅▆▇██")],
)
def test_a_sparkline_shows_the_last_rates(rates: tuple[float, ...], top: float, bars: str) -> None:
    assert table.sparkline(rates, 8, top) == bars


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (99_950, "100 kB"), (999_600, "1.0 MB"),
     (2**63, "9223 PB")],
)  # fmt: skip
def test_amounts_are_in_units_of_1000(size: int, text: str) -> None:
    assert table.amount(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "-"), (59.9, "0:00:59"), (3725, "1:02:05"), (90000, "1d 01h"), (1e10, "115740d")]
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert table.lasting(seconds) == text


def test_a_long_command_can_be_pasted_as_it_stands() -> None:
    command = f"msd download -a 127.0.0.1 -p 1 2 3 4 5 --server-key {'f' * 64}"
    lines = table.pasted(command, 80).split("\n")
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert "".join(line.removesuffix("\\") for line in lines) == command


def test_an_event_cannot_act_on_the_terminal() -> None:
    assert "\x1b" not in table.event_lines(HistoryEvent(0.0, "worker 1 died: \x1b[2J"), 80)[0]


@pytest.mark.parametrize("zone", ["UTC", "XXX+12", "XXX-14", "XXX+24", "XXX-24"])
@pytest.mark.parametrize("extreme", [0.0, 253_402_000_000.0])
def test_every_time_that_a_message_may_have_can_be_written(
    zone: str, extreme: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    msgspec.convert({"time": extreme, "text": "", "bad": False}, LoggedEvent)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert len(table.clock(extreme)) == len("00:00:00")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_long_event_is_read_to_its_end() -> None:
    why = "ended with code 1: " + "the folder of the broker is gone, and so is the catalogue in it " * 3
    lines = table.event_lines(HistoryEvent(0.0, f"worker 1 died: {why}", bad=True), 79)
    assert max(map(len, lines)) <= 79
    assert " ".join(line.strip() for line in lines).endswith(why.strip())
    assert all(line.startswith(" " * 11) for line in lines[1:])


def test_the_details_of_a_worker_are_the_whole_reason_and_all_that_its_row_has_no_room_for() -> None:
    dead = row(
        WorkerState.DEAD,
        "killed by SIGKILL, " * 9 + "truly",
        pid=0,
        restarts=1,
        complaints=2,
        malformed_messages=3,
        rejected_connections=1,
        clients=1,
    )
    lines = table.details(dead, 79)
    assert max(map(len, lines)) <= 79
    told = " ".join(line.strip() for line in lines)
    assert told.startswith("1 Dead: killed by SIGKILL")
    for part in (
        "truly",
        "127.0.0.1:21018",
        "no process",
        "1 restart ",
        "2 corrupt segments",
        "3 messages that were none",
        "1 connection refused",
        "1 client served",
        "123,400,000 bytes sent",
    ):
        assert part in told


def test_the_overview_has_everything_that_the_console_has() -> None:
    history = History()
    history.snapshot(snapshot(clients=1), 0.0)
    reason = "killed by SIGKILL, long before its time, by nobody knows whom"
    history.snapshot(with_worker(snapshot(WorkerState.AWAKE, WorkerState.DEAD, clients=1), 2, reason=reason), 1.0)
    told = table.overview(history, "msd download -p 1 2 3 4 5", 80, 1.0)
    for part in (
        "1 of 2 alive · 1 client served",
        table.heading(80).strip(),
        "○  2 27215 Dead: killed b…",
        f"2 Dead: {reason} ",
        f"{table.clock(1.0)} ! worker 2 died: {reason}",
        "For a client\nmsd download -p 1 2 3 4 5",
    ):
        assert " ".join(part.split()) in " ".join(told.split()), part
    assert max(map(len, told.split("\n"))) <= 80


def test_the_alarm_says_since_when_server_5_is_gone_and_why() -> None:
    history = History()
    history.snapshot(snapshot(), 0.0)
    assert table.alarm(history) == ""
    history.lost("connection refused", 60.0)
    told = table.alarm(history)
    assert "SERVER 5 DOES NOT ANSWER since " + table.clock(60.0) in told
    assert "connection refused" in told


def test_the_summary_counts() -> None:
    history = History()
    assert table.summary(history) == "waiting for server 5"
    history.snapshot(snapshot(WorkerState.AWAKE, WorkerState.ASLEEP, clients=1), 0.0)
    assert table.summary(history) == "1 of 2 alive · 1 client served · - · 1 file"
    history.snapshot(snapshot(WorkerState.STARTING, catalogue=b"", files=0), 1.0)
    assert table.summary(history) == "0 of 1 alive · 0 clients served · - · indexing the files"
