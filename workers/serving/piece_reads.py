"""Decides which pieces are read when, and which jobs they complete: a pure core.

Jobs that need the same piece share one read, and the last pieces stay in memory. Each mount or store that reads wait
for has a bounded number of reads of its own, so that one that hangs delays no other. A read that takes too long is
refused, and occupies its place until it ends; meanwhile the file is refused at once.

Reads nothing: see ``workers/serving/read_threads.py``.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from msgspec import Struct

from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Core, TimePassed
from msd.workers.source.source import Piece, PieceOrder, ReadRefused

#: Maximum number of reads at once for each thing that they wait for.
MAX_READS = 16

J = TypeVar("J")
Data = bytes | ReadRefused


class JobArrived(Struct, Generic[J], frozen=True):
    """A job needs the pieces of these orders."""

    job: J
    orders: tuple[PieceOrder, ...]


class PieceRead(Struct, frozen=True):
    """A read has ended."""

    piece: Piece
    data: Data


class StartRead(Struct, frozen=True):
    """Read this piece, then report ``PieceRead``."""

    order: PieceOrder


class JobReady(Struct, Generic[J], frozen=True):
    """All pieces of a job were read or refused."""

    job: J
    pieces: dict[Piece, Data]


class _Job(Struct, Generic[J], eq=False):
    job: J
    pieces: dict[Piece, Data]
    missing: int


class _Read(Struct, Generic[J], eq=False):
    """A piece that is to be read, or is being read."""

    order: PieceOrder
    jobs: list[_Job[J]]
    #: When the read counts as hanging; None before it has started, and after that time.
    deadline: float | None = None
    has_started: bool = False


class PieceReads(Core["JobArrived[J] | PieceRead | TimePassed", "StartRead | JobReady[J]"], Generic[J]):
    """The reads of one worker. ``cache`` is the number of bytes that are kept in memory for further requests."""

    def __init__(self, cache: int) -> None:
        # Events and actions hold the data.
        super().__init__(max_decisions=1)
        self._cache_limit = cache
        #: The piece used least recently comes first.
        self._cache: OrderedDict[Piece, bytes] = OrderedDict()
        self._cached = 0
        self._reads: dict[Piece, _Read[J]] = {}
        #: The reads that have not started, and the number of those that have not ended, by what they wait for.
        self._queues: defaultdict[str, deque[_Read[J]]] = defaultdict(deque)
        self._started: defaultdict[str, int] = defaultdict(int)
        #: How many hanging reads each file has, by its id.
        self._hanging: dict[bytes, int] = {}

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        return min((read.deadline for read in self._reads.values() if read.deadline is not None), default=None)

    def _decide(self, event: JobArrived[J] | PieceRead | TimePassed, now: float) -> list[StartRead | JobReady[J]]:
        match event:
            case JobArrived(job, orders):
                return self._on_job(job, orders, now)
            case PieceRead(piece, data):
                return self._on_read(piece, data, now)
            case TimePassed():
                overdue = [read for read in self._reads.values() if read.deadline is not None and now >= read.deadline]
                return [action for read in overdue for action in self._on_hanging(read)]

    def _on_job(self, job: J, orders: Iterable[PieceOrder], now: float) -> list[StartRead | JobReady[J]]:
        waiting = _Job(job, {}, 0)
        started: list[StartRead | JobReady[J]] = []
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
                read = self._reads.get(piece)
                if read is None:
                    read = self._reads[piece] = _Read(order, [])
                    self._queues[order.wait.name].append(read)
                    started += self._start_next(order.wait.name, now)
                # A bundle may name a file twice.
                if waiting not in read.jobs:
                    read.jobs.append(waiting)
                    waiting.missing += 1
        return started if waiting.missing else [*started, JobReady(job, waiting.pieces)]

    def _start_next(self, name: str, now: float) -> list[StartRead | JobReady[J]]:
        """Starts the next reads for what has this name, as many as may run at once."""
        actions: list[StartRead | JobReady[J]] = []
        queue = self._queues[name]
        while queue and self._started[name] < MAX_READS:
            read = queue.popleft()
            order = read.order
            if order.piece.id in self._hanging:
                del self._reads[order.piece]
                actions += _complete(read, _hangs(order))
                continue
            self._started[name] += 1
            read.has_started, read.deadline = True, now + order.wait.limit_s
            actions.append(StartRead(order))
        return actions

    def _on_read(self, piece: Piece, data: Data, now: float) -> list[StartRead | JobReady[J]]:
        read = self._reads.pop(piece)
        name = read.order.wait.name
        self._started[name] -= 1
        if read.deadline is None:
            self._hanging[piece.id] -= 1
            if not self._hanging[piece.id]:
                del self._hanging[piece.id]
        if not isinstance(data, ReadRefused) and read.order.may_be_kept:
            self._keep(piece, data)
        return [*_complete(read, data), *self._start_next(name, now)]

    def _on_hanging(self, read: _Read[J]) -> list[StartRead | JobReady[J]]:
        read.deadline = None
        id = read.order.piece.id
        self._hanging[id] = self._hanging.get(id, 0) + 1
        actions = _complete(read, _hangs(read.order))
        read.jobs = []
        return [*actions]

    def _keep(self, piece: Piece, data: bytes) -> None:
        """Keeps a piece in memory, and removes those used least recently if there are too many bytes."""
        self._cache[piece] = data
        self._cached += len(data)
        while self._cached > self._cache_limit:
            self._cached -= len(self._cache.popitem(last=False)[1])

    def _assert_invariants(self) -> None:
        assert self._cached == sum(map(len, self._cache.values())) <= self._cache_limit
        assert not self._cache.keys() & self._reads.keys()
        for name, queue in self._queues.items():
            running = [read for read in self._reads.values() if read.has_started and read.order.wait.name == name]
            assert len(running) == self._started[name] <= MAX_READS, name
            assert not queue or self._started[name] == MAX_READS, name
            assert not any(read.has_started for read in queue), name
        hanging = [read.order.piece.id for read in self._reads.values() if read.has_started and read.deadline is None]
        assert {id: hanging.count(id) for id in hanging} == self._hanging


def _complete(read: _Read[J], data: Data) -> list[StartRead | JobReady[J]]:
    """Gives a piece to the jobs that wait for it; returns those that are ready now."""
    ready: list[StartRead | JobReady[J]] = []
    for waiting in read.jobs:
        waiting.pieces[read.order.piece] = data
        waiting.missing -= 1
        if not waiting.missing:
            ready.append(JobReady(waiting.job, waiting.pieces))
    return ready


def _hangs(order: PieceOrder) -> ReadRefused:
    text = f"{order.wait.name} has not answered for {order.wait.limit_s:.0f} seconds"
    return ReadRefused(RefusalReason.UNREADABLE, text)
