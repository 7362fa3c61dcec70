"""Counts, sizes, rates and durations as text."""

from __future__ import annotations

import random
import time

import msgspec
import pytest

from msd.wire.protocol.messages import Timestamp
from msd.wire.support.units import (
    format_count,
    format_date,
    format_duration,
    format_kb,
    format_kb_rate,
    format_percent,
    format_rate,
    format_size,
    format_time,
)


@pytest.mark.parametrize(("count", "text"), [(0, "0 segments"), (1, "1 segment"), (1234, "1,234 segments")])
def test_a_count_has_a_singular(count: int, text: str) -> None:
    assert format_count(count, "segment") == text


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(0, 9, "0 %"), (999, 1000, "99 %"), (7, 7, "100 %"), (0, 0, "100 %"), (9, 4, "100 %")]
)
def test_only_all_of_it_is_100_percent(part: int, whole: int, text: str) -> None:
    assert format_percent(part, whole) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (3_565_158, "3.4 MiB"),
        (99.9 * (1 << 20), "99.9 MiB"),
        (99.96 * (1 << 20), "100 MiB"),
        (999.4 * (1 << 20), "999 MiB"),
        (999.6 * (1 << 20), "1.0 GiB"),
        (7 << 40, "7.0 TiB"),
        (2**63, "8.0 EiB"),
    ],
)
def test_a_size_has_a_binary_unit_and_three_digits(size: float, text: str) -> None:
    assert format_size(size) == text
    assert format_rate(size) == f"{text}/s"


def test_a_size_takes_at_most_eight_columns(rng: random.Random) -> None:
    assert max(len(format_size(2 ** rng.uniform(0, 63))) for _ in range(10_000)) == 8


@pytest.mark.parametrize(("size", "text"), [(0, "0.0"), (4, "0.0"), (1000, "1.0"), (15_728_640, "15728.64")])
def test_kilobytes_have_at_most_two_decimals(size: float, text: str) -> None:
    assert format_kb(size) == text


@pytest.mark.parametrize(("rate", "text"), [(0, "0kb/s"), (4, "0kb/s"), (7_329_560, "7329.56kb/s")])
def test_a_rate_of_zero_in_a_metric_line_has_no_decimals(rate: float, text: str) -> None:
    assert format_kb_rate(rate) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (6.6, "0:07"),
        (59.6, "1:00"),
        (3599, "59:59"),
        (3723, "1:02:03"),
        (86_399, "23:59:59"),
        (90_000, "1d 01h"),
        (999 * 86_400, "999d 00h"),
        (1e10, "115740d"),
    ],
)
def test_a_duration_takes_at_most_eight_columns(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert len(text) <= 8


@pytest.mark.parametrize("zone", ["UTC", "XXX+12", "XXX-14", "XXX+24", "XXX-24"])
@pytest.mark.parametrize("extreme", [0.0, 253_402_000_000.0])
def test_any_time_in_a_message_can_be_formatted(zone: str, extreme: float, monkeypatch: pytest.MonkeyPatch) -> None:
    msgspec.convert(extreme, Timestamp)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert len(format_time(extreme)) == len("00:00:00")
        assert len(format_date(extreme)) == len("2026-12-06 14:02")
    finally:
        monkeypatch.undo()
        time.tzset()
