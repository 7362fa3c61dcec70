"""Reads the catalogue: the shared files, their versions and their digests.

The indexer writes each edition of the catalogue into a separate folder, from which every worker reads it: see
``EDITION_FILES``. Only the names and the ids are kept in memory. Records are mapped, so that all workers share the
memory for them, and digests are read for each request.

Does not open the shared files: see ``workers/source/local_files.py``.
"""

from __future__ import annotations

import bisect
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from msd.wire.protocol.child_messages import DIGESTS, NAMES, RECORD, RECORDS
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_BUNDLE_SIZE, segment_count
from msd.workers.source.listing import Listing

#: Digests per reply: 256 KiB of digests cover 8 GiB of a file.
DIGESTS_PER_PAGE = 8192
#: The bits of a mode that are shared: not setuid, setgid and sticky.
PERMISSIONS = 0o777
#: Times are clamped to 64 bits, as the protocol requires: that range ends in the year 2262, but a file system may have
#: later times.
MAX_TIME_NS = 2**63 - 1
#: The beginning of a record: a version. It is followed by the id; that of a folder is zero.
VERSION = struct.Struct(">QQQqqH")
_NO_ID = bytes(DIGEST_SIZE)


class Version(Struct, frozen=True, gc=False):
    """Identifies one version of a file on disk. ``mode`` is its permission bits."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int = 0

    @classmethod
    def of(cls, stat: os.stat_result) -> Version:
        mtime_ns, ctime_ns = stat.st_mtime_ns, stat.st_ctime_ns
        if not (-MAX_TIME_NS <= mtime_ns <= MAX_TIME_NS and -MAX_TIME_NS <= ctime_ns <= MAX_TIME_NS):
            mtime_ns, ctime_ns = (max(-MAX_TIME_NS, min(time, MAX_TIME_NS)) for time in (mtime_ns, ctime_ns))
        return cls(stat.st_dev, stat.st_ino, stat.st_size, mtime_ns, ctime_ns, stat.st_mode & PERMISSIONS)

    @property
    def packed(self) -> bytes:
        """The version as a record begins with it."""
        return VERSION.pack(self.device, self.inode, self.size, self.ctime_ns, self.mtime_ns, self.mode)


class SharedFile(Struct, frozen=True):
    """One shared file. ``first_digest`` is the position of its first digest in the catalogue's digests, counted in
    digests; 0 for a small file.
    """

    name: str
    version: Version
    id: bytes
    first_digest: int = 0

    @classmethod
    def unpack(cls, name: str, record: bytes) -> SharedFile:
        device, inode, size, ctime_ns, mtime_ns, mode, id, first_digest = RECORD.unpack(record)
        return cls(name, Version(device, inode, size, mtime_ns, ctime_ns, mode), id, first_digest)

    @property
    def record(self) -> bytes:
        """The record of the file in an edition."""
        return self.version.packed + self.id + self.first_digest.to_bytes(8, "big")

    @property
    def size(self) -> int:
        return self.version.size

    @property
    def segments(self) -> int:
        return segment_count(self.size)

    @property
    def is_small(self) -> bool:
        """True if the file may be in a bundle. The catalogue has no digests of such files: twelve digests may be larger
        than the file, and computing them again takes one short read.
        """
        return self.size <= MAX_BUNDLE_SIZE

    @property
    def entry(self) -> Entry:
        version = self.version
        return Entry(name=self.name, size=version.size, mtime_ns=version.mtime_ns, mode=version.mode, id=self.id)


class SharedFolder(Struct, frozen=True):
    """A folder below a shared path. Its name ends with ``/``. Its times are not kept: they change whenever anything is
    created in it, also what is not shared.
    """

    name: str
    mode: int

    @property
    def entry(self) -> Entry:
        return Entry(name=self.name, size=0, mtime_ns=0, mode=self.mode)

    @property
    def record(self) -> bytes:
        """The record of the folder in an edition."""
        return RECORD.pack(0, 0, 0, 0, 0, self.mode, _NO_ID, 0)


#: What is known of a name in the catalogue without reading it. A folder is its own version.
AnyVersion = Version | SharedFolder


class Catalogue:
    """One edition of the catalogue, read from ``folder``. Call ``close()`` when done; the listing remains.

    Raises ``OSError`` if the edition cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._items = items = _Items(folder)
        # The listing may be kept longer than the catalogue, so it must not refer to the ids.
        self.listing = Listing(items.catalogue_id, items.names, items.entry)
        self._ids = items.ids()
        #: The position of the first file with an id, and those of further files with the same id.
        self._positions: dict[bytes, int] = {}
        self._copies: dict[bytes, list[int]] = {}
        #: The number of files, without folders.
        self.file_count = 0
        for position, id in enumerate(self._ids):
            if id != _NO_ID:
                self.file_count += 1
                if self._positions.setdefault(id, position) != position:
                    self._copies.setdefault(id, []).append(position)
        #: The file found last by its id: most requests are for the same file as the one before.
        self._last_found: SharedFile | None = None
        self._digests = os.open(folder / DIGESTS, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def id(self) -> bytes:
        return self.listing.id

    def close(self) -> None:
        os.close(self._digests)

    @property
    def files(self) -> list[SharedFile]:
        """All files, in the order of their names. Computed on each access."""
        return [item for item in self._items if isinstance(item, SharedFile)]

    @property
    def versions(self) -> dict[str, AnyVersion]:
        """The versions of all files and folders, by name. Computed on each access."""
        return {item.name: item.version if isinstance(item, SharedFile) else item for item in self._items}

    def records(self) -> Iterator[tuple[str, bytes]]:
        """Iterates over the names and records of all files and folders."""
        return self._items.records()

    def find(self, name: str | None, id: bytes | None) -> SharedFile | None:
        """Returns the file with this name and this id, None if there is none. A name or an id of None matches any file;
        if both are None, returns the shared file if there is exactly one.
        """
        if name is not None:
            position = bisect.bisect_left(self._items.names, name)
            item = self._items[position] if self._items.names[position : position + 1] == [name] else None
            return item if isinstance(item, SharedFile) and id in (None, item.id) else None
        if id is None and self.file_count == 1:
            (id,) = self._positions
        if id not in self._positions:
            return None
        if self._last_found is None or self._last_found.id != id:
            self._last_found = self._items.file(self._positions[id])
        return self._last_found

    def own_id(self, id: bytes) -> bytes | None:
        """Returns the id as an object that the catalogue holds anyway; None if no file has it."""
        return self._ids[self._positions[id]] if id in self._positions else None

    def copies(self, file: SharedFile) -> list[SharedFile]:
        """Returns all files with the same content as ``file``, including ``file``."""
        if file.id not in self._copies:
            return [file]
        return [*map(self._items.file, [self._positions[file.id], *self._copies[file.id]])]

    def digests(self, file: SharedFile, start: int, count: int = DIGESTS_PER_PAGE) -> bytes:
        """Returns up to ``count`` digests of a large ``file`` from segment ``start`` on; none past the end."""
        start = min(start, file.segments)
        count = min(count, file.segments - start)
        return os.pread(self._digests, count * DIGEST_SIZE, (file.first_digest + start) * DIGEST_SIZE)


class _Items:
    """The names and records of an edition, in the order of the names. An item is created when it is needed."""

    def __init__(self, folder: Path) -> None:
        self.names = (folder / NAMES).read_bytes().decode().split("\0")[:-1]
        with (folder / RECORDS).open("rb") as file:
            # Unlike a shared file, no program truncates this one: it is in a private folder.
            self._records = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        self.catalogue_id = self._records[:DIGEST_SIZE]

    def __iter__(self) -> Iterator[SharedFile | SharedFolder]:
        return map(self.__getitem__, range(len(self.names)))

    def __getitem__(self, position: int) -> SharedFile | SharedFolder:
        name = self.names[position]
        if name.endswith("/"):
            return SharedFolder(name, RECORD.unpack(self._record(position))[5])
        return self.file(position)

    def entry(self, position: int) -> Entry:
        return self[position].entry

    def file(self, position: int) -> SharedFile:
        return SharedFile.unpack(self.names[position], self._record(position))

    def ids(self) -> list[bytes]:
        starts = range(DIGEST_SIZE + VERSION.size, len(self._records), RECORD.size)
        return [self._records[start : start + DIGEST_SIZE] for start in starts]

    def records(self) -> Iterator[tuple[str, bytes]]:
        return zip(self.names, map(self._record, range(len(self.names))), strict=True)

    def _record(self, position: int) -> bytes:
        start = DIGEST_SIZE + position * RECORD.size
        return self._records[start : start + RECORD.size]


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
