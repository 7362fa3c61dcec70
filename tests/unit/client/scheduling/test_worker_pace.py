"""The measured rate of a worker, its window, and when its replies are expected."""

from __future__ import annotations

import pytest

from msd.client.scheduling.worker_pace import (
    INITIAL_WINDOW,
    MAX_WINDOW,
    MIN_ROUND_TRIP_S,
    MIN_WINDOW,
    RATE_SPAN_S,
    SCHEDULING_DELAY_S,
    STALL_TIMEOUT_S,
    WINDOW_GAIN,
    WorkerPace,
    memory_window,
)

START = 50.0


def measured(rate: float, round_trip: float = 0.0) -> WorkerPace:
    """A worker that delivered ``rate`` units per second for ten seconds, the last one at ``START``."""
    worker = WorkerPace(1, round_trip=round_trip, span_start=START - 10.0, outstanding={0: None})
    worker.span_count = round(10 * rate) - 1
    worker.count_arrival(START)
    return worker


def test_the_rate_is_unknown_until_a_whole_span_has_passed() -> None:
    worker = WorkerPace(1, span_start=START)
    worker.count_arrival(START + RATE_SPAN_S / 2)
    assert (worker.rate, worker.window) == (None, INITIAL_WINDOW)
    worker.count_arrival(START + 2 * RATE_SPAN_S)
    assert worker.rate == pytest.approx(1 / RATE_SPAN_S)


def test_a_new_measurement_counts_as_much_as_all_before() -> None:
    worker = measured(10)
    worker.span_count = 29
    worker.count_arrival(START + 1)
    assert worker.rate == pytest.approx((10 + 30) / 2)


@pytest.mark.parametrize(
    ("rate", "round_trip", "window"),
    [
        (1, 0.0, MIN_WINDOW),
        (100, 0.1, 1 + WINDOW_GAIN * 10),
        (4000, 0.0, 1 + WINDOW_GAIN * 4000 * MIN_ROUND_TRIP_S),
        (1000, 10.0, MAX_WINDOW),
    ],
)
def test_the_window_holds_what_the_worker_delivers_in_two_round_trips(
    rate: float, round_trip: float, window: float
) -> None:
    assert measured(rate, round_trip).window == pytest.approx(window, abs=1)


def test_the_next_arrival_is_expected_one_step_after_the_last() -> None:
    assert measured(10).predict_arrivals(START + 0.05) == pytest.approx((START + 0.1, 0.1))


def test_an_overdue_segment_is_expected_to_take_as_long_again_as_it_is_late() -> None:
    first, step = measured(10).predict_arrivals(START + 0.4)
    assert (first, step) == pytest.approx((START + 0.7 - SCHEDULING_DELAY_S, 0.1))


def test_a_segment_that_is_overdue_for_less_than_a_scheduling_delay_is_expected_now() -> None:
    now = START + 0.1 + 0.9 * SCHEDULING_DELAY_S
    assert measured(10).predict_arrivals(now) == pytest.approx((now, 0.1))


def test_the_first_segments_of_a_worker_are_expected_together() -> None:
    worker = WorkerPace(1, waiting_since=START, outstanding={0: None, 1: None})
    assert worker.predict_arrivals(START + 0.3) == pytest.approx((START + 0.6 - SCHEDULING_DELAY_S, 0.0))


@pytest.mark.parametrize(("rate", "timeout"), [(100, STALL_TIMEOUT_S), (1, 4.0)])
def test_a_worker_is_stalled_when_an_arrival_is_long_overdue(rate: float, timeout: float) -> None:
    worker = measured(rate)
    assert not worker.is_stalled(START + timeout)
    assert worker.is_stalled(START + timeout + 0.01)
    worker.outstanding.clear()
    assert not worker.is_stalled(START + timeout + 0.01)


@pytest.mark.parametrize(
    ("memory", "workers", "segment_size", "window"),
    [(64, 4, 2, 8), (64, 4, 3, 5), (64, 0, 1, 64), (64, 100, 1, 1), (10**9, 4, 1, MAX_WINDOW), (0, 4, 1, 1)],
)
def test_the_windows_of_all_workers_fit_the_memory(memory: int, workers: int, segment_size: int, window: int) -> None:
    assert memory_window(memory, workers, segment_size) == window
