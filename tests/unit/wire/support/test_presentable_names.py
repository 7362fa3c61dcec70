"""Which file names can be printed unchanged, and how the others are escaped."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from msd.wire.support.presentable_names import is_presentable, presentable


@pytest.mark.parametrize(
    "name", ["Star.mp4", "a folder/ä b.bin", "星.mp4", "it's", "13.05\u202fPM.png", "\u00a0", "👩\u200d👩\u200d👧.png"]
)
def test_an_ordinary_name_is_presentable(name: str) -> None:
    assert presentable(name) == name
    assert is_presentable(name)


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("line\nline", r"line\nline"),
        ("\x9b2J", r"\x9b2J"),
        ("exe.\u202egpj", r"exe.\u202egpj"),
        ("it's\x07", r"it's\x07"),
    ],
)
def test_a_name_that_could_control_a_terminal_or_mislead_is_escaped(name: str, escaped: str) -> None:
    assert presentable(name) == escaped
    assert not is_presentable(name)


def test_every_control_character_surrogate_and_direction_control_is_escaped() -> None:
    direction_controls = {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}
    for character in map(chr, range(sys.maxunicode + 1)):
        is_escaped = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in direction_controls
        assert is_presentable(character) is not is_escaped
