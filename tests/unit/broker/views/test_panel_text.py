"""Titles that fit, filters, and panels without rows."""

from __future__ import annotations

import pytest

from msd.broker.views.panel_text import Line, PanelText, Tone, matches, note, titles


def test_a_title_leaves_out_the_order_first_and_its_filter_last() -> None:
    text = PanelText(titles("Workers", "2 of 4 alive", "by number", "attic", "slow host: h"), [])
    assert [text.title(width) for width in (99, 60, 40, 9)] == [
        "Workers: 2 of 4 alive, filter: attic, slow host: h, by number",
        "Workers: 2 of 4 alive, filter: attic, slow host: h",
        "Workers: 2 of 4 alive, filter: attic",
        "Workers",
    ]
    assert text.title(3) == ""


@pytest.mark.parametrize(
    ("words", "is_match"), [("", True), ("ANNA", True), ("mkv anna", True), ("anna ben", False), ("  ", True)]
)
def test_a_row_matches_if_it_has_all_words(words: str, is_match: bool) -> None:
    assert matches(words, "Anna@laptop", "film.mkv") is is_match


def test_a_panel_without_rows_says_why_in_whole_words() -> None:
    text = note(["Rate: 0 B/s"], "nothing was sent", 12)
    assert text.lines == [Line(None, " nothing was", Tone.MUTED), Line(None, " sent", Tone.MUTED)]
    assert text.height == 2
