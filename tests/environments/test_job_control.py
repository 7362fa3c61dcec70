"""Commands as jobs of an interactive shell: in the background, in the foreground again, suspended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msd.broker.operator.operator_client import OperatorClient
from msd.wire.config.servers import Servers, locate_servers
from msd.wire.config.settings import Config
from tests.environments.recipes import JobShell, process_state
from tests.processes import MIB, Serve, Source, free_ports, wait_for
from tests.terminal import OnTerminal

#: The escape sequence that a console writes when it takes over the terminal.
ENTERED = "\x1b[?1049h"


class SharedJob:
    """``msd serve --plain`` as a background job of ``shell``."""

    def __init__(self, shell: JobShell, path: Path) -> None:
        ports = free_ports()
        self.flags = ["-a", "127.0.0.1", "-p", *map(str, ports)]
        self.servers: Servers = locate_servers(Config(), host="127.0.0.1", ports=ports, server5=None)
        self.pid = shell.start_msd("serve", "--plain", "-f", str(path), *self.flags)
        shell.expect("ready: ")

    def states(self) -> list[str]:
        with OperatorClient(self.servers) as operator:
            return [worker.state.value for worker in operator.status().workers]


@pytest.fixture
def shell(runtime_folder: Path) -> Iterator[JobShell]:
    with JobShell() as shell:
        yield shell


def is_stopped(pid: int) -> Callable[[], bool]:
    return lambda: process_state(pid) == "T"


def enter_line_for_another_program(shell: JobShell) -> None:
    """Types a line that the terminal holds for a moment before a program in the foreground reads it."""
    after = shell.enter("sleep 0.7; read line; echo got=$line.")
    shell.press("1\n")
    shell.expect("got=1.", after)


def test_servers_in_the_background_do_not_read_the_terminal(shell: JobShell, source: Source) -> None:
    """A line typed for another program is neither an order nor a reason for the shell to stop the servers."""
    job = SharedJob(shell, source(MIB))
    enter_line_for_another_program(shell)
    assert process_state(job.pid) != "T"
    assert job.states() == ["awake"] * 4


def test_servers_read_the_terminal_in_the_foreground_after_every_order_of_fg_and_bg(
    shell: JobShell, source: Source
) -> None:
    job = SharedJob(shell, source(MIB))
    shell.enter("fg")
    shell.press("1\n")
    wait_for("worker 1 asleep", lambda: job.states()[0] == "asleep")
    shell.press("\x1a")
    wait_for("the suspended servers", is_stopped(job.pid))
    shell.enter("bg")
    wait_for("the continued servers", lambda: process_state(job.pid) == "S")
    enter_line_for_another_program(shell)
    assert job.states() == ["asleep", "awake", "awake", "awake"]
    shell.enter("fg")
    shell.press("1\n")
    wait_for("worker 1 awake", lambda: job.states()[0] == "awake")
    shell.press("\x1a")
    wait_for("the suspended servers", is_stopped(job.pid))
    after = shell.enter("fg")
    shell.press("-1\n")
    shell.expect("stopped by -1", after)
    wait_for("the end of the servers", lambda: not process_state(job.pid))


def test_output_to_a_terminal_that_forbids_it_waits_until_the_servers_are_in_the_foreground(
    shell: JobShell, source: Source
) -> None:
    job = SharedJob(shell, source(MIB))
    after = shell.enter("stty tostop; echo set=$((1 + 1)).")
    shell.expect("set=2.", after)
    with OperatorClient(job.servers) as operator:
        assert operator.toggle(2, None).reached
    assert process_state(job.pid) != "T"
    assert "Dead" not in shell.text[after:]
    shell.enter("fg")
    shell.expect("Dead", after)


def test_a_download_in_the_background_draws_nothing_and_is_not_stopped(
    shell: JobShell, serve: Serve, source: Source, tmp_path: Path
) -> None:
    system = serve(source(8 * MIB), "--rate", "4MiB", workers=1)
    after = shell.enter("stty tostop")
    pid = shell.start_msd("download", *system.server_flags, "-o", str(tmp_path / "copy"), "2>/dev/tty")
    wait_for(
        "data", lambda: (tmp_path / ".copy.msd-part").exists() and (tmp_path / ".copy.msd-part").stat().st_blocks > 2048
    )
    assert process_state(pid) != "T"
    assert "worker 1" not in shell.text[after:]
    shell.enter("fg")
    shell.expect("worker 1  ready", after)
    wait_for("the end of the download", lambda: not process_state(pid))
    assert (tmp_path / "copy").exists()


@pytest.mark.parametrize("owns_servers", [pytest.param(False, marks=pytest.mark.soak), True])
def test_a_console_leaves_the_terminal_to_the_shell_until_fg(
    shell: JobShell, serve: Serve, source: Source, owns_servers: bool
) -> None:
    if owns_servers:
        *_, worker_port, status_port = map(str, free_ports())
        arguments = ["serve", "-f", str(source(MIB)), "-n", "1", "-p", worker_port, status_port]
    else:
        arguments = ["console", *serve(source(MIB), workers=1).server_flags]
    pid = shell.run_msd(*arguments)
    shell.expect("1 of 1 alive")
    for orders in (["fg"], ["bg", "fg"]):
        after = shell.press("\x1a")
        shell.expect("Stopped", after)
        wait_for("the suspended job", is_stopped(pid))
        for order in orders:
            after = shell.enter(order)
        shell.expect(ENTERED, after)
        shell.expect("1 of 1 alive", after)
    after = shell.press("1")
    shell.expect("worker 1 was put to sleep", after)
    after = shell.press("\x1a")
    shell.expect("Stopped", after)
    shell.enter("bg")
    wait_for("the continued job", lambda: not is_stopped(pid)())
    after = shell.enter("echo read=$((1 + 1)).")
    shell.expect("read=2.", after)
    os.kill(pid, signal.SIGTERM)
    wait_for("the end of the job", lambda: not process_state(pid))
    assert "Traceback" not in shell.text


def test_a_console_that_no_shell_could_continue_is_not_stopped(
    serve: Serve, source: Source, on_terminal: OnTerminal
) -> None:
    terminal = on_terminal("console", *serve(source(MIB), workers=1).server_flags, leads_session=True)
    terminal.expect("1 of 1 alive")
    after = terminal.press("\x1a")
    terminal.expect(ENTERED, after)
    after = terminal.press("1")
    terminal.expect("worker 1 was put to sleep", after)
    terminal.press("q")
    assert terminal.wait() == 0
