"""Reads ranges of the shared files with ``pread``.

Does not use mmap: truncating a mapped file kills the process that reads it (SIGBUS), whereas
``pread`` returns fewer bytes and the client gets a refusal. Serves a file only in the version that the
catalogue describes. The version is checked on the open descriptor before and after each read, so a file
that was rewritten or replaced (by a link or a device, for example) is never served.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG

from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import SharedFile, Version
from msd.workers.source.file_systems import FileSystems
from msd.workers.source.share import Share
from msd.workers.source.source import ReadRefused, Wait

#: Maximum number of files kept open for later requests.
MAX_OPEN_FILES = 64


class LocalFiles:
    """Reads the files of ``share`` that are below a path: see ``Source``."""

    def __init__(self, share: Share) -> None:
        self._share = share
        #: Open descriptors by file name, least recently used first.
        self._open: OrderedDict[str, int] = OrderedDict()
        #: The names of the files read since the last call of ``close_unread()``.
        self._read_names: set[str] = set()
        self._file_systems = FileSystems()

    def close(self) -> None:
        self._file_systems.clear()
        while self._open:
            os.close(self._open.popitem()[1])

    def close_unread(self) -> None:
        """Closes the files that were not read since the last call: an open file keeps its file system mounted, and a
        deleted file on the disk.
        """
        for name in self._open.keys() - self._read_names:
            self._close_file(name)
        self._read_names.clear()

    def waits_for(self, file: SharedFile) -> Wait | None:
        """Returns where the file's file system is mounted, if another machine or program serves it."""
        return self._file_systems.wait(file.version.device)

    def has_reliable_versions(self, file: SharedFile) -> bool:
        """True if a file cannot change without a change of its times."""
        return self._file_systems.has_reliable_times(file.version.device)

    def read(self, file: SharedFile, offset: int, length: int) -> bytes | ReadRefused:
        if self.waits_for(file) is not None:
            return self._read_once(file, offset, length)
        try:
            data = _read(self._descriptor(file), file, offset, length)
        except OSError as error:
            data = read_refused(error)
        if isinstance(data, ReadRefused):
            self._close_file(file.name)
        return data

    def _read_once(self, file: SharedFile, offset: int, length: int) -> bytes | ReadRefused:
        """Opens the file for one read: descriptors are kept in one thread only."""
        try:
            fd, _ = open_shared(self._share, file.name)
            try:
                return _read(fd, file, offset, length)
            finally:
                os.close(fd)
        except OSError as error:
            return read_refused(error)

    def _descriptor(self, file: SharedFile) -> int:
        fd = self._open.get(file.name)
        if fd is None:
            fd, _ = open_shared(self._share, file.name)
            self._open[file.name] = fd
            if len(self._open) > MAX_OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(file.name)
        self._read_names.add(file.name)
        return fd

    def _close_file(self, name: str) -> None:
        fd = self._open.pop(name, None)
        if fd is not None:
            os.close(fd)


def _read(fd: int, file: SharedFile, offset: int, length: int) -> bytes | ReadRefused:
    """Reads a range of an open file. Raises ``OSError``."""
    before = os.fstat(fd)
    data = os.pread(fd, length, offset)
    after = os.fstat(fd)
    is_unchanged = before.st_mtime_ns == after.st_mtime_ns and before.st_ctime_ns == after.st_ctime_ns
    if is_unchanged and len(data) == length and Version.of(after) == file.version:
        return data
    return ReadRefused(RefusalReason.CHANGED, "the file is not the version that was indexed", data)


def read_refused(error: OSError) -> ReadRefused:
    """Returns why a file is refused that cannot be read because of ``error``."""
    match error.errno:
        case errno.ENOENT:
            return ReadRefused(RefusalReason.CHANGED, "the file was deleted or renamed")
        case errno.EMFILE | errno.ENFILE | errno.ENOMEM:
            return ReadRefused(RefusalReason.BUSY, os.strerror(error.errno))  # Temporary: clients retry.
        case code:
            return ReadRefused(RefusalReason.UNREADABLE, os.strerror(code or 0))


def open_shared(share: Share, name: str) -> tuple[int, os.stat_result]:
    """Opens the shared file ``name`` for reading; returns the file's descriptor and status.

    Raises ``OSError``; in particular ``PermissionError`` if ``name`` is not a regular file below a shared path. Only
    with ``follow_links`` may a link lead elsewhere.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise PermissionError(1, "not a name below a shared path", name)
    # O_NONBLOCK: without it, opening a FIFO that has no writer blocks.
    fd = os.open(share.locate(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        stat = os.fstat(fd)
        if not S_ISREG(stat.st_mode) or not (share.follow_links or _is_below(fd, share.roots.values())):
            raise PermissionError(1, "not a regular file below a shared path", name)
    except BaseException:
        os.close(fd)
        raise
    return fd, stat


def _is_below(fd: int, roots: Iterable[Path]) -> bool:
    """True if an open file is, or is inside, one of ``roots``. The check of the open descriptor, not of its path, holds
    if the path was replaced by a link in between.
    """
    path = os.readlink(f"/proc/self/fd/{fd}") + "/"
    if path.startswith(_real(tuple(roots))):
        return True
    # A root may have been replaced by a link since its real path was cached.
    _real.cache_clear()
    return path.startswith(_real(tuple(roots)))


@lru_cache(1)
def _real(roots: tuple[Path, ...]) -> tuple[str, ...]:
    """Returns the real path of each shared path, with ``/`` at its end. Cached: it takes longer than to read a file."""
    return tuple(os.path.join(os.path.realpath(root), "") for root in roots)
