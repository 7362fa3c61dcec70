"""Lines are written from a thread: in order, in full or not at all, and without blocking the caller."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator

import pytest

from msd.wire.support import line_writer
from msd.wire.support.line_writer import MAX_QUEUED, LineWriter
from tests.processes import wait_for


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    writer = LineWriter(descriptor)
    assert [writer.write(line) for line in (b"1\n", b"2\n")] == [True, True]
    writer.close()
    assert os.read(reader, 100) == b"1\n2\n"


def test_without_lines_no_thread_is_started() -> None:
    threads = threading.active_count()
    writer = LineWriter(-1)
    assert threading.active_count() == threads
    writer.close()


def test_lines_are_dropped_without_a_reader_but_not_those_that_must_be_kept(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    writer = LineWriter(descriptor)
    line = b"x" * 999 + b"\n"
    while writer.write(line):
        pass
    assert writer._queue.qsize() >= MAX_QUEUED
    assert writer.write(b"last\n", may_drop=False)
    writer.close(timeout=0.01)
    data = b""
    while not data.endswith(b"last\n"):
        data += os.read(reader, 65536)
    assert {*data.splitlines()} == {line[:-1], b"last"}


def test_more_lines_than_usual_are_queued_up_to_a_number_of_bytes(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    writer = LineWriter(descriptor, queue_size=1 << 20)
    line = b"x" * 99 + b"\n"
    written = sum(iter(lambda: len(line) * writer.write(line), 0))
    # The pipe holds 64 KiB.
    assert (1 << 20) <= written <= (1 << 20) + (2 << 16)
    for _ in range(written // len(line)):
        os.read(reader, len(line))
    writer.close()
    assert writer._queued == writer._taken == written


def test_a_closed_pipe_is_no_error_and_a_full_disk_is_one() -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    writer = LineWriter(descriptor)
    writer.write(b"lost\n")
    writer.close()
    os.close(descriptor)
    with open("/dev/full", "wb", buffering=0) as full:
        writer = LineWriter(full.fileno())
        writer.write(b"lost\n")
        with pytest.raises(OSError, match="No space left") as caught:
            writer.close()
    assert caught.value.errno == errno.ENOSPC


def test_a_terminal_that_forbids_output_in_the_background_gets_it_later(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, descriptor = pipe
    os.set_blocking(reader, False)
    checks = 0
    may_write = False

    def check(checked: int) -> bool:
        nonlocal checks
        checks += 1
        return may_write

    monkeypatch.setattr(line_writer, "may_write", check)
    monkeypatch.setattr(line_writer, "FOREGROUND_CHECK_INTERVAL_S", 0.001)
    writer = LineWriter(descriptor)
    writer.write(b"later\n")
    wait_for("some checks", lambda: checks > 3)
    with pytest.raises(BlockingIOError):
        os.read(reader, 10)
    may_write = True
    writer.close()
    assert os.read(reader, 10) == b"later\n"
