"""Commands on terminals of all kinds, on pipes and with closed streams: no traceback, and the terminal is restored."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from tests.processes import (
    MIB,
    MSD,
    TIMEOUT,
    Process,
    Serve,
    Source,
    System,
    files_equal,
    free_ports,
    module_system,
    run_msd,
    wait_for,
)
from tests.terminal import EmulatedTerminal, OnTerminal, Terminal

#: The escape sequences at the start and the end of a frame of the live view.
FRAME_START, FRAME_END = "\x1b[?7l", "\x1b[?7h"
#: A stale terminal size, such as a program that uses readline leaves in the environment of its child processes.
STALE_SIZE = {"COLUMNS": "100", "LINES": "50"}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Servers that need 10 s to send their file. No test changes their state."""
    with module_system(tmp_path_factory.mktemp("slow"), 40 * MIB, "--rate", "1MiB") as system:
        yield system


def live_frames(terminal: Terminal) -> list[str]:
    """Returns the complete frames of the live view."""
    parts = [text.partition(FRAME_END) for text in terminal.text.split(FRAME_START)[1:]]
    return [frame for frame, end, _ in parts if end]


def screen_lines(terminal: Terminal) -> list[str]:
    """Returns the lines shown on a terminal that was never resized; the first line is the shell prompt."""
    emulated = EmulatedTerminal(200, rewraps=False)
    emulated.write("$\n" + terminal.text)
    return emulated.shown


def fits(terminal: Terminal, width: int, height: int) -> bool:
    """Returns True if the last frame fits this size and was not drawn for a narrower terminal: the line of the progress
    bar takes all columns but one.
    """
    frame = live_frames(terminal)[-1]
    return widest_line(frame) == width - 1 and frame.count("\n") + 1 < height


def is_drawn(terminal: Terminal, after: int, height: int) -> bool:
    return height in console_heights(terminal, after)


def console_heights(terminal: Terminal, after: int) -> list[int]:
    """Returns the number of the bottom line of each full redraw of the console after the first ``after`` characters."""
    redraws = terminal.text[after:].split("\x1b[1;1H")[1:]
    return [max(map(int, re.findall(r"\x1b\[(\d+);\d+H", redraw)), default=1) for redraw in redraws]


def widest_line(frame: str) -> int:
    """Returns the number of columns in the widest line of a frame."""
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", frame)
    return max(len(line) for line in text.replace("\r", "").split("\n"))


def test_the_live_view_follows_the_size_of_the_terminal_and_is_erased_at_the_end(
    slow: System, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    terminal = on_terminal("download", *slow.server_flags, "-o", str(copy), env=STALE_SIZE)
    terminal.expect("worker 4  ready")
    for width, height in ((40, 12), (120, 30), (20, 5), (80, 24)):
        terminal.resize(width, height)
        terminal.wait_until(f"a frame for {width} columns", partial(fits, terminal, width, height))
    terminal.press("\x03")
    assert terminal.wait() == 130
    text = "".join(screen_lines(terminal)).removeprefix("$").removeprefix("^C")
    assert re.fullmatch(
        r"msd: interrupted: \d+\.\d MiB of 40\.0 MiB verified; "
        r"progress saved in .*\.copy\.msd-part; run the same command to resume",
        text,
    )
    assert terminal.current_settings == terminal.settings


def test_a_command_that_exits_leaves_no_process_behind() -> None:
    with Terminal("--version") as terminal:
        wait_for("the end of the process", lambda: not Path(f"/proc/{terminal.pid}").exists())


def test_the_live_view_draws_at_most_10_frames_a_second(slow: System, on_terminal: OnTerminal, tmp_path: Path) -> None:
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"))
    terminal.expect("worker 4  ready")
    wait_for("some frames", lambda: len(live_frames(terminal)) > 6)
    times = [at for at, data in [*terminal.chunks] if FRAME_START.encode() in data]
    assert len(times) <= 10 * (times[-1] - times[0]) + 1


def test_a_killed_download_leaves_the_terminal_unchanged(slow: System, on_terminal: OnTerminal, tmp_path: Path) -> None:
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"))
    terminal.expect("worker 4  ready")
    terminal.signal(signal.SIGKILL)
    terminal.wait()
    assert terminal.current_settings == terminal.settings
    # The live view changes only the line-wrapping mode, and restores it at the end of each frame.
    modes = re.findall(r"\x1b\[\?(\d+)([hl])", terminal.text)
    assert {number for number, _ in modes} == {"7"}
    assert [value for _, value in modes] == ["l", "h"] * (len(modes) // 2)


def test_ctrl_z_suspends_a_download_which_continues_after_sigcont(
    slow: System, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"))
    terminal.expect("worker 4  ready")
    terminal.press("\x1a")
    wait_for(
        "the suspended process",
        lambda: Path(f"/proc/{terminal.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T",
    )
    wait_for("the erased live view", lambda: screen_lines(terminal) in (["$"], ["$", "^Z"]))
    before = len(terminal.text)
    terminal.signal(signal.SIGCONT)
    terminal.expect("worker 4  ready", before)


def test_ctrl_z_is_ignored_if_no_shell_could_continue_the_process(
    slow: System, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"), leads_session=True)
    terminal.expect("worker 4  ready")
    before = terminal.press("\x1a")
    terminal.expect("worker 4  ready", before)
    # A second Ctrl-Z is ignored, too.
    before = terminal.press("\x1a")
    terminal.expect("worker 4  ready", before)
    terminal.press("\x03")
    assert terminal.wait() == 130


@pytest.mark.parametrize(
    "env", [pytest.param({"TERM": "dumb"}, id="dumb"), pytest.param({"TERM": ""}, id="none", marks=pytest.mark.soak)]
)
def test_a_dumb_terminal_shows_the_metric_lines(
    serve: Serve, source: Source, on_terminal: OnTerminal, tmp_path: Path, env: dict[str, str]
) -> None:
    terminal = on_terminal(
        "download", *serve(source(MIB), workers=1).server_flags, "-o", str(tmp_path / "copy"), env=env
    )
    assert terminal.wait() == 0
    assert "\x1b" not in terminal.text
    assert "Total: 1048.58" in terminal.text


def test_no_color_turns_off_the_colours_of_the_live_view(slow: System, on_terminal: OnTerminal, tmp_path: Path) -> None:
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"), env={"NO_COLOR": "1"})
    terminal.expect("worker 4  ready")
    assert not re.search(r"\x1b\[3\dm", terminal.text)


def test_a_console_follows_the_size_of_the_terminal(serve: Serve, source: Source, on_terminal: OnTerminal) -> None:
    terminal = on_terminal("console", *serve(source(MIB)).server_flags, env=STALE_SIZE)
    terminal.expect("4 of 4 alive")
    terminal.expect("? help")
    assert max(console_heights(terminal, 0)) == 24
    for width, height in ((20, 5), (200, 60), (80, 24)):
        before = len(terminal.text)
        terminal.resize(width, height)
        terminal.wait_until(f"{height} lines", partial(is_drawn, terminal, before, height))
    before = terminal.press("1")
    terminal.expect("worker 1 was put to sleep", before)
    terminal.press("q")
    assert terminal.wait() == 0
    assert terminal.current_settings == terminal.settings


def test_a_choice_is_asked_for_only_where_input_can_arrive(
    on_terminal: OnTerminal, source: Source, tmp_path: Path
) -> None:
    """Without input the table on the terminal has no choices; with the output in a file there is no table."""
    flags = shlex.join(["--plain", "-n", "1", "-f", str(source(MIB))])

    def serve(redirection: str) -> Terminal:
        ports = " ".join(map(str, free_ports()[3:]))
        command = f"exec {shlex.join(MSD)} serve {flags} -p {ports} {redirection}"
        return on_terminal("-c", command, program=["sh"])

    unheard = serve("< /dev/null")
    journal = tmp_path / "journal"
    answered = serve(f"> {journal}")
    unheard.expect("Status: Alive")
    unheard.signal(signal.SIGTERM)
    assert unheard.wait() == 143
    assert "enter" not in unheard.text.lower()
    wait_for("the ready line", lambda: "ready: " in journal.read_text())
    answered.press("1\n-1\n")
    assert answered.wait() == 0
    lines = journal.read_text().splitlines()
    assert lines[0].startswith("ready: 1 worker shares 1 file; ")
    assert lines[-1].startswith("stopped by -1: 1 worker shared 1 file for 0:0")
    assert not any("Status:" in line or "enter" in line.lower() for line in lines)


def test_a_closed_pipe_is_not_an_error(serve: Serve, source: Source, tmp_path: Path) -> None:
    """The reader of standard output closes the pipe early, as in ``msd list | head -1``."""
    system = serve(source(MIB), "-i", "0.1", workers=1)
    download = "download -o copy --force"
    for command in ("list", "status", "status --watch", "status --json", download, f"{download} --json", "toggle 1"):
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w") as closed_pipe:
            ended = subprocess.run(
                [*MSD, *command.split(), *system.server_flags],
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=closed_pipe,
                stderr=subprocess.PIPE,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), command
        assert "rror" not in ended.stderr, command


def test_characters_unknown_to_the_terminals_encoding_are_replaced(
    slow: System, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    status = run_msd("status", *slow.server_flags, env={**os.environ, **ascii_only})
    assert (status.returncode, status.stderr) == (0, "")
    assert "? 1 " in status.stdout
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"), env=ascii_only)
    terminal.expect("worker 4  ready")
    terminal.expect("----")
    assert terminal.text.isascii()


def test_the_status_as_json_contains_the_events(serve: Serve, source: Source) -> None:
    system = serve(source(MIB))
    system.put_to_sleep(2)
    status = json.loads(run_msd("status", "--json", *system.server_flags).stdout)
    newest = status["events"][0]
    assert (newest["text"], newest["bad"]) == ("worker 2 was put to sleep by an operator on this machine", False)
    assert abs(newest["time"] - time.time()) < 3600


def test_commands_succeed_with_closed_standard_streams(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(MIB)
    system = serve(path, workers=1)
    for closed, *commands in (
        ("<&-", "download"),
        (">&-", "download", "list"),
        ("2>&-", "download", "status"),
        ("<&- >&- 2>&-", "download", "list", "status", "verify copy"),
    ):
        for command in commands:
            command = command.replace("download", "download -o copy --force")
            words = ["sh", "-c", f'exec "$@" {closed}', "sh", *MSD, *command.split(), *system.server_flags]
            ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), f"{command} {closed}"
        assert files_equal(path, tmp_path / "copy")


def test_verbose_logs_one_event_per_line_with_time_level_and_source(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
    line = re.compile(time + r" (debug  |info   |warning) (worker \d|server 5|client  ) \S.*")
    system = serve(source(8 * MIB), "--rate", "1MiB", "--verbose")
    with Process(
        [*MSD, "download", *system.server_flags, "-o", str(tmp_path / "copy"), "--verbose", "--json"]
    ) as client:
        wait_for("progress", lambda: '"progress"' in client.out.text)
        system.kill(2)
        wait_for("the death of worker 2", lambda: "worker 2 died: killed by SIGKILL" in system.err.text)
        assert client.wait() == 0
    run_msd("toggle", "3", *system.server_flags)
    wait_for("worker 3 asleep", lambda: "worker 3 was put to sleep by an operator on this machine" in system.err.text)
    wait_for("the client to appear in the log", lambda: "client 127.0.0.1 connected: now serving" in system.err.text)
    for log in (system.err.text, client.err.text):
        assert all(line.fullmatch(entry) for entry in log.splitlines()), log
        times = [entry.split()[0] for entry in log.splitlines()]
        assert all(earlier <= later for earlier, later in pairwise(times))
    assert re.search(r" warning worker 2 lost", client.err.text)
    assert re.search(r" info    worker 3 toggled by an operator on this machine\n", system.err.text)
    assert [line for _, line in system.out.lines if line.startswith("ready: 4 workers share 1 file; msd download")]


def test_shutting_down_is_logged_once_and_without_failures(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(MIB), "--until-done", "--verbose")
    with system.download("-o", "copy", cwd=tmp_path) as client:
        client.wait_until_done()
    assert system.wait() == 0
    assert system.err.text.count(" info    server 5 shutting down") == 1
    assert " warning worker" not in system.err.text
