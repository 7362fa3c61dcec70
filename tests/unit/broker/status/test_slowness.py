"""A worker is slow compared with others that have the same to do; not because it is idle, new or asked for less."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from msd.broker.status.slowness import (
    MIN_DIFFERENCE,
    SLOW_S,
    SenderRates,
    mean_rates,
    rates_of_others,
    worker_rates,
)
from msd.wire.protocol.states import WantedState, WorkerState
from tests.unit.snapshots import snapshot

MIB = 1 << 20


def worker(
    *rates: float, clients: int = 2, state: WorkerState = WorkerState.AWAKE, **values: Any
) -> SenderRates | None:
    """A worker with these rates in MiB/s, the present one last: a single rate is that of half a minute."""
    recent = [rate * MIB for rate in (rates if len(rates) > 1 else rates * 31)]
    status = replace(snapshot(state).workers[0], rate=recent[-1], clients=clients, **values)
    return worker_rates(status, recent[:-1])


def slow(*workers: SenderRates | None) -> list[float]:
    """The rates in MiB/s of the others than which each worker is slower; 0 if it is not slow."""
    return [rate / MIB for rate in rates_of_others(workers)]


def test_a_single_worker_that_sends_less_than_half_is_slow() -> None:
    assert slow(worker(5.0), worker(1.0), worker(5.0), worker(6.0)) == [0.0, 5.0, 0.0, 0.0]
    assert slow(worker(5.0), worker(2.6)) == [0.0, 0.0], "more than half"
    assert slow(worker(5.0), worker(2.4)) == [0.0, 5.0], "of two workers"


def test_the_fast_one_does_not_make_all_others_slow() -> None:
    assert slow(worker(50.0), worker(5.0), worker(5.0), worker(5.0)) == [0.0] * 4


def test_a_worker_that_sends_nothing_although_it_serves_clients_is_slow() -> None:
    assert slow(worker(5.0), worker(0.0)) == [0.0, 5.0]


@pytest.mark.parametrize(
    "other",
    [
        worker(0.0, clients=0),
        worker(0.0, state=WorkerState.ASLEEP),
        worker(0.0, state=WorkerState.SILENT),
        worker(0.0, wanted=WantedState.ASLEEP),
    ],
)
def test_a_worker_that_is_idle_or_does_not_serve_is_not_slow(other: SenderRates | None) -> None:
    assert other is None
    assert slow(worker(5.0), other, worker(5.0)) == [0.0] * 3


def test_a_worker_that_is_alone_is_not_slow() -> None:
    assert slow(worker(0.1)) == [0.0]
    assert slow(worker(0.1), worker(5.0, clients=0)) == [0.0, 0.0]


def test_a_worker_that_serves_fewer_clients_is_not_slow() -> None:
    """Some clients cannot reach it, so it is asked for less."""
    assert slow(worker(5.0, clients=10), worker(0.5, clients=1), worker(5.0, clients=10)) == [0.0] * 3


def test_a_worker_with_other_files_is_not_slow() -> None:
    films, photos = b"f" * 32, b"p" * 32
    assert slow(worker(5.0, catalogue=films), worker(1.0, catalogue=photos)) == [0.0, 0.0]
    workers = worker(5.0, catalogue=films), worker(1.0, catalogue=films), worker(0.1, catalogue=photos)
    assert slow(*workers) == [0.0, 5.0, 0.0]


def test_it_must_be_slow_for_some_seconds() -> None:
    for seconds in range(1, SLOW_S + 1):
        unlucky = worker(*[5.0] * 20, *[1.0] * seconds)
        assert slow(worker(5.0), unlucky) == [0.0, 5.0 if seconds == SLOW_S else 0.0]


def test_a_worker_that_has_just_become_alive_is_not_compared() -> None:
    assert slow(worker(5.0), worker(*[0.1] * (SLOW_S - 1))) == [0.0, 0.0]
    assert slow(worker(*[5.0] * (SLOW_S - 1)), worker(0.1)) == [0.0, 0.0]
    assert slow(worker(*[5.0] * SLOW_S), worker(0.1)) == [0.0, 5.0]


def test_a_segment_more_or_less_says_nothing() -> None:
    """Clients that ask for little have all they want: a worker may send two segments, and another one none."""
    assert slow(worker(-0.01 + MIN_DIFFERENCE / MIB), worker(0.0)) == [0.0, 0.0]
    assert slow(worker(0.01 + MIN_DIFFERENCE / MIB), worker(0.0))[1] > 0


def test_the_rates_of_a_host_are_those_for_each_of_its_workers() -> None:
    host = mean_rates([worker(1.0), worker(3.0, clients=4), worker(9.0, clients=0)])
    assert host is not None
    assert ([*host.rates], host.clients) == ([2.0 * MIB] * SLOW_S, 4)
    assert mean_rates([worker(9.0, clients=0), None]) is None
