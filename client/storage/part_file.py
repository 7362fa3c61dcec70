"""``OUT.part``: verified segments are written at their offsets; the complete file is renamed to ``OUT``.

Keeps no journal, because a journal could list data that never reached the disk. To resume, the segments that an
earlier run wrote are hashed and compared with the manifest.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from msd.client.storage.output import Output
from msd.client.storage.segments_on_disk import SegmentsOnDisk, disk_error, disk_errors, read_error
from msd.client.storage.sha256 import sha256_of
from msd.wire.errors import DiskError, UsageError
from msd.wire.protocol.segments import Manifest


def check_output(output: Path, *, replace: bool) -> None:
    """Raises ``MsdError`` if a download cannot be saved as ``output``. Changes nothing on the disk."""
    try:
        status = output.stat()
    except FileNotFoundError:
        if output.is_symlink():
            raise UsageError(
                f"{output} is a dangling symbolic link: remove it, or choose another path", arguments=("output",)
            ) from None
        if not output.parent.is_dir():
            raise UsageError(
                f"{output.parent}: no such folder: create it, or choose another path", arguments=("output",)
            ) from None
        return
    except NotADirectoryError:
        raise UsageError(f"{output.parent} is not a folder: choose another path", arguments=("output",)) from None
    except OSError as error:
        raise disk_error(output, error) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise UsageError(f"{output} is {kind}: give the name of a file", arguments=("output",))
    if not replace:
        raise UsageError(
            f"{output} exists: choose another path, bring it up to date or replace it",
            arguments=("output", "update", "force"),
        )


class PartFile(Output):
    """The part file of ``output`` for one manifest. The caller must ``close()`` it.

    A lock prevents two downloads from using the same part file at once. Methods raise ``DiskError``.
    """

    def __init__(self, output: Path, manifest: Manifest) -> None:
        self._output = output
        self._manifest = manifest
        self.path = output.with_name(output.name + ".part")
        self._fd = _open_locked(self.path)
        self._copy = SegmentsOnDisk(self._fd, manifest)
        try:
            with disk_errors(self.path):
                self._candidates = list(self._copy.candidates())
                self._set_size()
        except BaseException:
            PartFile.close(self)
            raise

    @property
    def saved_progress(self) -> str:
        return f"progress saved in {self.path}; run the same command to resume"

    @property
    def data_location(self) -> str:
        # An empty part file is removed.
        return f"; the data is kept in {self.path}" if self._manifest.size else ""

    def candidates(self) -> list[int]:
        return self._candidates

    def zero_segments(self) -> Iterator[int]:
        written = set(self.candidates())
        for index in range(self._manifest.segments):
            if self._copy.is_all_zeros(index) and index not in written:
                yield index

    def holds(self, index: int) -> bool:
        return self._copy.try_read(index) is not None

    def write(self, index: int, data: memoryview) -> None:
        """Writes a segment at its offset."""
        offset, _ = self._manifest.span(index)
        try:
            while data:
                written = os.pwrite(self._fd, data, offset)
                data = data[written:]
                offset += written
        except OSError as error:
            raise disk_error(self.path, error) from None

    def sha256(self) -> str:
        """Reads the whole file and returns its SHA-256 as hexadecimal digits."""
        with disk_errors(self.path, read_error):
            return sha256_of(self._fd)

    def sync(self) -> None:
        with disk_errors(self.path):
            os.fdatasync(self._fd)

    def publish(self, *, replace: bool, sync: bool) -> None:
        """Renames the part file to ``output``. With ``sync`` the rename survives a power failure.

        Raises ``UsageError`` if ``output`` exists and ``replace`` is False.
        """
        with disk_errors(self._output):
            if not os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                raise DiskError(f"{self.path} was replaced during the download: run the command again")
            if replace:
                os.rename(self.path, self._output)
            else:
                self._rename_without_replacing()
            if sync:
                folder = os.open(self._output.parent, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)

    def close(self) -> None:
        """Closes the file, and removes it if it is empty."""
        if not os.fstat(self._fd).st_size:
            self._discard()
        os.close(self._fd)

    def _discard(self) -> None:
        """Removes the part file, unless another file has taken its path."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                os.unlink(self.path)

    def _set_size(self) -> None:
        """Sets the file to its final size, after checking that the disk has room for the missing bytes."""
        present = sum(end - start for start, end in self._copy.data_ranges())
        _check_free_space(self._fd, self._output, self._manifest.size - present)
        # Not posix_fallocate: it is slow on tmpfs, and some file systems emulate it by writing zeros.
        os.ftruncate(self._fd, self._manifest.size)

    def _rename_without_replacing(self) -> None:
        """Renames the part file, but never over a file that was created since the download started."""
        try:
            os.link(self.path, self._output, follow_symlinks=False)
        except FileExistsError:
            raise UsageError(
                f"{self._output} was created in the meantime: choose another path, bring it up to date or replace it",
                arguments=("output", "update", "force"),
            ) from None
        except OSError:
            # A file system without hard links: check, then rename (not atomic).
            check_output(self._output, replace=False)
            os.rename(self.path, self._output)
        else:
            os.unlink(self.path)


def _open_locked(path: Path) -> int:
    """Opens and locks the part file, and returns its descriptor.

    Retries if the path refers to another file by the time the lock is held.

    A second hard link means that an earlier run was killed between linking the file to ``output`` and removing the part
    file's name. Writing to the file would change ``output``, so the part file's name is removed and a new file created.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise disk_error(path, error) from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise DiskError(
                    f"{path} is not a regular file: remove it, or choose another path", arguments=("output",)
                )
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(fd)
            if os.path.samestat(status, os.lstat(path)):
                if status.st_nlink <= 1:
                    return fd
                os.unlink(path)
        except FileNotFoundError:
            pass  # Another download renamed or removed the part file after it was opened.
        except BlockingIOError:
            os.close(fd)
            raise DiskError(
                f"{path}: another download is writing to this file: wait for it to finish, or choose another path",
                arguments=("output",),
            ) from None
        except OSError as error:
            os.close(fd)
            raise disk_error(path, error) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _check_free_space(fd: int, output: Path, needed: int) -> None:
    disk = os.fstatvfs(fd)
    free = disk.f_bavail * disk.f_frsize
    if needed > free:
        raise DiskError(
            f"{output}: needs {needed:,} more bytes but the disk has {free:,} free: "
            "free some space, then run the same command again"
        )
