"""The shared files as a worker reads them: ranges of the originals, never copies, never mmap.

A file that is truncated under an mmap kills the process that sends from it (SIGBUS); ``pread``
returns short, and the client gets a refusal. A file counts as shared only in the version of the
catalogue: that is checked on the opened file, before and after each read, so neither a rewritten
file nor one replaced by a link or a device is ever served.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from pathlib import Path

from msd.wire.protocol.segments import span
from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import SharedFile

#: Open files kept for the next request.
OPEN_FILES = 64


class Refused(Exception):
    """A segment cannot be read; ``args`` are the ``RefusalReason`` and a detail for people. ``data`` is what
    was read, if that much was, from a file that is not the version of the catalogue.
    """

    def __init__(self, reason: RefusalReason, detail: str, data: bytes = b"") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.data = data


class LocalFiles:
    """Reads segments of the files below ``root``, which is a folder or the one file shared."""

    def __init__(self, root: Path) -> None:
        self._root = root
        #: Descriptors by the names of the files; there is one of each name in a catalogue.
        self._open: OrderedDict[str, int] = OrderedDict()

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def read(self, file: SharedFile, index: int) -> bytes:
        """The bytes of segment ``index``. Raises ``Refused`` if they are not those of the catalogue."""
        offset, length = span(file.size, index)
        fd = self._descriptor(file)
        try:
            before = os.fstat(fd)
            data = os.pread(fd, length, offset)
            after = os.fstat(fd)
        except OSError as error:
            self._forget(file)
            raise _refused(error) from None
        version = file.version
        if len(data) != length or not (version.is_of(before) and version.is_of(after)):
            self._forget(file)
            raise Refused(RefusalReason.CHANGED, "the file is not the version that was indexed", data)
        return data

    def _descriptor(self, file: SharedFile) -> int:
        fd = self._open.get(file.name)
        if fd is None:
            try:
                fd, _ = open_shared(self._root, file.name)
            except OSError as error:
                raise _refused(error) from None
            self._open[file.name] = fd
            if len(self._open) > OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(file.name)
        return fd

    def _forget(self, file: SharedFile) -> None:
        fd = self._open.pop(file.name, None)
        if fd is not None:
            os.close(fd)


def _refused(error: OSError) -> Refused:
    match error.errno:
        case errno.ENOENT:
            return Refused(RefusalReason.CHANGED, "the file is gone")
        case errno.EMFILE | errno.ENFILE | errno.ENOMEM:
            return Refused(RefusalReason.BUSY, os.strerror(error.errno))  # That passes.
        case code:
            return Refused(RefusalReason.UNREADABLE, os.strerror(code or 0))


def open_shared(root: Path, name: str) -> tuple[int, os.stat_result]:
    """Opens the shared file ``name`` for reading: its descriptor and its status.

    ``root`` is the folder or the one file that is shared. Raises ``OSError``; ``PermissionError``
    for whatever is not a regular file inside of ``root``.
    """
    path = root / name if root.is_dir() else root
    # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        stat = os.fstat(fd)
        # Asked of the opened file, not of its path: nobody can swap a link in between.
        real = Path(os.readlink(f"/proc/self/fd/{fd}"))
        inside = real == root.resolve() or root.resolve() in real.parents
        if not inside or not _is_regular(stat):
            raise PermissionError(1, "not a regular file inside of what is shared", name)
    except BaseException:
        os.close(fd)
        raise
    return fd, stat


def _is_regular(stat: os.stat_result) -> bool:
    return (stat.st_mode & 0o170000) == 0o100000
