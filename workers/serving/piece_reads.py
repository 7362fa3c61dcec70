"""Decides which pieces are read when, and which jobs they complete: a pure core.

Jobs that need the same piece share one read, and the last pieces stay in memory. Pieces that follow one another in a
file of a store are read together if jobs need them at the same time: a store takes about as long for four as for two.
Each mount or store that reads wait for has a bounded number of reads of its own, so that one that hangs delays no
other. A read that takes too long is refused, and occupies its place until it ends; meanwhile the file is refused at
once.

Reads nothing: see ``workers/serving/read_threads.py``.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from msgspec import Struct

from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Core, TimePassed
from msd.workers.source.source import Piece, PieceOrder, ReadRefused

#: Maximum number of pieces that are read at once for each thing that they wait for. It bounds the memory, and how fast
#: a link must be so that no read takes too long.
MAX_PIECES = 16

J = TypeVar("J")
Data = bytes | ReadRefused


class JobArrived(Struct, Generic[J], frozen=True):
    """A job needs the pieces of these orders."""

    job: J
    orders: tuple[PieceOrder, ...]


class ReadEnded(Struct, frozen=True):
    """A read has ended, with these results."""

    pieces: dict[Piece, Data]


class StartRead(Struct, frozen=True):
    """Read these pieces, which follow one another in a file, in one go; then report ``ReadEnded``."""

    orders: tuple[PieceOrder, ...]


class JobReady(Struct, Generic[J], frozen=True):
    """All pieces of a job were read or refused."""

    job: J
    pieces: dict[Piece, Data]


class _Job(Struct, Generic[J], eq=False):
    job: J
    pieces: dict[Piece, Data]
    missing: int


class _Wanted(Struct, Generic[J], eq=False):
    """A piece that is to be read, or is being read."""

    order: PieceOrder
    jobs: list[_Job[J]]
    #: When the read counts as hanging; None before it has started, and after that time.
    deadline: float | None = None
    has_started: bool = False


class PieceReads(Core["JobArrived[J] | ReadEnded | TimePassed", "StartRead | JobReady[J]"], Generic[J]):
    """The reads of one worker. ``cache`` is the number of bytes that are kept in memory for further requests."""

    def __init__(self, cache: int) -> None:
        # Events and actions hold the data.
        super().__init__(max_decisions=1)
        self._cache_limit = cache
        #: The piece used least recently comes first.
        self._cache: OrderedDict[Piece, bytes] = OrderedDict()
        self._cached = 0
        self._wanted: dict[Piece, _Wanted[J]] = {}
        #: The pieces whose reads have not started, and the number of those whose reads have not ended, by what they
        #: wait for.
        self._queues: defaultdict[str, dict[Piece, _Wanted[J]]] = defaultdict(dict)
        self._started: defaultdict[str, int] = defaultdict(int)
        #: How many pieces of hanging reads each file has, by its id.
        self._hanging: dict[bytes, int] = {}

    def next_deadline(self, now: float) -> float | None:
        # Reads start once all jobs that have arrived together are known.
        if any(queue and self._started[name] < MAX_PIECES for name, queue in self._queues.items()):
            return now
        return min((wanted.deadline for wanted in self._wanted.values() if wanted.deadline is not None), default=None)

    def _decide(self, event: JobArrived[J] | ReadEnded | TimePassed, now: float) -> list[StartRead | JobReady[J]]:
        match event:
            case JobArrived(job, orders):
                return self._on_job(job, orders)
            case ReadEnded(pieces):
                return self._on_ended(pieces)
            case TimePassed():
                late = [
                    piece for piece in self._wanted.values() if piece.deadline is not None and now >= piece.deadline
                ]
                actions = [action for wanted in late for action in self._on_hanging(wanted)]
                return actions + [action for name in self._queues for action in self._start_reads(name, now)]

    def _on_job(self, job: J, orders: Iterable[PieceOrder]) -> list[StartRead | JobReady[J]]:
        waiting = _Job(job, {}, 0)
        for order in orders:
            piece = order.piece
            if piece in waiting.pieces:
                continue
            if (data := self._cache.get(piece)) is not None:
                self._cache.move_to_end(piece)
                waiting.pieces[piece] = data
            elif piece.id in self._hanging:
                waiting.pieces[piece] = _hangs(order)
            else:
                wanted = self._wanted.get(piece)
                if wanted is None:
                    wanted = self._wanted[piece] = self._queues[order.wait.name][piece] = _Wanted(order, [])
                # A bundle may name a file twice.
                if waiting not in wanted.jobs:
                    wanted.jobs.append(waiting)
                    waiting.missing += 1
        return [] if waiting.missing else [JobReady(job, waiting.pieces)]

    def _start_reads(self, name: str, now: float) -> Iterator[StartRead | JobReady[J]]:
        """Starts the next reads for what has this name, as many as may run at once."""
        queue = self._queues[name]
        while queue and self._started[name] < MAX_PIECES:
            wanted = queue.pop(next(iter(queue)))
            piece = wanted.order.piece
            if piece.id in self._hanging:
                del self._wanted[piece]
                yield from _complete(wanted, _hangs(wanted.order))
                continue
            together, size = [wanted], wanted.order.length
            while following := queue.get(Piece(piece.id, piece.index + len(together))):
                size += following.order.length
                if size > wanted.order.wait.joined_size or self._started[name] + len(together) == MAX_PIECES:
                    break
                together.append(queue.pop(following.order.piece))
            self._started[name] += len(together)
            for wanted in together:
                wanted.has_started, wanted.deadline = True, now + wanted.order.wait.limit_s
            yield StartRead(tuple(wanted.order for wanted in together))

    def _on_ended(self, pieces: dict[Piece, Data]) -> list[StartRead | JobReady[J]]:
        ended = [self._wanted.pop(piece) for piece in pieces]
        self._started[ended[0].order.wait.name] -= len(ended)
        actions: list[StartRead | JobReady[J]] = []
        for wanted, (piece, data) in zip(ended, pieces.items(), strict=True):
            if wanted.deadline is None:
                self._hanging[piece.id] -= 1
                if not self._hanging[piece.id]:
                    del self._hanging[piece.id]
            if not isinstance(data, ReadRefused) and wanted.order.may_be_kept:
                self._keep(piece, data)
            actions += _complete(wanted, data)
        return actions

    def _on_hanging(self, wanted: _Wanted[J]) -> list[StartRead | JobReady[J]]:
        wanted.deadline = None
        id = wanted.order.piece.id
        self._hanging[id] = self._hanging.get(id, 0) + 1
        actions = _complete(wanted, _hangs(wanted.order))
        wanted.jobs = []
        return actions

    def _keep(self, piece: Piece, data: bytes) -> None:
        """Keeps a piece in memory, and removes those used least recently if there are too many bytes."""
        self._cache[piece] = data
        self._cached += len(data)
        while self._cached > self._cache_limit:
            self._cached -= len(self._cache.popitem(last=False)[1])

    def _assert_invariants(self) -> None:
        assert self._cached == sum(map(len, self._cache.values())) <= self._cache_limit
        assert not self._cache.keys() & self._wanted.keys()
        for name, queue in self._queues.items():
            pieces = [wanted for wanted in self._wanted.values() if wanted.order.wait.name == name]
            assert self._started[name] == sum(wanted.has_started for wanted in pieces) <= MAX_PIECES, name
            assert [*queue.values()] == [wanted for wanted in pieces if not wanted.has_started], name
        started = [wanted for wanted in self._wanted.values() if wanted.has_started]
        hanging = [wanted.order.piece.id for wanted in started if wanted.deadline is None]
        assert {id: hanging.count(id) for id in hanging} == self._hanging


def _complete(wanted: _Wanted[J], data: Data) -> list[StartRead | JobReady[J]]:
    """Gives a piece to the jobs that wait for it; returns those that are ready now."""
    ready: list[StartRead | JobReady[J]] = []
    for waiting in wanted.jobs:
        waiting.pieces[wanted.order.piece] = data
        waiting.missing -= 1
        if not waiting.missing:
            ready.append(JobReady(waiting.job, waiting.pieces))
    return ready


def _hangs(order: PieceOrder) -> ReadRefused:
    text = f"{order.wait.name} has not answered for {order.wait.limit_s:.0f} seconds"
    return ReadRefused(RefusalReason.UNREADABLE, text)
