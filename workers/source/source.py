"""What the content of shared files is read from: the protocol between a worker and where the content lies.

Where a read may have to wait, a *piece* is read in one go: a segment of a large file, or a small file as a whole. It is
compared with what was indexed, so that the piece in memory can answer any request for a part of it.

``workers/source/local_files.py`` reads from file systems. Does not decide which pieces are read when: see
``workers/serving/piece_reads.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from msd.wire.protocol.segments import content_id, digest
from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import SharedFile

#: Bytes of a file. A view of what another library has read saves a copy.
Content = bytes | memoryview


class ReadRefused(Struct, frozen=True):
    """Data cannot be served: ``reason`` is the refusal's reason, ``detail`` its human-readable text.

    ``data`` holds the bytes read from a file that is not the indexed version; it is empty if nothing was read.
    """

    reason: RefusalReason
    detail: str = ""
    data: bytes = b""


class Wait(Struct, frozen=True):
    """What a read may have to wait for: its name, the seconds after which the read counts as hanging, and the maximum
    size in bytes of several pieces that are read together; 0 if each piece is read alone.
    """

    name: str
    limit_s: float
    joined_size: int = 0


class Source(Protocol):
    """Reads the content of shared files in the versions that were indexed."""

    def waits_for(self, file: SharedFile) -> Wait | None:
        """Returns what a read of the file may have to wait for, None if it is answered at once. If it is not None,
        ``read`` may be called in any thread; otherwise only in the one that calls everything else.
        """

    def has_reliable_versions(self, file: SharedFile) -> bool:
        """True if data that ``read`` returns is known to be the indexed data. Otherwise the caller compares its
        digest.
        """

    def read(self, file: SharedFile, offset: int, length: int) -> Content | ReadRefused:
        """Returns the ``length`` bytes from ``offset`` on, or the reason if they cannot be read or the file is not the
        indexed version.
        """

    def close_unread(self) -> None:
        """Closes what was not read since the last call."""

    def close(self) -> None:
        """Frees everything. Reads in other threads may go on."""


class Piece(Struct, frozen=True):
    """A piece of any file that has the content ``id``: segment ``index``, 0 for a small file."""

    id: bytes
    index: int


#: How often a piece is read if it is not what was indexed, although its version is.
ATTEMPTS = 2
#: The pieces of a job that has not waited for any.
NOTHING_READ: Mapping[Piece, bytes | ReadRefused] = {}


class PieceOrder(Struct, frozen=True):
    """An order to read a piece, from any of the files ``copies``. ``digest`` is None for a small file.

    ``may_be_kept`` is False if another read is the only way to notice that a file has changed.
    """

    piece: Piece
    copies: tuple[SharedFile, ...]
    offset: int
    length: int
    digest: bytes | None
    wait: Wait
    may_be_kept: bool = True

    def is_right(self, data: memoryview) -> bool:
        """True if ``data`` is what was indexed."""
        return content_id(data) == self.piece.id if self.digest is None else digest(data) == self.digest


def read_pieces(source: Source, orders: Sequence[PieceOrder]) -> dict[Piece, bytes | ReadRefused]:
    """Returns pieces that follow one another in a file, each as it was indexed or why no copy of it can be read. May
    take long: call it in any thread.
    """
    first, size = orders[0], sum(order.length for order in orders)
    if len(orders) == 1:
        return {first.piece: read_piece(source, first)}
    result = source.read(first.copies[0], first.offset, size)
    content = memoryview(result.data if isinstance(result, ReadRefused) else result)
    pieces: dict[Piece, bytes | ReadRefused] = {}
    for order in orders:
        start = order.offset - first.offset
        data = content[start : start + order.length]
        if len(data) == order.length and order.is_right(data):
            # A copy, so that a piece that is kept keeps none of the others.
            pieces[order.piece] = bytes(data)
        elif isinstance(result, ReadRefused) and len(order.copies) == 1:
            pieces[order.piece] = result
        else:
            # The other copies first.
            copies = (*order.copies[1:], order.copies[0])
            pieces[order.piece] = read_piece(source, replace(order, copies=copies))
    return pieces


def read_piece(source: Source, order: PieceOrder) -> bytes | ReadRefused:
    """Returns a piece as it was indexed, or why no copy of it can be read. May take long: call it in any thread."""
    refused = ReadRefused(RefusalReason.UNKNOWN)
    for file in order.copies:
        for _ in range(ATTEMPTS if source.has_reliable_versions(file) else 1):
            result = source.read(file, order.offset, order.length)
            content = result.data if isinstance(result, ReadRefused) else result
            if len(content) == order.length and order.is_right(memoryview(content)):
                return bytes(content)
            if isinstance(result, ReadRefused):
                refused = result
                break
        else:
            refused = _not_indexed(source, file, order.wait)
    return refused


def _not_indexed(source: Source, file: SharedFile, wait: Wait) -> ReadRefused:
    if source.has_reliable_versions(file):
        detail = f"{wait.name} sent other bytes than those that were indexed, although the version is the same"
        return ReadRefused(RefusalReason.UNREADABLE, detail)
    return ReadRefused(RefusalReason.CHANGED, "the content of the file is not what was indexed")
