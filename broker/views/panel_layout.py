"""Where the panels of the console are on a screen of any size: a pure function.

On a wide screen the panels are in two stacks, otherwise in one. If they do not get all the lines that they want, the
focused panel gets more; on a very small screen, the least important panels have no place. Sizes are in columns and
lines, with the frame of a panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum, auto

from msgspec import Struct

#: From these sizes on, the panels are in two stacks, and have a frame on all sides instead of a rule above them.
WIDE, FRAMED_HEIGHT = 150, 32
#: The part of the width that the left stack has.
LEFT_SHARE = 0.6
#: How much faster the focused panel grows than the others.
FOCUS_WEIGHT = 3
#: Columns between two panels without frames.
GAP = 2


class Panel(StrEnum):
    """The panels, those that stay longest on a small screen first."""

    WORKERS = auto()
    CLIENTS = auto()
    EVENTS = auto()
    COMMAND = auto()
    FILES = auto()
    RATE = auto()
    DETAILS = auto()


class Wish(Struct, frozen=True):
    """The lines that a panel needs at least, and wants at most, inside its frame."""

    least: int
    most: int


class Place(Struct, frozen=True):
    """The place of a panel on the screen: its left and top edge, and its size."""

    x: int
    y: int
    width: int
    height: int


class Screen(Struct, frozen=True):
    """The room for panels: its size, and its top line."""

    width: int
    height: int
    top: int = 0

    @property
    def is_framed(self) -> bool:
        return self.height >= FRAMED_HEIGHT

    @property
    def frame(self) -> int:
        """The lines of a frame."""
        return 2 if self.is_framed else 1

    @property
    def columns(self) -> Mapping[Panel, tuple[int, int]]:
        """The left edge and the width of each panel."""
        whole = (0, self.width)
        if self.width >= WIDE:
            left = int(self.width * LEFT_SHARE)
            start = left if self.is_framed else left + GAP
            right = (start, self.width - start)
            stacks = dict.fromkeys((Panel.WORKERS, Panel.CLIENTS, Panel.FILES), (0, left))
            return {
                **stacks,
                **dict.fromkeys((Panel.RATE, Panel.DETAILS, Panel.EVENTS), right),
                Panel.COMMAND: whole,
            }
        half = self.width // 2
        start = half if self.is_framed else half + GAP
        return {
            **dict.fromkeys((Panel.WORKERS, Panel.CLIENTS, Panel.EVENTS, Panel.COMMAND), whole),
            Panel.FILES: (0, half),
            Panel.RATE: (start, self.width - start),
        }

    def inner_width(self, panel: Panel) -> int:
        """The columns inside the frame of a panel; 0 if this screen has no place for it."""
        if panel not in self.columns:
            return 0
        return max(0, self.columns[panel][1] - (2 if self.is_framed else 0))

    def inner_height(self, place: Place) -> int:
        return max(0, place.height - self.frame)


def arrange(screen: Screen, wishes: Mapping[Panel, Wish], focused: Panel) -> Mapping[Panel, Place]:
    """Returns the place of each panel that has one; ``focused`` always has one."""
    columns = screen.columns
    bottom = wishes[Panel.COMMAND].most + screen.frame
    if screen.width >= WIDE:
        stacks: Sequence[Sequence[Sequence[Panel]]] = [
            [(Panel.WORKERS,), (Panel.CLIENTS,), (Panel.FILES,)],
            [(Panel.RATE,), (Panel.DETAILS,), (Panel.EVENTS,)],
        ]
    else:
        stacks = [[(Panel.WORKERS,), (Panel.CLIENTS,), (Panel.FILES, Panel.RATE), (Panel.EVENTS,)]]
    # The command keeps its lines as long as the other panels have theirs.
    needed = max(sum(max(wishes[p].least for p in band) + screen.frame for band in stack) for stack in stacks)
    has_command = needed + bottom <= screen.height
    height = screen.height - (bottom if has_command else 0)
    places = {}
    if has_command:
        x, width = columns[Panel.COMMAND]
        places[Panel.COMMAND] = Place(x, screen.top + height, width, bottom)
    for stack in stacks:
        y = screen.top
        for band, lines in zip(stack, _heights(height, stack, wishes, focused, screen.frame), strict=True):
            for panel in band if lines else ():
                x, width = columns[panel]
                places[panel] = Place(x, y, width, lines)
            y += lines
    return places


def _heights(
    height: int, stack: Sequence[Sequence[Panel]], wishes: Mapping[Panel, Wish], focused: Panel, frame: int
) -> list[int]:
    """Divides ``height`` lines among the bands of a stack."""
    least = [max(wishes[panel].least for panel in band) + frame for band in stack]
    most = [max(low, *(wishes[panel].most + frame for panel in band)) for low, band in zip(least, stack, strict=True)]
    ranks = [*Panel]
    rank = [0 if focused in band else 1 + min(map(ranks.index, band)) for band in stack]
    heights = list(least)
    while sum(heights) > height and any(heights):
        dropped = max((index for index, lines in enumerate(heights) if lines), key=lambda index: rank[index])
        if len([lines for lines in heights if lines]) == 1:
            heights[dropped] = height
            return heights
        heights[dropped] = 0
    # Beyond what the focused panel wants, its neighbour in the band is no more important than other panels.
    enough = wishes[focused].most + frame
    for _ in range(height - sum(heights)):
        growing = [index for index, lines in enumerate(heights) if 0 < lines < most[index]]
        if growing:
            weights = [
                FOCUS_WEIGHT if focused in band and lines < enough else 1
                for band, lines in zip(stack, heights, strict=True)
            ]
            chosen = min(growing, key=lambda index: (heights[index] - least[index] + 1) / weights[index])
        else:
            # All have what they want, and share what is left.
            visible = [index for index, lines in enumerate(heights) if lines]
            chosen = min(visible, key=lambda index: heights[index] - most[index])
        heights[chosen] += 1
    return heights
