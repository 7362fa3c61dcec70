"""``msd verify`` for a folder: compares its files with those of a shared folder. Fetches only the list of files.

Changes nothing. ``client/operations/verify.py`` compares a single file.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from msd.client.manifest.listing import Listing, entries
from msd.client.network.pool import ConnectionPool
from msd.client.network.session import Session
from msd.client.plan.plan import Plan
from msd.client.plan.selection import EVERYTHING, normalized
from msd.client.storage.file_content import compare_content
from msd.client.storage.segments_on_disk import disk_errors, read_error
from msd.wire.config.servers import Servers
from msd.wire.errors import DiskError, MsdError, NotFoundError, UsageError
from msd.wire.protocol.messages import Entry
from msd.wire.support.part_names import is_part_name

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class Difference(enum.StrEnum):
    """How a file of the folder differs from the shared file: its content is another one, it is missing, or it cannot be
    read. An extra file is not shared.
    """

    DIFFERS = "differs"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    EXTRA = "extra"


class FolderComparison(Struct, frozen=True):
    """The result of comparing ``folder`` with the shared folder ``name``; with an empty ``name``, with everything.

    Of the shared ``files``, ``matching`` are the same in the folder. ``differences`` has each file that is not, and
    each extra file, by its path in the folder, in the order of the paths; the extra files come last.
    """

    folder: Path
    name: str
    files: int
    matching: int
    differences: dict[str, Difference]

    @property
    def matches(self) -> bool:
        """True if all shared files are the same. Extra files do not count."""
        return self.matching == self.files


def verify_folder(servers: Servers, folder: Path, name: str | None, timeout: float) -> FolderComparison:
    """Compares ``folder`` with the shared folder ``name``, or with everything if it is ``.``.

    Without ``name``, compares it with the shared folder of the same base name, and with everything if there is none.

    Raises ``MsdError``; ``NoAnswerError`` after ``timeout`` seconds without an answer.
    """
    with closing(ConnectionPool(servers, download=False, timeout=timeout)) as pool:
        shared_name, plan = _list(Session(pool), folder, name)
    differences: dict[str, Difference] = {}
    names: set[str] = set()
    for entry in entries(plan):
        if entry.is_folder:
            continue
        path = entry.name[len(shared_name) :]
        names.add(path)
        if (difference := _compare(folder / path, entry)) is not None:
            differences[path] = difference
    matching = len(names) - len(differences)
    extra = sorted(path for path in _files_in(folder) if path not in names)
    differences |= dict.fromkeys(extra, Difference.EXTRA)
    return FolderComparison(folder, shared_name, len(names), matching, differences)


def _list(session: Session, folder: Path, name: str | None) -> tuple[str, Plan]:
    """Returns the name of the shared folder, which is empty for everything, and its files."""
    if name is None:
        try:
            return _list_folder(session, folder.resolve().name)
        except MsdError as error:
            if not isinstance(error, NotFoundError | UsageError):
                raise
        name = EVERYTHING
    if normalized(name) != EVERYTHING:
        return _list_folder(session, normalized(name))
    listing = Listing(session, [EVERYTHING])
    session.run(listing)
    return "", listing.plan


def _list_folder(session: Session, name: str) -> tuple[str, Plan]:
    """Returns the name of the shared folder with ``/`` at its end, and its files."""
    folder = f"{name.removesuffix('/')}/"
    listing = Listing(session, [folder])
    session.run(listing)
    if listing.has_globs or not len(listing.plan):
        raise NotFoundError(f"no shared folder is named {folder!r}: msd list shows the shared files")
    return folder, listing.plan


def _compare(path: Path, entry: Entry) -> Difference | None:
    """Compares a local file with a shared file. Returns None if they have the same content."""
    try:
        with disk_errors(path, read_error):
            try:
                fd = os.open(path, _FLAGS)
            except (FileNotFoundError, NotADirectoryError):
                return Difference.MISSING
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
                return Difference.DIFFERS
            matches = any(compare_content(fd, entry, path))
        finally:
            os.close(fd)
    except DiskError:
        return Difference.UNREADABLE
    return None if matches else Difference.DIFFERS


def _files_in(folder: Path) -> Iterator[str]:
    """Yields the path of each file in the folder, and in those below it, but not of part files."""
    for root, _, names in os.walk(folder):
        below = os.path.relpath(root, folder)
        prefix = "" if below == "." else f"{below}/"
        yield from (prefix + name for name in names if not is_part_name(name))
