"""Detects that something other than its owner may have changed an open file.

Compares the status of the file around each change that the owner makes. Where the system can report it (inotify), also
notices every other program that opens the file: a change within one clock tick leaves the timestamps unchanged.

Does not read the file: the owner hashes it again if necessary.
"""

from __future__ import annotations

import ctypes
import os

#: The event for an opened file (inotify.h).
IN_OPEN = 0x20


class ChangeDetector:
    """Watches the file of descriptor ``fd``, which its owner has open and closes after ``close()``.

    The owner calls ``check()`` before each change of the file and ``record()`` after it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._inotify, self._watch = _watch(fd)
        self._status = os.fstat(fd)
        #: True if the status of the file has changed since the last ``reset()``, or if opens are not reported.
        self._changed = self._inotify is None

    @property
    def size(self) -> int:
        """The size of the file after the owner's last change."""
        return self._status.st_size

    def check(self) -> os.stat_result | None:
        """Returns the status of the file if it is not the recorded one."""
        status, last = os.fstat(self._fd), self._status
        if (
            status.st_mtime_ns == last.st_mtime_ns
            and status.st_ctime_ns == last.st_ctime_ns
            and status.st_size == last.st_size
            and status.st_nlink == last.st_nlink
        ):
            return None
        self._changed = True
        return status

    def record(self) -> None:
        """Takes the present status as the result of the owner's change."""
        self._status = os.fstat(self._fd)

    def reset(self) -> bool:
        """True if another program may have changed the file since the last call. Records the present status."""
        self.check()
        self._changed |= self.was_opened()
        changed, self._changed = self._changed, False
        self.record()
        return changed

    def was_opened(self) -> bool:
        """True if another program is known to have opened the file since the last call, or the last ``reset()``."""
        if self._inotify is None:
            return False
        try:
            os.read(self._inotify, 4096)
        except BlockingIOError:
            return False
        return True

    def stop(self) -> None:
        """Ends the reports of opens. A ``close()`` a millisecond later returns at once; without this call it would take
        the kernel 5 to 15 ms.
        """
        if self._inotify is not None:
            ctypes.CDLL(None).inotify_rm_watch(self._inotify, self._watch)

    def close(self) -> None:
        if self._inotify is not None:
            os.close(self._inotify)
            self._inotify = None


def _watch(fd: int) -> tuple[int | None, int]:
    """Returns a descriptor that is readable once the file of ``fd`` is opened again, None if that is impossible, and
    the number of the watch.
    """
    libc = ctypes.CDLL(None)
    inotify: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if inotify < 0:
        return None, 0
    watch: int = libc.inotify_add_watch(inotify, b"/proc/self/fd/%d" % fd, IN_OPEN)
    if watch < 0:
        os.close(inotify)
        return None, 0
    return inotify, watch
