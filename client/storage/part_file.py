"""``.OUT.msd-part``: verified segments are written at their offsets; the complete file is renamed to ``OUT``.

Keeps no journal, because a journal could list data that never reached the disk. To resume, the segments that an
earlier run wrote are hashed and compared with the manifest.

Other programs may touch the part file at any time. A file that they may have changed is hashed again before it is
renamed, so that ``OUT`` is the verified file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from msd.client.storage.change_detector import ChangeDetector
from msd.client.storage.locked_file import open_part_file
from msd.client.storage.open_folders import is_same_folder
from msd.client.storage.output import Output
from msd.client.storage.segments_on_disk import UNSUPPORTED, SegmentsOnDisk, disk_error, disk_errors, read_error
from msd.wire.errors import DiskError, UsageError
from msd.wire.protocol.segments import Manifest, segment_size

#: How often a complete file is hashed again because another program opened it meanwhile.
MAX_VERIFICATIONS = 3
_FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


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
        raise exists_error(output)


def exists_error(output: Path) -> UsageError:
    """Returns the error about a file that may not be replaced."""
    return UsageError(
        f"{output} exists: choose another path, bring it up to date or replace it",
        arguments=("output", "update", "force"),
    )


def set_attributes(fd: int, mtime_ns: int, mode: int) -> None:
    """Gives the open file the time ``mtime_ns`` and, if the shared file with the permissions ``mode`` is executable,
    makes it executable for all who may read it. 0 stands for unknown. Raises ``OSError``.
    """
    if mode & 0o111:
        own = os.fstat(fd).st_mode & 0o777
        os.fchmod(fd, own | (own & 0o444) >> 2)
    if mtime_ns:
        os.utime(fd, ns=(mtime_ns, mtime_ns))


class PartFile(Output):
    """The part file of ``output`` for one manifest. The caller must ``close()`` it.

    ``folder`` is a descriptor of the folder of ``output``; the file stays in this folder, wherever it is moved. Without
    it, the folder is opened and, if ``output`` is a symbolic link, the file that it leads to is replaced and the link
    is kept.

    The complete file gets the manifest's time of the last change and, if the shared file is executable, so is this one.

    A lock prevents two downloads from using the same part file at once. ``on_warning`` is called with what the file
    system does not support, and with what fails after the file is complete. With ``check_space`` False the file system
    is not asked for its free space. Methods raise ``DiskError``.
    """

    def __init__(
        self,
        output: Path,
        manifest: Manifest,
        *,
        folder: int | None = None,
        on_warning: Callable[[str], None] = lambda text: None,
        check_space: bool = True,
    ) -> None:
        with disk_errors(output):
            self._output = output.resolve() if folder is None and output.is_symlink() else output
        self._manifest = manifest
        self._segment_size = segment_size(manifest.size)
        self._on_warning = on_warning
        self._warnings: set[str] = set()
        self._check_space = check_space
        #: False if the file system cannot wait until the data is on the disk.
        self._can_sync = True
        self._has_own_folder = folder is None
        with disk_errors(self._output.parent):
            self._folder = os.dup(folder) if folder is not None else os.open(self._output.parent, _FOLDER_FLAGS)
        try:
            self._file = open_part_file(self._output, self._folder)
        except BaseException:
            os.close(self._folder)
            raise
        self.path, self._fd = self._file.path, self._file.fd
        for warning in self._file.warnings:
            self._warn(warning)
        #: Not locked, unlike the other one: a process that still reads it does not keep the next download from writing.
        #: None if the file cannot be opened for reading. Opened before the changes are watched.
        self._unlocked: int | None = None
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._unlocked = os.open(self.path.name, flags, dir_fd=self._folder)
        self._changes = ChangeDetector(self._fd)
        #: True once another program may have changed the file, until it is hashed again.
        self._is_suspect = False
        self._copy = SegmentsOnDisk(self._fd, manifest)
        try:
            with disk_errors(self.path):
                self._candidates = list(self._copy.candidates())
                self._set_size()
        except BaseException:
            PartFile.close(self)
            raise

    @property
    def descriptors(self) -> list[int]:
        return [self._unlocked] if self._unlocked is not None else []

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
        self._check_changes()
        return self._copy.try_read(index) is not None

    def write(self, index: int, data: memoryview) -> None:
        """Writes a segment at its offset."""
        offset = index * self._segment_size
        # Not ``_own_change``: a context manager would double the cost of the checks.
        self._check_changes()
        try:
            while data:
                written = os.pwrite(self._fd, data, offset)
                data = data[written:]
                offset += written
        except OSError as error:
            raise disk_error(self.path, error) from None
        self._changes.record()

    def sha256(self) -> str:
        """Reads the whole file and returns its SHA-256 as hexadecimal digits."""
        self._verify()
        with disk_errors(self.path, read_error):
            from msd.client.storage.sha256 import sha256_of  # Few downloads are given a SHA-256.

            return sha256_of(self._fd)

    def sync(self) -> None:
        with self._own_change():
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                self._can_sync = False  # ``publish`` reports it: this method may run in another thread.

    def publish(self, *, replace: bool, sync: bool) -> None:
        """Renames the part file to ``output``. With ``sync`` the rename survives a power failure.

        Raises ``UsageError`` if ``output`` exists and ``replace`` is False. What fails once the file has its name is
        only a warning, unless ``output`` is not the verified file.
        """
        with self._own_change():
            self._set_attributes(self._fd)
        self._verify()
        verified = os.fstat(self._fd)
        part, output = self.path.name, self._output.name
        with disk_errors(self._output):
            if replace:
                os.rename(part, output, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            else:
                self._rename_without_replacing()
            # At once: a program that waits for the output may open it soon.
            was_opened = self._changes.was_opened()
            self._changes.stop()
        self._check_output(verified, was_opened=was_opened)
        try:
            # The first name remains if the file was linked to ``output``, by this method or by another program.
            if self._file.has_name(part):
                os.unlink(part, dir_fd=self._folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._warn(f"{self._output} is complete, but {self.path} cannot be removed: {error.strerror}")
        if not self._can_sync:
            self._warn(f"{self._output} is complete, but its file system cannot say when the data is on the disk")
        elif sync:
            self._sync_folder()

    def close(self) -> None:
        """Closes the file, and removes it if it is empty."""
        self._changes.close()
        if not os.fstat(self._fd).st_size:
            self._discard()
        if self._unlocked is not None:
            os.close(self._unlocked)
        os.close(self._fd)
        os.close(self._folder)

    def _discard(self) -> None:
        """Removes the part file, unless another file has taken its path."""
        with contextlib.suppress(OSError):
            if self._file.has_name(self.path.name):
                os.unlink(self.path.name, dir_fd=self._folder)

    def _set_size(self) -> None:
        """Sets the file to its final size, after checking that the disk has room for the missing data."""
        if self._check_space:
            self._check_free_space()
        # Not posix_fallocate: it is slow on tmpfs, and some file systems emulate it by writing zeros.
        with self._own_change():
            os.ftruncate(self._fd, self._manifest.size)

    def _check_free_space(self) -> None:
        try:
            disk = os.fstatvfs(self._fd)
        except OSError:
            return
        if not disk.f_blocks:
            return  # The file system does not know its size.
        free = disk.f_bavail * disk.f_frsize
        needed = self._manifest.size - sum(end - start for start, end in self._copy.data_ranges())
        if needed > free:
            # Holes need no room. Most files have none, so look for them only now.
            needed -= sum(self._manifest.span(index)[1] for index in self.zero_segments())
        if needed > free:
            raise DiskError(
                f"{self._output}: needs {needed:,} more bytes but the disk has {free:,} free: free some space, then run"
                " the same command again, or do not check the space if the figure is wrong",
                arguments=("check_space",),
            )

    def _warn(self, text: str) -> None:
        """Reports a warning, but each only once."""
        if text not in self._warnings:
            self._warnings.add(text)
            self._on_warning(text)

    # What other programs do to the part file.

    @contextlib.contextmanager
    def _own_change(self) -> Iterator[None]:
        """Surrounds a change that this object makes to the file."""
        self._check_changes()
        with disk_errors(self.path):
            yield
            self._changes.record()

    def _check_changes(self) -> None:
        """Raises ``DiskError`` if the file was removed, replaced or truncated since the last own change. Other changes
        are remembered until ``_verify``.
        """
        if (status := self._changes.check()) is None:
            return
        self._check_in_place()
        if status.st_size != self._changes.size:
            raise DiskError(f"{self.path} was truncated or extended by another program: run the command again")

    def _check_in_place(self) -> None:
        try:
            if self._file.has_name(self.path.name) and self._is_folder_in_place():
                return
        except FileNotFoundError:
            pass
        except OSError as error:
            raise disk_error(self.path, error) from None
        raise DiskError(f"{self.path} was removed or replaced during the download: run the command again")

    def _is_folder_in_place(self) -> bool:
        """True unless the folder that this object opened has another path now. Raises ``OSError``."""
        return not self._has_own_folder or is_same_folder(os.fstat(self._folder), os.stat(self._output.parent))

    def _verify(self) -> None:
        """Makes sure that the complete file has the verified content: if another program may have changed it since it
        was written, hashes it again.
        """
        for _ in range(MAX_VERIFICATIONS):
            self._check_changes()
            self._check_in_place()
            self._is_suspect |= self._changes.reset()
            if not self._is_suspect:
                return
            self._warn(f"another program may have changed {self.path}: verifying it again")
            self._hash()
            self._is_suspect = False
        raise DiskError(f"{self.path} keeps being opened or changed by another program: run the command again")

    def _hash(self) -> None:
        """Raises ``DiskError`` unless every segment matches the manifest."""
        for index in range(self._manifest.segments):
            with disk_errors(self.path, read_error):
                matches = self._copy.read(index) is not None
            if not matches:
                raise DiskError(f"{self.path} was changed by another program: run the command again to mend it")

    def _check_output(self, verified: os.stat_result, *, was_opened: bool) -> None:
        """Raises ``DiskError`` if ``output`` is not the verified file: another program may have acted between the last
        check and the rename. ``verified`` is the status at that check.
        """
        try:
            is_ours = self._file.has_name(self._output.name)
        except OSError:
            return  # A program that waited for the output has already moved it away.
        if not is_ours:
            raise DiskError(f"{self._output} is not the downloaded file: another program replaced it")
        status = os.fstat(self._fd)
        if was_opened or (status.st_size, status.st_mtime_ns) != (verified.st_size, verified.st_mtime_ns):
            self._hash()

    def _sync_folder(self) -> None:
        try:
            folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            self._warn(
                f"{self._output} is complete, but its name may not survive a power failure: its folder cannot be"
                f" synced: {error.strerror}"
            )

    def _set_attributes(self, fd: int) -> None:
        """Gives the open file the time and the executable bits of the shared file."""
        try:
            set_attributes(fd, self._manifest.mtime_ns, self._manifest.mode)
        except OSError as error:
            self._warn(f"{self._output}: its time and mode cannot be set: {error.strerror}")

    def _rename_without_replacing(self) -> None:
        """Gives the part file its final name, but never replaces a file that was created since the download started."""
        part, output = self.path.name, self._output.name
        try:
            os.link(part, output, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=False)
        except FileExistsError:
            raise UsageError(
                f"{self._output} was created in the meantime: choose another path, bring it up to date or replace it",
                arguments=("output", "update", "force"),
            ) from None
        except OSError:
            # A file system without hard links: check, then rename (not atomic).
            check_output(self._output, replace=False)
            os.rename(part, output, src_dir_fd=self._folder, dst_dir_fd=self._folder)
