"""The local console: when it prints, which lines are orders, and how it handles the exit of the console process."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from msd.broker.terminal import line_reader, local_console
from msd.broker.terminal.line_reader import LineReader
from msd.broker.terminal.local_console import LocalConsole
from msd.broker.terminal.output_thread import OutputThread
from msd.broker.views.status_table import status_table
from msd.wire.config.links import Link
from msd.wire.config.settings import Config
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.states import WorkerState
from msd.wire.security.keys import KeyFolder
from tests.unit.fake_poll_loop import FakePollLoop
from tests.unit.snapshots import snapshot

COMMAND = ["msd", "console"]


class FakeOutput(OutputThread):
    """Records the calls instead of printing."""

    is_terminal = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def show_table(self, table: str) -> None:
        self.calls.append(("table", table))

    def print_line(self, line: str) -> None:
        self.calls.append(("line", line))

    def print_event(self, text: str) -> None:
        self.calls.append(("event", text))

    def announce(self, line: str) -> None:
        self.calls.append(("announcement", line))

    def note(self, line: str) -> None:
        self.calls.append(("note", line))

    def suspend(self) -> None:
        self.calls.append(("suspend", ""))

    def resume(self, reset_sequence: str) -> None:
        self.calls.append(("resume", reset_sequence))


class FakeProcess:
    """A console process that ends when the test sets ``code``, or when it is stopped."""

    started: list[FakeProcess]

    def __init__(self, command: Sequence[str]) -> None:
        assert command == COMMAND
        self.code: int | None = None
        self.started.append(self)

    def exit_code(self) -> int | None:
        return self.code

    def stop(self) -> None:
        self.code = -15

    def close(self) -> str:
        assert self.code is not None, "closed before the process had ended"
        return "reset"


class Terminal:
    """A local console whose input is a pipe, and the orders that were entered."""

    def __init__(self, console: Sequence[str] | None, config: Config | None = None) -> None:
        self.output = FakeOutput()
        self.poll_loop = FakePollLoop()
        self.toggled: list[int] = []
        self.ends: list[tuple[int, str]] = []
        self.console = LocalConsole(
            config or Config(),
            self.output,
            console,
            self.poll_loop,
            toggle=self.toggled.append,
            shut_down=lambda code, cause: self.ends.append((code, cause)),
        )

    def enter(self, data: bytes, writer: int) -> None:
        """Writes ``data`` to the input and lets the console read it."""
        os.write(writer, data)
        self.poll_loop.run_handler()


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The write end of the pipe that replaces standard input. Console processes are fakes."""
    reader, writer = os.pipe()
    monkeypatch.setattr(local_console, "LineReader", lambda descriptor: LineReader(reader))
    monkeypatch.setattr(local_console, "ConsoleProcess", FakeProcess)
    FakeProcess.started = []
    yield writer
    os.close(reader)
    os.close(writer)


def test_a_table_asks_for_nothing_once_the_input_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = os.open(os.devnull, os.O_RDONLY)
    monkeypatch.setattr(local_console, "LineReader", lambda descriptor: LineReader(reader))
    terminal = Terminal(None)
    terminal.poll_loop.run_handler()
    terminal.console.show(snapshot(), None)
    os.close(reader)
    _, (kind, table) = terminal.output.calls
    assert kind == "table"
    assert "Status: Alive" in table
    assert "enter" not in table.lower()


def test_nothing_is_shown_until_all_workers_are_awake(writer: int) -> None:
    terminal = Terminal(None)
    terminal.console.show(snapshot(WorkerState.STARTING, WorkerState.AWAKE), None)
    assert terminal.output.calls == []
    awake = snapshot()
    for _ in range(2):
        terminal.console.show(awake, None)
    (_, ready), *tables = terminal.output.calls
    assert ready.startswith("ready: 4 workers share 1 file; msd download ")
    assert tables == [("table", status_table(awake))] * 2


@pytest.fixture
def exposed(tmp_path: Path) -> Config:
    """Servers with keys that other machines can reach; they share one file."""
    (tmp_path / "a film").touch()
    KeyFolder(tmp_path / "keys").init()
    return Config(host="192.0.2.7", paths=(tmp_path / "a film",), keys=tmp_path / "keys")


def test_a_link_for_a_client_follows_the_ready_line_on_a_terminal(writer: int, exposed: Config) -> None:
    terminal = Terminal(None, exposed)
    for _ in range(2):
        terminal.console.show(snapshot(), bytes(32))
    (line,) = [text for _, text in terminal.output.calls if "msd://" in text]
    terms, command = line.splitlines()
    (admitted,) = exposed.key_folder.admitted_keys()
    assert terms.startswith("the holder of this link may download the file a film until ")
    assert terms.endswith(f" (to end that: msd keys revoke {admitted.name}):")
    link = Link.parse(shlex.split(command)[-1])
    assert (link.server5, link.name) == (Endpoint("192.0.2.7", 39223), "a film")
    assert link.key_pair is not None
    assert link.key_pair.public == admitted.key


def test_no_link_is_made_unless_the_output_is_a_terminal(writer: int, exposed: Config) -> None:
    terminal = Terminal(None, exposed)
    terminal.output.is_terminal = False
    terminal.console.show(snapshot(), bytes(32))
    assert [kind for kind, _ in terminal.output.calls] == ["announcement", "table"]
    assert exposed.key_folder.admitted_keys() == []


def test_servers_start_although_no_link_can_be_made(writer: int, exposed: Config) -> None:
    exposed.key_folder.path.chmod(0o755)
    terminal = Terminal(None, exposed)
    terminal.console.show(snapshot(), bytes(32))
    (note,) = [text for kind, text in terminal.output.calls if kind == "note"]
    assert note.startswith("no link for a client: ")
    assert terminal.output.calls[-1][0] == "table"


def test_a_failure_during_the_start_is_shown(writer: int) -> None:
    terminal = Terminal(None)
    dead = snapshot(WorkerState.STARTING, WorkerState.DEAD)
    terminal.console.show(dead, None)
    assert terminal.output.calls == [("table", status_table(dead))]


def test_events_are_shown_once_all_workers_are_ready_and_failures_at_once(writer: int) -> None:
    terminal = Terminal(None)
    terminal.console.show_event("worker 1 is alive", is_failure=False)
    terminal.console.show_event("worker 2 died", is_failure=True)
    terminal.console.show(snapshot(), None)
    terminal.console.show_event("worker 2 fell asleep", is_failure=False)
    events = [text for kind, text in terminal.output.calls if kind == "event"]
    assert events == ["worker 2 died", "worker 2 fell asleep"]


def test_lines_toggle_workers_and_shut_down(writer: int) -> None:
    terminal = Terminal(None)
    terminal.console.show(snapshot(WorkerState.STARTING, *[WorkerState.AWAKE] * 3), None)
    terminal.enter(b"2\n5\n\n-1\n", writer)
    assert terminal.toggled == [2]
    assert terminal.output.calls == [("line", "invalid choice '5': enter 1 to 4, or -1 to quit")]
    assert terminal.ends == [(0, "by -1")]


def test_the_end_of_the_input_does_not_shut_down(writer: int) -> None:
    terminal = Terminal(None)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), writer)  # closes the pipe's write end
    terminal.poll_loop.run_handler()
    assert not terminal.poll_loop.handlers
    assert terminal.ends == []


def test_the_console_process_takes_over_input_and_output(writer: int) -> None:
    terminal = Terminal(COMMAND)
    for _ in range(2):
        terminal.console.show(snapshot(), None)
    assert len(FakeProcess.started) == 1
    assert not terminal.poll_loop.handlers
    assert [kind for kind, _ in terminal.output.calls] == ["announcement", "suspend", "table", "table"]
    terminal.console.on_child_exit()
    assert len(terminal.output.calls) == 4, "the exit of another child caused output"


@pytest.mark.parametrize(("code", "cause"), [(0, "by q"), (130, "by Ctrl-C")])
def test_leaving_the_console_shuts_down_with_its_exit_code(code: int, cause: str, writer: int) -> None:
    terminal = Terminal(COMMAND)
    terminal.console.show(snapshot(), None)
    FakeProcess.started[0].code = code
    terminal.console.on_child_exit()
    assert terminal.ends == [(code, cause)]


@pytest.mark.parametrize(("code", "cause"), [(-9, "was killed by signal 9"), (1, "exited with code 1")])
def test_after_a_crash_of_the_console_the_plain_console_continues(code: int, cause: str, writer: int) -> None:
    terminal = Terminal(COMMAND)
    status = snapshot()
    terminal.console.show(status, None)
    FakeProcess.started[0].code = code
    terminal.console.on_child_exit()
    assert terminal.output.calls[-3:] == [
        ("resume", "reset"),
        ("note", f"the console {cause}: the servers keep running with the plain console"),
        ("table", status_table(status)),
    ]
    assert terminal.ends == []
    terminal.enter(b"3\n", writer)
    assert terminal.toggled == [3]
    terminal.console.show(snapshot(), None)
    assert len(FakeProcess.started) == 1


def test_a_console_that_cannot_be_started_is_replaced_by_the_plain_one(
    writer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: Sequence[str]) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(local_console, "ConsoleProcess", fail)
    terminal = Terminal(COMMAND)
    terminal.console.show(snapshot(), None)
    assert ("note", "cannot start the console (No such file or directory): using the plain console") in (
        terminal.output.calls
    )
    terminal.enter(b"1\n", writer)
    assert terminal.toggled == [1]


def test_close_stops_the_console_process_and_resumes_the_output(writer: int) -> None:
    terminal = Terminal(COMMAND)
    terminal.console.show(snapshot(), None)
    terminal.console.close()
    assert FakeProcess.started[0].code == -15
    assert terminal.output.calls[-1] == ("resume", "reset")


def test_the_terminal_is_neither_read_nor_polled_in_the_background(
    writer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_in_background = True
    monkeypatch.setattr(line_reader, "is_in_background", lambda descriptor: is_in_background)
    terminal = Terminal(COMMAND)
    terminal.console.show(snapshot(), None)
    assert FakeProcess.started == []
    assert "enter" not in terminal.output.calls[-1][1].lower(), "asks without input"
    terminal.enter(b"2\n", writer)
    terminal.console.check_foreground()
    assert (terminal.toggled, terminal.poll_loop.handlers) == ([], {})
    is_in_background = False
    terminal.console.check_foreground()
    terminal.poll_loop.run_handler()
    assert terminal.toggled == [2]
    terminal.console.show(snapshot(), None)
    assert len(FakeProcess.started) == 1
