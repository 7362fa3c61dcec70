"""Which printer shows a download, depending on the flags and the terminal."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.display.choose_printer import choose_printer
from msd.client.display.live_view import PROGRESS_INTERVAL_S, LiveView
from msd.client.display.printers import JsonPrinter, LinePrinter, LogPrinter

FLAGS: dict[str, Any] = {"json": False, "quiet": False, "verbose": False}


def set_terminal(monkeypatch: pytest.MonkeyPatch, *, isatty: bool = True, term: str = "xterm") -> None:
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: isatty))
    monkeypatch.setenv("TERM", term)


@pytest.mark.parametrize(
    ("flag", "printer"), [("json", JsonPrinter), ("quiet", LinePrinter), ("verbose", LogPrinter)], ids=str
)
def test_a_flag_decides_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch, flag: str, printer: type[object]) -> None:
    set_terminal(monkeypatch)
    chosen, interval = choose_printer(**{**FLAGS, flag: True})
    assert (type(chosen), interval) == (printer, math.inf)


@pytest.mark.parametrize(("isatty", "term"), [(False, "xterm"), (True, "dumb"), (True, "")])
def test_without_cursor_movement_metric_lines_are_printed(
    monkeypatch: pytest.MonkeyPatch, isatty: bool, term: str
) -> None:
    set_terminal(monkeypatch, isatty=isatty, term=term)
    assert isinstance(choose_printer(**FLAGS)[0], LinePrinter)


def test_a_terminal_shows_the_live_view_which_needs_frequent_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    printer, interval = choose_printer(**FLAGS)
    printer.close()
    assert (type(printer), interval) == (LiveView, PROGRESS_INTERVAL_S)
