"""Reads the indexed data of the shared files, and notices where the data in the source differs from it.

Does not open files (``workers/source/local_files.py``) and does not index them again. Does not read what may have to be
waited for: it says which pieces are needed, and takes them when they have been read.
"""

from __future__ import annotations

from collections.abc import Mapping

from msd.wire.protocol.messages import SuspectSegment
from msd.wire.protocol.segments import content_id, cut, digest, segments_of, span
from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import Catalogue, SharedFile
from msd.workers.source.source import NOTHING_READ, Piece, PieceOrder, ReadRefused, Source

#: How long (seconds) a difference counts. Limited, because it may persist, and each report makes the indexer scan.
STALE_REPORT_S = 5.0


class IndexedData:
    """The data of the files in ``catalogue``, which the caller may replace."""

    def __init__(self, source: Source, catalogue: Catalogue) -> None:
        self._source = source
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

    def order(self, file: SharedFile, index: int) -> PieceOrder | None:
        """Returns the order to read a segment, or a small file, before ``read`` and ``digests`` are called; None if
        that is not needed: some file with this content is read at once.
        """
        if file.size == 0 or self._source.waits_for(file) is None:
            return None
        copies = self.catalogue.copies(file)
        waits = [self._source.waits_for(copy) for copy in copies]
        if waits[0] is None or None in waits:
            return None
        may_be_kept = all(self._source.has_reliable_versions(copy) for copy in copies)
        if file.is_small:
            return PieceOrder(Piece(file.id, 0), tuple(copies), 0, file.size, None, waits[0], may_be_kept)
        offset, length = span(file.size, index)
        expected = self.catalogue.digests(file, index, 1)
        return PieceOrder(Piece(file.id, index), tuple(copies), offset, length, expected, waits[0], may_be_kept)

    def read(
        self,
        file: SharedFile,
        offset: int,
        length: int,
        now: float,
        pieces: Mapping[Piece, bytes | ReadRefused] = NOTHING_READ,
    ) -> bytes | ReadRefused:
        """Returns ``length`` bytes of a segment of ``file`` from ``offset`` on, from any file with the same content.

        ``pieces`` are the pieces that ``order`` has asked for.
        """
        if file.size == 0:
            return b""
        if pieces:
            index = 0 if file.is_small else segments_of(file.size, offset, length)[0]
            if (piece := pieces.get(Piece(file.id, index))) is not None:
                return self._part(file, index, offset, length, piece, now)
        data: bytes | ReadRefused = ReadRefused(RefusalReason.UNKNOWN)
        copies = self.catalogue.copies(file)
        for copy in copies:
            if len(copies) > 1 and self._source.waits_for(copy) is not None:
                continue
            data = self._read_at_once(copy, offset, length)
            if isinstance(data, ReadRefused) or not self._source.has_reliable_versions(copy):
                data = self._compare(copy, offset, length, data, now)
            if isinstance(data, bytes):
                break
        return data

    def digests(
        self,
        file: SharedFile,
        start: int,
        now: float,
        pieces: Mapping[Piece, bytes | ReadRefused] = NOTHING_READ,
    ) -> bytes | ReadRefused:
        """Returns a page of the digests of ``file`` from segment ``start`` on. Reads a small file to compute them."""
        if not file.is_small:
            return self.catalogue.digests(file, start)
        data = self.read(file, 0, file.size, now, pieces)
        return data if isinstance(data, ReadRefused) else b"".join(map(digest, cut(memoryview(data))[start:]))

    def _read_at_once(self, file: SharedFile, offset: int, length: int) -> bytes | ReadRefused:
        data = self._source.read(file, offset, length)
        return bytes(data) if isinstance(data, memoryview) else data

    def _part(
        self, file: SharedFile, index: int, offset: int, length: int, piece: bytes | ReadRefused, now: float
    ) -> bytes | ReadRefused:
        """Returns a part of a piece, or why it was refused."""
        if isinstance(piece, ReadRefused):
            if piece.reason is RefusalReason.CHANGED:
                self._stale_until = now + STALE_REPORT_S
                # The source did not notice a change, so the indexer has to compare the content.
                self._suspect = SuspectSegment(file.id, index)
            return piece
        start = 0 if file.is_small else span(file.size, index)[0]
        return piece if length == len(piece) else piece[offset - start : offset - start + length]

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
            data = self._read_at_once(file, start, end - start)
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
