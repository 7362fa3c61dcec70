"""The rate of a worker is steady, even though bytes arrive in whole segments, and follows a change within seconds."""

from __future__ import annotations

import pytest

from msd.client.report.rate_meter import RATE_WINDOW_S, STALL_S, RateMeter


def deliver(meter: RateMeter, rate: float, segment: int, start: float, end: float) -> None:
    """Lets segments of ``segment`` bytes arrive at ``rate`` bytes per second in a period of time."""
    gap = segment / rate
    for number in range(1, round((end - start) / gap) + 1):
        meter.count(segment, start + number * gap)


@pytest.mark.parametrize("segment", [1, 100, 1000, 4000])
def test_a_steady_rate_is_the_same_between_two_arrivals_and_for_any_segment_size(segment: int) -> None:
    meter = RateMeter()
    meter.start(0.0)
    deliver(meter, 1000.0, segment, 0.0, 20.0)
    for step in range(10):
        assert meter.rate(20.0 + step / 10 * segment / 1000) == pytest.approx(1000.0)


def test_the_first_segment_counts_from_the_start() -> None:
    meter = RateMeter()
    meter.start(10.0)
    assert meter.rate(12.0) == 0
    meter.count(1000, 14.0)
    assert meter.rate(14.0) == pytest.approx(250.0)


@pytest.mark.parametrize(("before", "after"), [(5000.0, 500.0), (500.0, 5000.0)])
def test_a_change_of_the_rate_is_measured_within_two_segments_after_the_window(before: float, after: float) -> None:
    meter = RateMeter()
    meter.start(0.0)
    deliver(meter, before, 1000, 0.0, 10.0)
    changed = RATE_WINDOW_S + 2 * 1000 / after
    deliver(meter, after, 1000, 10.0, 10.0 + changed)
    assert meter.rate(10.0 + changed) == pytest.approx(after, rel=0.05)


def test_an_overdue_segment_lowers_the_rate_before_it_arrives() -> None:
    meter = RateMeter()
    meter.start(0.0)
    deliver(meter, 1000.0, 100, 0.0, 10.0)
    assert meter.rate(10.1) == pytest.approx(1000.0)
    assert meter.rate(11.0) < 700
    assert meter.rate(12.1) < 100


def test_a_worker_that_is_known_to_send_nothing_has_the_rate_0_at_once() -> None:
    meter = RateMeter()
    meter.start(0.0)
    deliver(meter, 1000.0, 100, 0.0, 10.0)
    meter.stop()
    assert meter.rate(10.0) == 0


@pytest.mark.parametrize("is_known", [True, False])
def test_after_a_pause_the_pause_does_not_count(is_known: bool) -> None:
    meter = RateMeter()
    meter.start(0.0)
    deliver(meter, 1000.0, 100, 0.0, 10.0)
    if is_known:
        meter.stop()
        meter.start(30.0)
    assert meter.rate(10.0 + STALL_S + 0.1) == 0
    deliver(meter, 1000.0, 100, 30.0, 32.0)
    assert meter.rate(32.0) == pytest.approx(1000.0)


def test_the_burst_of_a_worker_that_wakes_up_is_no_high_rate() -> None:
    meter = RateMeter()
    meter.start(0.0)
    deliver(meter, 1000.0, 100, 0.0, 10.0)
    meter.stop()
    meter.start(20.0)
    meter.count(300, 20.001)
    assert meter.rate(20.01) == pytest.approx(300.0)
    deliver(meter, 1000.0, 100, 20.0, 21.0)
    assert meter.rate(21.0) == pytest.approx(1300.0)


def test_at_the_end_of_a_short_download_the_rate_is_its_average() -> None:
    """The worker delivered its last segment before the others did."""
    meter = RateMeter()
    meter.start(0.0, is_first_request=True)
    deliver(meter, 1000.0, 100, 0.0, 0.5)
    assert meter.rate(0.8, is_complete=True) == pytest.approx(500 / 0.8)


def test_without_a_start_two_arrivals_give_a_rate() -> None:
    meter = RateMeter()
    meter.count(5, 1.0)
    assert meter.rate(1.0) == 0
    meter.count(5, 2.0)
    assert meter.rate(2.0) == pytest.approx(5.0)
