"""The console's lines fit the given width and can be understood without colours."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from msd.broker.status.history import History, Row
from msd.broker.views import console_lines
from msd.broker.views.status_table import SuggestedCommand
from msd.wire.protocol.messages import LoggedEvent
from msd.wire.protocol.states import WorkerState
from msd.wire.support.units import format_time
from tests.unit.snapshots import report, snapshot, with_worker


def row(state: WorkerState = WorkerState.AWAKE, rates: tuple[float, ...] = (1.0, 2.0, 4.0), **values: object) -> Row:
    defaults = {"pid": 4711, "uptime": 3725.0, "clients": 2, "rate": 7.3e6, "bytes_sent": 123_400_000}
    return Row(replace(snapshot(state).workers[0], **{**defaults, **values}), rates=rates)


def joined_row(state: WorkerState = WorkerState.AWAKE, **values: Any) -> Row:
    """The row of a worker that has joined from another host."""
    defaults: dict[str, Any] = {
        "number": 5,
        "name": "attic",
        "host": "10.0.0.7",
        "endpoint": "tcp://10.0.0.7:21018",
        "pid": 0,
    }
    return row(state, **{**defaults, "catalogue": b"c" * 32, "files": 3, **values})


def line(example: Row, width: int, top: float, **flags: bool) -> str:
    """The line of this row in a table of its own."""
    return console_lines.worker_line(example, console_lines.columns([example], width), top, **flags)


@pytest.mark.parametrize("width", [*range(23, 130), 133, 200])
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
    joined = replace(longest.worker, name="n" * 64, host="2001:db8:1111:2222:3333:4444:5555:6666", number=1024)
    for example in (row(), longest, replace(longest, worker=joined)):
        widths = console_lines.columns([example], width)
        line = console_lines.worker_line(example, widths, 4.0, selected=True, current=False)
        assert len(line) == len(console_lines.heading(widths)) <= width


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
    assert console_lines.heading(console_lines.columns([row()], width)).split() == columns.split()


def test_alive_and_dead_differ_by_more_than_colour() -> None:
    alive, dead = (line(row(state), 80, 1.0) for state in (WorkerState.AWAKE, WorkerState.ASLEEP))
    assert "● " in alive
    assert "Alive" in alive
    assert "○ " in dead
    assert "Dead" in dead


def test_the_line_of_a_dead_worker_contains_the_reason() -> None:
    dead = row(WorkerState.DEAD, reason="killed by SIGKILL")
    assert "Dead: killed by SIGKILL " in line(dead, 120, 1.0)


def test_a_state_that_is_not_current_has_a_question_mark() -> None:
    assert "Alive? " in line(row(), 80, 1.0, current=False)


def test_the_selected_row_is_marked() -> None:
    assert line(row(), 80, 1.0, selected=True).startswith("›")
    assert not line(row(), 80, 1.0).startswith("›")


@pytest.mark.parametrize(
    ("rates", "top", "bars"),
    [((0.0, 1.0, 4.0, 8.0), 8.0, " ▂▅█"), ((), 8.0, ""), ((0.0, 0.0), 0.0, "  "), (tuple(range(9)), 8.0, "▂▃▄▅▆▇██")],
)
def test_a_sparkline_shows_the_last_rates(rates: tuple[float, ...], top: float, bars: str) -> None:
    assert console_lines.sparkline(rates, 8, top) == bars


def test_a_worker_without_a_process_has_no_uptime_and_an_idle_worker_no_rate() -> None:
    text = line(row(uptime=0.0, rate=0.4, rates=(), complaints=1), 80, 1.0)
    assert text.split()[4:8] == ["-", "0", "2", "-"]


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
    text = console_lines.overview(
        history, SuggestedCommand("Command for a client", "msd download -p 1 2 3 4 5"), 80, 1.0
    )
    for part in (
        "1 of 2 alive · 1 client served",
        console_lines.heading(console_lines.columns(history.rows(1.0), 80)).strip(),
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


def test_before_a_worker_has_joined_the_summary_does_not_speak_of_indexing() -> None:
    history = History()
    history.on_status(snapshot(catalogue=b"", files=0, workers=[]), 0.0)
    assert console_lines.summary(history) == "no workers yet · 0 clients served · 0 B/s · 0 files"


def test_without_a_catalogue_the_summary_says_that_server_5_vouches_for_no_files() -> None:
    history = History()
    workers = [joined_row().worker, joined_row(number=6, name="cellar", rate=0.0).worker]
    history.on_status(snapshot(catalogue=b"", files=3, workers=workers), 0.0)
    text = "2 of 2 alive · 0 clients served · 7.0 MiB/s · 3 files (server 5 vouches for none)"
    assert console_lines.summary(history) == text
    starting = joined_row(WorkerState.STARTING, epoch=0, rate=0.0).worker
    history.on_status(snapshot(catalogue=b"", files=0, workers=[starting]), 1.0)
    assert console_lines.summary(history) == "0 of 1 alive · 0 clients served · 0 B/s · 0 files"


def test_the_title_leaves_out_the_address_before_what_server_5_vouches_for() -> None:
    history = History()
    history.on_status(snapshot(catalogue=b"", files=3, workers=[joined_row(rate=0.0).worker]), 0.0)
    state = "1 of 1 alive · 0 clients served · 0 B/s · 3 files (server 5 vouches for none)"
    texts = [console_lines.title(history, "10.0.0.5:39223", width) for width in (120, 90, 80, 60)]
    assert texts[:3] == [f"msd · 10.0.0.5:39223 · {state}", f"msd · {state}", state]
    assert texts[3] == "msd · 10.0.0.5:39223 · 1 of 1 alive · 0 clients served · 0 …"


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (120, "# Name Host Port Status Uptime Rst Cli Rate Sent Bad"),
        (80, "# Name Host Port Status Cli Rate Bad"),
        (60, "# Name Port Status Rate Bad"),
        (40, "# Name Port Status"),
        (30, "# Name Status"),
        (20, "# Status"),
    ],
)
def test_if_workers_have_joined_the_table_has_their_names_and_hosts(width: int, columns: str) -> None:
    widths = console_lines.columns([row(), joined_row()], width)
    assert console_lines.heading(widths).split() == columns.split()
    local, joined = (console_lines.worker_line(example, widths, 1.0).split() for example in (row(), joined_row()))
    if "Host" in columns:
        assert (local[2:5], joined[2:5]) == (["-", "-", "21018"], ["attic", "10.0.0.7", "21018"])


def test_a_long_name_is_shown_whole_if_there_is_room() -> None:
    name = "a-host-with-a-name-21018"
    assert "a-host-with…" in line(joined_row(name=name), 80, 1.0)
    assert name in line(joined_row(name=name), 140, 1.0)


def test_the_details_of_a_worker_that_has_joined_name_its_host_and_no_process() -> None:
    text = " ".join(console_lines.details(joined_row(), 200))
    start = "5 (attic) Alive · 10.0.0.7:21018 · joined from 10.0.0.7 1:02:05 ago · 3 files · 2 clients served"
    assert text.startswith(start)
    assert "process" not in text


def test_the_details_of_a_lost_worker_say_why_and_not_since_when_it_has_joined() -> None:
    lost = joined_row(WorkerState.LOST, reason="its key was revoked", uptime=0.0, catalogue=b"", clients=0)
    text = " ".join(console_lines.details(lost, 200))
    start = "5 (attic) Dead: lost: its key was revoked · 10.0.0.7:21018 · joined from 10.0.0.7 · 0 clients served"
    assert text.startswith(start)


def test_the_details_contain_the_whole_reason_why_a_worker_is_unreachable() -> None:
    reason = "at 10.0.0.7:21018: no answer within 1 s: check --advertise, and that no firewall drops the connection"
    lines = console_lines.details(joined_row(WorkerState.UNREACHABLE, reason=reason), 60)
    assert max(map(len, lines)) <= 60
    assert f"5 (attic) Dead: unreachable: {reason} ·" in " ".join(text.strip() for text in lines)


def test_a_worker_with_other_files_than_those_of_server_5_is_named() -> None:
    history = History()
    same, other = joined_row(rate=0.0).worker, joined_row(number=6, name="cellar", catalogue=b"d" * 32).worker
    history.on_status(snapshot(workers=[same, other]), 0.0)
    text = console_lines.overview(history, SuggestedCommand("Command for a client", "msd"), 120, 0.0)
    assert "6 (cellar) Alive" in text
    assert "3 files (not the list of server 5)" in text
    assert "5 (attic) Alive" not in text
