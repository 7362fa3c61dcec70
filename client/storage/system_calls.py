"""System calls of Linux that Python's library does not have. Makes no decisions."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os

#: From fcntl.h: the rename fails if the new name exists.
RENAME_NOREPLACE = 1
#: From linux/fs.h: clone a file.
FICLONE = 0x40049409


def sync_file_system(fd: int) -> None:
    """Waits until everything that was written to the file system of ``fd`` is on the disk. Releases the GIL.

    Raises ``OSError``, also if the disk failed to write something since the file system was last synced.
    """
    _check(_libc().syncfs(fd))


def rename_to_new(old: str, new: str, folder: int) -> None:
    """Renames a file within the folder of descriptor ``folder``, but never replaces another one.

    Raises ``FileExistsError`` if there is one, and ``OSError``. On a file system without this kind of rename the check
    and the rename are two steps.
    """
    try:
        _check(_libc().renameat2(folder, os.fsencode(old), folder, os.fsencode(new), RENAME_NOREPLACE))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        try:
            os.stat(new, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None


def clone_file(source: int, target: int) -> bool:
    """Makes the open file ``target`` share the data of ``source``, which takes no time. False if that is impossible."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False
    return True


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
