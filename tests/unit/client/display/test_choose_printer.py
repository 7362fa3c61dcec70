"""Which printer shows a download, depending on the flags and the terminal."""

from __future__ import annotations

import math
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.display.choose_printer import choose_printer
from msd.client.display.live_view import PROGRESS_INTERVAL_S, LiveView
from msd.client.display.printers import JsonPrinter, LinePrinter, LogPrinter
from msd.client.events import Progress, Waiting

FLAGS: dict[str, Any] = {"json": False, "quiet": False, "verbose": False, "to_stdout": False}


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


def test_progress_is_not_mixed_with_a_file_that_is_written_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_terminal(monkeypatch)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    printer, _ = choose_printer(**{**FLAGS, "to_stdout": True})
    monkeypatch.undo()
    printer.on_event(Progress(1, 2, 0, 0, 1.0, 1.0, ()))
    printer.on_event(Waiting("why", 1.0))
    assert re.fullmatch(r"waiting since .*: why .*\n", capsys.readouterr().err)


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
