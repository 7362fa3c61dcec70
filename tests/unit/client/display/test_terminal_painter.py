"""Pictures replace one another on a terminal, also on one that is resized between them."""

from __future__ import annotations

import io
import random
import re

import pytest
from rich.console import Console
from rich.text import Text

from msd.client.display.terminal_painter import TerminalPainter


class Screen(io.StringIO):
    """A terminal: its lines, and where the cursor is. ``breaks``: it breaks lines that became too wide."""

    def __init__(self, width: int, *, breaks: bool) -> None:
        super().__init__()
        self.rows = [""]
        self.row = self.column = 0
        self.wraps = True
        self.width = width
        self._breaks = breaks

    @property
    def shown(self) -> list[str]:
        return "\n".join(self.rows).rstrip("\n").split("\n")

    def write(self, text: str) -> int:
        for token in re.findall(r"\x1b\[\??\d*[A-Za-z]|\x1b\[[0-9;]*m|[\s\S]", text):
            self._take(token)
        return len(text)

    def resize(self, width: int) -> None:
        rows: list[str] = []
        for number, row in enumerate(self.rows):
            pieces = [row[at : at + width] for at in range(0, len(row), width)] or [""]
            if number == self.row:
                cursor = len(rows)
            rows += pieces if self._breaks else pieces[:1]
        # It stands at the beginning of a line.
        self.rows, self.row, self.column, self.width = rows, cursor, 0, width

    def _take(self, token: str) -> None:
        match token:
            case "\r":
                self.column = 0
            case "\n":
                self.row, self.column = self.row + 1, 0
                self.rows += [""] * (self.row + 1 - len(self.rows))
            case "\x1b[K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            case "\x1b[J":
                assert (self.row, self.column) != (0, 0), "tmux would keep this"
                self.rows[self.row] = self.rows[self.row][: self.column]
                del self.rows[self.row + 1 :]
            case "\x1b[?7l" | "\x1b[?7h":
                self.wraps = token.endswith("h")
            case _ if token.endswith("A") and len(token) > 1:
                self.row = max(0, self.row - int(token[2:-1] or 1))
            case _ if token.endswith("m") and len(token) > 1:
                pass
            case _:
                assert len(token) == 1, token
                self._put(token)

    def _put(self, character: str) -> None:
        if self.column == self.width and self.wraps:
            self._take("\n")
        # What does not wrap overwrites the last column.
        column = min(self.column, self.width - 1)
        row = self.rows[self.row].ljust(column)
        self.rows[self.row] = row[:column] + character + row[column + 1 :]
        self.column = column + 1


def painter(screen: Screen) -> TerminalPainter:
    return TerminalPainter(Console(file=screen, force_terminal=True, width=screen.width, height=24, color_system=None))


def picture(*lines: str) -> list[Text]:
    return [Text(line) for line in lines]


def test_a_picture_takes_the_place_of_the_one_before() -> None:
    screen = Screen(20, breaks=True)
    screen.write("before\n")
    paint = painter(screen)
    paint.draw(picture("one", "two two", "three"))
    assert screen.shown == ["before", "one", "two two", "three"]
    paint.draw(picture("1", "2"))
    assert screen.shown == ["before", "1", "2"]
    paint.draw(picture("1", "2", "3", "4"), above=["this stays"])
    assert screen.shown == ["before", "this stays", "1", "2", "3", "4"]
    paint.draw([], above=["and this"])
    assert screen.shown == ["before", "this stays", "and this"]


def test_the_last_one_goes_without_a_trace() -> None:
    for lines in (["one"], ["one", "two", "three"]):
        screen = Screen(20, breaks=True)
        paint = painter(screen)
        paint.draw(picture(*lines))
        paint.draw([])
        assert not "".join(screen.rows)
        assert (screen.row, screen.column) == (0, 0)


def test_what_has_not_changed_is_not_drawn_again() -> None:
    screen = Screen(20, breaks=True)
    paint = painter(screen)
    for _ in range(3):
        paint.draw(picture("one", "two"))
    assert paint.draws == 1


@pytest.mark.parametrize("breaks", [True, False], ids=["breaks lines", "cuts lines"])
def test_nothing_is_left_of_a_picture_after_the_terminal_was_resized(breaks: bool, rng: random.Random) -> None:
    screen = Screen(80, breaks=breaks)
    screen.write("before\n")
    paint = painter(screen)
    for _ in range(200):
        # Sometimes the terminal is another already, and has not said so yet.
        told = screen.width
        if rng.random() < 0.5:
            screen.resize(rng.randint(10, 80))
        if rng.random() < 0.7:
            told = screen.width
        lines = ["x" * rng.randint(1, told - 1) for _ in range(rng.randint(1, 7))]
        paint.draw(picture(*lines))
        assert screen.shown == ["before", *(line[: screen.width] for line in lines)]
        assert screen.wraps
    paint.draw([])
    assert "".join(screen.rows) == "before"
