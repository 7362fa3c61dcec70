"""The catalogue: which files are shared, in which version, and where their digests lie.

The indexer writes each edition of it into a folder; every worker reads it from there. It is two files:
``files.jsonl``, a line for each file sorted by name, and ``digests``, all segment digests in the
same order. Digests are read when they are asked for, so a worker's memory does not grow with them.

Does not open the shared files: see ``workers/source/local_files.py``.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from blake3 import blake3

from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import DIGEST_SIZE, segment_count

#: A page of the catalogue holds at most this many entries and about this many bytes of names: it
#: has to stay below ``msd.wire.protocol.codec.MAX_HEADER``.
PAGE_ENTRIES = 256
PAGE_BYTES = 256 << 10
#: Digests in one reply: 256 KiB of them describe 8 GiB.
DIGESTS_PER_PAGE = 8192


class Version(msgspec.Struct, frozen=True):
    """What tells one version of a file on disk from every other."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Version:
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def is_of(self, stat: os.stat_result) -> bool:
        """True if ``stat`` is of this version."""
        return (
            stat.st_mtime_ns == self.mtime_ns
            and stat.st_ctime_ns == self.ctime_ns
            and stat.st_size == self.size
            and stat.st_ino == self.inode
            and stat.st_dev == self.device
        )


class SharedFile(msgspec.Struct, frozen=True):
    """One shared file: a line of the catalogue. ``first`` counts the digests before its own."""

    name: str
    version: Version
    id: bytes
    first: int

    @property
    def size(self) -> int:
        return self.version.size

    @property
    def mtime_ns(self) -> int:
        """Its time of modification as the protocol can say it: 64 bits end in the year 2262, and a
        file system may give a later one.
        """
        return max(-(2**63), min(self.version.mtime_ns, 2**63 - 1))

    @property
    def segments(self) -> int:
        return segment_count(self.size)

    @property
    def entry(self) -> Entry:
        return Entry(name=self.name, size=self.size, mtime_ns=self.mtime_ns, id=self.id)


class Catalogue:
    """The catalogue in a folder. ``close()`` it when done."""

    def __init__(self, folder: Path) -> None:
        lines = (folder / "files.jsonl").read_bytes()
        self.files: list[SharedFile] = msgspec.json.Decoder(SharedFile).decode_lines(lines)
        self.id = catalogue_id(self.files)
        self._names = [file.name for file in self.files]
        self._by_name = {file.name: file for file in self.files}
        self._by_id: dict[bytes, list[SharedFile]] = {}
        for file in self.files:
            self._by_id.setdefault(file.id, []).append(file)
        self._digests = os.open(folder / "digests", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._digests)

    def find(self, name: str | None, id: bytes | None) -> SharedFile | None:
        """The file of this name and this id, either of them left open; with neither the only file
        there is.
        """
        if name is not None:
            file = self._by_name.get(name)
            return file if file and id in (None, file.id) else None
        if id is not None:
            return self._by_id[id][0] if id in self._by_id else None
        return self.files[0] if len(self.files) == 1 else None

    def copies(self, file: SharedFile) -> list[SharedFile]:
        """All files with the content of ``file``, itself among them."""
        return self._by_id[file.id]

    def page(self, after: str) -> tuple[list[Entry], bool]:
        """The entries that sort after the name ``after``, and whether there are more than these."""
        start = bisect.bisect_right(self._names, after)
        entries: list[Entry] = []
        length = 0
        for file in self.files[start : start + PAGE_ENTRIES]:
            length += len(file.name.encode()) + 64
            if entries and length > PAGE_BYTES:
                break
            entries.append(file.entry)
        return entries, start + len(entries) < len(self.files)

    def shared_before(self, name: str) -> str:
        """The last name of a shared file that does not sort after ``name``, "" if there is none: the
        same page follows both. A string that the catalogue holds anyway.
        """
        index = bisect.bisect_right(self._names, name)
        return self._names[index - 1] if index else ""

    def digests(self, file: SharedFile, start: int) -> bytes:
        """A page of the digests of ``file`` from segment ``start`` on; empty past its end."""
        start = min(start, file.segments)
        count = min(DIGESTS_PER_PAGE, file.segments - start)
        return os.pread(self._digests, count * DIGEST_SIZE, (file.first + start) * DIGEST_SIZE)

    def all_digests(self, file: SharedFile) -> bytes:
        return os.pread(self._digests, file.segments * DIGEST_SIZE, file.first * DIGEST_SIZE)

    def digest(self, file: SharedFile, index: int) -> bytes:
        """The digest of one segment."""
        return os.pread(self._digests, DIGEST_SIZE, (file.first + index) * DIGEST_SIZE)


def editions(folder: Path) -> list[int]:
    """The numbers of the editions in ``folder``, each a folder of that name, the newest last."""
    return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def open_edition(folder: Path, number: int) -> tuple[int, Catalogue]:
    """The edition of this number, or the newest if that is gone already, and its number. Raises
    ``FileNotFoundError`` if there is none.
    """
    while True:
        try:
            return number, Catalogue(folder / str(number))
        except FileNotFoundError:
            newest = max(editions(folder), default=number)
            if newest == number:
                raise
            number = newest


def catalogue_id(files: Iterable[SharedFile]) -> bytes:
    """The digest of a catalogue: BLAKE3 over the name (UTF-8), a zero byte and the id of each file
    in order of the names.
    """
    hasher = blake3()
    for file in files:
        hasher.update(file.name.encode() + b"\0" + file.id)
    return hasher.digest()
