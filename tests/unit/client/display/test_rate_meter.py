"""Rates and the remaining time are told evenly, though segments arrive whole."""

from __future__ import annotations

from itertools import pairwise

import pytest

from msd.client.display.rate_meter import LATELY, STILL, RateMeter, TimeRemaining

STEP = 0.25


def lumps(rate: float, lump: int, until: float) -> list[tuple[float, int]]:
    """What there is at each step when ``lump`` bytes come at once, ``rate`` a second on the whole."""
    return [(step * STEP, int(step * STEP * rate // lump) * lump) for step in range(int(until / STEP))]


@pytest.mark.parametrize("lump", [1, 300, 1000, 5000])
def test_a_steady_rate_is_told_as_such_whatever_the_size_of_a_segment(lump: int) -> None:
    meter = RateMeter(LATELY)
    told = []
    for now, total in lumps(1000.0, lump, 60.0):
        meter.take(total, now)
        told.append(meter.rate(now))
    # Within what the moment of an arrival is known to.
    assert min(told[80:]) >= 900
    assert max(told[80:]) <= 1100


def test_where_nothing_comes_any_more_the_rate_is_0_and_the_pause_is_not_counted() -> None:
    meter = RateMeter(LATELY)
    for now, total in lumps(1000.0, 250, 10.0):
        meter.take(total, now)
    last = meter.rate(10.0)
    assert last == pytest.approx(1000)
    assert meter.rate(10.0 + STILL + 0.1) == 0
    assert meter.is_still(10.0 + STILL + 0.1)
    for now, total in lumps(1000.0, 250, 3.0):
        meter.take(20_000 + total, 100 + now)
    assert meter.rate(103.0) == pytest.approx(1000)


def test_of_one_arrival_there_is_no_rate() -> None:
    meter = RateMeter(LATELY)
    meter.take(5, 1.0)
    assert meter.rate(1.0) == 0


@pytest.mark.parametrize("lump", [1000, 20_000, 100_000])
def test_the_remaining_time_runs_down_without_jumping(lump: int) -> None:
    remaining, size = TimeRemaining(), 2_000_000
    shown = []
    for now, received in lumps(20_000.0, lump, 95.0):
        remaining.take(received, size - received, now)
        if now > 15 and (seconds := remaining.seconds(now)) is not None:
            shown.append(seconds)
            assert abs(seconds - (100 - now)) < 5
    assert len(shown) > 250
    # A step of the clock, and not half a second beside it.
    assert all(abs(before - after - STEP) < 0.5 for before, after in pairwise(shown))


def test_the_remaining_time_turns_to_another_rate_in_small_steps() -> None:
    remaining, size = TimeRemaining(), 10_000_000
    received, shown = 0, []
    for step in range(400):
        now = step * STEP
        received += int((50_000 if now < 30 else 10_000) * STEP)
        remaining.take(received, size - received, now)
        shown.append(remaining.seconds(now))
    seconds = [each for each in shown[20:] if each is not None]
    assert max(abs(after - before) for before, after in pairwise(seconds)) < 0.06 * max(seconds)
    assert seconds[-1] == pytest.approx((size - received) / 10_000, rel=0.05)


def test_nobody_knows_how_long_it_takes_while_nothing_comes() -> None:
    remaining = TimeRemaining()
    assert remaining.seconds(0.0) is None
    for now, received in lumps(1000.0, 250, 10.0):
        remaining.take(received, 100_000 - received, now)
    assert remaining.seconds(10.0) is not None
    remaining.take(9750, 90_250, 20.0)
    assert remaining.seconds(20.0) is None
