"""The console's child process on a pseudo-terminal: exit codes, the pipe to the broker, and the restored terminal."""

from __future__ import annotations

import os
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from msd.broker.terminal import console_process
from msd.broker.terminal.console_process import RESET_SEQUENCE, ConsoleProcess, can_show_console, console_command
from msd.wire.net.endpoints import Endpoint

TIMEOUT_S = 20.0
#: Waits for end of file on the pipe that ``--supervisor`` specifies, then exits with code 5.
WAIT_FOR_BROKER = "import os, sys; os.read(int(sys.argv[-1]), 1); sys.exit(5)"
IGNORE_SIGTERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


@pytest.fixture
def terminal() -> Iterator[int]:
    """Replaces standard input with a pseudo-terminal; yields the master end."""
    master, slave = os.openpty()
    stdin = os.dup(0)
    os.dup2(slave, 0)
    yield master
    os.dup2(stdin, 0)
    for descriptor in (master, slave, stdin):
        os.close(descriptor)


def start(code: str) -> ConsoleProcess:
    return ConsoleProcess([sys.executable, "-S", "-E", "-c", code])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.005)


def test_the_console_sees_the_end_of_the_broker_as_end_of_file(terminal: int) -> None:
    console = start(WAIT_FOR_BROKER)
    assert console.exit_code() is None
    console.close()
    wait_for(lambda: console.exit_code() == 5)


def test_the_exit_code_of_a_killed_console_is_the_negative_signal(terminal: int) -> None:
    console = start("import os; os.kill(os.getpid(), 9)")
    wait_for(lambda: console.exit_code() == -signal.SIGKILL)
    console.close()


def test_stop_kills_a_console_that_ignores_sigterm(terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_process, "STOP_TIMEOUT_S", 0.1)
    stdout = os.dup(1)
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    try:
        console = start(IGNORE_SIGTERM)
    finally:
        os.dup2(stdout, 1)
        for descriptor in (stdout, writer):
            os.close(descriptor)
    assert os.read(reader, 1) == b"\n"  # printed once the child ignores SIGTERM
    os.close(reader)
    console.stop()
    assert console.exit_code() == -signal.SIGKILL
    console.close()


def test_close_restores_the_settings_that_a_killed_console_has_changed(terminal: int) -> None:
    before = termios.tcgetattr(0)
    console = start("import termios, tty, os; tty.setraw(0); os.kill(os.getpid(), 9)")
    wait_for(lambda: console.exit_code() is not None)
    assert termios.tcgetattr(0) != before
    assert console.close() == RESET_SEQUENCE
    assert termios.tcgetattr(0) == before


def test_close_resets_nothing_after_a_console_that_has_restored_the_terminal(terminal: int) -> None:
    console = start("")
    wait_for(lambda: console.exit_code() == 0)
    assert console.close() == ""


def test_a_command_that_does_not_exist_is_an_os_error(terminal: int) -> None:
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="No such file"):
        ConsoleProcess(["/does/not/exist"])
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


@pytest.mark.parametrize("term", ["dumb", "", None])
def test_a_dumb_terminal_cannot_show_a_console(term: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: True)
    monkeypatch.setattr(os, "tcgetpgrp", lambda descriptor: os.getpgrp())
    monkeypatch.setenv("TERM", "xterm-256color")
    assert can_show_console()
    if term is None:
        monkeypatch.delenv("TERM")
    else:
        monkeypatch.setenv("TERM", term)
    assert not can_show_console()


def test_a_console_needs_a_terminal_in_the_foreground(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 0)
    assert not can_show_console()
    monkeypatch.setattr(os, "isatty", lambda descriptor: True)
    monkeypatch.setattr(os, "tcgetpgrp", lambda descriptor: os.getpgrp() + 1)
    assert not can_show_console()


def test_the_console_command_passes_on_the_flags_of_serve() -> None:
    command = ["-P", "-m", "msd", "console", "--server5", "127.0.0.1:39223"]
    assert console_command(None, None, None, Endpoint("127.0.0.1", 39223))[1:] == command
    flags = console_command("servers.toml", "::1", "a film", Endpoint("::1", 5))[5:]
    assert flags == ["--server5", "[::1]:5", "-c", "servers.toml", "-a", "::1", "--invite", "a film"]
