"""The time left counts down without jumps and follows a new rate at once. Recorded downloads: test_recordings.py."""

from __future__ import annotations

from itertools import pairwise

import pytest

from msd.client.display.time_left import SMOOTHING_S, TimeLeft

STEP = 0.1


@pytest.mark.parametrize("segment", [1000, 20_000])
def test_the_time_left_counts_down_without_jumps(segment: int) -> None:
    time_left, shown = TimeLeft(), []
    for step in range(950):
        now = step * STEP
        received = int(20_000 * now // segment) * segment
        time_left.update(2_000_000 - received, 20_000.0, now)
        shown.append(time_left.seconds(now) or 0.0)
        assert abs(shown[-1] - (100 - now)) <= 1.1
    assert all(abs(before - after - STEP) < 0.5 for before, after in pairwise(shown[:800]))


@pytest.mark.parametrize("rate", [5_000.0, 80_000.0])
def test_a_new_rate_is_shown_at_once(rate: float) -> None:
    time_left = TimeLeft()
    for step in range(100):
        time_left.update(2_000_000, 20_000.0, step * STEP)
    time_left.update(2_000_000, rate, 10.0)
    assert time_left.seconds(10.0) == pytest.approx(2_000_000 / rate)


def test_a_slightly_different_rate_is_shown_gradually() -> None:
    time_left = TimeLeft()
    time_left.update(2_000_000, 20_000.0, 0.0)
    time_left.update(2_000_000, 19_000.0, STEP)
    after = time_left.seconds(STEP)
    assert after is not None
    assert 100 - STEP < after < 100.5
    for step in range(2, 2 + int(5 * SMOOTHING_S / STEP)):
        time_left.update(2_000_000, 19_000.0, step * STEP)
    assert time_left.seconds(step * STEP) == pytest.approx(2_000_000 / 19_000, abs=2.1)


def test_without_a_rate_the_time_left_is_unknown() -> None:
    time_left = TimeLeft()
    assert time_left.seconds(0.0) is None
    time_left.update(1000, 100.0, 1.0)
    assert time_left.seconds(2.0) == pytest.approx(9.0)
    time_left.update(1000, 0.0, 3.0)
    assert time_left.seconds(3.0) is None
