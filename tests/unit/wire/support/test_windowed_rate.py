"""Rates of a growing total."""

from __future__ import annotations

from msd.wire.support.windowed_rate import WindowedRate


def test_a_rate_is_known_at_the_end_of_each_window() -> None:
    rate = WindowedRate(1.0)
    updates = [(0, 10.0), (5, 10.5), (20, 11.0), (20, 11.5), (26, 12.2)]
    assert [rate.update(total, now) for total, now in updates] == [None, None, 20.0, None, 6 / (12.2 - 11.0)]
    assert rate.rate == 6 / (12.2 - 11.0)


def test_a_smaller_total_starts_a_new_window() -> None:
    rate = WindowedRate(1.0)
    assert [rate.update(total, now) for total, now in [(100, 1.0), (110, 2.0), (10, 2.5)]] == [None, 10.0, None]
    assert rate.rate == 0.0
    assert rate.update(30, 3.5) == 20.0
