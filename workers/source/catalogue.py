"""Reads the catalogue: the shared files, their versions and their digests.

The indexer writes each edition of the catalogue into a separate folder, from which every worker reads it. An edition
consists of three files: ``files.jsonl`` and ``folders.jsonl``, one line per file or folder, sorted by name, and
``digests``, all segment digests in the order of the files. Digests are read from disk for each request, so a worker's
memory does not grow with the number of digests.

Does not open the shared files: see ``workers/source/local_files.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import DIGEST_SIZE, segment_count
from msd.workers.source.listing import Listing

#: Digests per reply: 256 KiB of digests cover 8 GiB of a file.
DIGESTS_PER_PAGE = 8192


#: The bits of a mode that are shared: not setuid, setgid and sticky.
PERMISSIONS = 0o777


class Version(msgspec.Struct, frozen=True):
    """Identifies one version of a file on disk."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Version:
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class SharedFile(msgspec.Struct, frozen=True):
    """One shared file: a line of the catalogue. ``first_digest`` is the position of its first digest in
    the file ``digests``, counted in digests. ``mode`` is its permission bits.
    """

    name: str
    version: Version
    id: bytes
    first_digest: int
    mode: int = 0

    @property
    def size(self) -> int:
        return self.version.size

    @property
    def mtime_ns(self) -> int:
        """The modification time, clamped to 64 bits as the protocol requires: that range ends in the year
        2262, but a file system may report later times.
        """
        return max(-(2**63), min(self.version.mtime_ns, 2**63 - 1))

    @property
    def segments(self) -> int:
        return segment_count(self.size)

    @property
    def entry(self) -> Entry:
        return Entry(name=self.name, size=self.size, mtime_ns=self.mtime_ns, mode=self.mode, id=self.id)


class SharedFolder(msgspec.Struct, frozen=True):
    """A folder below a shared path. Its name ends with ``/``. Its times are not kept: they change whenever anything is
    created in it, also what is not shared.
    """

    name: str
    mode: int

    @property
    def entry(self) -> Entry:
        return Entry(name=self.name, size=0, mtime_ns=0, mode=self.mode)


#: What is known of a name in the catalogue without reading it. A folder is its own version.
AnyVersion = Version | SharedFolder


class Catalogue:
    """One edition of the catalogue, read from ``folder``. Call ``close()`` when done.

    Raises ``OSError`` if the edition cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        lines, folders = (folder / "files.jsonl").read_bytes(), (folder / "folders.jsonl").read_bytes()
        self.files: list[SharedFile] = msgspec.json.Decoder(SharedFile).decode_lines(lines)
        self.folders: list[SharedFolder] = msgspec.json.Decoder(SharedFolder).decode_lines(folders)
        self.listing = Listing([*self.files, *self.folders])
        self._by_name = {file.name: file for file in self.files}
        self._by_id: dict[bytes, list[SharedFile]] = {}
        for file in self.files:
            self._by_id.setdefault(file.id, []).append(file)
        self._digests = os.open(folder / "digests", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def id(self) -> bytes:
        return self.listing.id

    def close(self) -> None:
        os.close(self._digests)

    def find(self, name: str | None, id: bytes | None) -> SharedFile | None:
        """Returns the file with this name and this id, None if there is none. A name or an id of None matches any file;
        if both are None, returns the shared file if there is exactly one.
        """
        if name is not None:
            file = self._by_name.get(name)
            return file if file and id in (None, file.id) else None
        if id is not None:
            return self._by_id[id][0] if id in self._by_id else None
        return self.files[0] if len(self.files) == 1 else None

    def copies(self, file: SharedFile) -> list[SharedFile]:
        """Returns all files with the same content as ``file``, including ``file``."""
        return self._by_id[file.id]

    def digests(self, file: SharedFile, start: int, count: int = DIGESTS_PER_PAGE) -> bytes:
        """Returns up to ``count`` digests of ``file`` from segment ``start`` on; none past the end."""
        start = min(start, file.segments)
        count = min(count, file.segments - start)
        return os.pread(self._digests, count * DIGEST_SIZE, (file.first_digest + start) * DIGEST_SIZE)


def versions_of(files: Iterable[SharedFile], folders: Iterable[SharedFolder]) -> dict[str, AnyVersion]:
    """Returns the versions of the files and folders, by name."""
    return {file.name: file.version for file in files} | {folder.name: folder for folder in folders}


def editions(folder: Path) -> list[int]:
    """Returns the numbers of the editions in ``folder``, oldest first. Each is a subfolder named by its number."""
    return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def open_edition(folder: Path, number: int) -> tuple[int, Catalogue]:
    """Opens edition ``number``, or the newest edition if edition ``number`` was deleted. Returns the number of the
    opened edition and its catalogue. Raises ``FileNotFoundError`` if there is no edition.
    """
    while True:
        try:
            return number, Catalogue(folder / str(number))
        except FileNotFoundError:
            newest = max(editions(folder), default=number)
            if newest == number:
                raise
            number = newest
