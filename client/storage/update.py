"""``--update``: reuses the matching segments of an existing ``OUT``.

Reads ``OUT`` and never writes to it. Segments that match the manifest are copied into the part file, which replaces
``OUT`` at the end. Where files can share data (btrfs, XFS), the part file begins as a clone of ``OUT`` instead. Nothing
is copied before the first difference is found. An ``OUT`` that is up to date only gets the time and the executable bits
of the shared file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path

from msd.client.storage.part_file import PartFile, exists_error
from msd.client.storage.segments_on_disk import UNSUPPORTED, SegmentsOnDisk, disk_errors, read_error
from msd.client.storage.sha256 import sha256_of
from msd.client.storage.system_calls import clone_file
from msd.wire.errors import DiskError
from msd.wire.protocol.segments import Manifest


class UpdatePartFile(PartFile):
    """The part file of an ``output`` that exists. If both files contain a segment, the part file's copy is used."""

    def __init__(
        self,
        output: Path,
        manifest: Manifest,
        *,
        folder: int | None = None,
        on_warning: Callable[[str], None] = lambda text: None,
        check_space: bool = True,
    ) -> None:
        with disk_errors(output, read_error):
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            if folder is None:
                self._output_fd = os.open(output, flags)
            else:
                self._output_fd = os.open(output.name, flags | os.O_NOFOLLOW, dir_fd=folder)
        self._initial_status = os.fstat(self._output_fd)
        self._output_matches = self._initial_status.st_size == manifest.size
        #: True if the part file began as a clone of ``output``: then it has what matches.
        self._is_clone = False
        #: Matching segments of ``output`` that were found before the first difference and are not copied yet.
        self._uncopied: deque[int] = deque()
        self._uncopied_bytes = 0
        self._output_copy = SegmentsOnDisk(self._output_fd, manifest)
        try:
            with disk_errors(output):
                in_output = {*self._output_copy.candidates()}
                super().__init__(output, manifest, folder=folder, on_warning=on_warning, check_space=check_space)
        except BaseException:
            os.close(self._output_fd)
            raise
        self._part_candidates = {*self._candidates}
        self._candidates = sorted(self._part_candidates | in_output)

    @property
    def saved_progress(self) -> str:
        return "run the same command to resume" if self._output_matches else super().saved_progress

    @property
    def data_location(self) -> str:
        return "" if self._output_matches else super().data_location

    @property
    def output_matches(self) -> bool:
        """True while every segment checked so far matches; if all match, ``output`` is kept."""
        return self._output_matches

    @property
    def descriptors(self) -> list[int]:
        return [*super().descriptors, self._output_fd]

    def holds(self, index: int) -> bool:
        if not self._output_matches:
            return self._part_holds(index) or self._copy_from_output(index)
        if self._output_copy.try_read(index) is not None:
            self._uncopied.append(index)
            self._uncopied_bytes += self._manifest.span(index)[1]
            return True
        self._begin_new_version()
        return self._part_holds(index)

    def write(self, index: int, data: memoryview) -> None:
        if self._output_matches:
            self._begin_new_version()
        super().write(index, data)

    def copy_next(self) -> bool:
        """Copies one segment that only ``output`` has; False if none is left.

        Raises ``DiskError`` if that segment has changed since it was checked.
        """
        if self._output_matches or self._is_clone or not self._uncopied:
            return False
        index = self._uncopied.popleft()
        self._uncopied_bytes -= self._manifest.span(index)[1]
        if not self._part_holds(index):
            with disk_errors(self._output, read_error):
                data = self._output_copy.read(index)
            if data is None:
                raise self._modified_error()
            self.write(index, data)
        return True

    @property
    def uncopied_bytes(self) -> int:
        """Bytes of matching segments that are not copied yet; if all of ``output`` matches, they are never copied."""
        return 0 if self._is_clone else self._uncopied_bytes

    def sha256(self) -> str:
        if not self._output_matches:
            return super().sha256()
        with disk_errors(self._output, read_error):
            return sha256_of(self._output_fd)

    def sync(self) -> None:
        if not self._output_matches:
            super().sync()
            return
        with disk_errors(self._output):
            os.fdatasync(self._output_fd)

    def publish(self, *, replace: bool, sync: bool) -> None:
        try:
            now = os.stat(self._output.name, dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            raise self._modified_error() from None
        is_same = os.path.samestat(now, self._initial_status) or not self._file.has_stable_inodes
        if not is_same or _size_and_times(now) != _size_and_times(self._initial_status):
            raise self._modified_error()
        if self._output_matches:
            self._set_attributes(self._output_fd)
            self._discard()
            return
        self._copy_mode()
        super().publish(replace=replace, sync=sync)

    def close(self) -> None:
        os.close(self._output_fd)
        super().close()

    def _set_size(self) -> None:
        # The part file needs no space while the output may be up to date.
        if not self._output_matches:
            # The next run must be able to resume, even if the output is read-only.
            self._copy_mode(extra=stat.S_IRUSR | stat.S_IWUSR)
            if not os.fstat(self._fd).st_size:
                with self._own_change():
                    self._is_clone = clone_file(self._output_fd, self._fd)
            super()._set_size()

    def _copy_mode(self, extra: int = 0) -> None:
        """Gives the part file the permissions of ``output``, plus the mode bits ``extra``."""
        mode = self._initial_status.st_mode & 0o777 | extra
        if os.fstat(self._fd).st_mode & 0o777 == mode:
            return
        with self._own_change():
            try:
                os.fchmod(self._fd, mode)
            except OSError as error:
                if error.errno not in {errno.EPERM, *UNSUPPORTED}:
                    raise
                self._warn(f"{self._output}: the file system cannot keep its mode {mode:o}")

    def _begin_new_version(self) -> None:
        """Prepares the part file when the first difference is found; from then on, segments are written to it."""
        self._output_matches = False
        with disk_errors(self.path):
            self._set_size()

    def _copy_from_output(self, index: int) -> bool:
        """Copies a segment from ``output`` into the part file, unless that has it; False if it does not match."""
        data = self._output_copy.try_read(index)
        if data is None:
            return False
        if not self._is_clone:
            self.write(index, data)
        return True

    def _part_holds(self, index: int) -> bool:
        """True if the part file has the segment: as data, or as a hole if the segment is all zeros."""
        if index in self._part_candidates:
            return super().holds(index)
        return not self._is_clone and self._copy.is_all_zeros(index)

    def _modified_error(self) -> DiskError:
        return DiskError(f"{self._output} was modified during the update: run the command again")


class ComparedPartFile(UpdatePartFile):
    """The part file of an ``output`` that is kept if it has the shared content, and may not be replaced: otherwise,
    raises ``UsageError`` at the first difference.
    """

    def _set_size(self) -> None:
        if not self._output_matches:
            raise exists_error(self._output)


def _size_and_times(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
