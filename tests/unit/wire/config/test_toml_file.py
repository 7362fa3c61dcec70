"""Sizes in config.toml and in flags. ``test_settings.py`` tests all other values by loading whole files."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.wire.config.toml_file import MAX_SIZE, parse_duration, parse_size

BYTES = 'a number of bytes, such as 1048576 or "40MiB"'


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (1048576, 1048576),
        (MAX_SIZE - 1, MAX_SIZE - 1),
        ("0", 0),
        ("1048576", 1048576),
        ("7B", 7),
        ("500k", 500_000),
        ("500K", 500_000),
        ("500kB", 500_000),
        ("40MiB", 40 << 20),
        ("40mib", 40 << 20),
        ("40Mi", 40 << 20),
        ("1 KiB", 1024),
        ("1.5 GB", 1_500_000_000),
        ("1.5GiB", 3 << 29),
        ("2T", 2 * 10**12),
        ("1TiB", 1 << 40),
        ("25MiB/s", 25 << 20),
        ("25 M/s", 25_000_000),
        (" 8 ", 8),
    ],
)
def test_a_size_is_parsed(text: object, size: int) -> None:
    assert parse_size(text) == size


INVALID_NUMBERS = ["", " ", "k", "MiB", "-1", "+1", "1e6", "0x10", "1.", ".5", "1,5", "inf", "nan"]
INVALID_UNITS = ["5i", "5iB", "1PB", "1 M b", "1Mbps", "1/s/s"]
TOO_LARGE = [MAX_SIZE, str(MAX_SIZE), "4611686018428T", "9" * 400, "9" * 5000]


@pytest.mark.parametrize("text", [*INVALID_NUMBERS, *INVALID_UNITS, *TOO_LARGE, -1, 1.5, True, None, []])
def test_an_invalid_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(BYTES)}$"):
        parse_size(text)


@given(st.integers(0, 1 << 20), st.sampled_from(["", "k", "M", "G", "T"]), st.booleans(), st.booleans())
def test_a_unit_is_a_power_of_1000_or_with_an_i_of_1024(number: int, unit: str, binary: bool, is_rate: bool) -> None:
    binary = binary and unit != ""
    text = f"{number}{unit}{'i' if binary else ''}B{'/s' if is_rate else ''}"
    assert parse_size(text) == number * (1024 if binary else 1000) ** ["", "k", "M", "G", "T"].index(unit)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("90m", 5400), ("12h", 43200), (" 7d ", 604800), ("2w", 1209600)]
)
def test_a_time_is_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "0d", "-1d", "1.5h", "7 d", "7D", "7y", "d", "36501d", "9" * 5000 + "s", 7])
def test_an_invalid_time_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"^a time such as 90m, 12h or 7d$"):
        parse_duration(text)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    try:
        assert 0 <= parse_size(text) < MAX_SIZE
    except ValueError:
        return
