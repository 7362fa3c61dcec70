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
from msd.workers.serving.piece_reads import MAX_READS, JobArrived, JobReady, PieceRead, PieceReads, StartRead
from msd.workers.source.source import Piece, PieceOrder, ReadRefused, Wait

STORE, MOUNT = Wait("s3://films", 30.0), Wait("/mnt/films", 10.0)


def order(number: int, index: int = 0, wait: Wait = STORE) -> PieceOrder:
    return PieceOrder(Piece(bytes([number]) * 32, index), (), 0, 4, None, wait)


def started(actions: list[Any]) -> list[PieceOrder]:
    return [action.order for action in actions if isinstance(action, StartRead)]


def ready(actions: list[Any]) -> list[tuple[str, list[Any]]]:
    return [(action.job, [*action.pieces.values()]) for action in actions if isinstance(action, JobReady)]


@pytest.fixture
def reads() -> PieceReads[str]:
    return PieceReads(8)


def test_jobs_for_one_piece_share_a_read(reads: PieceReads[str]) -> None:
    assert started(reads.handle(JobArrived("a", (order(1),)), 0.0)) == [order(1)]
    assert reads.handle(JobArrived("b", (order(1),)), 0.0) == []
    assert ready(reads.handle(PieceRead(order(1).piece, b"data"), 1.0)) == [("a", [b"data"]), ("b", [b"data"])]


def test_a_job_waits_for_all_its_pieces_and_one_that_is_refused(reads: PieceReads[str]) -> None:
    refused = ReadRefused(RefusalReason.CHANGED)
    assert len(started(reads.handle(JobArrived("a", (order(1), order(2), order(1))), 0.0))) == 2
    assert reads.handle(PieceRead(order(2).piece, refused), 0.0) == []
    assert ready(reads.handle(PieceRead(order(1).piece, b"data"), 0.0)) == [("a", [refused, b"data"])]


def test_a_piece_of_a_file_that_may_change_unnoticed_is_read_each_time(reads: PieceReads[str]) -> None:
    changing = replace(order(1), may_be_kept=False)
    for job in ("a", "b"):
        assert started(reads.handle(JobArrived(job, (changing,)), 0.0)) == [changing]
        assert ready(reads.handle(PieceRead(changing.piece, b"data"), 0.0)) == [(job, [b"data"])]


def test_the_last_pieces_are_kept_and_refusals_are_not(reads: PieceReads[str]) -> None:
    for number in (1, 2, 3):
        reads.handle(JobArrived("a", (order(number),)), 0.0)
        data = ReadRefused(RefusalReason.CHANGED) if number == 3 else b"data"
        reads.handle(PieceRead(order(number).piece, data), 0.0)
    assert ready(reads.handle(JobArrived("b", (order(1), order(2))), 0.0)) == [("b", [b"data", b"data"])]
    assert started(reads.handle(JobArrived("b", (order(3),)), 0.0)) == [order(3)]
    reads.handle(PieceRead(order(3).piece, b"more"), 0.0)
    assert started(reads.handle(JobArrived("c", (order(1),)), 0.0)) == [order(1)], "it was used least recently"


def test_each_store_or_mount_has_reads_of_its_own(reads: PieceReads[str]) -> None:
    many = tuple(order(number) for number in range(MAX_READS + 1))
    assert len(started(reads.handle(JobArrived("a", many), 0.0))) == MAX_READS
    assert started(reads.handle(JobArrived("b", (order(99, wait=MOUNT),)), 0.0)) == [order(99, wait=MOUNT)]
    assert started(reads.handle(PieceRead(many[3].piece, b""), 0.0)) == [many[MAX_READS]]


def test_a_read_that_hangs_is_refused_and_so_is_its_file_until_it_ends(reads: PieceReads[str]) -> None:
    hanging, other = order(1, wait=MOUNT), order(2, wait=MOUNT)
    reads.handle(JobArrived("a", (hanging, other)), 0.0)
    reads.handle(PieceRead(other.piece, b"data"), 1.0)
    assert reads.next_deadline(1.0) == 10.0
    assert reads.handle(TimePassed(), 9.9) == []
    refused = ReadRefused(RefusalReason.UNREADABLE, "/mnt/films has not answered for 10 seconds")
    assert ready(reads.handle(TimePassed(), 10.0)) == [("a", [b"data", refused])]
    assert reads.next_deadline(10.0) is None
    assert ready(reads.handle(JobArrived("b", (order(1, 7, MOUNT),)), 11.0)) == [("b", [refused])]
    assert reads.handle(PieceRead(hanging.piece, b"late"), 12.0) == []
    assert ready(reads.handle(JobArrived("c", (hanging,)), 13.0)) == [("c", [b"late"])]


def test_a_piece_that_waited_behind_a_hanging_read_of_its_file_is_refused(reads: PieceReads[str]) -> None:
    pieces = tuple(order(1, index, MOUNT) for index in range(MAX_READS + 1))
    reads.handle(JobArrived("a", pieces), 0.0)
    reads.handle(TimePassed(), 10.0)
    ((job, data),) = ready(reads.handle(PieceRead(pieces[0].piece, b""), 11.0))
    assert job == "a"
    assert data[-1] == ReadRefused(RefusalReason.UNREADABLE, "/mnt/films has not answered for 10 seconds")


class Machine(RuleBasedStateMachine):
    """Each job is ready exactly once, with all its pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: PieceReads[int] = PieceReads(20)
        self.now = 0.0
        self.jobs: dict[int, set[Piece]] = {}
        self.running: dict[Piece, PieceOrder] = {}
        self.next_job = 0

    def handle(self, event: Any) -> None:
        for action in self.reads.handle(event, self.now):
            if isinstance(action, StartRead):
                assert action.order.piece not in self.running
                self.running[action.order.piece] = action.order
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
            piece = [*self.running][place % len(self.running)]
            del self.running[piece]
            data = ReadRefused(RefusalReason.UNREADABLE) if is_refused else bytes(size)
            self.handle(PieceRead(piece, data))

    @rule(seconds=st.sampled_from((1.0, 9.0, 30.0)))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.handle(TimePassed())

    @invariant()
    def is_consistent(self) -> None:
        self.reads.check_invariants()

    def teardown(self) -> None:
        while self.running:
            self.end_read(0, 1, False)
        assert not self.jobs


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40)
