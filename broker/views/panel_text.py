"""What a panel of the console shows: a title, a heading and rows. Pure.

Does not fill it: there is a module for each panel. Does not draw it: see ``broker/operator/panel.py``.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import StrEnum, auto

from msgspec import Struct

from msd.broker.views.columns import first_that_fits, wrap


class Tone(StrEnum):
    """What the colour of a line means. The words of the line say the same."""

    NORMAL = auto()
    GOOD = auto()
    WARNING = auto()
    BAD = auto()
    MUTED = auto()
    STRONG = auto()


class Line(Struct, frozen=True):
    """A line of a panel. ``key`` identifies its row; the lines that continue a row, or cannot be selected, have None.
    The text begins with a blank, in which the panel marks the selected row.
    """

    key: Hashable
    text: str
    tone: Tone = Tone.NORMAL


class PanelText(Struct, frozen=True):
    """The contents of a panel. ``titles`` are alternatives, the longest first. ``heading`` names the columns; it is
    empty if there are none.
    """

    titles: Sequence[str]
    lines: Sequence[Line]
    heading: str = ""

    @property
    def height(self) -> int:
        """The number of lines that the panel would need."""
        return len(self.lines) + bool(self.heading)

    def title(self, width: int) -> str:
        return first_that_fits([*self.titles, self.titles[-1].split(":")[0]], width)


def note(titles: Sequence[str], text: str, width: int) -> PanelText:
    """Returns a panel of ``width`` columns that has no rows, and says why."""
    return PanelText(titles, [Line(None, f" {line}", Tone.MUTED) for line in wrap(text, width - 1, indent=0)])


def matches(words: str, *texts: str) -> bool:
    """True if each word of the filter ``words`` is a part of one of ``texts``; case does not matter."""
    whole = "\n".join(texts).casefold()
    return all(word in whole for word in words.casefold().split())


def titles(name: str, count: str, order: str = "", words: str = "", *more: str) -> list[str]:
    """Returns the titles of a panel, the longest first: its name, what it counts, how it is sorted, its filter, and
    ``more``. The filter is left out last.
    """
    kept = f"{name}: {count}{f', filter: {words}' if words else ''}"
    whole = [kept, *more, *([order] if order else [])]
    return [", ".join(whole[:end]) for end in range(len(whole), 0, -1)]
