"""A frame replaces the last one, even if the terminal is resized between them."""

from __future__ import annotations

import io
import random
import re

import pytest
from rich.console import Console
from rich.text import Text

from msd.client.display.terminal_painter import TerminalPainter


class Screen(io.StringIO):
    """A terminal with its rows and its cursor. When it is resized, it rewraps lines that are too wide, or cuts them."""

    def __init__(self, width: int, *, rewraps: bool) -> None:
        super().__init__()
        self.rows = [""]
        self.row = self.column = 0
        self.wraps = True
        self.width = width
        self._rewraps = rewraps

    @property
    def shown(self) -> list[str]:
        return "\n".join(self.rows).rstrip("\n").split("\n")

    def write(self, text: str) -> int:
        for token in re.findall(r"\x1b\[\??\d*[A-Za-z]|\x1b\[[0-9;]*m|[\s\S]", text):
            self._handle(token)
        return len(text)

    def resize(self, width: int) -> None:
        rows: list[str] = []
        for number, row in enumerate(self.rows):
            pieces = [row[at : at + width] for at in range(0, len(row), width)] or [""]
            if number == self.row:
                cursor = len(rows)
            rows += pieces if self._rewraps else pieces[:1]
        # The cursor is at the start of a line.
        self.rows, self.row, self.column, self.width = rows, cursor, 0, width

    def _handle(self, token: str) -> None:
        match token:
            case "\r":
                self.column = 0
            case "\n":
                self.row, self.column = self.row + 1, 0
                self.rows += [""] * (self.row + 1 - len(self.rows))
            case "\x1b[K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            case "\x1b[J":
                assert (self.row, self.column) != (0, 0), "tmux would save this in its history"
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
            self._handle("\n")
        # Without wrapping, further characters overwrite the last column.
        column = min(self.column, self.width - 1)
        row = self.rows[self.row].ljust(column)
        self.rows[self.row] = row[:column] + character + row[column + 1 :]
        self.column = column + 1


def painter_of(screen: Screen) -> TerminalPainter:
    return TerminalPainter(Console(file=screen, force_terminal=True, width=screen.width, height=24, color_system=None))


def frame(*lines: str) -> list[Text]:
    return [Text(line) for line in lines]


def test_a_frame_replaces_the_last_one() -> None:
    screen = Screen(20, rewraps=True)
    screen.write("before\n")
    painter = painter_of(screen)
    painter.draw(frame("one", "two two", "three"))
    assert screen.shown == ["before", "one", "two two", "three"]
    painter.draw(frame("1", "2"))
    assert screen.shown == ["before", "1", "2"]
    painter.draw(frame("1", "2", "3", "4"), above=["permanent"])
    assert screen.shown == ["before", "permanent", "1", "2", "3", "4"]
    painter.draw([], above=["also permanent"])
    assert screen.shown == ["before", "permanent", "also permanent"]


def test_an_empty_frame_erases_the_last_one() -> None:
    for lines in (["one"], ["one", "two", "three"]):
        screen = Screen(20, rewraps=True)
        painter = painter_of(screen)
        painter.draw(frame(*lines))
        painter.draw([])
        assert not "".join(screen.rows)
        assert (screen.row, screen.column) == (0, 0)


def test_an_unchanged_frame_is_not_drawn_again() -> None:
    screen = Screen(20, rewraps=True)
    painter = painter_of(screen)
    for _ in range(3):
        painter.draw(frame("one", "two"))
    assert painter.draw_count == 1


@pytest.mark.parametrize("rewraps", [True, False], ids=["rewraps lines", "cuts lines"])
def test_after_a_resize_nothing_of_the_last_frame_is_left(rewraps: bool, rng: random.Random) -> None:
    screen = Screen(80, rewraps=rewraps)
    screen.write("before\n")
    painter = painter_of(screen)
    for _ in range(200):
        # Sometimes the painter does not know the new width yet.
        known_width = screen.width
        if rng.random() < 0.5:
            screen.resize(rng.randint(10, 80))
        if rng.random() < 0.7:
            known_width = screen.width
        lines = ["x" * rng.randint(1, known_width - 1) for _ in range(rng.randint(1, 7))]
        painter.draw(frame(*lines))
        assert screen.shown == ["before", *(line[: screen.width] for line in lines)]
        assert screen.wraps
    painter.draw([])
    assert "".join(screen.rows) == "before"
