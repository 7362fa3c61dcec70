"""A stream that a download can be written to: standard output, a FIFO or a character device.

Writes bytes without blocking. ``client/storage/stream_output.py`` puts the segments in order.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from msd.client.events import STANDARD_OUTPUT
from msd.wire.errors import DiskError, OutputClosedError

#: A larger pipe needs fewer system calls and fewer switches between the two programs. The kernel's default is 64 KiB,
#: and this is the most that it allows every user.
PIPE_SIZE = 1 << 20
#: The paths that stand for the standard output of this process.
_STANDARD_OUTPUT_PATHS = (str(STANDARD_OUTPUT), "/dev/fd/1", "/proc/self/fd/1")


class Stream:
    """An open stream. The caller must ``close()`` it.

    ``fd`` does not block, or ``max_write`` is the number of bytes that can be written without blocking once it is
    writable.
    """

    def __init__(self, path: Path, fd: int, max_write: int | None = None) -> None:
        self.path = path
        self.fd = fd
        self._max_write = max_write
        self._writable, self._closed = select.poll(), select.poll()
        self._writable.register(fd, select.POLLOUT)
        self._closed.register(fd, 0)
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def write(self, data: memoryview) -> int:
        """Writes as many bytes as the reader takes now, and returns their number.

        Raises ``OutputClosedError`` if the reader has closed the stream, and ``DiskError``.
        """
        try:
            if self._max_write is None:
                return os.write(self.fd, data)
            return os.write(self.fd, data[: self._max_write]) if self._writable.poll(0) else 0
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _write_error(self.path, error) from None

    def check_reader(self) -> None:
        """Raises ``OutputClosedError`` if the reader has closed the stream."""
        if self._closed.poll(0):
            raise OutputClosedError(f"the reader of {self.path} closed it")

    def close(self) -> None:
        os.close(self.fd)


def is_standard_output(output: str | Path | None) -> bool:
    """True if ``output`` is ``-`` or another name of the standard output. ``Path("-")`` is a file of that name."""
    return output == "-" or (output is not None and os.fspath(output) in _STANDARD_OUTPUT_PATHS)


def is_stream(output: str | Path | None) -> bool:
    """True if ``output`` is the standard output, a FIFO or a character device."""
    if output is None or is_standard_output(output):
        return output is not None
    try:
        mode = os.stat(output).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def open_stream(output: str | Path, on_wait: Callable[[str], None]) -> Stream:
    """Opens a stream. Raises ``MsdError``.

    Waits until a program opens a FIFO for reading, and first calls ``on_wait`` with the reason.
    """
    if is_standard_output(output):
        return _open_standard_output()
    path, flags = Path(output), os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY
    try:
        try:
            fd = os.open(path, flags | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            on_wait(f"no program reads {path}")
            fd = os.open(path, flags)
            os.set_blocking(fd, False)
    except OSError as error:
        raise _write_error(path, error) from None
    return Stream(path, fd)


def _open_standard_output() -> Stream:
    if sys.__stdout__ is None:
        raise DiskError(f"{STANDARD_OUTPUT} is closed: choose another path", arguments=("output",))
    try:
        mode = os.fstat(1).st_mode
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            return Stream(STANDARD_OUTPUT, os.dup(1))
        try:
            # The new open file can be made non-blocking. Other programs share the existing one: a shell, for example,
            # may be unable to handle a terminal that has become non-blocking.
            fd = os.open("/proc/self/fd/1", os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            # A socket, a FIFO whose reader has closed it, or a pipe or terminal of another user.
            return Stream(STANDARD_OUTPUT, os.dup(1), max_write=select.PIPE_BUF)
    except OSError as error:
        raise _write_error(STANDARD_OUTPUT, error) from None
    return Stream(STANDARD_OUTPUT, fd)


def _write_error(path: Path, error: OSError) -> DiskError | OutputClosedError:
    if error.errno in (errno.EPIPE, errno.ECONNRESET):
        return OutputClosedError(f"the reader of {path} closed it")
    hint = {
        errno.ENOSPC: ": free some space, then run the same command again",
        errno.EDQUOT: ": free some of your quota, then run the same command again",
        errno.EACCES: ": choose another path",
    }.get(error.errno or 0, "")
    arguments = ("output",) if error.errno == errno.EACCES else ()
    return DiskError(f"{path}: {error.strerror or error}{hint}", arguments=arguments)
