"""Streams: which outputs are streams, writes that never block, and readers that close."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from msd.client.events import STANDARD_OUTPUT
from msd.client.storage.stream import PIPE_SIZE, Stream, is_standard_output, is_stream, open_stream
from msd.wire.errors import DiskError, OutputClosedError
from tests.processes import wait_for

DATA = memoryview(bytes(3 * PIPE_SIZE))


def no_wait(reason: str) -> None:
    pytest.fail(f"waited: {reason}")


@contextmanager
def standard_output(fd: int) -> Iterator[None]:
    """Makes ``fd`` the standard output. Not a fixture: pytest replaces descriptor 1 between fixtures and tests."""
    saved = os.dup(1)
    os.dup2(fd, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    with open(read, "rb"), open(write, "wb"):
        yield read, write


# Which outputs are streams.


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", Path("/dev/stdout")])
def test_these_paths_are_the_standard_output(output: str | Path) -> None:
    assert is_standard_output(output)
    assert is_stream(output)


@pytest.mark.parametrize("output", [None, "copy", "./-", Path("-"), "/dev/stdout.bin", "fifo/"])
def test_other_outputs_are_files_or_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str | Path | None
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    assert not is_standard_output(output)
    assert not is_stream(output)


def test_a_fifo_and_a_character_device_are_streams_and_a_link_to_one_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    assert is_stream(str(tmp_path / "fifo"))
    assert is_stream(tmp_path / "link")
    assert is_stream("/dev/null")


# Writing.


def test_a_pipe_takes_what_fits_and_does_not_block(pipe: tuple[int, int]) -> None:
    read, write = pipe
    with standard_output(write), closing(open_stream("-", no_wait)) as stream:
        assert stream.path == STANDARD_OUTPUT
        assert stream.write(DATA) == fcntl.fcntl(read, fcntl.F_GETPIPE_SZ)
        assert stream.write(DATA) == 0
        os.read(read, 1 << 16)
        assert stream.write(DATA) == 1 << 16
    assert os.get_blocking(write), "other programs share this open file"


def test_a_socket_is_written_in_pieces_that_do_not_block() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with standard_output(ours.fileno()), closing(open_stream("-", no_wait)) as stream:
            written = 0
            while count := stream.write(DATA):
                assert count <= select.PIPE_BUF
                written += count
            received = 0
            while received < written:
                received += len(theirs.recv(written))
            assert stream.write(DATA)
        assert ours.getblocking()


def test_a_redirected_standard_output_is_written_at_its_position(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before ")
    with (
        path.open("ab") as file,
        standard_output(file.fileno()),
        closing(open_stream("-", no_wait)) as stream,
    ):
        assert stream.write(memoryview(b"copy")) == 4
        stream.check_reader()
    assert path.read_bytes() == b"before copy"


def test_a_full_device_is_a_disk_error() -> None:
    message = r"^/dev/full: No space left on device: free some space, then run the same command again$"
    with closing(open_stream("/dev/full", no_wait)) as stream, pytest.raises(DiskError, match=message):
        stream.write(DATA)


def test_a_closed_standard_output_is_a_disk_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "__stdout__", None)
    with pytest.raises(DiskError, match="is closed: choose another path"):
        open_stream("-", no_wait)


def test_a_fifo_waits_for_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reasons: list[str] = []
    opened: list[Stream] = []
    thread = threading.Thread(target=lambda: opened.append(open_stream(path, reasons.append)))
    thread.start()
    wait_for("the reason", lambda: reasons == [f"no program reads {path}"])
    assert not opened
    with path.open("rb", buffering=0) as file:
        thread.join()
        with closing(opened[0]) as stream:
            while stream.write(DATA):
                pass
            assert file.read(10) == bytes(10)


# A reader that closes.


def test_a_write_to_a_closed_reader_is_its_own_error(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with closing(open_stream(path, no_wait)) as stream:
        stream.check_reader()
        os.close(fd)
        with pytest.raises(OutputClosedError, match=rf"^the reader of {path} closed it$"):
            stream.check_reader()
        with pytest.raises(OutputClosedError):
            stream.write(DATA)


@pytest.mark.parametrize("kind", ["pipe", "fifo"])
def test_a_reader_that_closed_the_standard_output_before_is_noticed(tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        read, write = os.pipe()
    else:
        os.mkfifo(tmp_path / "fifo")
        read = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        write = os.open(tmp_path / "fifo", os.O_WRONLY)
    os.close(read)
    with open(write, "wb"), standard_output(write), closing(open_stream("-", no_wait)) as stream:
        with pytest.raises(OutputClosedError):
            stream.check_reader()
        with pytest.raises(OutputClosedError):
            stream.write(DATA)
