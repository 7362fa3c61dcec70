"""Checks the entries of a listing, which come from workers that are not trusted. Pure.

A listing is refused if it has a name that cannot be the path of a file or folder below another folder. So every file of
a listing has a path of its own, and no file is in the way of a folder. ``client/network/reply_check.py`` has checked
that the names are sorted, and that they are those that were requested.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from msd.wire.errors import ProtocolError, UsageError
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import file_id
from msd.wire.support.presentable_names import is_presentable

#: The maximum size of a listing: the characters of all names, and this number for each. It limits the memory and the
#: time that a listing takes: 5 million names of 40 characters, for example.
MAX_LISTING, NAME_COST = 1 << 29, 64
_INVALID_PARTS = frozenset({"", ".", ".."})
_EMPTY_FILE = file_id(0, b"")


class PageChecker:
    """Checks the pages of a listing, one after another."""

    def __init__(self) -> None:
        self._listed = 0
        #: The folder that contains the last file or, for an entry of a folder, the folder itself.
        self._folder = ""
        #: The files whose names are the beginning of the last name, or the last name; shortest first.
        self._files: tuple[str, ...] = ()

    def check(self, entries: Sequence[Entry]) -> None:
        """Checks the next page.

        Raises ``ProtocolError`` if the page is invalid; the next page can then be another one in its place. Raises
        ``UsageError`` if the listing is too large.
        """
        checker = copy(self)
        for entry in entries:
            checker._check_name(entry.name)
            _check_content(entry)
        if checker._listed > MAX_LISTING:
            raise UsageError("the list of shared files is too large: select a folder or a file")
        self.__dict__.update(checker.__dict__)

    def _check_name(self, name: str) -> None:
        folder = name[: name.rfind("/") + 1]
        is_known = folder == self._folder
        # The parts of a folder's name are checked once.
        if not is_presentable(name) or not has_valid_parts(name[len(folder) if is_known else 0 :]):
            raise ProtocolError(f"{_quoted(name)} cannot be the name of a shared file")
        files = self._files
        while files and not name.startswith(files[-1]):
            files = files[:-1]
        if not is_known:
            for file in files:
                if folder.startswith("/", len(file)):
                    raise ProtocolError(f"{_quoted(file)} is the name of a file and of a folder")
        self._folder = folder
        self._files = files if name == folder else (*files, name)
        self._listed += len(name) + NAME_COST


def has_valid_parts(name: str) -> bool:
    """True if no part of the name of a file, or of a folder with ``/`` at its end, is empty, ``.`` or ``..``."""
    return _INVALID_PARTS.isdisjoint(name.removesuffix("/").split("/"))


def _check_content(entry: Entry) -> None:
    if entry.is_folder:
        is_valid = entry.id is None and entry.size == 0
    else:
        is_valid = entry.id is not None and (entry.size > 0 or entry.id == _EMPTY_FILE)
    if not is_valid:
        raise ProtocolError(f"{_quoted(entry.name)} has an invalid size or id")


def _quoted(name: str) -> str:
    return repr(name[:100])
