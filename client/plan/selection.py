"""Decides which of the shared files a user selects with NAMEs and excludes, and which names have to be listed. Pure.

A NAME is the name of a file, the name of a folder, or a glob; only a folder ends in ``/``. A folder selects everything
in it. A glob selects the files and folders that it matches, as in a shell: ``*`` matches no ``/``, and ``**`` matches
any number of folders. ``/`` selects everything. Excludes have the meaning of ``msd serve --exclude``; they do not apply
to a file or folder that is a NAME.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence

from msgspec import Struct

from msd.client.plan.page_check import has_valid_parts
from msd.wire.errors import NotFoundError, UsageError
from msd.wire.protocol.messages import MAX_NAME
from msd.wire.support.name_patterns import NamePatterns, literal_prefix
from msd.wire.support.presentable_names import is_presentable

#: The NAME of the folder that contains everything.
EVERYTHING = "/"


def normalized(name: str) -> str:
    """Returns a NAME without ``./`` at its start. ``.`` and ``./`` stand for everything."""
    return EVERYTHING if name in (".", "./") else name.removeprefix("./")


def is_glob(name: str) -> bool:
    """True if a NAME looks like a glob. Raises ``MsdError`` if it can select nothing."""
    if name == EVERYTHING:
        return False
    if not name:
        raise UsageError("the name is empty: give the name of a shared file; msd list shows them")
    if len(name) > MAX_NAME or not is_presentable(name) or not has_valid_parts(name):
        raise NotFoundError(f"{name[:100]!r} cannot be the name of a shared file: msd list shows the shared files")
    return literal_prefix(name) != name


class Range(Struct, frozen=True, order=True):
    """The part of the listing in which all names begin with ``prefix``.

    With ``is_file`` only the file with exactly this name is needed. If it is shared, it is the first one.
    """

    prefix: str
    is_file: bool = False


class _Folder(enum.Enum):
    """What is known of all files in a folder."""

    UNDECIDED = "undecided"
    SELECTED = "selected"
    EXCLUDED = "excluded"


class Selection:
    """Selects shared files.

    ``exact`` are those of ``names`` that look like globs, but are the names of shared files or folders, such as
    ``film [1080p].mkv``: the user means these. Raises ``MsdError`` if a NAME can select nothing.
    """

    def __init__(self, names: Sequence[str], excludes: Sequence[str] = (), exact: Collection[str] = ()) -> None:
        globs = [name for name in names if is_glob(name) and name not in exact]
        self._selects_all = EVERYTHING in names
        #: Files and folders.
        self._exact = {*names}.difference(globs, {EVERYTHING})
        # A slash at the start: a glob without one selects no files in folders, unlike a pattern of ``--exclude``.
        self._globs = {name: NamePatterns([f"/{name}"]) for name in globs}
        self._any_glob = NamePatterns([f"/{name}" for name in globs])
        self._excludes = NamePatterns(excludes)
        self._has_excludes = bool(excludes)
        #: The NAMEs that have selected nothing so far, in the order of ``names``.
        self._unmatched = dict.fromkeys(names)
        #: The folder of the last name and the folders above it, from the top, each with what is known of its files.
        self._folders = [("", _Folder.SELECTED if self._selects_all else _Folder.UNDECIDED)]

    @property
    def has_globs(self) -> bool:
        """True if a NAME is a glob."""
        return bool(self._globs)

    @property
    def ranges(self) -> list[Range]:
        """The parts of the listing that contain the selected files, in its order. No two of them overlap."""
        wanted = {Range(name if name.endswith("/") else f"{name}/") for name in self._exact}
        wanted |= {Range(name, is_file=True) for name in self._exact if not name.endswith("/")}
        wanted |= {Range(literal_prefix(name)) for name in self._globs}
        wanted |= {Range("")} if self._selects_all else set()
        ranges: list[Range] = []
        for range in sorted(wanted):
            if not ranges or ranges[-1].is_file or not range.prefix.startswith(ranges[-1].prefix):
                ranges.append(range)
        return ranges

    def selects(self, name: str) -> bool:
        """True if the file ``name`` or, with ``/`` at its end, the folder is selected.

        Names must be passed in the order of the listing.
        """
        if self._selects_all:
            self._unmatched.pop(EVERYTHING, None)
        folder = self._enter(name[: name.rfind("/") + 1])
        if name.endswith("/"):
            return folder is _Folder.SELECTED
        if name in self._exact:
            self._unmatched.pop(name, None)
            return True
        if folder is _Folder.EXCLUDED or self._excludes.match(name):
            return False
        return (bool(self._globs) and self._match_globs(name)) or folder is _Folder.SELECTED

    def _enter(self, folder: str) -> _Folder:
        """Returns what is known of all files in ``folder``."""
        while not folder.startswith(self._folders[-1][0]):
            self._folders.pop()
        above, state = self._folders[-1]
        while above != folder:
            above = folder[: folder.index("/", len(above)) + 1]
            state = self._decide(above, state)
            self._folders.append((above, state))
        return state

    def _decide(self, folder: str, above: _Folder) -> _Folder:
        """Returns what is known of all files in ``folder``, and ``above`` of all files in the folder above it."""
        if not self._exact.isdisjoint((folder, folder[:-1])):
            self._unmatched.pop(folder, None)
            self._unmatched.pop(folder[:-1], None)
            return _Folder.SELECTED
        if above is _Folder.EXCLUDED or self._excludes.match(folder):
            return _Folder.EXCLUDED
        return _Folder.SELECTED if self._match_globs(folder) else above

    def _match_globs(self, name: str) -> bool:
        if not self._any_glob.match(name):
            return False
        for glob in [glob for glob in self._unmatched if glob in self._globs]:
            if self._globs[glob].match(name):
                del self._unmatched[glob]
        return True

    def not_found(self, names: Sequence[str]) -> list[NotFoundError]:
        """Returns an error for each NAME that has selected nothing so far. ``names`` are names of shared files and
        folders, not necessarily all.
        """
        return [NotFoundError(self._not_found_text(name), name=name, names=names) for name in self._unmatched]

    def _not_found_text(self, name: str) -> str:
        if name == EVERYTHING:
            return "no files are shared"
        if name not in self._globs:
            return f"{name!r} is not shared: msd list shows the shared files"
        excluded = ", or all are excluded" if self._has_excludes else ""
        return f"no shared file matches {name!r}{excluded}: msd list shows the shared files"
