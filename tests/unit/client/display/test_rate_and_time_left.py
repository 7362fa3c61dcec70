"""Rates and the remaining time are steady, even though bytes arrive in whole segments."""

from __future__ import annotations

from itertools import pairwise

import pytest

from msd.client.display.rate_and_time_left import RATE_WINDOW_S, STALL_S, RateMeter, TimeRemaining

STEP = 0.25


def arrivals(rate: float, segment: int, until: float) -> list[tuple[float, int]]:
    """Returns the time and the bytes received at each step. They arrive in segments, at ``rate`` on average."""
    return [(step * STEP, int(step * STEP * rate // segment) * segment) for step in range(int(until / STEP))]


@pytest.mark.parametrize("segment", [1, 300, 1000, 5000])
def test_a_steady_rate_is_measured_for_any_segment_size(segment: int) -> None:
    meter = RateMeter(RATE_WINDOW_S)
    rates = []
    for now, total in arrivals(1000.0, segment, 60.0):
        meter.update(total, now)
        rates.append(meter.rate(now))
    # Arrival times are known only to within one step.
    assert min(rates[80:]) >= 900
    assert max(rates[80:]) <= 1100


def test_during_a_stall_the_rate_is_0_and_afterwards_the_pause_is_not_counted() -> None:
    meter = RateMeter(RATE_WINDOW_S)
    for now, total in arrivals(1000.0, 250, 10.0):
        meter.update(total, now)
    last = meter.rate(10.0)
    assert last == pytest.approx(1000)
    assert meter.rate(10.0 + STALL_S + 0.1) == 0
    assert meter.is_stalled(10.0 + STALL_S + 0.1)
    for now, total in arrivals(1000.0, 250, 3.0):
        meter.update(20_000 + total, 100 + now)
    assert meter.rate(103.0) == pytest.approx(1000)


def test_one_arrival_gives_no_rate() -> None:
    meter = RateMeter(RATE_WINDOW_S)
    meter.update(5, 1.0)
    assert meter.rate(1.0) == 0


@pytest.mark.parametrize("segment", [1000, 20_000, 100_000])
def test_the_remaining_time_counts_down_without_jumps(segment: int) -> None:
    remaining, size = TimeRemaining(), 2_000_000
    shown = []
    for now, received in arrivals(20_000.0, segment, 95.0):
        remaining.update(received, size - received, now)
        if now > 15 and (seconds := remaining.seconds(now)) is not None:
            shown.append(seconds)
            assert abs(seconds - (100 - now)) < 5
    assert len(shown) > 250
    # Each step reduces the remaining time by the step's length, to within half a second.
    assert all(abs(before - after - STEP) < 0.5 for before, after in pairwise(shown))


def test_the_remaining_time_follows_a_new_rate_in_small_steps() -> None:
    remaining, size = TimeRemaining(), 10_000_000
    received, shown = 0, []
    for step in range(400):
        now = step * STEP
        received += int((50_000 if now < 30 else 10_000) * STEP)
        remaining.update(received, size - received, now)
        shown.append(remaining.seconds(now))
    seconds = [each for each in shown[20:] if each is not None]
    assert max(abs(after - before) for before, after in pairwise(seconds)) < 0.06 * max(seconds)
    assert seconds[-1] == pytest.approx((size - received) / 10_000, rel=0.05)


def test_the_remaining_time_is_unknown_during_a_stall() -> None:
    remaining = TimeRemaining()
    assert remaining.seconds(0.0) is None
    for now, received in arrivals(1000.0, 250, 10.0):
        remaining.update(received, 100_000 - received, now)
    assert remaining.seconds(10.0) is not None
    remaining.update(9750, 90_250, 20.0)
    assert remaining.seconds(20.0) is None
