"""wire/support/text.py: which names can be shown."""

from __future__ import annotations

import pytest

from msd.wire.support.text import is_presentable, presentable


@pytest.mark.parametrize(
    "name", ["Star.mp4", "a folder/ä b.bin", "星.mp4", "it's", "13.05\u202fPM.png", "\u00a0", "👩\u200d👩\u200d👧.png"]
)
def test_an_ordinary_name_is_printed_as_it_is(name: str) -> None:
    assert presentable(name) == name
    assert is_presentable(name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("line\nline", r"line\nline"),
        ("\x9b2J", r"\x9b2J"),
        ("exe.\u202egpj", r"exe.\u202egpj"),
        ("it's\x07", r"it's\x07"),
    ],
)
def test_what_could_act_on_a_terminal_is_escaped(name: str, shown: str) -> None:
    assert presentable(name) == shown
    assert not is_presentable(name)
