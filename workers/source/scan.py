"""Scans the shared paths and stores: lists their files with their versions, and why other files are not shared.

Opens no file, which keeps scans fast; ``workers/source/local_files.py`` checks each file again when it is
opened. Paths are strings instead of ``Path`` objects because a folder may hold very many files.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msd.wire.config.store_urls import WEB
from msd.wire.errors import DiskError, MsdError, SourceError, UsageError
from msd.wire.protocol.messages import MAX_NAME
from msd.wire.protocol.segments import MAX_FILE_SIZE
from msd.wire.support.name_patterns import NamePatterns
from msd.wire.support.part_names import PART_SUFFIX
from msd.wire.support.presentable_names import is_presentable, presentable
from msd.workers.source.catalogue import PERMISSIONS, AnyVersion, SharedFolder, Version
from msd.workers.source.share import LeftOut, Share

if TYPE_CHECKING:
    from msd.workers.source.object_store import ObjectStore

#: The permissions of the folders of a store.
FOLDER_MODE = 0o755
#: The paths of the indexes that msd keeps beside the objects: see ``ObjectStore.index_key``. They are no files of the
#: user, so they are neither shared nor counted.
OWN_INDEX = re.compile(r"(^|/)\.msd/(index|[^/]+\.index)$")


class Scan(NamedTuple):
    """The result of a scan: ``files`` maps each shareable name to its version, ``folders`` are the folders by name,
    ``skipped`` maps each name that cannot be shared, escaped for display, to the reason, and ``left_out`` counts the
    files and folders that are not meant to be shared, each folder once.
    """

    files: dict[str, Version]
    folders: dict[str, SharedFolder]
    skipped: dict[str, str]
    left_out: Counter[LeftOut]

    @property
    def versions(self) -> dict[str, AnyVersion]:
        """The versions of the files and folders, by name."""
        return {**self.files, **self.folders}


def scan(
    share: Share,
    *,
    tolerant: bool = False,
    known: Mapping[str, AnyVersion] | None = None,
    stores: Mapping[str, ObjectStore] | None = None,
) -> Scan:
    """Scans all paths and ``stores`` of ``share``. Raises ``MsdError`` if a path does not exist, cannot be read, or is
    a file that cannot be shared, or if a store does not answer. With ``tolerant``, such a path is skipped, and such a
    store has what is ``known`` of it. To save memory, the result has the objects in ``known`` in place of equal ones.
    """
    scanner = _Scanner(share, known or {})
    for name, root in share.roots.items():
        try:
            scanner.scan_root(name, root)
        except MsdError as error:
            if not tolerant:
                raise
            scanner.result.skipped[presentable(root.name)] = str(error)
    for name, store in (stores or {}).items():
        try:
            scanner.scan_store(name, store)
        except MsdError as error:
            if not tolerant:
                raise
            scanner.keep_known(name)
            scanner.result.skipped[str(store.url)] = str(error)
    return scanner.result


def current_versions(share: Share, names: Iterable[str], last: Mapping[str, AnyVersion]) -> dict[str, AnyVersion]:
    """Returns the present versions of files and folders that a scan has seen, without those that are gone. Of a store
    these are the versions of the ``last`` scan: objects are replaced at once and as a whole.
    """
    found: dict[str, AnyVersion] = {}
    for name in names:
        if share.is_in_store(name):
            if name in last:
                found[name] = last[name]
            continue
        with contextlib.suppress(OSError):
            status = os.stat(share.locate(name))
            if stat.S_ISDIR(status.st_mode) and name.endswith("/"):
                found[name] = SharedFolder(name, status.st_mode & PERMISSIONS)
            elif stat.S_ISREG(status.st_mode):
                found[name] = _version(status)
    return found


class _Scanner:
    def __init__(self, share: Share, known: Mapping[str, AnyVersion]) -> None:
        self.result = Scan({}, {}, {}, Counter())
        self._share = share
        self._known = known
        self._excludes = NamePatterns(share.excludes)

    def scan_root(self, name: str, root: Path) -> None:
        """Scans the file or folder that is shared as ``name``. Raises ``MsdError``."""
        try:
            status = root.stat()
            if stat.S_ISDIR(status.st_mode):
                self._scan_folder(str(root), f"{name}/" if name else "")
                return
            _check_name(root.name)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "not a regular file")
            self.result.files[root.name] = _version(status)
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"{root}: no such file or folder to share") from None
        except OSError as error:
            # Without an error number, no call has failed: the file is of a kind that is never shared.
            kind = DiskError if error.errno else UsageError
            raise kind(f"{root}: cannot be shared: {error.strerror or error}") from None

    def scan_store(self, name: str, store: ObjectStore) -> None:
        """Lists the objects that are shared as ``name``. Raises ``MsdError``."""
        try:
            if store.is_object:
                _check_name(store.url.name)
                self._add_object(store.url.name, store.find(store.url.path))
                return
            objects: dict[str, Version] = {}
            for path, found in store.list():
                if OWN_INDEX.search(path):
                    continue
                if isinstance(found, Version):
                    objects[path] = found
                else:
                    self.result.skipped[presentable(path)] = found.strerror or str(found)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise UsageError(f"{store.url}: there is no such object") from None
            place = f"{store.url} at {store.endpoint}" if store.endpoint else store.url
            verb = "read" if store.url.scheme in WEB else "listed"
            raise SourceError(f"{place}: cannot be {verb}: {error.strerror or error}") from None
        if not objects and store.url.path and not self._known:
            raise UsageError(f"{store.url}: there is no such object, and none below it")
        self._add_objects(f"{name}/" if name else "", objects)

    def _add_objects(self, prefix: str, objects: Mapping[str, Version]) -> None:
        folders = {folder for path in objects for folder in _folders_of(path)}
        for path in sorted(objects):
            name = prefix + path
            if path in folders:
                # A file system cannot have both, so no client could write both.
                self.result.skipped[presentable(name)] = "it is an object and the folder of others"
                continue
            try:
                _check_name(name)
            except OSError as error:
                self._skip(name, error)
                continue
            kind = self._left_out_object(path, name)
            if kind is not None:
                self.result.left_out[kind] += 1
                continue
            self._add_object(name, objects[path])
            for folder in _folders_of(name):
                if folder + "/" not in self.result.folders:
                    self.result.folders[folder + "/"] = SharedFolder(folder + "/", FOLDER_MODE)

    def _add_object(self, name: str, version: Version) -> None:
        known = self._known.get(name)
        # Only the version says whether an object was replaced: some stores list other times than they answer with.
        is_known = isinstance(known, Version) and (known.inode, known.size) == (version.inode, version.size)
        self.result.files[name] = known if is_known and isinstance(known, Version) else version

    def _left_out_object(self, path: str, name: str) -> LeftOut | None:
        """Returns the reason for leaving out an object because of its name or that of a folder."""
        for folder in _folders_of(path):
            kind = self._left_out_name(
                folder.rpartition("/")[2], name[: len(name) - len(path)] + folder, is_folder=True
            )
            if kind is not None:
                return kind
        return self._left_out_name(path.rpartition("/")[2], name, is_folder=False)

    def keep_known(self, name: str) -> None:
        """Adds what is known of a store that cannot be listed now."""
        for known, version in self._known.items():
            if self._share.is_in_store(known) and self._share.split(known)[0] == name:
                if isinstance(version, SharedFolder):
                    self.result.folders[known] = version
                else:
                    self.result.files[known] = version

    def _scan_folder(self, root: str, prefix: str) -> None:
        """Scans the files below ``root``; the name of each is ``prefix`` and its path relative to ``root``."""
        folders = [""]
        while folders:
            folder = folders.pop()
            folder_path = os.path.join(root, folder)
            try:
                with os.scandir(folder_path) as entries:
                    if prefix + folder:
                        mode = os.stat(folder_path).st_mode & PERMISSIONS
                        self.result.folders[prefix + folder] = SharedFolder(prefix + folder, mode)
                    for entry in entries:
                        path = folder + entry.name
                        try:
                            if self._examine(entry, prefix + path, folder_path):
                                folders.append(path + "/")
                        except OSError as error:
                            self._skip(prefix + path, error)
            except OSError as error:
                if not folder:
                    raise
                self._skip(prefix + folder[:-1], error)

    def _skip(self, name: str, error: OSError) -> None:
        """Records why a file or folder is not shared; ignores an entry that was deleted during the scan."""
        if not isinstance(error, FileNotFoundError):
            self.result.skipped[presentable(name)] = error.strerror or str(error)

    def _examine(self, entry: os.DirEntry[str], name: str, folder: str) -> bool:
        """Adds a file to the result; returns True for a folder that is to be scanned. Raises ``OSError`` with the
        reason if a file cannot be shared.
        """
        # ``entry.is_dir()`` raises an error for a link to itself.
        is_link = entry.is_symlink()
        is_folder = os.path.isdir(entry.path) if is_link else entry.is_dir(follow_symlinks=False)
        kind = self._left_out_name(entry.name, name, is_folder=is_folder)
        if kind is None and is_link:
            kind = self._left_out_link(entry, folder, is_folder=is_folder)
        if kind is None:
            _check_name(f"{name}/" if is_folder else name)
        if kind is None and not is_folder:
            status = entry.stat()
            if stat.S_ISREG(status.st_mode):
                version, known = _version(status), self._known.get(name)
                self.result.files[name] = known if version == known and isinstance(known, Version) else version
            else:
                kind = LeftOut.SPECIAL
        if kind is not None:
            self.result.left_out[kind] += 1
        return is_folder and kind is None

    def _left_out_name(self, base_name: str, name: str, *, is_folder: bool) -> LeftOut | None:
        """Returns the reason for leaving out an entry because of its name, None if there is none."""
        if name.endswith(PART_SUFFIX) and not is_folder:
            return LeftOut.UNFINISHED
        if base_name[0] == "." and not self._share.hidden:
            return LeftOut.HIDDEN
        if self._share.excludes and self._excludes.match(f"{name}/" if is_folder else name):
            return LeftOut.EXCLUDED
        return None

    def _left_out_link(self, entry: os.DirEntry[str], folder: str, *, is_folder: bool) -> LeftOut | None:
        """Returns the reason for leaving out a link in ``folder``, None if there is none. Raises ``OSError``."""
        try:
            entry.stat()
        except (FileNotFoundError, NotADirectoryError):
            return LeftOut.BROKEN_LINK
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return LeftOut.LOOP
        target = os.path.realpath(entry.path)
        if not self._share.follow_links and not os.path.join(target, "").startswith(self._real_roots):
            return LeftOut.LEADS_OUT
        # A link to one of the folders that contain it would be followed without an end. Other links may lead to these
        # folders, so compare the real path of each.
        while is_folder and len(folder) > 1:
            if os.path.realpath(folder) == target:
                return LeftOut.LOOP
            folder = os.path.dirname(folder)
        return None

    @functools.cached_property
    def _real_roots(self) -> tuple[str, ...]:
        """The real path of each shared path, with ``/`` at its end."""
        return tuple(os.path.join(os.path.realpath(root), "") for root in self._share.roots.values())


def _folders_of(path: str) -> Iterator[str]:
    """Yields the folders in which a file is, the outermost first."""
    end = path.find("/")
    while end > 0:
        yield path[:end]
        end = path.find("/", end + 1)


def _check_name(name: str) -> None:
    """Raises ``OSError`` if a file with this name cannot be shared."""
    if len(name) > MAX_NAME:
        raise OSError(0, f"its name is longer than {MAX_NAME} characters")
    if is_presentable(name):
        return
    try:
        name.encode()
    except UnicodeEncodeError:
        raise OSError(0, "its name is not UTF-8") from None
    raise OSError(0, "its name contains control characters")


def _version(status: os.stat_result) -> Version:
    if status.st_size > MAX_FILE_SIZE:
        raise OSError(0, f"larger than {MAX_FILE_SIZE} bytes")
    return Version.of(status)
