"""Threads that read pieces."""

from __future__ import annotations

import select
import threading
from collections.abc import Sequence

import pytest

from msd.workers.serving.piece_reads import ReadEnded
from msd.workers.serving.read_threads import NAME, ReadThreads
from msd.workers.source.source import Piece, PieceOrder, ReadRefused, Wait


def order(number: int) -> PieceOrder:
    return PieceOrder(Piece(bytes([number]), 0), (), 0, 1, None, Wait("", 1.0))


def collect(threads: ReadThreads, count: int) -> list[ReadEnded]:
    results: list[ReadEnded] = []
    while len(results) < count:
        assert select.select([threads.fileno()], [], [], 20.0)[0]
        results += threads.collect()
    return results


def end(threads: ReadThreads) -> None:
    running = read_threads()
    threads.close()
    for thread in running:
        thread.join(20.0)
        assert not thread.is_alive()


def read_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def test_a_thread_that_waits_delays_no_other_one_and_threads_are_used_again() -> None:
    may_end = threading.Event()
    used: set[int] = set()

    def read(orders: Sequence[PieceOrder]) -> dict[Piece, bytes | ReadRefused]:
        used.add(threading.get_ident())
        if orders[0].piece.id == b"\0":
            may_end.wait(20.0)
        return {order.piece: order.piece.id for order in orders}

    threads = ReadThreads(read)
    threads.start([order(0)])
    for number in range(1, 20):
        threads.start([order(number)])
        assert collect(threads, 1) == [ReadEnded({order(number).piece: bytes([number])})]
    assert len(used) == 2
    assert threads.collect() == []
    may_end.set()
    assert collect(threads, 1) == [ReadEnded({order(0).piece: b"\0"})]
    end(threads)


def test_a_thread_that_ends_late_uses_no_closed_descriptor() -> None:
    may_end = threading.Event()

    def read(orders: Sequence[PieceOrder]) -> dict[Piece, bytes | ReadRefused]:
        may_end.wait(20.0)
        return {}

    threads = ReadThreads(read)
    threads.start([order(0)])
    (late,) = read_threads()
    threads.close()
    may_end.set()
    late.join(20.0)
    assert not late.is_alive()


def test_the_error_of_a_thread_is_raised() -> None:
    def read(orders: Sequence[PieceOrder]) -> dict[Piece, bytes | ReadRefused]:
        raise ZeroDivisionError

    threads = ReadThreads(read)
    threads.start([order(0)])
    assert select.select([threads.fileno()], [], [], 20.0)[0]
    with pytest.raises(ZeroDivisionError):
        threads.collect()
    end(threads)
