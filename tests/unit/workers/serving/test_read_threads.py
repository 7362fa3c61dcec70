"""Threads that read pieces."""

from __future__ import annotations

import select
import threading

import pytest

from msd.workers.serving.piece_reads import PieceRead
from msd.workers.serving.read_threads import NAME, ReadThreads
from msd.workers.source.source import Piece, PieceOrder, Wait


def order(number: int) -> PieceOrder:
    return PieceOrder(Piece(bytes([number]), 0), (), 0, 1, None, Wait("", 1.0))


def collect(threads: ReadThreads, count: int) -> list[PieceRead]:
    results: list[PieceRead] = []
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

    def read(order: PieceOrder) -> bytes:
        used.add(threading.get_ident())
        if order.piece.id == b"\0":
            may_end.wait(20.0)
        return order.piece.id

    threads = ReadThreads(read)
    threads.start(order(0))
    for number in range(1, 20):
        threads.start(order(number))
        assert collect(threads, 1) == [PieceRead(order(number).piece, bytes([number]))]
    assert len(used) == 2
    assert threads.collect() == []
    may_end.set()
    assert collect(threads, 1) == [PieceRead(order(0).piece, b"\0")]
    end(threads)


def test_a_thread_that_ends_late_uses_no_closed_descriptor() -> None:
    may_end = threading.Event()

    def read(order: PieceOrder) -> bytes:
        may_end.wait(20.0)
        return b""

    threads = ReadThreads(read)
    threads.start(order(0))
    (late,) = read_threads()
    threads.close()
    may_end.set()
    late.join(20.0)
    assert not late.is_alive()


def test_the_error_of_a_thread_is_raised() -> None:
    def read(order: PieceOrder) -> bytes:
        raise ZeroDivisionError

    threads = ReadThreads(read)
    threads.start(order(0))
    assert select.select([threads.fileno()], [], [], 20.0)[0]
    with pytest.raises(ZeroDivisionError):
        threads.collect()
    end(threads)
