"""Reads the indexed data of the shared files, and notices where the data on the disk differs from it.

Does not open files (``workers/source/local_files.py``) and does not index them again.
"""

from __future__ import annotations

from msd.wire.protocol.messages import SuspectSegment
from msd.wire.protocol.segments import content_id, cut, digest, segments_of, span
from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import Catalogue, SharedFile
from msd.workers.source.local_files import LocalFiles, ReadRefused

#: How long (seconds) a difference counts. Limited, because it may persist, and each report makes the indexer scan.
STALE_REPORT_S = 5.0


class IndexedData:
    """The data of the files in ``catalogue``, which the caller may replace."""

    def __init__(self, local_files: LocalFiles, catalogue: Catalogue) -> None:
        self._local_files = local_files
        self.catalogue = catalogue
        #: Until this time, a file differs from the catalogue.
        self._stale_until = 0.0
        #: The last segment whose data was not the indexed data although the times of its file were.
        self._suspect: SuspectSegment | None = None

    def replace_catalogue(self, catalogue: Catalogue) -> None:
        """Continues with another edition; the differences from the former one do not count any more."""
        self.catalogue, self._stale_until, self._suspect = catalogue, 0.0, None

    def is_stale(self, now: float) -> bool:
        """True if a file was found lately to differ from the catalogue."""
        return now < self._stale_until

    def suspect(self, now: float) -> SuspectSegment | None:
        """Returns a segment found lately whose data differs although the times of its file do not."""
        return self._suspect if self.is_stale(now) else None

    def read(self, file: SharedFile, offset: int, length: int, now: float) -> bytes | ReadRefused:
        """Returns ``length`` bytes of ``file`` from ``offset`` on, from any file with the same content."""
        for copy in self.catalogue.copies(file):
            data = self._local_files.read(copy, offset, length)
            if isinstance(data, ReadRefused) or not self._local_files.has_reliable_times(copy):
                data = self._compare(copy, offset, length, data, now)
            if isinstance(data, bytes):
                break
        return data

    def digests(self, file: SharedFile, start: int, now: float) -> bytes | ReadRefused:
        """Returns a page of the digests of ``file`` from segment ``start`` on. Reads a small file to compute them."""
        if not file.is_small:
            return self.catalogue.digests(file, start)
        data = self.read(file, 0, file.size, now)
        return data if isinstance(data, ReadRefused) else b"".join(map(digest, cut(memoryview(data))[start:]))

    def _compare(
        self, file: SharedFile, offset: int, length: int, data: bytes | ReadRefused, now: float
    ) -> bytes | ReadRefused:
        """Returns the bytes of a range if its segments, or the whole of a small file, are what was indexed: then only
        the times of the file differ. Otherwise returns why they are refused. ``data`` is the result of reading the
        range.
        """
        indexes = range(file.segments) if file.is_small else segments_of(file.size, offset, length)
        start, end = span(file.size, indexes[0])[0], sum(span(file.size, indexes[-1]))
        if (start, end) != (offset, offset + length):
            data = self._local_files.read(file, start, end - start)
        content = data.data if isinstance(data, ReadRefused) else data
        if isinstance(data, ReadRefused) and data.reason is RefusalReason.CHANGED:
            self._stale_until = now + STALE_REPORT_S
        if (different := self._different_segment(file, indexes, memoryview(content))) is None:
            return content[offset - start : offset - start + length]
        if isinstance(data, ReadRefused):
            return data
        self._stale_until, self._suspect = now + STALE_REPORT_S, SuspectSegment(file.id, different)
        return ReadRefused(RefusalReason.CHANGED, "the content of the file is not what was indexed")

    def _different_segment(self, file: SharedFile, indexes: range, content: memoryview) -> int | None:
        """Returns the first segment that differs from what was indexed; of a small file any, None if there is none."""
        if file.is_small:
            return None if content_id(content) == file.id else 0
        start = span(file.size, indexes[0])[0]
        for index in indexes:
            offset, length = span(file.size, index)
            if digest(content[offset - start : offset - start + length]) != self.catalogue.digests(file, index, 1):
                return index
        return None
