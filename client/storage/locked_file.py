"""Opens and locks the part file of a download: ``.OUT.msd-part``, or a shorter name if that one is too long.

Does not write to it; ``client/storage/part_file.py`` does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from msgspec import Struct

from msd.client.storage.segments_on_disk import UNSUPPORTED, disk_error
from msd.wire.errors import DiskError
from msd.wire.support.part_names import part_name, short_name

#: How often a part file is opened again because its path refers to another file by the time it is locked. More often
#: than that, it is the file system that gives one file two numbers.
MAX_ATTEMPTS = 16
#: Lists the locks of all processes that this one can see (proc_locks(5)).
LOCK_TABLE = Path("/proc/locks")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LockedFile(Struct, frozen=True):
    """An open part file in the folder of descriptor ``folder``. ``warnings`` say what the file system does not support.

    ``has_stable_inodes`` is False if the file system does not identify a file by its inode number.
    """

    path: Path
    fd: int
    folder: int
    warnings: tuple[str, ...] = ()
    has_stable_inodes: bool = True

    def has_name(self, name: str) -> bool:
        """True if this file has the name ``name`` in its folder. Raises ``OSError``."""
        own, found = os.fstat(self.fd), os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        if self.has_stable_inodes:
            return os.path.samestat(own, found)
        return (own.st_size, own.st_mtime_ns, own.st_mode) == (found.st_size, found.st_mtime_ns, found.st_mode)


def open_part_file(output: Path, folder: int) -> LockedFile:
    """Opens and locks the part file of ``output``, and creates it if it is missing. Raises ``DiskError``.

    ``folder`` is a descriptor of the folder of ``output``.
    """
    for name in (part_name(output.name), short_name(output.name)):
        path = output.with_name(name)
        try:
            return _open_locked(path, folder)
        except OSError as error:
            latest = error
            if error.errno != errno.ENAMETOOLONG:
                break
    raise disk_error(path, latest)


def check_unused(path: Path, folder: int) -> None:
    """Raises ``DiskError`` if a download has locked the part file ``path`` in the folder of descriptor ``folder``, and
    ``OSError``.
    """
    _check_lock_table(path, folder)
    fd = os.open(path.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        _lock(path, fd)
    finally:
        os.close(fd)


def _open_locked(path: Path, folder: int) -> LockedFile:
    """Opens and locks the part file. Raises ``DiskError`` if another download uses it, and ``OSError``.

    Tries again if the path refers to another file by the time the lock is held.

    A second hard link means that an earlier run was killed between linking the file to ``output`` and removing the part
    file's name. Writing to the file would change ``output``, so the part file's name is removed and a new file created.
    """
    for attempt in range(MAX_ATTEMPTS):
        _check_lock_table(path, folder)
        fd = os.open(path.name, _FLAGS, 0o666, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise DiskError(
                    f"{path} is not a regular file: remove it, or choose another path", arguments=("output",)
                )
            warnings = _lock(path, fd)
            is_last = attempt == MAX_ATTEMPTS - 1
            file = LockedFile(path, fd, folder, warnings, has_stable_inodes=not is_last)
            status = os.fstat(fd)
            if is_last or file.has_name(path.name):
                if status.st_nlink <= 1:
                    return file
                os.unlink(path.name, dir_fd=folder)
        except FileNotFoundError:
            pass  # Another download renamed or removed the part file after it was opened.
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise DiskError(f"{path} keeps being replaced: run the command again")


def _lock(path: Path, fd: int) -> tuple[str, ...]:
    """Locks the part file. Returns a warning if the file system has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use_error(path) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return (f"{path}: the file system has no locks: do not run a second download to the same file",)
    return ()


def _check_lock_table(path: Path, folder: int) -> None:
    """Raises ``DiskError`` if the system lists a lock of the part file.

    Does not open it: the download that holds the lock would notice that, and hash the file again at its end. The list
    is incomplete in a container and on some file systems; then the attempt to lock the file decides.
    """
    try:
        status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        table = LOCK_TABLE.read_text(encoding="ascii")
    except OSError:
        return
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    # Waiting processes have lines of their own, with an arrow after the number.
    if any(words[1] == "FLOCK" and words[5] == file for words in map(str.split, table.splitlines())):
        raise _in_use_error(path)


def _in_use_error(path: Path) -> DiskError:
    return DiskError(
        f"{path}: another download is writing to this file: wait for it to finish, or choose another path",
        arguments=("output",),
    )
