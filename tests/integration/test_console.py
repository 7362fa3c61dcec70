"""The console on a real terminal, started by ``msd serve`` or ``msd console``. It always restores the terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path

import pytest

from msd.broker.operator.operator_client import OperatorClient
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.security.keys import KeyFolder
from tests.processes import MIB, Ports, Serve, Source, free_ports, is_free, run_msd
from tests.terminal import OnTerminal, Terminal

#: The escape sequences that a console writes when it starts and ends.
ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"
READY = "4 of 4 alive"
#: A terminal's answer to the question whether it supports synchronized output, and what then begins each redraw.
SUPPORTS_SYNCHRONIZED_OUTPUT, REDRAW = "\x1b[?2026;2$y", "\x1b[?2026h"


@pytest.fixture
def serving(on_terminal: OnTerminal, source: Source) -> tuple[Terminal, Ports]:
    """Starts ``msd serve`` on a terminal and waits for its console."""
    ports = free_ports()
    terminal = on_terminal("serve", "-f", str(source(MIB)), "-i", "0.5", "-p", *map(str, ports))
    terminal.expect(READY)
    return terminal, ports


def is_restored(terminal: Terminal) -> bool:
    return terminal.text.rfind(LEFT) > terminal.text.rfind(ENTERED) and terminal.current_settings == terminal.settings


def console_of(terminal: Terminal) -> int:
    """Returns the pid of the console that ``msd serve`` has started."""
    children = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read_text().split()
    (pid,) = (int(pid) for pid in children if b"console" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    return pid


def states(ports: Ports) -> list[str]:
    with OperatorClient(locate_servers(Config(), ports=ports)) as operator:
        return [worker.state.value for worker in operator.status().workers]


def test_serve_on_a_terminal_shows_a_console_that_toggles_and_quits(serving: tuple[Terminal, Ports]) -> None:
    terminal, ports = serving
    before = terminal.press("2")
    terminal.expect("worker 2 was put to sleep", before)
    assert states(ports) == ["awake", "asleep", "awake", "awake"]
    before = terminal.press("\x1b[Bt")  # down and t: toggles worker 2 again
    terminal.expect("worker 2 was woken up", before)
    command = f"msd download -a 127.0.0.1 -p {' '.join(map(str, ports))}"
    before = terminal.press("y")  # to the clipboard, by OSC 52
    terminal.expect(f"\x1b]52;c;{b64encode(command.encode()).decode()}", before)
    before = terminal.press("x")
    terminal.expect("? help", before)
    terminal.press("q")
    assert terminal.wait() == 0
    assert is_restored(terminal)
    assert "Traceback" not in terminal.text
    # The command for clients stays on the main screen, where users can copy it.
    assert command in terminal.text[: terminal.text.find(ENTERED)]
    assert all(map(is_free, ports))


@pytest.mark.parametrize(
    ("keys", "number", "code"),
    [("\x03", None, 130), pytest.param("", signal.SIGTERM, 143, marks=pytest.mark.soak)],
)
def test_ctrl_c_and_sigterm_end_the_servers_and_restore_the_terminal(
    serving: tuple[Terminal, Ports], keys: str, number: signal.Signals | None, code: int
) -> None:
    terminal, _ = serving
    if number is None:
        terminal.press(keys)
    else:
        terminal.signal(number)
    assert terminal.wait() == code
    assert is_restored(terminal)


def test_after_the_console_is_killed_the_servers_continue_with_the_plain_console(
    serving: tuple[Terminal, Ports],
) -> None:
    terminal, _ = serving
    before = len(terminal.text)
    os.kill(console_of(terminal), signal.SIGKILL)
    terminal.expect("the servers keep running with the plain console", before)
    terminal.expect("Enter your Choice:", before)
    assert is_restored(terminal)
    before = terminal.press("3\n")
    terminal.expect("Status: Dead To shut down/wake up enter 3", before)
    terminal.press("-1\n")
    assert terminal.wait() == 0


def test_a_console_ends_when_its_broker_is_killed(serving: tuple[Terminal, Ports]) -> None:
    terminal, _ = serving
    terminal.signal(signal.SIGKILL)
    assert terminal.wait() == -signal.SIGKILL
    terminal.expect("msd: msd serve and its workers ended unexpectedly: start msd serve again")
    assert is_restored(terminal)


def test_msd_console_toggles_and_does_not_end_the_servers(
    serve: Serve, source: Source, on_terminal: OnTerminal
) -> None:
    system = serve(source(MIB))
    terminal = on_terminal("console", *system.server_flags)
    terminal.expect(READY)
    before = terminal.press("1")
    terminal.expect("worker 1 was put to sleep", before)
    before = len(terminal.text)
    system.kill(2)
    terminal.expect("worker 2 died: killed by SIGKILL", before)
    terminal.resize(200, 60)
    terminal.signal(signal.SIGWINCH)
    terminal.press("q")
    assert terminal.wait() == 0
    assert is_restored(terminal)
    assert system.process.poll() is None


@pytest.mark.soak
def test_a_console_reconnects_to_a_restarted_broker(serve: Serve, source: Source, on_terminal: OnTerminal) -> None:
    path = source(MIB)
    system = serve(path)
    terminal = on_terminal("console", *system.server_flags)
    terminal.expect(READY)
    system.process.kill()
    terminal.expect("SERVER 5 HAS NOT ANSWERED since")
    serve(path, ports=system.ports)
    terminal.expect("server 5 restarted")
    terminal.signal(signal.SIGTERM)
    assert terminal.wait() == 143
    assert is_restored(terminal)


@pytest.mark.soak
def test_a_frozen_broker_raises_an_alarm_until_it_continues(
    serve: Serve, source: Source, on_terminal: OnTerminal
) -> None:
    system = serve(source(MIB), "-i", "60")
    terminal = on_terminal("console", *system.server_flags)
    terminal.expect(READY)
    system.signal(signal.SIGSTOP)
    try:
        terminal.expect("SERVER 5 HAS NOT ANSWERED since")
    finally:
        system.signal(signal.SIGCONT)
    terminal.expect("server 5 answers again")


@pytest.mark.soak
def test_with_keys_the_console_uses_the_servers_own_key_as_operator(
    on_terminal: OnTerminal, source: Source, tmp_path: Path
) -> None:
    folder = KeyFolder(tmp_path / "keys")
    pair = folder.init()
    config = tmp_path / "config.toml"
    config.write_text(f'[broker]\nsecurity = "curve"\nkeys = "{folder.path}"\n')
    ports = free_ports()
    terminal = on_terminal("serve", "-c", str(config), "-f", str(source(MIB)), "-p", *map(str, ports))
    terminal.expect(READY)
    before = terminal.press("4")
    terminal.expect("worker 4 was put to sleep", before)
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
    terminal.expect("Enter your Choice:")
    terminal.press("-1\n")
    assert terminal.wait() == 0
    assert "\x1b" not in terminal.text


def test_without_a_terminal_msd_console_suggests_msd_status() -> None:
    ended = run_msd("console")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "msd: msd console needs a terminal in the foreground: use msd status --watch instead\n"


@pytest.mark.soak
def test_a_console_without_servers_prints_its_error_on_the_main_screen(on_terminal: OnTerminal) -> None:
    terminal = on_terminal("console", "-p", *map(str, free_ports()))
    terminal.expect("refuses the connection: is msd serve running there?")
    assert terminal.wait() == 7
    assert ENTERED not in terminal.text


@pytest.mark.soak
def test_a_worker_that_is_limited_to_a_low_rate_is_marked_as_slow(
    serve: Serve, source: Source, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    workers = [f"[[workers]]\nport = {1000 + number}\nrate = '{rate}'" for number, rate in enumerate(("4MiB",) * 3)]
    config.write_text("\n".join([*workers, "[[workers]]\nport = 1003\nrate = '1MiB'\n"]))
    system = serve(source(400 * MIB), "-c", str(config))
    terminal = on_terminal("console", *system.server_flags)
    terminal.expect(READY)
    with system.download("-o", str(tmp_path / "copy")):
        terminal.expect("slow: worker 4")
        terminal.expect("Alive, slow")
        printed = run_msd("status", *system.server_flags).stdout
    assert [line.split()[1] for line in printed.splitlines() if "Alive, slow" in line] == ["4"]


@pytest.mark.soak
def test_a_console_on_a_terminal_redraws_at_most_10_times_a_second(
    serve: Serve, source: Source, on_terminal: OnTerminal
) -> None:
    """
    1. The console learns that its terminal supports synchronized output: it then marks each redraw.
    2. The test toggles workers as fast as possible; the broker publishes a snapshot after each toggle.
    """
    system = serve(source(MIB))
    terminal = on_terminal("console", *system.server_flags)
    terminal.expect(READY)
    terminal.press(SUPPORTS_SYNCHRONIZED_OUTPUT)
    # Textual draws twice if a widget changes its size. On a wide terminal the details of a worker fit on one line.
    terminal.resize(200, 24)
    terminal.signal(signal.SIGWINCH)
    with OperatorClient(system.servers) as operator:

        def count_redraws(seconds: float) -> int:
            before = terminal.text.count(REDRAW)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for number in (1, 2, 3, 4):
                    operator.toggle(number, None)
            return terminal.text.count(REDRAW) - before

        count_redraws(1)  # Fills the list of events, which changes its size until then.
        assert 3 < count_redraws(3) <= 12 * 3


def imported_by(*arguments: str, code: int, stdin: str = "") -> str:
    """Runs a command, checks its exit code, and returns which of textual and matplotlib the command imported."""
    program = (
        f"import sys, msd.cli; sys.argv = ['msd', *sys.argv[1:]]; assert msd.cli._run() == {code}; "
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'textual', 'matplotlib'}))"
    )
    command = [sys.executable, "-P", "-c", program, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout.splitlines()[-1]


def test_a_download_does_not_import_the_console() -> None:
    assert not imported_by("download", "-p", "1001", "1002", "1003", "1004", "1005", "--timeout", "0.2", code=7)


def test_serve_plain_does_not_import_the_console(runtime_folder: Path, source: Source) -> None:
    flags = ("-f", str(source(1000)), "-p", *map(str, free_ports()))
    assert not imported_by("serve", "--plain", *flags, code=0, stdin="-1\n")
