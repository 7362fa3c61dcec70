"""The access log: its lines, a file that is moved, a disk that is full, and a reader that does not read."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from msd.broker.status.access_log import MAX_QUEUED, AccessLog, access_line
from msd.broker.status.downloads import DownloadEnded
from msd.wire.errors import UsageError
from msd.wire.protocol.states import DownloadState
from tests.processes import wait_for
from tests.unit.broker.views.test_client_rows import download

BROKEN, DONE = DownloadState.BROKEN, DownloadState.DONE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def log(path: Path) -> Iterator[AccessLog]:
    with closing(AccessLog(path)) as log:
        yield log


def wait_for_lines(path: Path, *lines: str) -> None:
    text = "".join(f"{line}\n" for line in lines)
    wait_for(f"{lines} in {path}", lambda: path.exists() and path.read_text() == text)


def fields(line: str) -> dict[str, str]:
    """The fields of a line, as a shell splits them."""
    _, *words = shlex.split(line)
    return dict(word.split("=", 1) for word in words)


def test_a_line_says_who_downloaded_what_from_how_many_and_how_it_ended() -> None:
    ended = DownloadEnded(download(state=DONE, peers=2, peer_bytes=7, seconds=62.04, bytes=9, received=8))
    line = access_line(ended, 1_795_953_905.7)
    assert re.fullmatch(
        r"2026-11-\d\dT\d\d:\d\d:05[+-]\d\d:\d\d client=laptop host=192\.0\.2\.7 what=film\.mkv end=done bytes=9"
        r" received=8 seconds=62\.0 files=1 workers=4 peers=2 peer_bytes=7",
        line,
    )


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (DownloadEnded(download(state=BROKEN, exit_code=130)), ("broken", "130")),
        (DownloadEnded(download(state=BROKEN), is_silent=True), ("silent", None)),
    ],
)
def test_a_line_says_why_a_download_is_broken(ended: DownloadEnded, expected: Any) -> None:
    parsed = fields(access_line(ended, 0.0))
    assert (parsed["end"], parsed.get("exit_code")) == expected


@pytest.mark.parametrize("text", ["photos/ *.mkv", "", 'a"b', "a=b", "Zoë", "a\\b", "client=x end=done"])
def test_a_text_cannot_be_mistaken_for_another_field(text: str) -> None:
    parsed = fields(access_line(DownloadEnded(download(selection=text, client=text, state=DONE)), 0.0))
    assert (parsed["what"], parsed["client"], parsed["end"]) == (text, text, "done")


def test_lines_are_appended(path: Path) -> None:
    for lines in ("ab", "c"):
        with closing(AccessLog(path)) as log:
            for line in lines:
                log.write(line)
    wait_for_lines(path, "a", "b", "c")
    assert path.stat().st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def test_a_file_that_was_moved_or_removed_is_opened_again(path: Path, log: AccessLog, tmp_path: Path) -> None:
    log.write("a")
    wait_for_lines(path, "a")
    path.rename(tmp_path / "access.log.1")
    log.write("b")
    wait_for_lines(path, "b")
    wait_for_lines(tmp_path / "access.log.1", "a")
    path.unlink()
    log.write("c")
    wait_for_lines(path, "c")
    assert log.new_problem() == ""


def test_a_full_disk_is_reported_once_and_a_torn_line_is_ended(
    path: Path, log: AccessLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room, refused = os.write, [2], [0]

    def limited(descriptor: int, data: bytes) -> int:
        if not room[0]:
            refused[0] += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", limited)
    log.write("first")
    log.write("second")
    problem = wait_for("the problem", log.new_problem)
    assert problem == f"access log {path}: No space left on device"
    wait_for("the second line", lambda: refused[0] == 2)
    assert log.new_problem() == ""
    room[0] = 1000
    log.write("third")
    wait_for_lines(path, "fi", "third")
    wait_for("the end of the problem", lambda: not log._problem)
    assert log.new_problem() == ""
    room[0] = 0
    log.write("fourth")
    wait_for("the problem again", log.new_problem)


def test_a_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"access_log .*: Is a directory: name a file that can be written"):
        AccessLog(tmp_path)
    with pytest.raises(UsageError, match="No such file or directory"):
        AccessLog(tmp_path / "missing" / "access.log")


def test_a_reader_that_does_not_read_holds_up_nothing(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(UsageError, match="No such device or address"):
        AccessLog(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with closing(AccessLog(fifo)) as log:
            for _ in range(5):
                log.write("x" * 20_000)
            # A pipe of 64 KiB has room for three lines: the thread waits with the fourth.
            wait_for("a full pipe", lambda: log._queue.qsize() == 1)
            for _ in range(MAX_QUEUED * 2):
                log.write("x" * 20_000)
        assert log._thread.is_alive()
    finally:
        os.close(reader)
    log._thread.join(10)
    assert not log._thread.is_alive()
    os.close(log._descriptor)
