"""Opens the folders of a download, each relative to the one above it, so that no symbolic link is followed.

Whatever other programs do to the paths meanwhile, nothing outside of the folder of the download is opened. Does not
write files; ``client/storage/tree.py`` does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from msd.client.storage.segments_on_disk import UnusableDiskError, disk_error
from msd.wire.errors import DiskError, UsageError

#: The number of folders that stay open although nothing is written to them at the moment.
MAX_UNUSED = 32
#: The number of folders that are locked at most: each stays open.
MAX_LOCKED = 128
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class OpenFolder:
    """An open folder. ``name`` is relative to the folder of the download and ends in ``/``; that one's is empty.

    ``users`` counts the files that need it open: the owner of the object changes it.
    """

    def __init__(self, name: str, path: Path, fd: int) -> None:
        self.name = name
        self.path = path
        self.fd = fd
        self.device = os.fstat(fd).st_dev
        self.users = 0
        #: True if this download has made the folder, and has given no file in it its name yet.
        self.is_new = False
        #: False until it is known whether the folder distinguishes upper and lower case.
        self.is_probed = False


class OpenFolders:
    """The open folders below ``path``. With ``make``, it is made if it is missing. The caller must ``close()`` it.

    ``make`` locks the folder directly below ``path`` that it is called for or that contains the folder, or ``path``
    itself: no other download may write there. Raises ``MsdError``.
    """

    def __init__(self, path: Path, *, make: bool) -> None:
        self.path = path
        #: The names of the folders that existed before.
        self.existing: set[str] = set()
        #: The folders below by name, those that were used last at the end.
        self._folders: dict[str, OpenFolder] = {}
        self._root: OpenFolder | None = None
        #: The names of the folders that are locked.
        self._locked: set[str] = set()
        try:
            if path.is_dir():
                self.existing.add("")
            elif make:
                path.mkdir(parents=True, exist_ok=True)
            self._root = OpenFolder("", path, os.open(path, _FLAGS))
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"{path} is not a folder: choose another path", arguments=("output",)) from None
        except OSError as error:
            if make or not isinstance(error, FileNotFoundError):
                raise disk_error(path, error) from None

    @property
    def root(self) -> OpenFolder | None:
        """The folder itself, None if it is missing."""
        return self._root

    def close(self) -> None:
        """Closes all folders."""
        for folder in (self._root, *self._folders.values()):
            if folder is not None:
                os.close(folder.fd)
        self._root = None
        self._folders.clear()

    def check_in_place(self) -> None:
        """Raises ``DiskError`` if the folder of the download has another path now."""
        if self._root is None:
            return
        try:
            if is_same_folder(os.fstat(self._root.fd), os.stat(self.path)):
                return
        except FileNotFoundError:
            pass
        except OSError as error:
            raise disk_error(self.path, error) from None
        raise DiskError(f"{self.path} was moved or removed during the download: run the command again")

    def find(self, name: str) -> OpenFolder | None:
        """Returns a folder, None if it does not exist."""
        return self._open(name, make=False)

    def make(self, name: str) -> OpenFolder:
        """Returns a folder, and makes it and those above it if they are missing.

        Raises ``UnusableDiskError`` if another download writes there.
        """
        top = name[: name.find("/") + 1]
        if top not in self._locked and len(self._locked) < MAX_LOCKED:
            self._lock(top)
        folder = self._open(name, make=True)
        assert folder is not None
        return folder

    def _open(self, name: str, *, make: bool) -> OpenFolder | None:
        if self._root is None:
            return None
        if (folder := self._known(name)) is not None:
            return folder
        # From the innermost folder above it that is open, down to it.
        missing = [name]
        while (above := self._known(_above(missing[-1]))) is None:
            missing.append(_above(missing[-1]))
        for name in reversed(missing):
            folder = self._open_below(above, name, make=make)
            if folder is None:
                return None
            above = self._folders[name] = folder
        self._close_unused()
        return folder

    def _known(self, name: str) -> OpenFolder | None:
        """Returns a folder that is open."""
        if not name:
            return self._root
        if (folder := self._folders.pop(name, None)) is not None:
            self._folders[name] = folder
        return folder

    def _open_below(self, parent: OpenFolder, name: str, *, make: bool) -> OpenFolder | None:
        base_name = name[len(parent.name) : -1]
        path = parent.path / base_name
        is_new = False
        try:
            try:
                fd = os.open(base_name, _FLAGS | os.O_NOFOLLOW, dir_fd=parent.fd)
                self.existing.add(name)
            except FileNotFoundError:
                if not make:
                    return None
                with contextlib.suppress(FileExistsError):
                    os.mkdir(base_name, dir_fd=parent.fd)
                    is_new = True
                fd = os.open(base_name, _FLAGS | os.O_NOFOLLOW, dir_fd=parent.fd)
            folder = OpenFolder(name, path, fd)
            folder.is_new = is_new
            return folder
        except NotADirectoryError:
            kind = "a symbolic link, which is not followed" if path.is_symlink() else "not a folder"
            raise UsageError(f"{path} is {kind}: remove it, or choose another path", arguments=("output",)) from None
        except OSError as error:
            raise disk_error(path, error) from None

    def _lock(self, name: str) -> None:
        """Locks a folder, which stays open."""
        folder = self._open(name, make=True)
        assert folder is not None
        try:
            fcntl.flock(folder.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = f"{folder.path}: another download is writing to this folder"
            raise UnusableDiskError(f"{problem}: wait for it to finish, or choose another path") from None
        except OSError:
            pass  # A file system without locks for folders.
        folder.users += 1
        self._locked.add(name)

    def _close_unused(self) -> None:
        """Closes the folders without users, except for those that were opened last."""
        unused = [name for name, folder in self._folders.items() if not folder.users]
        for name in unused[:-MAX_UNUSED]:
            os.close(self._folders.pop(name).fd)


def _above(name: str) -> str:
    """Returns the name of the folder above a folder."""
    return name[: name.rfind("/", 0, -1) + 1]


def is_same_folder(one: os.stat_result, other: os.stat_result) -> bool:
    """True if both are the status of the same folder, also on a file system that changes the numbers of its files."""
    return os.path.samestat(one, other) or (
        (one.st_dev, one.st_mode, one.st_mtime_ns, one.st_ctime_ns)
        == (other.st_dev, other.st_mode, other.st_mtime_ns, other.st_ctime_ns)
    )
