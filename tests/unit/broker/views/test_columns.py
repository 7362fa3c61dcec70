"""Columns drop from the least important on, texts keep their beginning and end, and wide characters are counted."""

from __future__ import annotations

import pytest

from msd.broker.views.columns import Column, clip_middle, first_that_fits, fit, heading, line, text_width, wrap

COLUMNS = (
    Column("Name", 8, most=20, is_left=True),
    Column("Rate", 10, rank=1),
    Column("Sent", 8, rank=3),
    Column("Port", 5, rank=2),
)
ROW = {"Name": "abcdefghijkl", "Rate": "1.0 MiB/s", "Sent": "3 GiB", "Port": "21018"}


@pytest.mark.parametrize(
    ("width", "names"),
    [(99, "Name Rate Sent Port"), (33, "Name Rate Port"), (25, "Name Rate Port"), (24, "Name Rate"), (9, "Name")],
)
def test_the_column_of_the_highest_rank_is_left_out_first(width: int, names: str) -> None:
    widths = fit(COLUMNS, [ROW], width)
    assert heading(COLUMNS, widths).split() == names.split()
    assert text_width(line(COLUMNS, ROW, widths)) <= width


def test_a_text_gets_the_room_that_remains_up_to_its_length() -> None:
    assert fit(COLUMNS, [ROW], 99)["Name"] == 12
    assert fit(COLUMNS, [ROW], 36)["Name"] == 10
    assert fit(COLUMNS, [{**ROW, "Name": "x" * 99}], 99)["Name"] == 20


@pytest.mark.parametrize(
    ("text", "width", "clipped"),
    [
        ("holiday.mkv", 11, "holiday.mkv"),
        ("holiday.mkv", 10, "holid….mkv"),
        ("holiday.mkv", 3, "h…v"),
        ("holiday.mkv", 1, "…"),
        ("語語語語語語", 7, "語語…語"),
    ],
)
def test_a_name_is_shortened_in_the_middle(text: str, width: int, clipped: str) -> None:
    assert clip_middle(text, width) == clipped
    assert text_width(clipped) <= width


def test_the_width_of_a_text_is_that_on_a_terminal() -> None:
    assert [text_width(text) for text in ("abc", "Zoë", "Zoe\u0308", "語", "●…")] == [3, 3, 3, 2, 2]


def test_a_text_is_wrapped_between_words() -> None:
    assert wrap("one two-three four", 14) == ["one two-three", "  four"]


def test_the_first_text_that_fits_is_taken() -> None:
    assert [first_that_fits(["long text", "text"], width) for width in (9, 8, 3)] == ["long text", "text", ""]
