"""Reads a local file and compares its segments with a manifest.

Only reads; ``client/storage/part_file.py`` writes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from msd.wire.errors import DiskError
from msd.wire.protocol.segments import Manifest, digest

#: The errors of a file system that lacks an operation: locks, holes, or waiting until data is on the disk.
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP})


class SegmentsOnDisk:
    """An open file and the manifest to compare it with. The caller closes the descriptor."""

    def __init__(self, fd: int, manifest: Manifest) -> None:
        self._fd = fd
        self._manifest = manifest
        self._buffer = memoryview(bytearray(manifest.span(0)[1] if manifest.size else 0))
        #: The digest of an all-zero segment, by the segment's length in bytes.
        self._zero_digests: dict[int, bytes] = {}

    def read(self, index: int) -> memoryview | None:
        """Returns segment ``index`` if its data matches the manifest, else None. The data is valid until the next call.

        Raises ``OSError`` if the segment cannot be read.
        """
        offset, length = self._manifest.span(index)
        data = self._buffer[:length]
        read = os.preadv(self._fd, [data], offset)
        return data if read == length and digest(data) == self._manifest.digest(index) else None

    def try_read(self, index: int) -> memoryview | None:
        """Like ``read``, but also returns None if the segment cannot be read."""
        try:
            return self.read(index)
        except OSError:
            return None

    def is_all_zeros(self, index: int) -> bool:
        """True if, according to the manifest, the segment consists only of zeros."""
        _, length = self._manifest.span(index)
        if length not in self._zero_digests:
            self._zero_digests[length] = digest(bytes(length))
        return self._manifest.digest(index) == self._zero_digests[length]

    def candidates(self) -> Iterator[int]:
        """Yields, in ascending order, the segments in which the file has any data (not just a hole)."""
        last = -1
        for start, end in self.data_ranges():
            for index in range(max(start // len(self._buffer), last + 1), -(-end // len(self._buffer))):
                last = index
                yield index

    def data_ranges(self) -> Iterator[tuple[int, int]]:
        """Yields the ranges of the file that contain data rather than holes, as (start, end) in bytes.

        Ends at the size in the manifest. On a file system without holes, yields the whole file as one range.
        """
        end, size = 0, self._manifest.size
        while end < size:
            try:
                start = os.lseek(self._fd, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno in UNSUPPORTED:
                    yield 0, min(size, os.fstat(self._fd).st_size)
                elif error.errno != errno.ENXIO:
                    raise
                return
            end = min(os.lseek(self._fd, start, os.SEEK_HOLE), size)
            if start < end:
                yield start, end


@contextlib.contextmanager
def disk_errors(path: Path, convert: Callable[[Path, OSError], DiskError] | None = None) -> Iterator[None]:
    """Converts an ``OSError`` about ``path`` with ``convert`` (default: ``disk_error``) and raises the result."""
    try:
        yield
    except OSError as error:
        raise (convert or disk_error)(path, error) from None


class UnusableDiskError(DiskError):
    """No file can be saved any more: the disk or the user's quota is full, or another download uses the folder."""


def disk_error(path: Path, error: OSError) -> DiskError:
    """Converts an ``OSError`` about ``path`` into a ``DiskError``, with a hint if the cause is known."""
    hint = {
        errno.ENOSPC: ": free some space, then run the same command again; the part file is kept",
        errno.EDQUOT: ": free some of your quota, then run the same command again; the part file is kept",
        errno.EIO: ": check the disk; the part file is kept",
        errno.EFBIG: ": choose a file system that can store files of this size",
        errno.ENAMETOOLONG: ": choose a shorter name",
        errno.EACCES: ": choose a folder that you can write to",
        # Nothing can be created in the folders of /proc, for example.
        errno.ENOENT: ": choose another folder",
        errno.EROFS: ": choose a folder on a writable disk",
    }.get(error.errno or 0, "")
    arguments = ("output",) if hint.startswith(": choose") else ()
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (UnusableDiskError if is_full else DiskError)(
        f"{path}: {error.strerror or error}{hint}", arguments=arguments
    )


def read_error(path: Path, error: OSError) -> DiskError:
    """Like ``disk_error``, but for an existing file that cannot be read."""
    hint = {
        errno.EIO: ": check the disk",
        errno.EACCES: ": make it readable with chmod u+r",
    }.get(error.errno or 0, "")
    return DiskError(f"{path}: cannot be read: {error.strerror or error}{hint}")
