"""The colours of texts and their backgrounds differ enough for everybody who can read the words."""

from __future__ import annotations

import pytest

from msd.broker.operator import colours
from msd.broker.views.panel_text import Tone

#: The least contrast of a text to its background, as WCAG 2 demands it.
MIN_CONTRAST = 4.5


def contrast(first: str, second: str) -> float:
    """The contrast of two colours as WCAG 2 defines it."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    def linear(channel: float) -> float:
        return channel / 12.92 if channel <= 0.03928 else float(((channel + 0.055) / 1.055) ** 2.4)

    red, green, blue = (linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_contrast_is_that_of_wcag() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21.0)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_every_tone_can_be_read_also_in_the_selected_row() -> None:
    assert {*colours.TONES} == {*Tone}
    for tone, colour in colours.TONES.items():
        for background in (colours.BACKGROUND, colours.SELECTED):
            assert contrast(colour, background) >= MIN_CONTRAST, (tone, background)


def test_the_bars_the_frames_and_the_headings_can_be_read() -> None:
    for background in (colours.BAR, colours.ALARM, colours.SELECTED):
        assert contrast(colours.BRIGHT, background) >= MIN_CONTRAST, background
    for text in (colours.FRAME, colours.FOCUSED_FRAME, colours.HEADING, colours.TEXT):
        assert contrast(text, colours.BACKGROUND) >= MIN_CONTRAST, text
    assert contrast(colours.HEADING, colours.SELECTED) >= MIN_CONTRAST
