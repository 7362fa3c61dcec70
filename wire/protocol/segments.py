"""Divides a file into segments, and describes it by a manifest with the digest of each segment.

Does not read files: ``workers/indexing/catalogue_writer.py`` computes the digests, and
``client/storage/segments_on_disk.py`` and ``client/operations/transfer.py`` check data against them.
"""

from __future__ import annotations

from functools import lru_cache

from blake3 import blake3
from msgspec import Struct

from msd.wire.errors import ProtocolError

#: The number of segments of a small file: the optimum found by the report's authors.
SMALL_FILE_SEGMENTS = 12
#: Maximum segment size of an ordinary file, in bytes; a segment is sent as one message. Measurements favour 1 MiB: with
#: 256 KiB the rate drops by a third; 4 MiB is no faster, loses more data when a connection is lost, and needs more
#: memory.
SEGMENT_LIMIT = 1 << 20
#: Maximum number of segments of a file, so that a manifest stays within 32 MiB. Very large files have larger segments
#: instead of more segments.
MAX_SEGMENTS = 1 << 20
#: Maximum segment size of any file, in bytes; this bounds the memory that one message can make a client allocate.
MAX_SEGMENT_SIZE = 64 << 20
#: Maximum size of a file in a bundle, and of the bundle, in bytes.
MAX_BUNDLE_SIZE = SEGMENT_LIMIT
MAX_FILE_SIZE = MAX_SEGMENTS * MAX_SEGMENT_SIZE

DIGEST_SIZE = 32


@lru_cache(4096)
def segment_size(file_size: int) -> int:
    """Returns the size in bytes of every segment but the last: ``ceil(file_size / 12)``, but at most ``SEGMENT_LIMIT``.
    That limit is doubled until the file has at most ``MAX_SEGMENTS`` segments.

    Returns 0 for an empty file, which has no segments.
    """
    limit = SEGMENT_LIMIT
    while file_size > MAX_SEGMENTS * limit:
        limit *= 2
    return min(-(-file_size // SMALL_FILE_SEGMENTS), limit)


def segment_count(file_size: int) -> int:
    """Returns the number of segments of a file of ``file_size`` bytes; 0 for an empty file."""
    return -(-file_size // segment_size(file_size)) if file_size else 0


def digest(data: bytes | memoryview) -> bytes:
    """Returns the BLAKE3 digest (32 bytes) of one segment."""
    return blake3(data).digest()


def file_id(file_size: int, digests: bytes) -> bytes:
    """Returns the id (32 bytes) of a file's content: the BLAKE3 digest of its canonical encoding.

    The canonical encoding is the file size and the segment size, each as 8 bytes big-endian, then all segment digests
    in order. The name and the times are not part of it.
    """
    header = file_size.to_bytes(8, "big") + segment_size(file_size).to_bytes(8, "big")
    return blake3(header + digests).digest()


def cut(data: memoryview) -> list[memoryview]:
    """Returns the segments of a file with the content ``data``."""
    size = segment_size(len(data)) or 1
    return [data[start : start + size] for start in range(0, len(data), size)]


def content_id(data: memoryview) -> bytes:
    """Returns the id of a file with the content ``data``."""
    return file_id(len(data), b"".join(map(digest, cut(data))))


class Manifest(Struct, frozen=True):
    """One version of a file: its name, its size in bytes and the digest of each segment.

    ``digests`` is the concatenation of ``segment_count(size)`` digests of 32 bytes, in order. ``mtime_ns`` is the time
    of the file's last change, and ``mode`` its permission bits; 0 if unknown. They are not part of the version.
    """

    name: str
    size: int
    digests: bytes
    id: bytes
    mtime_ns: int = 0
    mode: int = 0

    @classmethod
    def build(cls, name: str, size: int, digests: bytes, mtime_ns: int = 0, mode: int = 0) -> Manifest:
        """Returns the manifest with its computed id. Raises ``ProtocolError`` if no file of this size can have these
        digests.
        """
        if not 0 <= size <= MAX_FILE_SIZE:
            raise ProtocolError(f"a file size of {size} bytes is outside 0…{MAX_FILE_SIZE}")
        if len(digests) != DIGEST_SIZE * segment_count(size):
            raise ProtocolError(f"{len(digests)} bytes of digests for a file of {size} bytes")
        return cls(name, size, digests, file_id(size, digests), mtime_ns, mode)

    @property
    def segments(self) -> int:
        """The number of segments."""
        return segment_count(self.size)

    @property
    def lengths(self) -> list[int]:
        """The size of each segment in bytes. Computed on each access."""
        size, count = segment_size(self.size), self.segments
        return [*[size] * (count - 1), self.size - size * (count - 1)] if count else []

    def span(self, index: int) -> tuple[int, int]:
        """Returns ``(offset, length)`` of segment ``index``, in bytes."""
        return span(self.size, index)

    def digest(self, index: int) -> bytes:
        """Returns the digest of segment ``index``."""
        return self.digests[DIGEST_SIZE * index : DIGEST_SIZE * (index + 1)]


def span(file_size: int, index: int) -> tuple[int, int]:
    """Returns ``(offset, length)`` of segment ``index`` of a file of ``file_size`` bytes, in bytes."""
    size = segment_size(file_size)
    offset = index * size
    return offset, min(size, file_size - offset)


def segments_of(file_size: int, offset: int, length: int) -> range:
    """Returns the segments that contain at least one of the ``length`` bytes from ``offset`` on."""
    size = segment_size(file_size)
    return range(offset // size, -(-(offset + length) // size)) if length else range(0)
