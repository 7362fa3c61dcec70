"""Counts, sizes, rates and durations as text."""

from __future__ import annotations

import pytest

from msd.wire.support.units import format_count, format_duration, format_kb, format_rate, format_size


@pytest.mark.parametrize(("count", "text"), [(0, "0 segments"), (1, "1 segment"), (1234, "1,234 segments")])
def test_a_count_has_a_singular(count: int, text: str) -> None:
    assert format_count(count, "segment") == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3_565_158, "3.4 MiB"),
        (5 << 30, "5.0 GiB"),
        (7 << 40, "7.0 TiB"),
        (9000 << 40, "9000.0 TiB"),
    ],
)
def test_a_size_has_a_binary_unit(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0.0"), (4, "0.0"), (1000, "1.0"), (15_728_640, "15728.64")])
def test_kilobytes_have_at_most_two_decimals(size: float, text: str) -> None:
    assert format_kb(size) == text


@pytest.mark.parametrize(("rate", "text"), [(0, "0kb/s"), (4, "0kb/s"), (7_329_560, "7329.56kb/s")])
def test_a_rate_of_zero_has_no_decimals(rate: float, text: str) -> None:
    assert format_rate(rate) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (6.6, "0:07"), (59.6, "1:00"), (3599, "59:59"), (3723, "1:02:03"), (360_000, "100:00:00")],
)
def test_a_duration_has_hours_only_if_needed(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
