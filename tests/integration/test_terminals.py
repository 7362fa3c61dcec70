"""Commands on terminals of all kinds, on pipes, and without standard input: no traceback, nothing broken."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from tests.system import MIB, MSD, TIMEOUT, Process, Serve, Source, System, files_equal, run_msd, wait_for
from tests.terminal import Terminal
from tests.unit.client.display.test_terminal_painter import Screen

OnTerminal = Callable[..., Terminal]
#: What begins and what ends a picture.
PICTURE, END = "\x1b[?7l", "\x1b[?7h"
#: A size that some program has left in the environment, as readline does for all that is started from it.
LEFT_BEHIND = {"COLUMNS": "100", "LINES": "50"}


@pytest.fixture
def on_terminal(runtime_folder: Path) -> Iterator[OnTerminal]:
    """Starts a command on a terminal of its own; ends it after the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(Terminal(*arguments, **options))


@pytest.fixture
def slow(serve: Serve, source: Source) -> System:
    """Servers of a file that takes a while."""
    return serve(source(40 * MIB), "--rate", "1MiB")


def pictures(terminal: Terminal) -> list[str]:
    """Those that are complete."""
    drawn = [text.partition(END) for text in terminal.text.split(PICTURE)[1:]]
    return [picture for picture, end, _ in drawn if end]


def shown(terminal: Terminal) -> list[str]:
    """What stands there, below a prompt, if nothing was ever resized."""
    screen = Screen(200, breaks=False)
    screen.write("$\n" + terminal.text)
    return screen.shown


def fits(terminal: Terminal, width: int, height: int) -> bool:
    """The last picture is that of a terminal of this size, and of no narrower one: its bar takes all but two
    columns, up to 50.
    """
    picture = pictures(terminal)[-1]
    return min(width - 2, 50) <= widest(picture) < width and picture.count("\n") + 1 < height


def is_drawn(terminal: Terminal, mark: int, height: int) -> bool:
    return height in frames(terminal, mark)


def frames(terminal: Terminal, mark: int) -> list[int]:
    """The lowest line of each frame of the console that begins at its first one, after so many characters."""
    drawn = terminal.text[mark:].split("\x1b[1;1H")[1:]
    return [max(map(int, re.findall(r"\x1b\[(\d+);\d+H", frame)), default=1) for frame in drawn]


def widest(picture: str) -> int:
    """The columns of a picture's widest line."""
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", picture)
    return max(len(line) for line in text.replace("\r", "").split("\n"))


def test_a_download_follows_the_size_of_its_terminal_and_leaves_nothing_of_its_picture(
    slow: System, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    terminal = on_terminal("download", *slow.server_flags, "-o", str(copy), env=LEFT_BEHIND)
    terminal.sees("worker 4  ready")
    for width, height in ((40, 12), (120, 30), (20, 5), (80, 24)):
        terminal.resize(width, height)
        terminal.until(f"a picture of {width} columns", partial(fits, terminal, width, height))
    terminal.press("\x03")
    assert terminal.wait() == 130
    told = "".join(shown(terminal)).removeprefix("$").removeprefix("^C")
    assert re.fullmatch(
        r"msd: interrupted: \d+\.\d MiB of 40\.0 MiB verified so far; "
        r"what .*copy\.part holds stays, run the same command again to go on",
        told,
    )
    assert terminal.settings_now == terminal.settings


def test_a_command_that_has_ended_by_itself_leaves_nothing_behind() -> None:
    with Terminal("--version") as terminal:
        wait_for("its end", lambda: not Path(f"/proc/{terminal.pid}").exists())


def test_pictures_come_at_most_10_times_a_second(slow: System, on_terminal: OnTerminal, tmp_path: Path) -> None:
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"))
    terminal.sees("worker 4  ready")
    wait_for("some pictures", lambda: len(pictures(terminal)) > 6)
    times = [at for at, data in [*terminal.read] if PICTURE.encode() in data]
    assert len(times) <= 10 * (times[-1] - times[0]) + 1


def test_a_download_that_is_killed_leaves_the_terminal_as_it_was(
    slow: System, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"))
    terminal.sees("worker 4  ready")
    terminal.signal(signal.SIGKILL)
    terminal.wait()
    assert terminal.settings_now == terminal.settings
    # Nothing was switched on or off but the wrapping of lines, and that only within a picture.
    switched = re.findall(r"\x1b\[\?(\d+)([hl])", terminal.text)
    assert {number for number, _ in switched} == {"7"}
    assert [to for _, to in switched] == ["l", "h"] * (len(switched) // 2)


def test_a_download_that_is_stopped_by_ctrl_z_gives_the_terminal_to_the_shell_and_goes_on(
    slow: System, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"))
    terminal.sees("worker 4  ready")
    terminal.press("\x1a")
    wait_for("it to stop", lambda: Path(f"/proc/{terminal.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    wait_for("the picture to go", lambda: shown(terminal) in (["$"], ["$", "^Z"]))
    mark = len(terminal.text)
    terminal.signal(signal.SIGCONT)
    terminal.sees("worker 4  ready", mark)


def test_ctrl_z_stops_nothing_where_no_shell_could_continue_it(
    slow: System, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"), leads=True)
    terminal.sees("worker 4  ready")
    mark = terminal.press("\x1a")
    terminal.sees("worker 4  ready", mark)
    # Nor does the second one.
    mark = terminal.press("\x1a")
    terminal.sees("worker 4  ready", mark)
    terminal.press("\x03")
    assert terminal.wait() == 130


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": ""}], ids=["dumb", "none"])
def test_a_dumb_terminal_gets_the_metric_lines(
    serve: Serve, source: Source, on_terminal: OnTerminal, tmp_path: Path, env: dict[str, str]
) -> None:
    terminal = on_terminal("download", *serve(source(MIB)).server_flags, "-o", str(tmp_path / "copy"), env=env)
    assert terminal.wait() == 0
    assert "\x1b" not in terminal.text
    assert "Total: 1048.58" in terminal.text


def test_without_colours_the_view_is_the_same_but_for_them(
    slow: System, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"), env={"NO_COLOR": "1"})
    terminal.sees("worker 4  ready")
    assert not re.search(r"\x1b\[3\dm", terminal.text)


def test_a_resized_console_and_a_stopped_one_go_on(slow: System, on_terminal: OnTerminal) -> None:
    terminal = on_terminal("console", *slow.server_flags, env=LEFT_BEHIND)
    terminal.sees("4 of 4 alive")
    terminal.sees("? help")
    assert max(frames(terminal, 0)) == 24
    for width, height in ((20, 5), (200, 60), (80, 24)):
        mark = len(terminal.text)
        terminal.resize(width, height)
        terminal.until(f"{height} lines", partial(is_drawn, terminal, mark, height))
    mark = terminal.press("1")
    terminal.sees("worker 1 fell asleep", mark)
    terminal.press("q")
    assert terminal.wait() == 0
    assert terminal.settings_now == terminal.settings


@pytest.mark.parametrize(
    "command", ["list", "status", "status --watch", "status --json", "download -o copy --force", "toggle 1 --wake"]
)
def test_a_reader_that_has_seen_enough_ends_nothing_badly(
    serve: Serve, source: Source, tmp_path: Path, command: str
) -> None:
    """As in ``msd list | head -1``."""
    system = serve(source(MIB), "-i", "0.1")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        ended = subprocess.run(
            [*MSD, *command.split(), *system.server_flags],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert "rror" not in ended.stderr


def test_a_terminal_of_another_encoding_is_shown_what_it_knows(
    slow: System, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    old = {"PYTHONIOENCODING": "ascii"}
    told = run_msd("status", *slow.server_flags, env={**os.environ, **old})
    assert (told.returncode, told.stderr) == (0, "")
    assert "? 1 " in told.stdout
    terminal = on_terminal("download", *slow.server_flags, "-o", str(tmp_path / "copy"), env=old)
    terminal.sees("worker 4  ready")
    terminal.sees("----")
    assert terminal.text.isascii()


def test_status_as_data_says_what_happened(slow: System) -> None:
    slow.put_to_sleep(2)
    status = json.loads(run_msd("status", "--json", *slow.server_flags).stdout)
    newest = status["events"][0]
    assert (newest["text"], newest["bad"]) == ("worker 2 fell asleep", False)
    assert abs(newest["time"] - time.time()) < 3600


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(serve: Serve, source: Source, tmp_path: Path, closed: str) -> None:
    path = source(MIB)
    system = serve(path)
    for command in ("download -o copy --force", "list", "status", "verify copy"):
        words = [*MSD, *command.split(), *system.server_flags]
        ended = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), command
    assert files_equal(path, tmp_path / "copy")


def test_verbose_logs_an_event_a_line_with_time_level_and_worker(serve: Serve, source: Source, tmp_path: Path) -> None:
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
    line = re.compile(time + r" (debug  |info   |warning) (worker \d|server 5|client  ) \S.*")
    system = serve(source(8 * MIB), "--rate", "1MiB", "--verbose")
    with Process(
        [*MSD, "download", *system.server_flags, "-o", str(tmp_path / "copy"), "--verbose", "--json"]
    ) as client:
        wait_for("progress", lambda: '"progress"' in client.out.text)
        system.kill(2)
        wait_for("the word of it", lambda: "worker 2 died: killed by SIGKILL" in system.err.text)
        assert client.wait() == 0
    run_msd("toggle", "3", *system.server_flags)
    wait_for("the word of it", lambda: "worker 3 fell asleep" in system.err.text)
    wait_for("the word of it", lambda: "a client came: 1 served now" in system.err.text)
    for told in (system.err.text, client.err.text):
        assert all(line.fullmatch(each) for each in told.splitlines()), told
        times = [each.split()[0] for each in told.splitlines()]
        assert all(earlier <= later for earlier, later in pairwise(times))
    assert re.search(r" warning worker 2 lost", client.err.text)
    assert re.search(r" info    worker 3 is toggled\n", system.err.text)
    assert [line for _, line in system.out.lines if line.startswith("ready: 4 workers share 1 file; msd download")]


def test_an_orderly_end_is_logged_once_and_not_as_failures(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(MIB), "--until-done", "--verbose")
    with system.download("-o", "copy", cwd=tmp_path) as client:
        client.wait_until_done()
    assert system.wait() == 0
    assert system.err.text.count(" info    server 5 ends, and all workers") == 1
    assert " warning worker" not in system.err.text
