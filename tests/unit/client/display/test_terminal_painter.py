"""A frame replaces the previous one, even if the terminal was resized in between."""

from __future__ import annotations

import random

import pytest
from rich.console import Console
from rich.text import Text

from msd.client.display.terminal_painter import TerminalPainter
from tests.terminal import EmulatedTerminal


def painter_of(terminal: EmulatedTerminal) -> TerminalPainter:
    return TerminalPainter(
        Console(file=terminal, force_terminal=True, width=terminal.width, height=24, color_system=None)
    )


def frame(*lines: str) -> list[Text]:
    return [Text(line) for line in lines]


def test_a_frame_replaces_the_last_one() -> None:
    terminal = EmulatedTerminal(20, rewraps=True)
    terminal.write("before\n")
    painter = painter_of(terminal)
    painter.draw(frame("one", "two two", "three"))
    assert terminal.shown == ["before", "one", "two two", "three"]
    painter.draw(frame("1", "2"))
    assert terminal.shown == ["before", "1", "2"]
    painter.draw(frame("1", "2", "3", "4"), above=["permanent"])
    assert terminal.shown == ["before", "permanent", "1", "2", "3", "4"]
    painter.draw([], above=["also permanent"])
    assert terminal.shown == ["before", "permanent", "also permanent"]


def test_an_empty_frame_erases_the_last_one() -> None:
    for lines in (["one"], ["one", "two", "three"]):
        terminal = EmulatedTerminal(20, rewraps=True)
        painter = painter_of(terminal)
        painter.draw(frame(*lines))
        painter.draw([])
        assert not "".join(terminal.rows)
        assert (terminal.row, terminal.column) == (0, 0)


def test_an_unchanged_frame_is_not_drawn_again() -> None:
    terminal = EmulatedTerminal(20, rewraps=True)
    painter = painter_of(terminal)
    for _ in range(3):
        painter.draw(frame("one", "two"))
    assert painter.draw_count == 1


@pytest.mark.parametrize("rewraps", [True, False], ids=["rewraps lines", "cuts lines"])
def test_after_a_resize_nothing_of_the_last_frame_is_left(rewraps: bool, rng: random.Random) -> None:
    terminal = EmulatedTerminal(80, rewraps=rewraps)
    terminal.write("before\n")
    painter = painter_of(terminal)
    for _ in range(200):
        # Sometimes the painter does not know the new width yet.
        known_width = terminal.width
        if rng.random() < 0.5:
            terminal.resize(rng.randint(10, 80))
        if rng.random() < 0.7:
            known_width = terminal.width
        lines = ["x" * rng.randint(1, known_width - 1) for _ in range(rng.randint(1, 7))]
        painter.draw(frame(*lines))
        assert terminal.shown == ["before", *(line[: terminal.width] for line in lines)]
        assert terminal.wraps
    painter.draw([])
    assert "".join(terminal.rows) == "before"
