"""An id that a user gives: its digits, and the only version that they select."""

from __future__ import annotations

import pytest

from msd.client.manifest.id_prefix import MAX_DIGITS, parse_id, select_version
from msd.wire.errors import MsdError, NotFoundError, UsageError
from msd.wire.protocol.messages import Entry

DIGITS = "0123456789abcdef" * 4


@pytest.mark.parametrize("id", [DIGITS, DIGITS.upper(), bytes.fromhex(DIGITS)])
def test_an_id_is_32_bytes_or_64_hexadecimal_digits(id: bytes | str) -> None:
    assert parse_id(id) == DIGITS


def test_the_first_six_digits_are_enough() -> None:
    assert parse_id("0123AB") == "0123ab"


@pytest.mark.parametrize(
    "id", ["", "ab", "abcde", "0x1234", "ab" * 33, "xy" * 32, "ä" * 64, "²²²²²²", "abcdef\n", b"", b"abcdef", bytes(33)]
)
def test_any_other_id_is_a_usage_error(id: bytes | str) -> None:
    with pytest.raises(
        UsageError, match=f"an id has {MAX_DIGITS} hexadecimal digits, of which at least the first 6"
    ) as caught:
        parse_id(id)
    assert caught.value.arguments == ("id",)


def entry(name: str, start: str) -> Entry:
    return Entry(name=name, size=1, mtime_ns=0, id=bytes.fromhex(start.ljust(MAX_DIGITS, "0")))


ENTRIES = [
    entry("Moon.mp4", "abcdef01"),
    entry("Star.mp4", "abcdef02"),
    entry("Copy of Star.mp4", "abcdef02"),
    entry("Sun.mp4", "123456"),
]


@pytest.mark.parametrize(
    ("digits", "name", "selected"),
    [
        ("123456", None, "123456"),
        ("123456", "Sun.mp4", "123456"),
        ("abcdef01", None, "abcdef01"),
        # Two names of the same content are one version.
        ("abcdef02", None, "abcdef02"),
        ("abcdef", "Star.mp4", "abcdef02"),
    ],
)
def test_digits_select_the_only_version_that_begins_with_them(digits: str, name: str | None, selected: str) -> None:
    assert select_version(ENTRIES, digits, name).hex() == selected.ljust(MAX_DIGITS, "0")


@pytest.mark.parametrize(
    ("digits", "name", "error", "message"),
    [
        (
            "999999",
            None,
            NotFoundError,
            "no shared file has an id that begins with 999999: msd list --json shows the ids",
        ),
        (
            "abcdef",
            None,
            UsageError,
            "id abcdef is ambiguous: it matches 'Moon.mp4' (abcdef0100…) and 'Star.mp4' (abcdef0200…) and"
            " 'Copy of Star.mp4' (abcdef0200…): give more digits",
        ),
        (
            "abcdef01",
            "Star.mp4",
            NotFoundError,
            "the id abcdef01 is that of 'Moon.mp4', not of 'Star.mp4': give one of them",
        ),
    ],
)
def test_any_other_digits_name_what_matches(digits: str, name: str | None, error: type[MsdError], message: str) -> None:
    with pytest.raises(error) as raised:
        select_version(ENTRIES, digits, name)
    assert str(raised.value) == message


def test_an_error_does_not_list_a_thousand_files() -> None:
    with pytest.raises(UsageError) as raised:
        select_version([entry(f"{number}.mp4", f"abcdef{number:04x}") for number in range(1000)], "abcdef", None)
    assert "and 997 more: give more digits" in str(raised.value)
    assert len(str(raised.value)) < 200
