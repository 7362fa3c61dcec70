"""Which pieces are read when, and which jobs they complete."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import TimePassed
from msd.workers.serving.piece_reads import MAX_PIECES, JobArrived, JobReady, PieceReads, ReadEnded, StartRead
from msd.workers.source.source import Piece, PieceOrder, ReadRefused, Wait

STORE, MOUNT = Wait("s3://films", 30.0, 64), Wait("/mnt/films", 10.0)


def order(number: int, index: int = 0, wait: Wait = STORE, length: int = 4) -> PieceOrder:
    return PieceOrder(Piece(bytes([number]) * 32, index), (), index * length, length, None, wait)


def start(reads: PieceReads[str], now: float = 0.0) -> list[tuple[PieceOrder, ...]]:
    """Returns the orders of each read that starts."""
    assert reads.next_deadline(now) == now
    return started(reads.handle(TimePassed(), now))


def started(actions: list[Any]) -> list[tuple[PieceOrder, ...]]:
    return [action.orders for action in actions if isinstance(action, StartRead)]


def ended(order: PieceOrder, data: bytes | ReadRefused) -> ReadEnded:
    return ReadEnded({order.piece: data})


def ready(actions: list[Any]) -> list[tuple[str, list[Any]]]:
    return [(action.job, [*action.pieces.values()]) for action in actions if isinstance(action, JobReady)]


@pytest.fixture
def reads() -> PieceReads[str]:
    return PieceReads(8)


def test_jobs_for_one_piece_share_a_read(reads: PieceReads[str]) -> None:
    assert reads.handle(JobArrived("a", (order(1),)), 0.0) == []
    assert start(reads) == [(order(1),)]
    assert reads.handle(JobArrived("b", (order(1),)), 0.0) == []
    assert ready(reads.handle(ended(order(1), b"data"), 1.0)) == [("a", [b"data"]), ("b", [b"data"])]


def test_a_job_waits_for_all_its_pieces_and_one_that_is_refused(reads: PieceReads[str]) -> None:
    refused = ReadRefused(RefusalReason.CHANGED)
    reads.handle(JobArrived("a", (order(1), order(2), order(1))), 0.0)
    assert start(reads) == [(order(1),), (order(2),)]
    assert reads.handle(ended(order(2), refused), 0.0) == []
    assert ready(reads.handle(ended(order(1), b"data"), 0.0)) == [("a", [refused, b"data"])]


def test_pieces_that_follow_one_another_are_read_together(reads: PieceReads[str]) -> None:
    """They come from two clients in turn. Another file, a gap, and a read that has begun end what is read together."""
    for number, index in ((1, 5), (2, 0), (1, 6), (2, 1), (1, 8)):
        reads.handle(JobArrived(f"{number}:{index}", (order(number, index),)), 0.0)
    assert start(reads) == [(order(1, 5), order(1, 6)), (order(2, 0), order(2, 1)), (order(1, 8),)]
    reads.handle(JobArrived("1:7", (order(1, 7),)), 0.0)
    assert start(reads) == [(order(1, 7),)]
    refused = ReadRefused(RefusalReason.UNREADABLE)
    results = ready(reads.handle(ReadEnded({order(1, 5).piece: b"data", order(1, 6).piece: refused}), 1.0))
    assert results == [("1:5", [b"data"]), ("1:6", [refused])]


def test_what_is_read_together_is_limited(reads: PieceReads[str]) -> None:
    orders = [order(1, index, length=STORE.joined_size // 2) for index in range(3)]
    reads.handle(JobArrived("a", (*orders,)), 0.0)
    assert start(reads) == [(orders[0], orders[1]), (orders[2],)]


def test_what_is_read_together_counts_piece_by_piece(reads: PieceReads[str]) -> None:
    """Otherwise a slow link could not deliver all reads in time."""
    orders = [order(1, index) for index in range(MAX_PIECES + 3)]
    reads.handle(JobArrived("a", (order(2), *orders)), 0.0)
    assert start(reads) == [(order(2),), (*orders[: MAX_PIECES - 1],)]
    assert reads.next_deadline(0.0) == STORE.limit_s
    reads.handle(ended(order(2), b""), 1.0)
    assert start(reads) == [(orders[MAX_PIECES - 1],)]


def test_on_a_mount_each_piece_is_read_alone(reads: PieceReads[str]) -> None:
    """A slow mount could not deliver all reads before they count as hanging if they were larger."""
    orders = [order(1, index, MOUNT) for index in range(3)]
    reads.handle(JobArrived("a", (*orders,)), 0.0)
    assert start(reads) == [(each,) for each in orders]


def test_a_piece_of_a_file_that_may_change_unnoticed_is_read_each_time(reads: PieceReads[str]) -> None:
    changing = replace(order(1), may_be_kept=False)
    for job in ("a", "b"):
        reads.handle(JobArrived(job, (changing,)), 0.0)
        assert start(reads) == [(changing,)]
        assert ready(reads.handle(ended(changing, b"data"), 0.0)) == [(job, [b"data"])]


def test_the_last_pieces_are_kept_and_refusals_are_not(reads: PieceReads[str]) -> None:
    for number in (1, 2, 3):
        reads.handle(JobArrived("a", (order(number),)), 0.0)
        start(reads)
        reads.handle(ended(order(number), ReadRefused(RefusalReason.CHANGED) if number == 3 else b"data"), 0.0)
    assert ready(reads.handle(JobArrived("b", (order(1), order(2))), 0.0)) == [("b", [b"data", b"data"])]
    reads.handle(JobArrived("b", (order(3),)), 0.0)
    assert start(reads) == [(order(3),)]
    reads.handle(ended(order(3), b"more"), 0.0)
    reads.handle(JobArrived("c", (order(1),)), 0.0)
    assert start(reads) == [(order(1),)], "it was used least recently"


def test_each_store_or_mount_has_reads_of_its_own(reads: PieceReads[str]) -> None:
    many = tuple(order(number) for number in range(MAX_PIECES + 1))
    reads.handle(JobArrived("a", many), 0.0)
    assert len(start(reads)) == MAX_PIECES
    assert reads.next_deadline(0.0) == STORE.limit_s
    reads.handle(JobArrived("b", (order(99, wait=MOUNT),)), 0.0)
    assert start(reads) == [(order(99, wait=MOUNT),)]
    reads.handle(ended(many[3], b""), 0.0)
    assert start(reads) == [(many[MAX_PIECES],)]


def test_a_read_that_hangs_is_refused_and_so_is_its_file_until_it_ends(reads: PieceReads[str]) -> None:
    hanging, other = order(1, wait=MOUNT), order(2, wait=MOUNT)
    reads.handle(JobArrived("a", (hanging, other)), 0.0)
    start(reads)
    reads.handle(ended(other, b"data"), 1.0)
    assert reads.next_deadline(1.0) == 10.0
    assert reads.handle(TimePassed(), 9.9) == []
    refused = ReadRefused(RefusalReason.UNREADABLE, "/mnt/films has not answered for 10 seconds")
    assert ready(reads.handle(TimePassed(), 10.0)) == [("a", [b"data", refused])]
    assert reads.next_deadline(10.0) is None
    assert ready(reads.handle(JobArrived("b", (order(1, 7, MOUNT),)), 11.0)) == [("b", [refused])]
    assert reads.handle(ended(hanging, b"late"), 12.0) == []
    assert ready(reads.handle(JobArrived("c", (hanging,)), 13.0)) == [("c", [b"late"])]


def test_a_piece_that_waited_behind_a_hanging_read_of_its_file_is_refused(reads: PieceReads[str]) -> None:
    pieces = tuple(order(1, index, MOUNT) for index in range(MAX_PIECES + 1))
    reads.handle(JobArrived("a", pieces), 0.0)
    start(reads)
    reads.handle(TimePassed(), 10.0)
    assert reads.handle(ended(pieces[0], b""), 11.0) == []
    ((job, data),) = ready(reads.handle(TimePassed(), 11.0))
    assert job == "a"
    assert data[-1] == ReadRefused(RefusalReason.UNREADABLE, "/mnt/films has not answered for 10 seconds")


class Machine(RuleBasedStateMachine):
    """Each job is ready exactly once, with all its pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: PieceReads[int] = PieceReads(20)
        self.now = 0.0
        self.jobs: dict[int, set[Piece]] = {}
        self.running: list[tuple[PieceOrder, ...]] = []
        self.next_job = 0

    def handle(self, event: Any) -> None:
        for action in self.reads.handle(event, self.now):
            if isinstance(action, StartRead):
                assert not set(action.orders) & {order for read in self.running for order in read}
                self.running.append(action.orders)
            else:
                assert self.jobs.pop(action.job) == action.pieces.keys()

    @rule(pieces=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=30))
    def add_job(self, pieces: list[tuple[int, int]]) -> None:
        orders = tuple(order(number, index, MOUNT if number % 3 else STORE) for number, index in pieces)
        self.next_job += 1
        self.jobs[self.next_job] = {order.piece for order in orders}
        self.handle(JobArrived(self.next_job, orders))

    @rule(place=st.integers(0, 100), size=st.integers(0, 9), is_refused=st.booleans())
    def end_read(self, place: int, size: int, is_refused: bool) -> None:
        if self.running:
            orders = self.running.pop(place % len(self.running))
            data = ReadRefused(RefusalReason.UNREADABLE) if is_refused else bytes(size)
            self.handle(ReadEnded({order.piece: data for order in orders}))

    @rule(seconds=st.sampled_from((1.0, 9.0, 30.0)))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.handle(TimePassed())

    @invariant()
    def is_consistent(self) -> None:
        self.reads.check_invariants()

    def teardown(self) -> None:
        self.pass_time(0.0)
        while self.running:
            self.end_read(0, 1, False)
            self.pass_time(0.0)
        assert not self.jobs


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40)
