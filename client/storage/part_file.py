"""``OUT.part``: verified segments at their places, then one rename.

There is no journal that could run ahead of the data. What an earlier run left is a source like any
other: hashed against the manifest and kept where it is right.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from msd.client.storage.local_copy import LocalCopy, disk_error
from msd.wire.errors import DiskError, UsageError
from msd.wire.protocol.segments import Manifest


def check_output(output: Path, *, replace: bool) -> None:
    """Raises ``MsdError`` if a download to ``output`` cannot end well; touches nothing."""
    try:
        status = output.stat()
    except FileNotFoundError:
        if output.is_symlink():
            raise UsageError(f"{output} is a link to nothing: remove it, or give another -o") from None
        if not output.parent.is_dir():
            raise UsageError(f"{output.parent}: no such folder: create it, or give another -o") from None
        return
    except OSError as error:
        raise disk_error(output, error) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise UsageError(f"{output} is {kind}: give the name of a file with -o")
    if not replace:
        raise UsageError(f"{output} exists: give another -o, --update to bring it up to date, or --force to replace it")


class PartFile:
    """The part file of ``output`` for one manifest. Raises ``DiskError``; ``close()`` it.

    Only one download may hold it at a time.
    """

    def __init__(self, output: Path, manifest: Manifest) -> None:
        self._output = output
        self._manifest = manifest
        self.path = output.with_name(output.name + ".part")
        self._fd = _open_locked(self.path)
        self._copy = LocalCopy(self._fd, manifest)
        try:
            #: The segments of which an earlier run may have left data.
            self._left = list(self._copy.candidates())
            self._prepare()
        except BaseException as error:
            PartFile.close(self)
            if isinstance(error, OSError):
                raise disk_error(self.path, error) from None
            raise

    def candidates(self) -> list[int]:
        """The segments of which the disk may hold data, in order."""
        return self._left

    def zeros(self) -> Iterator[int]:
        """The segments that are right already because they are zeros, as the holes of the file are."""
        held = set(self.candidates())
        for index in range(self._manifest.segments):
            if self._copy.is_zeros(index) and index not in held:
                yield index

    def holds(self, index: int) -> bool:
        """True if the disk holds segment ``index`` as the manifest has it; reads and hashes it."""
        return self._copy.read(index) is not None

    def settle(self) -> bool:
        """Does a segment's worth of what is left to do before the file is whole; False if nothing is."""
        return False

    @property
    def unsettled(self) -> int:
        """How many bytes of what it holds ``settle`` may have to do something for."""
        return 0

    @property
    def is_same(self) -> bool:
        """True while there is an ``output`` that is right as it is, and this file has nothing in it."""
        return False

    def write(self, index: int, data: memoryview) -> None:
        """Writes a segment at its place."""
        offset, _ = self._manifest.span(index)
        try:
            while data:
                written = os.pwrite(self._fd, data, offset)
                data = data[written:]
                offset += written
        except OSError as error:
            raise disk_error(self.path, error) from None

    def sync(self) -> None:
        """Waits until the data is on the disk; releases the GIL."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise disk_error(self.path, error) from None

    def publish(self, *, replace: bool, sync: bool) -> None:
        """Gives the file its name. With ``sync`` that survives a power cut.

        Raises ``UsageError`` if there is a file of that name by now and it is not to be replaced.
        """
        try:
            if not os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                raise DiskError(f"{self.path} was replaced meanwhile: run it again")
            if replace:
                os.rename(self.path, self._output)
            else:
                self._rename_to_new()
            if sync:
                folder = os.open(self._output.parent, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            raise disk_error(self._output, error) from None

    def close(self) -> None:
        """Closes the file, and removes it where it holds nothing to go on from."""
        if not os.fstat(self._fd).st_size:
            self._discard()
        os.close(self._fd)

    def _discard(self) -> None:
        """Removes the file, if it still is the one of its name."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                os.unlink(self.path)

    def _prepare(self) -> None:
        """Gives the file its size, if there is room for what is missing."""
        held = sum(end - start for start, end in self._copy.data())
        _check_room(self._fd, self._output, self._manifest.size - held)
        # Never posix_fallocate: slow on tmpfs, and elsewhere emulated by writing zeros.
        os.ftruncate(self._fd, self._manifest.size)

    def _rename_to_new(self) -> None:
        """Renames without replacing anything that has come there since the start."""
        try:
            os.link(self.path, self._output, follow_symlinks=False)
        except FileExistsError:
            raise UsageError(f"{self._output} exists now: give another -o, --update or --force") from None
        except OSError:
            # No hard links on this file system: the check is all there is.
            check_output(self._output, replace=False)
            os.rename(self.path, self._output)
        else:
            os.unlink(self.path)


def _open_locked(path: Path) -> int:
    """Opens and locks the part file; checks that the locked one is still the one of that name, and has
    no other: killed while it gave the file its name, an earlier run leaves one file of both names, and
    what is written into the one would be written into the other.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise disk_error(path, error) from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise DiskError(f"{path} is not a regular file: remove it, or give another -o")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(fd)
            if os.path.samestat(status, os.lstat(path)):
                if status.st_nlink <= 1:
                    return fd
                os.unlink(path)
        except FileNotFoundError:
            pass  # Renamed by the download that had it before.
        except BlockingIOError:
            os.close(fd)
            raise DiskError(f"{path}: another download is writing it: wait for it, or give another -o") from None
        except OSError as error:
            os.close(fd)
            raise disk_error(path, error) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _check_room(fd: int, output: Path, needed: int) -> None:
    room = os.fstatvfs(fd)
    free = room.f_bavail * room.f_frsize
    if needed > free:
        raise DiskError(
            f"{output}: needs {needed:,} bytes more and the disk has {free:,}: make room, then run it again"
        )
