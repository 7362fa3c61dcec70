"""How a file is cut into segments, and the manifest that names every one of them.

Does not read files: ``workers/indexing/catalogue_writer.py`` computes the digests,
``client/storage/part_file.py`` checks them.
"""

from __future__ import annotations

from functools import lru_cache

from blake3 import blake3
from msgspec import Struct

from msd.wire.errors import ProtocolError

#: A small file is cut into this many segments: the optimum found by the report's authors.
SEGMENTS = 12
#: A segment travels as one message. 1 MiB was measured best: 256 KiB segments cost a third of the
#: rate, 4 MiB ones gain nothing and make loss and memory coarser.
SEGMENT_LIMIT = 1 << 20
#: Above this many segments the limit doubles instead, so that a manifest stays below 32 MiB.
MAX_SEGMENTS = 1 << 20
#: No segment is larger than this; it bounds what a client lets one message allocate.
MAX_SEGMENT_SIZE = 64 << 20
MAX_FILE_SIZE = MAX_SEGMENTS * MAX_SEGMENT_SIZE

DIGEST_SIZE = 32


@lru_cache(4096)
def segment_size(file_size: int) -> int:
    """Bytes in every segment but the last: ``ceil(file_size / 12)``, at most ``SEGMENT_LIMIT``, which
    doubles as often as the file would have more than ``MAX_SEGMENTS`` segments otherwise.

    0 for an empty file, which has no segments.
    """
    limit = SEGMENT_LIMIT
    while file_size > MAX_SEGMENTS * limit:
        limit *= 2
    return min(-(-file_size // SEGMENTS), limit)


def segment_count(file_size: int) -> int:
    """Number of segments of a file of ``file_size`` bytes; 0 for an empty one."""
    return -(-file_size // segment_size(file_size)) if file_size else 0


def digest(data: bytes | memoryview) -> bytes:
    """The BLAKE3 digest (32 bytes) of one segment."""
    return blake3(data).digest()


def file_id(file_size: int, digests: bytes) -> bytes:
    """The id (32 bytes) that names this content: BLAKE3 over its canonical encoding.

    The canonical encoding is the file size and the segment size, each as 8 bytes big-endian,
    then all segment digests in order. The name and the times are not part of it.
    """
    header = file_size.to_bytes(8, "big") + segment_size(file_size).to_bytes(8, "big")
    return blake3(header + digests).digest()


class Manifest(Struct, frozen=True):
    """One version of one file: its name, its size and the digest of each of its segments.

    ``digests`` holds ``segment_count(size)`` digests of 32 bytes, in order.
    """

    name: str
    size: int
    digests: bytes
    id: bytes

    @classmethod
    def build(cls, name: str, size: int, digests: bytes) -> Manifest:
        """The manifest of these digests, its id computed. Raises ``ProtocolError`` if they cannot
        belong to a file of this size.
        """
        if not 0 <= size <= MAX_FILE_SIZE:
            raise ProtocolError(f"a file of {size} bytes is outside 0…{MAX_FILE_SIZE}")
        if len(digests) != DIGEST_SIZE * segment_count(size):
            raise ProtocolError(f"{len(digests)} bytes of digests for a file of {size} bytes")
        return cls(name, size, digests, file_id(size, digests))

    @property
    def segments(self) -> int:
        return segment_count(self.size)

    def span(self, index: int) -> tuple[int, int]:
        """``(offset, length)`` in bytes of segment ``index``."""
        return span(self.size, index)

    def digest(self, index: int) -> bytes:
        return self.digests[DIGEST_SIZE * index : DIGEST_SIZE * (index + 1)]


def span(file_size: int, index: int) -> tuple[int, int]:
    """``(offset, length)`` in bytes of segment ``index`` of a file of ``file_size`` bytes."""
    size = segment_size(file_size)
    offset = index * size
    return offset, min(size, file_size - offset)
