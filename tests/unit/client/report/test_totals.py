"""The totals of a download: retries, waiting time and rates."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.client.events import Event, Progress, Retried, Started, Totals, Waiting, WorkerChanged, WorkerProgress
from msd.client.report.rate_meter import SETTLING_S
from msd.client.report.totals import RunningTotals

MIB = 1 << 20
STARTED = Started("film", Path("film"), "ab" * 32, 100 * MIB, 100)


def sample(seconds: float, received: float, reused: int = 0, rate: float = 0.0) -> Progress:
    """The progress after ``seconds``: bytes ``received`` from the network and ``reused`` from the disk."""
    size = int(received)
    worker = WorkerProgress("1", size, size, rate)
    return Progress(size + reused, 100 * MIB, reused, 0, seconds, 0.0, (worker,))


def totals_of(*events: tuple[float, Event], end: float | None = None) -> Totals:
    """Returns the totals of a download with these (time, event) pairs at ``end``, by default at the last event."""
    totals = RunningTotals()
    for now, event in events:
        totals.handle(event, 1000 + now)
    return totals.compute(1000 + (events[-1][0] if end is None else end))


def steady(rate: float, start: float, end: float) -> list[tuple[float, Event]]:
    """Returns samples with a constant current rate (in bytes per second)."""
    steps = round((end - start) * 10)
    return [(start + n / 10, sample(start + n / 10, MIB, rate=rate)) for n in range(1, steps + 1)]


# Retries.


def test_without_events_the_totals_are_zero() -> None:
    assert RunningTotals().compute(5.0) == Totals()


def test_retries_are_counted_by_cause() -> None:
    causes = ["sleeping", "corrupt", "sleeping"]
    totals = totals_of(*[(1.0, Retried("1", n, cause)) for n, cause in enumerate(causes)])
    assert totals.retries == {"corrupt": 1, "sleeping": 2}


def test_the_segments_of_a_lost_connection_count_as_retries() -> None:
    lost = [(1.0, WorkerChanged("1", "lost", "3 segments reassigned", 3)), (2.0, WorkerChanged("2", "lost"))]
    assert totals_of(*lost, (3.0, WorkerChanged("1", "dead"))).retries == {"lost": 3}


# Waiting.


def test_a_wait_lasts_from_the_last_progress_to_the_next() -> None:
    totals = totals_of((1.0, sample(1.0, MIB)), (3.0, Waiting("reason", 1.5)), (5.0, sample(5.0, 2 * MIB)), end=9.0)
    assert totals.waited_seconds == pytest.approx(3.5)


def test_a_sample_without_new_bytes_does_not_end_a_wait() -> None:
    totals = totals_of((1.0, sample(1.0, MIB)), (3.0, Waiting("reason", 1.0)), (4.0, sample(4.0, MIB)), end=6.0)
    assert totals.waited_seconds == pytest.approx(4.0)


def test_a_new_reason_does_not_start_a_new_wait() -> None:
    totals = totals_of((2.0, Waiting("one", 1.0)), (4.0, Waiting("another", 3.0)), (5.0, sample(5.0, MIB)))
    assert totals.waited_seconds == pytest.approx(4.0)


def test_waiting_for_the_servers_ends_when_the_file_is_known() -> None:
    totals = totals_of(
        (1.0, Waiting("no answer from server 5", 1.0)), (7.0, STARTED), (7.1, sample(0.1, MIB)), end=20.0
    )
    assert totals.waited_seconds == pytest.approx(7.0)


def test_waits_add_up() -> None:
    totals = totals_of(
        (2.0, Waiting("reason", 1.0)),
        (3.0, sample(3.0, MIB)),
        (6.0, Waiting("reason", 1.0)),
        (8.0, sample(8.0, 2 * MIB)),
    )
    assert totals.waited_seconds == pytest.approx(5.0)


# Rates.


def test_the_peak_is_the_largest_current_rate_and_the_median_is_over_all_of_them() -> None:
    totals = totals_of(*steady(MIB, 0, 4), *steady(4 * MIB, 4, 5), *steady(2 * MIB, 5, 6))
    assert (totals.rate_p50, totals.rate_peak) == (MIB, 4 * MIB)


def test_times_without_data_do_not_count_in_the_median() -> None:
    totals = totals_of(*steady(MIB, 0, 4), *steady(0, 4, 20), *steady(MIB, 20, 21))
    assert totals.rate_p50 == MIB


def test_the_burst_at_the_start_is_not_a_peak() -> None:
    totals = totals_of(*steady(9 * MIB, 0, SETTLING_S - 0.1), *steady(MIB, SETTLING_S, 4))
    assert totals.rate_peak == MIB


def test_a_download_shorter_than_the_window_has_its_last_rate() -> None:
    totals = totals_of((0.1, sample(0.1, MIB, rate=10 * MIB)), (0.2, sample(0.2, 3 * MIB, rate=15 * MIB)))
    assert totals.rate_p50 == totals.rate_peak == 15 * MIB


def test_reused_bytes_do_not_count_in_the_rates() -> None:
    assert totals_of((0.5, sample(0.5, 0, reused=50 * MIB)), (1.5, sample(1.5, 0, reused=90 * MIB))) == Totals()


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 10 * MIB)), max_size=30))
def test_the_median_never_exceeds_the_peak(steps: list[tuple[float, float]]) -> None:
    totals = RunningTotals()
    seconds = 0.0
    for span, rate in steps:
        seconds += span
        totals.handle(sample(seconds, MIB, rate=rate), seconds)
    result = totals.compute(seconds)
    assert 0 <= result.rate_p50 <= result.rate_peak
    assert math.isfinite(result.rate_peak)
