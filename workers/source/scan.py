"""Scans the shared folder: lists its files with their versions, and the reasons why other files cannot be shared.

Opens no file, which keeps scans fast; ``workers/source/local_files.py`` checks each file again when it is
opened. Paths are strings instead of ``Path`` objects because a folder may hold very many files.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from msd.wire.errors import MsdError, NotFoundError, SourceError
from msd.wire.protocol.segments import MAX_FILE_SIZE
from msd.wire.support.presentable_names import is_presentable, presentable
from msd.workers.source.catalogue import Version

#: Suffix of part files: a download writes to a part file until the download is complete.
PART_SUFFIX = ".part"


class Scan(NamedTuple):
    """The result of a scan: ``files`` maps each shareable name to its version, and ``skipped`` maps every other name,
    escaped for display, to the reason.
    """

    files: dict[str, Version]
    skipped: dict[str, str]


def scan(root: Path) -> Scan:
    """Scans ``root``, a folder or a file. Raises ``MsdError`` if it does not exist, cannot be read, or is
    a file that cannot be shared.
    """
    try:
        status = root.stat()
        if stat.S_ISDIR(status.st_mode):
            return _scan_folder(str(root))
        _check_name(root.name)
        return Scan({root.name: _version(status)}, {})
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{root}: no such file or folder to share: check -f or [share] path") from None
    except OSError as error:
        raise unshareable_error(root, error.strerror or str(error)) from None


def unshareable_error(root: Path, reason: str) -> MsdError:
    return SourceError(f"{root}: cannot be shared: {reason}")


def _scan_folder(root: str) -> Scan:
    result = Scan({}, {})
    # A link is shared only if the path of its target starts with this prefix.
    real_root = os.path.join(os.path.realpath(root), "")
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
                            result.files[name] = _examine(entry, name, real_root)
                    except OSError as error:
                        _skip(result, name, error, may_vanish=not entry.is_symlink())
        except OSError as error:
            if not folder:
                raise
            _skip(result, folder[:-1], error, may_vanish=True)
    return result


def _skip(result: Scan, name: str, error: OSError, *, may_vanish: bool) -> None:
    """Records why a file or folder is not shared. With ``may_vanish``, ignores an entry that was deleted
    during the scan.
    """
    if not (may_vanish and isinstance(error, FileNotFoundError)):
        result.skipped[presentable(name)] = error.strerror or str(error)


def _examine(entry: os.DirEntry[str], name: str, real_root: str) -> Version:
    """Returns the version of a shareable file. Raises ``OSError`` with the reason if it cannot be shared."""
    _check_name(name)
    if name.endswith(PART_SUFFIX):
        raise OSError(0, f"an unfinished download (*{PART_SUFFIX})")
    status = entry.stat()
    if entry.is_symlink():
        if stat.S_ISDIR(status.st_mode):
            raise OSError(0, "a link to a folder")
        version = _version(status)
        if not os.path.realpath(entry.path).startswith(real_root):
            raise OSError(0, "a link that points outside the shared folder")
        return version
    return _version(status)


def _check_name(name: str) -> None:
    """Raises ``OSError`` if a file with this name cannot be shared."""
    if len(name) > 4096:
        raise OSError(0, "its name is longer than 4096 characters")
    if name.isascii() and name.isprintable():
        return  # Fast path: most names need no check of each character.
    try:
        name.encode()
    except UnicodeEncodeError:
        raise OSError(0, "its name is not UTF-8") from None
    if not is_presentable(name):
        raise OSError(0, "its name contains control characters")


def _version(status: os.stat_result) -> Version:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "not a regular file")
    if status.st_size > MAX_FILE_SIZE:
        raise OSError(0, f"larger than {MAX_FILE_SIZE} bytes")
    return Version.of(status)
