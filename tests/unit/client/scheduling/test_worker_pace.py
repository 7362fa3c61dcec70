"""The measured rate of a worker, its parts and window, and when its replies are expected."""

from __future__ import annotations

import math

import pytest

from msd.client.scheduling.scheduler_events import RequestUnit
from msd.client.scheduling.worker_pace import (
    AHEAD,
    HOLDER_STALL_TIMEOUT_S,
    MIN_PART,
    MIN_ROUND_TRIP_S,
    PART_GROWTH,
    RATE_SPAN_S,
    SCHEDULING_DELAY_S,
    STALL_TIMEOUT_S,
    STORE_AHEAD,
    STORE_RUN_S,
    STORE_RUN_UNITS,
    WINDOW_GAIN,
    WorkerPace,
)

START = 50.0
SIZE = 1 << 20


def request(unit: int, length: int = SIZE) -> RequestUnit:
    return RequestUnit(1, unit, 0, length)


def waiting(*lengths: int, rate: float | None = None) -> WorkerPace:
    """A worker that replied at ``START`` for the last time; these requests are outstanding."""
    worker = WorkerPace(1, rate=rate)
    for unit, length in enumerate(lengths):
        worker.add_request(request(unit, length), START)
    return worker


def measured(rate: float, round_trip: float = 0.0) -> WorkerPace:
    """A worker that delivered ``rate`` units of ``SIZE`` bytes per second for ten seconds, the last one at ``START``;
    one request is outstanding.
    """
    worker = WorkerPace(1, round_trip=round_trip, has_delivered=True, whole_size=SIZE)
    worker.add_request(request(0), START - 10.0)
    worker.span_bytes = round((10 * rate - 1) * SIZE)
    worker.add_request(request(1), START)
    worker.count_reply(0, 0, START)
    worker.update_limits(SIZE, math.inf)
    return worker


def arrivals(worker: WorkerPace, now: float) -> list[float]:
    return [time for _, time in worker.predict_arrivals(now)]


def test_the_rate_is_unknown_until_a_whole_span_has_passed() -> None:
    worker = waiting(SIZE, SIZE)
    worker.count_reply(0, 0, START + RATE_SPAN_S / 2)
    assert worker.rate is None
    worker.count_reply(1, 0, START + 2 * RATE_SPAN_S)
    assert worker.rate == pytest.approx(2 * SIZE / (2 * RATE_SPAN_S))


def test_the_rate_rises_at_once_and_falls_by_half_of_the_difference() -> None:
    """Small parts and windows limit the first rates, but nothing lets a worker appear faster than it is."""
    worker = measured(10)
    for unit, latest, rate in ((1, 30, 30), (2, 10, 20), (3, 10, 15)):
        worker.span_bytes = (latest - 1) * SIZE
        worker.add_request(request(unit + 1), worker.span_start)
        worker.count_reply(unit, 0, worker.span_start + 1)
        assert worker.rate == pytest.approx(rate * SIZE)


def test_a_reply_to_a_dropped_request_is_not_measured() -> None:
    worker = waiting(SIZE)
    worker.drop_requests()
    assert not worker.count_reply(0, 0, START + 1)
    assert (worker.rate, worker.outstanding_bytes) == (None, 0)


@pytest.mark.parametrize(
    ("rate", "round_trip", "window"),
    [
        (1, 0.0, 2),
        (100, 0.1, 2 + WINDOW_GAIN * 10),
        (4000, 0.0, 2 + WINDOW_GAIN * 4000 * MIN_ROUND_TRIP_S),
    ],
)
def test_the_window_holds_two_units_and_what_arrives_in_two_round_trips(
    rate: float, round_trip: float, window: float
) -> None:
    assert measured(rate, round_trip).window == pytest.approx(window * SIZE, rel=0.01)


@pytest.mark.parametrize(
    ("rate", "has_holders", "at_once", "parts"),
    [
        (STORE_RUN_UNITS / STORE_RUN_S, False, STORE_RUN_UNITS, 2 * STORE_RUN_UNITS),
        (4, False, 1, 1 + STORE_AHEAD),
        (0.5, False, 1, 1 + AHEAD),
        (100, True, 1, 1),
    ],
    ids=["very fast", "fast", "slow", "with holders"],
)
def test_a_fast_worker_that_reads_a_store_gets_many_requests(
    rate: float, has_holders: bool, at_once: int, parts: int
) -> None:
    worker = measured(rate)
    worker.reads_store = True
    worker.update_limits(SIZE, math.inf, has_holders=has_holders)
    delivered = WINDOW_GAIN * rate * SIZE * MIN_ROUND_TRIP_S
    assert worker.window == pytest.approx(parts * worker.part_size + delivered)
    assert worker.units_at_once == at_once


def test_where_two_runs_do_not_fit_into_the_window_units_are_requested_one_by_one() -> None:
    worker = measured(100)
    worker.reads_store = True
    worker.update_limits(SIZE, 2 * STORE_RUN_UNITS * SIZE - 1)
    assert worker.units_at_once == 1
    assert worker.window == pytest.approx((1 + STORE_AHEAD + WINDOW_GAIN / 10) * SIZE)


def test_parts_and_windows_are_limited() -> None:
    worker = measured(100, 0.1)
    worker.update_limits(SIZE // 2, 3 * SIZE)
    assert (worker.part_size, worker.window) == (SIZE // 2, 3 * SIZE)


def test_before_anything_has_arrived_one_part_may_be_outstanding() -> None:
    worker = WorkerPace(1)
    worker.update_limits(SIZE, math.inf)
    assert (worker.part_size, worker.window) == (MIN_PART, MIN_PART)
    worker.update_limits(5, math.inf)
    assert (worker.part_size, worker.window) == (5, 5)


@pytest.mark.parametrize("size", [5, MIN_PART, SIZE])
def test_after_the_first_arrival_two_parts_may_be_outstanding(size: int) -> None:
    worker = waiting(min(size, MIN_PART))
    assert worker.count_reply(0, 0, START + 0.001)
    worker.update_limits(size, math.inf)
    assert worker.part_size == min(size, PART_GROWTH * MIN_PART)
    assert worker.window == 2 * worker.part_size


@pytest.mark.parametrize(
    ("seconds", "unit", "part"), [(0.001, 4, 4), (0.125, 4, 4), (0.25, 4, 2), (0.5, 2, 1), (2, 1, 1)]
)
def test_a_unit_takes_a_second_and_a_part_half_of_it_but_both_grow_at_most_fourfold(
    seconds: float, unit: int, part: int
) -> None:
    worker = waiting(MIN_PART)
    worker.count_reply(0, 0, START + seconds)
    worker.update_limits(unit * MIN_PART, math.inf)
    assert worker.part_size == unit * MIN_PART
    worker.update_limits(unit * MIN_PART + 1, math.inf)
    assert worker.part_size == part * MIN_PART


def test_parts_shrink_with_the_first_slow_arrival() -> None:
    worker = measured(100)
    worker.count_reply(1, 0, START + 16.0)
    assert worker.rate == pytest.approx(50 * SIZE, rel=0.01)
    assert worker.whole_size == SIZE / 16


def test_a_burst_does_not_change_the_part_of_a_measured_worker() -> None:
    worker = waiting(MIN_PART, MIN_PART)
    worker.count_reply(0, 0, START + 0.5)
    part = worker.whole_size
    worker.count_reply(1, 0, START + 0.5)
    assert worker.whole_size == part == 2 * MIN_PART


def test_the_next_arrival_is_expected_after_the_time_for_its_bytes() -> None:
    assert arrivals(measured(10), START + 0.05) == [pytest.approx(START + 0.1)]
    assert arrivals(waiting(SIZE, SIZE // 2, rate=SIZE), START) == [START + 1.0, START + 1.5]


def test_an_overdue_reply_is_expected_to_take_as_long_again_as_it_is_late() -> None:
    late = [START + 0.7 - SCHEDULING_DELAY_S, START + 0.8 - SCHEDULING_DELAY_S]
    assert arrivals(waiting(SIZE, SIZE, rate=10 * SIZE), START + 0.4) == pytest.approx(late)


def test_a_reply_that_is_overdue_for_less_than_a_scheduling_delay_is_expected_now() -> None:
    now = START + 0.1 + 0.9 * SCHEDULING_DELAY_S
    assert arrivals(measured(10), now) == [pytest.approx(now)]


def test_the_first_replies_of_a_worker_are_expected_together() -> None:
    expected = START + 0.6 - SCHEDULING_DELAY_S
    assert arrivals(waiting(SIZE, SIZE), START + 0.3) == pytest.approx([expected, expected])


def test_more_bytes_are_expected_after_those_that_are_outstanding() -> None:
    assert waiting(SIZE, SIZE // 2, rate=SIZE).predict_next_arrival(SIZE // 4, START) == START + 1.75
    assert waiting(rate=SIZE).predict_next_arrival(SIZE // 4, START) == START + 0.25
    assert WorkerPace(1, round_trip=0.5).predict_next_arrival(SIZE, START) == START + 0.5


@pytest.mark.parametrize(("rate", "timeout"), [(100, STALL_TIMEOUT_S), (1, 4.0)])
def test_a_worker_is_stalled_when_an_arrival_is_long_overdue(rate: float, timeout: float) -> None:
    worker = measured(rate)
    assert not worker.is_stalled(START + timeout)
    assert worker.is_stalled(START + timeout + 0.01)
    worker.drop_requests()
    assert not worker.is_stalled(START + timeout + 0.01)


@pytest.mark.parametrize(("rate", "timeout"), [(100, STALL_TIMEOUT_S), (5, 0.8), (3, HOLDER_STALL_TIMEOUT_S), (1, 2.0)])
def test_a_holder_is_stalled_sooner_because_there_are_others_to_ask(rate: float, timeout: float) -> None:
    worker = measured(rate)
    worker.held = 1
    assert not worker.is_stalled(START + timeout - 0.001)
    assert worker.is_stalled(START + timeout + 0.01)
