"""The console on real terminals: that of ``msd serve`` and one from elsewhere, and what must not be left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from msd.broker.operator.operator_client import OperatorClient
from msd.wire.config.settings import Config, locate_servers
from msd.wire.security.keys import KeyFolder
from tests.system import MIB, Ports, Serve, Source, free_ports, is_free, run_msd
from tests.terminal import Terminal

#: What a terminal is told when the console comes and goes.
ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"
READY = "4 of 4 alive"

OnTerminal = Callable[..., Terminal]


@pytest.fixture
def on_terminal(runtime_folder: Path) -> Iterator[OnTerminal]:
    """Starts a command on a terminal of its own; ends it after the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(Terminal(*arguments, **options))


@pytest.fixture
def serving(on_terminal: OnTerminal, source: Source) -> tuple[Terminal, Ports]:
    """``msd serve`` on a terminal, with its console."""
    ports = free_ports()
    terminal = on_terminal("serve", "-f", str(source(MIB)), "-i", "0.5", "-p", *map(str, ports))
    terminal.sees(READY)
    return terminal, ports


def is_restored(terminal: Terminal) -> bool:
    return terminal.text.rfind(LEFT) > terminal.text.rfind(ENTERED) and terminal.settings_now == terminal.settings


def console_of(serving: Terminal) -> int:
    """The process of the console that ``msd serve`` has started."""
    children = Path(f"/proc/{serving.pid}/task/{serving.pid}/children").read_text().split()
    (pid,) = (int(pid) for pid in children if b"console" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    return pid


def states(ports: Ports) -> list[str]:
    with OperatorClient(locate_servers(Config(), ports=ports)) as operator:
        return [worker.state.value for worker in operator.status().workers]


def test_serve_on_a_terminal_shows_the_console_that_toggles_and_quits(serving: tuple[Terminal, Ports]) -> None:
    terminal, ports = serving
    mark = terminal.press("2")
    terminal.sees("worker 2 fell asleep", mark)
    assert states(ports) == ["awake", "asleep", "awake", "awake"]
    mark = terminal.press("\x1b[B\r")  # down and Enter: worker 2 again
    terminal.sees("worker 2 woke up", mark)
    terminal.press("q")
    assert terminal.wait() == 0
    assert is_restored(terminal)
    assert "Traceback" not in terminal.text
    # What can be pasted stays on the terminal.
    assert f"msd download -a 127.0.0.1 -p {' '.join(map(str, ports))}" in terminal.text[: terminal.text.find(ENTERED)]
    assert all(map(is_free, ports))


@pytest.mark.parametrize(
    ("keys", "number", "code"),
    [("\x03", None, 130), pytest.param("", signal.SIGTERM, 143, marks=pytest.mark.soak)],
)
def test_ctrl_c_and_sigterm_end_the_servers_and_leave_the_terminal_as_it_was(
    serving: tuple[Terminal, Ports], keys: str, number: signal.Signals | None, code: int
) -> None:
    terminal, _ = serving
    if number is None:
        terminal.press(keys)
    else:
        terminal.signal(number)
    assert terminal.wait() == code
    assert is_restored(terminal)


def test_a_console_that_is_killed_leaves_the_servers_and_the_plain_console(serving: tuple[Terminal, Ports]) -> None:
    terminal, _ = serving
    mark = len(terminal.text)
    os.kill(console_of(terminal), signal.SIGKILL)
    terminal.sees("the servers go on, with the plain one", mark)
    terminal.sees("Enter your Choice:", mark)
    assert is_restored(terminal)
    mark = terminal.press("3\n")
    terminal.sees("Status: Dead To shut down/wake up enter 3", mark)
    terminal.press("-1\n")
    assert terminal.wait() == 0


def test_a_broker_that_is_killed_takes_its_console_along(serving: tuple[Terminal, Ports]) -> None:
    terminal, _ = serving
    terminal.signal(signal.SIGKILL)
    assert terminal.wait() == -signal.SIGKILL
    terminal.sees("msd: msd serve is gone, and its workers with it: start it again")
    assert is_restored(terminal)


def test_a_console_from_elsewhere_toggles_and_leaves_the_servers_alone(
    serve: Serve, source: Source, on_terminal: OnTerminal
) -> None:
    system = serve(source(MIB))
    terminal = on_terminal("console", *system.server_flags)
    terminal.sees(READY)
    mark = terminal.press("1")
    terminal.sees("worker 1 fell asleep", mark)
    mark = len(terminal.text)
    system.kill(2)
    terminal.sees("worker 2 died: killed by SIGKILL", mark)
    terminal.resize(200, 60)
    terminal.signal(signal.SIGWINCH)
    terminal.press("q")
    assert terminal.wait() == 0
    assert is_restored(terminal)
    assert system.process.poll() is None


@pytest.mark.soak
def test_a_console_waits_for_a_broker_that_was_killed(serve: Serve, source: Source, on_terminal: OnTerminal) -> None:
    path = source(MIB)
    system = serve(path)
    terminal = on_terminal("console", *system.server_flags)
    terminal.sees(READY)
    system.process.kill()
    terminal.sees("SERVER 5 DOES NOT ANSWER since")
    serve(path, ports=system.ports)
    terminal.sees("server 5 was started again")
    terminal.signal(signal.SIGTERM)
    assert terminal.wait() == 143
    assert is_restored(terminal)


@pytest.mark.soak
def test_a_frozen_broker_is_found_out_and_found_again(serve: Serve, source: Source, on_terminal: OnTerminal) -> None:
    system = serve(source(MIB), "-i", "60")
    terminal = on_terminal("console", *system.server_flags)
    terminal.sees(READY)
    system.signal(signal.SIGSTOP)
    try:
        terminal.sees("SERVER 5 DOES NOT ANSWER since")
    finally:
        system.signal(signal.SIGCONT)
    terminal.sees("server 5 answers again")


@pytest.mark.soak
def test_with_keys_the_console_is_the_servers_own_operator(
    on_terminal: OnTerminal, source: Source, tmp_path: Path
) -> None:
    folder = KeyFolder(tmp_path / "keys")
    pair = folder.init()
    config = tmp_path / "config.toml"
    config.write_text(f'[broker]\nsecurity = "curve"\nkeys = "{folder.path}"\n')
    ports = free_ports()
    terminal = on_terminal("serve", "-c", str(config), "-f", str(source(MIB)), "-p", *map(str, ports))
    terminal.sees(READY)
    mark = terminal.press("4")
    terminal.sees("worker 4 fell asleep", mark)
    assert pair.public.hex() in terminal.text
    assert pair.secret.hex() not in terminal.text
    terminal.press("q")
    assert terminal.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "env"), [(["--plain"], {}), pytest.param([], {"TERM": "dumb"}, marks=pytest.mark.soak)]
)
def test_plain_and_dumb_terminals_get_the_plain_console(
    on_terminal: OnTerminal, source: Source, arguments: list[str], env: dict[str, str]
) -> None:
    terminal = on_terminal("serve", "-f", str(source(MIB)), "-p", *map(str, free_ports()), *arguments, env=env)
    terminal.sees("Enter your Choice:")
    terminal.press("-1\n")
    assert terminal.wait() == 0
    assert "\x1b" not in terminal.text


def test_without_a_terminal_console_says_what_to_use() -> None:
    ended = run_msd("console")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "msd: msd console needs a terminal in the foreground: use msd status --watch elsewhere\n"


@pytest.mark.soak
def test_a_console_of_servers_that_are_not_there_says_so_on_the_ordinary_screen(on_terminal: OnTerminal) -> None:
    terminal = on_terminal("console", "-p", *map(str, free_ports()))
    terminal.sees("does not answer: is msd serve running there?")
    assert terminal.wait() == 7
    assert ENTERED not in terminal.text


@pytest.mark.soak
def test_on_a_terminal_a_redraw_comes_at_most_10_times_a_second(
    serve: Serve, source: Source, on_terminal: OnTerminal
) -> None:
    """Even with a broker that publishes at every toggle of a storm of them."""
    system = serve(source(MIB))
    terminal = on_terminal("console", *system.server_flags)
    terminal.sees(READY)
    first = len(terminal.read)
    with OperatorClient(system.servers) as operator:
        stop = time.monotonic() + 3
        while time.monotonic() < stop:
            for number in (1, 2, 3, 4):
                operator.toggle(number, None)
    times = [at for at, _ in terminal.read[first:]]
    # What is read within 30 ms is one redraw; now and then one is read in two parts.
    redraws = 1 + sum(later - earlier > 0.03 for earlier, later in pairwise(times))
    assert 3 < redraws <= 12 * (times[-1] - times[0])


def test_a_download_does_not_import_the_console() -> None:
    command = ["download", "-p", "1001", "1002", "1003", "1004", "1005", "--timeout", "0.2"]
    code = (
        "import sys, msd.cli; sys.argv = ['msd', *sys.argv[1:]]; assert msd.cli._run() == 7; "
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'textual', 'matplotlib'}))"
    )
    ended = subprocess.run([sys.executable, "-P", "-c", code, *command], capture_output=True, text=True, check=True)
    assert ended.stdout == "\n"


def test_serve_plain_does_not_import_the_console(runtime_folder: Path, source: Source) -> None:
    code = (
        "import sys, msd.cli; sys.argv = ['msd', *sys.argv[1:]]; assert msd.cli._run() == 0; "
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'textual', 'matplotlib'}))"
    )
    ports = map(str, free_ports())
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code, "serve", "--plain", "-f", str(source(1000)), "-p", *ports],
        input="-1\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == ""
