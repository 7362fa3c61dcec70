"""Printed lines are flushed immediately, and a closed pipe is not an error."""

from __future__ import annotations

import errno
import io
import os

import pytest

from msd.wire.support.output import print_line


def test_a_line_is_flushed_immediately() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as reader, os.fdopen(write_end, "w") as writer:
        print_line("first", writer)
        assert reader.read(100) == b"first\n"


def test_a_closed_pipe_is_ignored() -> None:
    class ClosedPipe(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    print_line("lost", ClosedPipe())


def test_a_full_disk_is_an_error() -> None:
    class FullDisk(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        print_line("lost", FullDisk())
