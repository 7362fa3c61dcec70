"""The index of a store's files beside them, so that no other host has to read them: its format. Pure.

The object ``.msd/index`` below the prefix has the ids and the digests of all files, each by the version of its object.
Who can write it can also replace the files; a worker compares what it sends with the index anyway. Reads and writes no
object: see ``workers/indexing/indexer.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from blake3 import blake3

from msd.wire.protocol.segments import DIGEST_SIZE, MAX_BUNDLE_SIZE, file_id, segment_count
from msd.workers.indexing.digest_cache import CachedDigests
from msd.workers.source.catalogue import Version

#: The beginning of the object: its format.
MAGIC = b"msd-index-1\n"
#: An entry: the number that stands for the object's key and ETag, the size, and the id. The digests of the segments
#: follow if the file is large.
ENTRY = struct.Struct(">QQ32s")
#: A larger index is not read, in bytes: the digests of 8 TiB.
MAX_SIZE = 256 << 20


class KeptIndex:
    """What an index holds: the digests of each version in the store ``device``."""

    def __init__(self, entries: Mapping[tuple[int, int], CachedDigests], device: int) -> None:
        self._entries = entries
        self._device = device

    @classmethod
    def decode(cls, data: bytes, device: int) -> KeptIndex:
        """Returns an index that lies in the store ``device``. Raises ``ValueError`` if ``data`` is damaged, or has
        another format.
        """
        if data[: len(MAGIC)] != MAGIC or blake3(data[:-DIGEST_SIZE]).digest() != data[-DIGEST_SIZE:]:
            raise ValueError("damaged, or of another version of msd")
        entries = {}
        at, end = len(MAGIC), len(data) - DIGEST_SIZE
        while at < end:
            if at + ENTRY.size > end:
                raise ValueError("damaged")
            inode, size, id = ENTRY.unpack_from(data, at)
            at += ENTRY.size
            length = DIGEST_SIZE * segment_count(size) if size > MAX_BUNDLE_SIZE else 0
            digests = data[at : at + length]
            at += length
            if length and file_id(size, digests) != id:
                raise ValueError("damaged")
            entries[inode, size] = CachedDigests(id, digests)
        return cls(entries, device)

    def load(self, versions: Iterable[Version]) -> dict[Version, CachedDigests]:
        """Returns what the index holds of these versions. It says nothing about files that are not in its store."""
        own = (version for version in versions if version.device == self._device)
        return {v: found for v in own if (found := self._entries.get((v.inode, v.size))) is not None}


def encode(entries: Iterable[tuple[Version, bytes, bytes]]) -> bytes:
    """Returns the index of files, each with its version, its id and, if it is large, the digests of its segments."""
    data = b"".join([MAGIC, *_encoded(entries)])
    return data + blake3(data).digest()


def _encoded(entries: Iterable[tuple[Version, bytes, bytes]]) -> Iterator[bytes]:
    for version, id, digests in entries:
        yield ENTRY.pack(version.inode, version.size, id)
        yield digests
