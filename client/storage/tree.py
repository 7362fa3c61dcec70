"""Saves the files of a selection in a folder, each under its shared name. Keeps what is there already.

A file is written under the name of its part file, in batches: write, sync the file system once, rename. So no name ever
stands for bytes that may not be on the disk, and thousands of small files do not need a sync each. Everything is
relative to open folders: no symbolic link in the tree is followed.

``client/storage/existing_file.py`` decides what happens to existing files; a large file is written by
``client/storage/part_file.py``.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

from msgspec import Struct

from msd.client.storage.existing_file import Decision, Existing, Kind, Policy, decide
from msd.client.storage.file_content import compare_content
from msd.client.storage.locked_file import check_unused
from msd.client.storage.open_folders import MAX_LOCKED, MAX_UNUSED, OpenFolder, OpenFolders
from msd.client.storage.output import Output
from msd.client.storage.part_file import PartFile, exists_error, set_attributes
from msd.client.storage.segments_on_disk import UNSUPPORTED, disk_error, disk_errors, read_error
from msd.client.storage.system_calls import rename_to_new, sync_file_system
from msd.client.storage.update import UpdatePartFile
from msd.wire.errors import DiskError, MsdError, UsageError
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import Manifest
from msd.wire.support.part_names import is_part_name, name_of_part, part_name, short_name

#: When a batch is synced and renamed: it has so many files, folders or bytes, or its first file has waited so long.
MAX_BATCH_FILES, MAX_BATCH_FOLDERS, MAX_BATCH_SIZE, MAX_BATCH_S = 4096, 128, 256 << 20, 1.0
#: The same for files that are kept open until they are renamed.
MAX_BATCH_OUTPUTS = 8
#: Descriptors that a tree needs at most: of the folders of two batches, those that are locked or not used, and of part
#: files.
DESCRIPTORS = 2 * MAX_BATCH_FOLDERS + MAX_LOCKED + MAX_UNUSED + 96
_PART_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Saved(Struct, frozen=True):
    """A file that is in place, or that could not be put there because of ``error``."""

    name: str
    size: int
    error: MsdError | None = None


class _Written(Struct):
    """A complete file that has the name ``part`` until it is synced. ``output`` is its output, if it is a large one."""

    name: str
    size: int
    folder: OpenFolder
    part: str
    output: Output | None


class _Batch(Struct):
    """Files that are synced together. ``began`` is the time of the first one."""

    began: float
    files: list[_Written]
    folders: set[str]
    size: int = 0
    outputs: int = 0

    def is_full(self, now: float) -> bool:
        return bool(self.files) and (
            len(self.files) >= MAX_BATCH_FILES
            or len(self.folders) >= MAX_BATCH_FOLDERS
            or self.size >= MAX_BATCH_SIZE
            or self.outputs >= MAX_BATCH_OUTPUTS
            or now >= self.began + MAX_BATCH_S
        )


class Tree:
    """Saves files in ``path``. With ``make``, it is made if it is missing; otherwise nothing can be saved in it then.
    The caller must ``close()`` the object.

    With ``sync`` False nothing is synced. With ``check_space`` False the file system is not asked for its free space.
    ``on_warning`` is called with what the file system does not support. Names must be relative paths without ``..``.
    Methods raise ``MsdError``.
    """

    def __init__(
        self,
        path: Path,
        *,
        policy: Policy,
        make: bool,
        sync: bool,
        check_space: bool = True,
        on_warning: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._policy = policy
        self._sync = sync
        self._check_space = check_space
        self._on_warning = on_warning
        self._warnings: set[str] = set()
        self._folders = OpenFolders(path, make=make)
        #: The outputs of large files that are not finished, by name, each with its folder.
        self._open: dict[str, tuple[Output, OpenFolder]] = {}
        self._batch = _Batch(0.0, [], set())
        #: The batch that is being synced, the thread that does so, and what it failed with.
        self._syncing: tuple[list[_Written], threading.Thread] | None = None
        self._sync_errors: list[OSError] = []
        #: What is complete and not yet reported.
        self._saved: list[Saved] = []
        #: For each folder that does not distinguish upper and lower case: the names written so far, in lower case.
        self._names: dict[str, dict[str, str]] = {}

    @property
    def fd(self) -> int:
        """A descriptor of the folder, which must exist."""
        assert self._folders.root is not None
        return self._folders.root.fd

    def close(self) -> None:
        """Closes everything. Part files are kept."""
        if self._syncing is not None:
            self._syncing[1].join()
        written = [*(self._syncing[0] if self._syncing else ()), *self._batch.files]
        for output in (*(file.output for file in written), *(output for output, _ in self._open.values())):
            if output is not None:
                output.close()
        self._open.clear()
        self._batch, self._syncing = _Batch(0.0, [], set()), None
        self._folders.close()

    # What exists.

    def check(self, entry: Entry) -> Decision:
        """Returns what has to be done for a file. Raises ``UsageError`` if what exists may not be replaced."""
        folder_name, name = _split(entry.name)
        if is_part_name(name):
            raise UsageError(f"{name!r} is the name of an unfinished download: it is not saved")
        folder = self._folders.find(folder_name)
        # Nothing is looked for in a new folder: if another program puts a file there, the rename, which then replaces
        # nothing, finds it.
        may_exist = folder is not None and (not folder.is_new or self._policy.replaces)
        existing = _look_at(folder, name) if folder is not None and may_exist else None
        decision = decide(entry, existing, self._policy)
        if decision is Decision.REFUSE:
            assert folder is not None
            assert existing is not None
            raise _refusal(folder.path / name, existing.kind)
        return decision

    def check_replaceable(self, entry: Entry) -> None:
        """Raises ``UsageError`` if the file of this name, which has another content, may not be replaced."""
        if not self._policy.replaces:
            folder_name, name = _split(entry.name)
            raise _refusal(self._folders.path / folder_name / name, Kind.FILE)

    def compare(self, entry: Entry) -> Generator[bool | None]:
        """Compares the file with the shared version. Yields None while there is more to read, and then True if they
        match. A file that matches gets the time of the shared file.
        """
        folder_name, name = _split(entry.name)
        folder = self._folders.find(folder_name)
        if folder is None:
            yield False
            return
        with disk_errors(folder.path / name, read_error):
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder.fd)
        try:
            for matches in compare_content(fd, entry, folder.path / name):
                if matches:
                    self._set_attributes(fd, entry.mtime_ns, entry.mode, folder)
                yield matches
        finally:
            os.close(fd)

    def check_free_space(self, needed: int) -> None:
        """Raises ``DiskError`` if the disk has no room for ``needed`` bytes."""
        if not self._check_space or (root := self._folders.root) is None:
            return
        try:
            disk = os.fstatvfs(root.fd)
        except OSError:
            return
        free = disk.f_bavail * disk.f_frsize
        if disk.f_blocks and needed > free:
            raise DiskError(
                f"{root.path}: needs {needed:,} more bytes but the disk has {free:,} free: free some space, then run"
                " the same command again, or do not check the space if the figure is wrong",
                arguments=("check_space",),
            )

    # Writing.

    def add_folder(self, entry: Entry) -> None:
        """Makes a folder."""
        self._folders.make(entry.name)

    def save(self, entry: Entry, data: memoryview) -> None:
        """Writes a small file, which is verified."""
        folder_name, name = _split(entry.name)
        folder = self._folders.make(folder_name)
        # Not ``disk_errors``: a path for each of thousands of files takes time.
        try:
            part, fd = self._create(folder, name)
            try:
                if self._policy.update and (existing := _status(folder, name)) and stat.S_ISREG(existing.st_mode):
                    os.fchmod(fd, existing.st_mode & 0o777)
                while data:
                    data = data[os.write(fd, data) :]
                self._set_attributes(fd, entry.mtime_ns, entry.mode, folder)
            except BaseException:
                os.unlink(part, dir_fd=folder.fd)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            raise disk_error(folder.path / name, error) from None
        self._add(_Written(entry.name, entry.size, folder, part, None))

    def open(self, manifest: Manifest) -> Output:
        """Returns the output for a version of a large file. If there was an earlier version, its output is closed."""
        self._close_output(manifest.name)
        folder_name, name = _split(manifest.name)
        folder = self._folders.make(folder_name)
        existing = _look_at(folder, name)
        if existing is not None and (not self._policy.replaces or existing.kind not in (Kind.FILE, Kind.LINK)):
            raise _refusal(folder.path / name, existing.kind)
        reuses = self._policy.update and existing is not None and existing.kind is Kind.FILE
        output = (UpdatePartFile if reuses else PartFile)(
            folder.path / name,
            manifest,
            folder=folder.fd,
            on_warning=self._warn,
            check_space=False,
        )
        folder.users += 1
        self._open[manifest.name] = output, folder
        return output

    def finish(self, manifest: Manifest) -> None:
        """Takes the complete output of a large file."""
        output, folder = self._open.pop(manifest.name)
        folder.users -= 1
        self._add(_Written(manifest.name, manifest.size, folder, "", output))

    def discard(self, name: str) -> None:
        """Closes the output of a file that failed."""
        self._close_output(name)

    def _close_output(self, name: str) -> None:
        if (found := self._open.pop(name, None)) is not None:
            output, folder = found
            folder.users -= 1
            output.close()

    def _create(self, folder: OpenFolder, name: str) -> tuple[str, int]:
        """Creates the part file of a small file and returns its name and descriptor. Raises ``OSError``."""
        self._check_case(folder, name)
        part = part_name(name)
        if len(os.fsencode(part)) > 255:
            part = short_name(name)
        try:
            fd = os.open(part, _PART_FLAGS, 0o666, dir_fd=folder.fd)
        except FileExistsError:
            # Left by an earlier run, or in use by a download of this file alone.
            check_unused(folder.path / part, folder.fd)
            os.unlink(part, dir_fd=folder.fd)
            fd = os.open(part, _PART_FLAGS, 0o666, dir_fd=folder.fd)
        if not folder.is_probed:
            folder.is_probed = True
            if self._ignores_case(folder, part, fd):
                self._names[folder.name] = {name.casefold(): name}
        return part, fd

    def _ignores_case(self, folder: OpenFolder, part: str, fd: int) -> bool:
        """True if the folder does not distinguish upper and lower case."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(part.swapcase(), dir_fd=folder.fd, follow_symlinks=False))
        except OSError:
            return False

    def _check_case(self, folder: OpenFolder, name: str) -> None:
        names = self._names.get(folder.name)
        if names is not None and names.setdefault(name.casefold(), name) != name:
            other = folder.path / names[name.casefold()]
            raise UsageError(f"{name} and {other} are the same file here: its file system ignores upper and lower case")

    def _set_attributes(self, fd: int, mtime_ns: int, mode: int, folder: OpenFolder) -> None:
        try:
            set_attributes(fd, mtime_ns, mode)
        except OSError as error:
            self._warn(f"{folder.path}: the time and mode of files cannot be set: {error.strerror}")

    # Batches.

    def settle(self, now: float) -> list[Saved]:
        """Returns the files that were put in place since the last call, or could not be. ``now`` is in seconds.

        Begins to sync what was written if it is due, without waiting, unless the disk is much slower than the network.
        """
        if self._syncing is not None and not self._syncing[1].is_alive():
            self._rename_synced()
        if self._batch.is_full(now):
            if self._syncing is not None:
                # The disk is slower than the network: wait for it.
                self._rename_synced()
            self._begin_sync()
        saved, self._saved = self._saved, []
        return saved

    def complete(self) -> list[Saved]:
        """Waits until everything that was written is on the disk and in place, and returns it."""
        while self._syncing is not None or self._batch.files:
            if self._syncing is not None:
                self._rename_synced()
            if self._batch.files:
                self._begin_sync()
        saved, self._saved = self._saved, []
        return saved

    def sync_names(self) -> None:
        """Waits until the names of all files are on the disk. Raises ``DiskError`` if the folder was moved."""
        self._folders.check_in_place()
        if self._sync and (root := self._folders.root) is not None:
            self._sync_in_thread([root.fd]).join()
            self._check_sync()

    def _add(self, file: _Written) -> None:
        if not self._sync:
            self._rename(file)
            return
        if not self._batch.files:
            self._batch.began = time.monotonic()
        file.folder.users += 1
        self._batch.files.append(file)
        self._batch.folders.add(file.folder.name)
        self._batch.size += file.size
        self._batch.outputs += file.output is not None

    def _begin_sync(self) -> None:
        files, self._batch = self._batch.files, _Batch(0.0, [], set())
        # A folder of the tree may be on another file system.
        file_systems = {file.folder.device: file.folder.fd for file in files}
        self._syncing = files, self._sync_in_thread([*file_systems.values()])

    def _sync_in_thread(self, descriptors: list[int]) -> threading.Thread:
        """Syncs file systems in a thread, so that the download goes on and signals are handled meanwhile."""

        def sync() -> None:
            try:
                for fd in descriptors:
                    sync_file_system(fd)
            except OSError as error:
                self._sync_errors.append(error)

        thread = threading.Thread(target=sync, name="sync")
        thread.start()
        return thread

    def _check_sync(self) -> None:
        for error in self._sync_errors:
            if error.errno not in UNSUPPORTED:
                raise disk_error(self._folders.path, error)
            self._warn(f"{self._folders.path}: the file system cannot say when the data is on the disk")

    def _rename_synced(self) -> None:
        """Waits until the batch is synced, and gives its files their names."""
        assert self._syncing is not None
        files, thread = self._syncing
        thread.join()
        self._check_sync()
        self._syncing = None
        for file in files:
            file.folder.users -= 1
            self._rename(file)

    def _rename(self, file: _Written) -> None:
        _, name = _split(file.name)
        file.folder.is_new = False
        error: MsdError | None = None
        try:
            if file.output is not None:
                try:
                    file.output.publish(replace=self._policy.replaces, sync=False)
                finally:
                    file.output.close()
            elif self._policy.replaces:
                os.rename(file.part, name, src_dir_fd=file.folder.fd, dst_dir_fd=file.folder.fd)
            else:
                rename_to_new(file.part, name, file.folder.fd)
        except FileExistsError:
            error = _refusal(file.folder.path / name, Kind.FILE)
        except OSError as raised:
            error = disk_error(file.folder.path / name, raised)
        except MsdError as raised:
            error = raised
        if error is not None and file.output is None:
            with contextlib.suppress(OSError):
                os.unlink(file.part, dir_fd=file.folder.fd)
        self._saved.append(Saved(file.name, file.size, error))

    # The rest.

    def remove_leftovers(self, selects: Callable[[str], bool]) -> None:
        """Removes the part files that earlier downloads left for files of this selection, unless a download uses them.

        Only a file that is not shared any more leaves one. ``selects`` says whether the file of a name belongs to the
        selection; it is called in the order of the names.
        """
        leftovers = []
        # To open a folder may add it to the existing ones.
        for folder_name in sorted(self._folders.existing):
            with contextlib.suppress(OSError, MsdError):
                if (folder := self._folders.find(folder_name)) is not None:
                    parts = filter(is_part_name, os.listdir(folder.fd))
                    leftovers += [(folder_name + name_of_part(part), folder_name, part) for part in parts]
        for name, folder_name, part in sorted(leftovers):
            if selects(name):
                with contextlib.suppress(OSError, MsdError):
                    if (folder := self._folders.find(folder_name)) is not None:
                        check_unused(folder.path / part, folder.fd)
                        os.unlink(part, dir_fd=folder.fd)

    def _warn(self, text: str) -> None:
        """Reports a warning, but each only once."""
        if text not in self._warnings:
            self._warnings.add(text)
            self._on_warning(text)


def _split(name: str) -> tuple[str, str]:
    """Returns the name of the folder of a shared file, and the base name of the file."""
    end = name.rfind("/") + 1
    return name[:end], name[end:]


def _status(folder: OpenFolder, name: str) -> os.stat_result | None:
    """Returns the status of what has a name in a folder, None if nothing has it. Raises ``DiskError``."""
    try:
        return os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_error(folder.path / name, error) from None


def _look_at(folder: OpenFolder, name: str) -> Existing | None:
    """Returns what has a name in a folder. Raises ``DiskError``."""
    if (status := _status(folder, name)) is None:
        return None
    kinds = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.LINK}
    kind = kinds.get(stat.S_IFMT(status.st_mode), Kind.SPECIAL)
    return Existing(kind, status.st_size, status.st_mtime_ns)


def _refusal(path: Path, kind: Kind) -> UsageError:
    if kind in (Kind.FILE, Kind.LINK):
        return exists_error(path)
    return UsageError(f"{path} is {kind.value}: remove it, or choose another path", arguments=("output",))
