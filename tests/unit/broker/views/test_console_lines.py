"""The console's lines fit the given width and can be understood without colours."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from msd.broker.status.history import History, Row
from msd.broker.views import console_lines
from msd.wire.protocol.messages import LoggedEvent
from msd.wire.protocol.states import WorkerState
from msd.wire.support.units import format_time
from tests.unit.snapshots import report, snapshot, with_worker


def row(state: WorkerState = WorkerState.AWAKE, rates: tuple[float, ...] = (1.0, 2.0, 4.0), **values: object) -> Row:
    defaults = {"pid": 4711, "uptime": 3725.0, "clients": 2, "rate": 7.3e6, "bytes_sent": 123_400_000}
    return Row(replace(snapshot(state).workers[0], **{**defaults, **values}), rates=rates)


@pytest.mark.parametrize("width", [*range(21, 90), 100, 133, 200])
def test_a_worker_line_is_as_wide_as_the_heading_and_fits(width: int) -> None:
    longest = row(
        WorkerState.FAILED,
        reason="x" * 200,
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
    for example in (row(), longest):
        line = console_lines.worker_line(example, width, 4.0, selected=True, current=False)
        assert len(line) == len(console_lines.heading(width)) <= width


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (80, "# Port Status Uptime Rst Cli Rate Sent Bad"),
        (79, "# Port Status Uptime Rst Cli Rate Sent Bad"),
        (70, "# Port Status Rst Cli Rate Sent Bad"),
        (60, "# Port Status Cli Rate Sent Bad"),
        (40, "# Port Status Rate"),
        (25, "# Status"),
        (10, "# Status"),
    ],
)
def test_a_narrow_terminal_shows_fewer_columns(width: int, columns: str) -> None:
    assert console_lines.heading(width).split() == columns.split()


def test_alive_and_dead_differ_by_more_than_colour() -> None:
    alive, dead = (console_lines.worker_line(row(state), 80, 1.0) for state in (WorkerState.AWAKE, WorkerState.ASLEEP))
    assert "● " in alive
    assert "Alive" in alive
    assert "○ " in dead
    assert "Dead" in dead


def test_the_line_of_a_dead_worker_contains_the_reason() -> None:
    dead = row(WorkerState.DEAD, reason="killed by SIGKILL")
    assert "Dead: killed by SIGKILL " in console_lines.worker_line(dead, 120, 1.0)


def test_a_state_that_is_not_current_has_a_question_mark() -> None:
    assert "Alive? " in console_lines.worker_line(row(), 80, 1.0, current=False)


def test_the_selected_row_is_marked() -> None:
    assert console_lines.worker_line(row(), 80, 1.0, selected=True).startswith("›")
    assert not console_lines.worker_line(row(), 80, 1.0).startswith("›")


@pytest.mark.parametrize(
    ("rates", "top", "bars"),
    [((0.0, 1.0, 4.0, 8.0), 8.0, " ▂▅█"), ((), 8.0, ""), ((0.0, 0.0), 0.0, "  "), (tuple(range(9)), 8.0, "▂▃▄▅▆▇██")],
)
def test_a_sparkline_shows_the_last_rates(rates: tuple[float, ...], top: float, bars: str) -> None:
    assert console_lines.sparkline(rates, 8, top) == bars


def test_a_worker_without_a_process_has_no_uptime_and_an_idle_worker_no_rate() -> None:
    line = console_lines.worker_line(row(uptime=0.0, rate=0.4, rates=(), complaints=1), 80, 1.0)
    assert line.split()[4:8] == ["-", "0", "2", "-"]


def test_a_wrapped_command_can_be_pasted() -> None:
    command = f"msd download -a 127.0.0.1 -p 1 2 3 4 5 --server-key {'f' * 64}"
    lines = console_lines.wrap_command(command, 80).split("\n")
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert "".join(line.removesuffix("\\") for line in lines) == command


def test_control_characters_in_an_event_are_removed() -> None:
    assert (
        "\x1b"
        not in console_lines.event_lines(LoggedEvent(time=0.0, text="worker 1 died: \x1b[2J", is_failure=True), 80)[0]
    )


def test_a_long_event_is_wrapped_and_not_truncated() -> None:
    reason = "exited with code 1: " + "the broker's folder and its catalogue were removed " * 3
    lines = console_lines.event_lines(LoggedEvent(time=0.0, text=f"worker 1 died: {reason}", is_failure=True), 79)
    assert max(map(len, lines)) <= 79
    assert " ".join(line.strip() for line in lines).endswith(reason.strip())
    assert all(line.startswith(" " * 11) for line in lines[1:])


def test_the_details_of_a_worker_contain_the_whole_reason_and_all_counts() -> None:
    dead = row(
        WorkerState.DEAD,
        reason="killed by SIGKILL, " * 9 + "the end",
        pid=0,
        restarts=1,
        complaints=2,
        malformed_messages=3,
        rejected_connections=1,
        clients=1,
    )
    lines = console_lines.details(dead, 79)
    assert max(map(len, lines)) <= 79
    text = " ".join(line.strip() for line in lines)
    assert text.startswith("1 Dead: killed by SIGKILL")
    for part in (
        "the end",
        "127.0.0.1:21018",
        "no process",
        "1 restart ",
        "2 corrupt segments",
        "3 malformed messages",
        "1 refused connection",
        "1 client served",
        "123,400,000 bytes sent",
    ):
        assert part in text


def test_the_overview_contains_everything_that_the_console_shows() -> None:
    history = History()
    reason = "killed by SIGKILL, possibly by the kernel's out-of-memory killer"
    status = with_worker(snapshot(WorkerState.AWAKE, WorkerState.DEAD, clients=1), 2, reason=reason)
    history.on_report(report(status, f"worker 2 died: {reason}", is_failure=True, time=2.0), 2.0)
    text = console_lines.overview(history, "msd download -p 1 2 3 4 5", 80, 1.0)
    for part in (
        "1 of 2 alive · 1 client served",
        console_lines.heading(80).strip(),
        "○  2 27215 Dead: killed b…",
        f"2 Dead: {reason} ",
        f"{format_time(1.0)} ! worker 2 died: {reason}",
        "Command for a client\nmsd download -p 1 2 3 4 5",
    ):
        assert " ".join(part.split()) in " ".join(text.split()), part
    assert max(map(len, text.split("\n"))) <= 80


def test_the_alarm_contains_the_time_and_the_reason() -> None:
    history = History()
    history.on_status(snapshot(), 0.0)
    assert console_lines.alarm(history) == ""
    history.on_lost("connection refused", 60.0)
    alarm = console_lines.alarm(history)
    assert "SERVER 5 HAS NOT ANSWERED since " + format_time(60.0) + "; showing the last known state" in alarm
    assert "connection refused" in alarm


def test_the_summary_counts_workers_clients_and_files() -> None:
    history = History()
    assert console_lines.summary(history) == "waiting for server 5"
    history.on_status(snapshot(WorkerState.AWAKE, WorkerState.ASLEEP, clients=1), 0.0)
    assert console_lines.summary(history) == "1 of 2 alive · 1 client served · 0 B/s · 1 file"
    history.on_status(snapshot(WorkerState.STARTING, catalogue=b"", files=0), 1.0)
    assert console_lines.summary(history) == "0 of 1 alive · 0 clients served · 0 B/s · indexing the files"
    history.on_status(snapshot(WorkerState.STARTING, catalogue=b"", files=0, indexing=7), 2.0)
    assert console_lines.summary(history) == "0 of 1 alive · 0 clients served · 0 B/s · indexing the files (7 %)"
    history.on_status(snapshot(WorkerState.AWAKE, indexing=7), 3.0)
    assert console_lines.summary(history) == "1 of 1 alive · 0 clients served · 0 B/s · 1 file (indexing: 7 %)"
