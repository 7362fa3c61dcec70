"""What a file on this disk holds of one version of a shared file: read, hashed, compared.

Writes nothing: see ``client/storage/part_file.py``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from msd.wire.errors import DiskError
from msd.wire.protocol.segments import Manifest, digest


class LocalCopy:
    """An open file, compared with a manifest. The descriptor stays the caller's to close."""

    def __init__(self, fd: int, manifest: Manifest) -> None:
        self._fd = fd
        self._manifest = manifest
        self._buffer = memoryview(bytearray(manifest.span(0)[1] if manifest.size else 0))
        #: By length.
        self._digests_of_zeros: dict[int, bytes] = {}

    def read(self, index: int) -> memoryview | None:
        """Segment ``index`` if the file holds it as it was shared; valid until the next call.

        What the disk cannot read it does not hold: ``load`` tells the difference.
        """
        try:
            return self.load(index)
        except OSError:
            return None

    def load(self, index: int) -> memoryview | None:
        """As ``read``, but raises ``OSError`` where the disk fails."""
        offset, length = self._manifest.span(index)
        data = self._buffer[:length]
        read = os.preadv(self._fd, [data], offset)
        return data if read == length and digest(data) == self._manifest.digest(index) else None

    def is_zeros(self, index: int) -> bool:
        """True if the segment is to be nothing but zeros."""
        _, length = self._manifest.span(index)
        if length not in self._digests_of_zeros:
            self._digests_of_zeros[length] = digest(bytes(length))
        return self._manifest.digest(index) == self._digests_of_zeros[length]

    def candidates(self) -> Iterator[int]:
        """The segments of which the file holds any data, in order."""
        last = -1
        for start, end in self.data():
            for index in range(max(start // len(self._buffer), last + 1), -(-end // len(self._buffer))):
                last = index
                yield index

    def data(self) -> Iterator[tuple[int, int]]:
        """Where the file holds data rather than holes, in bytes from and to; nothing past the size
        that it should have. All of it, where its file system knows no holes.
        """
        end, size = 0, self._manifest.size
        while end < size:
            try:
                start = os.lseek(self._fd, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    yield 0, min(size, os.fstat(self._fd).st_size)
                elif error.errno != errno.ENXIO:
                    raise
                return
            end = min(os.lseek(self._fd, start, os.SEEK_HOLE), size)
            if start < end:
                yield start, end


def disk_error(path: Path, error: OSError) -> DiskError:
    """The error to show for one of the system's about ``path``, with what to do."""
    hint = {
        errno.ENOSPC: ": make room, then run it again; the part file is kept",
        errno.EDQUOT: ": free some of your quota, then run it again; the part file is kept",
        errno.EIO: ": the disk has a fault; the part file is kept",
        errno.ENAMETOOLONG: ": give a shorter -o",
        errno.EACCES: ": give an -o in a folder you may write to",
        errno.EROFS: ": give an -o on a disk that can be written",
    }.get(error.errno or 0, "")
    return DiskError(f"{path}: {error.strerror or error}{hint}")


def unreadable(path: Path, error: OSError) -> DiskError:
    """The error to show where a file that is there cannot be read."""
    hint = {
        errno.EIO: ": the disk has a fault",
        errno.EACCES: ": give yourself the right to read it, with chmod u+r",
    }.get(error.errno or 0, "")
    return DiskError(f"{path}: cannot be read: {error.strerror or error}{hint}")
