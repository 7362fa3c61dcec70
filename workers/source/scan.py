"""One look at the shared files: which there are, in which version, and what cannot be shared and why.

Opens no file, so it is quick: what a file really is, is checked once more when it is opened (see
``workers/source/local_files.py``). Strings instead of ``Path`` objects, for a folder may hold very many.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from msd.wire.errors import MsdError, NotFoundError, SourceError
from msd.wire.protocol.segments import MAX_FILE_SIZE
from msd.wire.support.text import is_presentable, presentable
from msd.workers.source.catalogue import Version

#: What a download writes to until it is complete.
UNFINISHED = ".part"


class Look(NamedTuple):
    """The versions of the files that may be shared, and why the others may not, each by name (for the
    others: one that can be shown).
    """

    files: dict[str, Version]
    skipped: dict[str, str]


def look(root: Path) -> Look:
    """Looks at ``root``, a folder or a file. Raises ``MsdError`` if there is nothing, or nothing that
    may be looked at, or a file that may not be shared.
    """
    try:
        status = root.stat()
        if stat.S_ISDIR(status.st_mode):
            return _look_below(str(root))
        _check_name(root.name)
        return Look({root.name: _version(status)}, {})
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{root}: no such file or folder to share: check -f or [share] path") from None
    except OSError as error:
        raise unshareable(root, error.strerror or str(error)) from None


def unshareable(root: Path, why: str) -> MsdError:
    return SourceError(f"{root}: cannot be shared: {why}")


def _look_below(root: str) -> Look:
    found = Look({}, {})
    #: A link is shared if its target lies below this.
    inside = os.path.join(os.path.realpath(root), "")
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    name = folder + entry.name
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(name + "/")
                        else:
                            found.files[name] = _examine(entry, name, inside)
                    except OSError as error:
                        _skip(found, name, error, vanished=not entry.is_symlink())
        except OSError as error:
            if not folder:
                raise
            _skip(found, folder[:-1], error, vanished=True)
    return found


def _skip(found: Look, name: str, error: OSError, *, vanished: bool) -> None:
    """Notes why a file or folder is not shared, unless it is just gone (``vanished``, if it can be)."""
    if not (vanished and isinstance(error, FileNotFoundError)):
        found.skipped[presentable(name)] = error.strerror or str(error)


def _examine(entry: os.DirEntry[str], name: str, inside: str) -> Version:
    """The version of a file that may be shared. Raises ``OSError`` if it may not be."""
    _check_name(name)
    if name.endswith(UNFINISHED):
        raise OSError(0, f"an unfinished download (*{UNFINISHED})")
    status = entry.stat()
    if entry.is_symlink():
        if stat.S_ISDIR(status.st_mode):
            raise OSError(0, "a link to a folder")
        version = _version(status)
        if not os.path.realpath(entry.path).startswith(inside):
            raise OSError(0, "a link that leads out of what is shared")
        return version
    return _version(status)


def _check_name(name: str) -> None:
    """Raises ``OSError`` if a file of this name may not be shared."""
    if len(name) > 4096:
        raise OSError(0, "its name is longer than 4096 characters")
    if name.isascii() and name.isprintable():
        return  # As most are: no need to look at each character.
    try:
        name.encode()
    except UnicodeEncodeError:
        raise OSError(0, "its name is not UTF-8") from None
    if not is_presentable(name):
        raise OSError(0, "its name holds control characters")


def _version(status: os.stat_result) -> Version:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "not a regular file")
    if status.st_size > MAX_FILE_SIZE:
        raise OSError(0, f"larger than {MAX_FILE_SIZE} bytes")
    return Version.of(status)
