"""The live view draws seldom, and never has the transfer wait."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pytest

from msd.client.display.live_view import LiveView
from msd.client.events import Retried
from tests.system import wait_for
from tests.unit.client.display.test_live_layout import STARTED, progress


class Counted(io.StringIO):
    """A terminal that counts what is written to it, until it is gone."""

    writes = 0
    is_gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(5, "Input/output error")
        self.writes += bool(text)
        return super().write(text)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Counted:
    monkeypatch.setenv("TERM", "xterm")
    return Counted()


@pytest.fixture
def view(terminal: Counted) -> Iterator[LiveView]:
    view = LiveView(terminal)
    yield view
    view.close()


def test_however_much_comes_it_is_drawn_at_most_10_times_a_second(terminal: Counted, view: LiveView) -> None:
    view.event(STARTED)
    wait_for("the first picture", lambda: view.draws)
    began, draws, writes = time.monotonic(), view.draws, terminal.writes
    events = 0
    while (seconds := time.monotonic() - began) < 1.0:
        view.event(progress(seconds))
        events += 1
    assert events > 1000
    assert 2 <= view.draws - draws <= 10 * seconds
    assert terminal.writes - writes == view.draws - draws


def test_a_corrupt_segment_stays_on_the_terminal(terminal: Counted, view: LiveView) -> None:
    view.event(STARTED)
    view.event(Retried("3", 7, "sleeping"))
    view.event(Retried("3", 7, "corrupt"))
    view.close()
    assert "worker 3 sent segment 7 corrupt: asking another one" in terminal.getvalue()
    assert terminal.getvalue().count("worker 3") == 1


def test_the_bar_is_coloured(terminal: Counted, view: LiveView) -> None:
    view.event(STARTED)
    view.event(progress(5.0))
    wait_for("a coloured bar", lambda: "\x1b[32m" in terminal.getvalue())


def test_no_color_is_heeded(terminal: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    view = LiveView(terminal)
    view.event(STARTED)
    view.event(progress(5.0))
    wait_for("a picture", lambda: "20%" in terminal.getvalue())
    view.close()
    assert "━" in terminal.getvalue()
    assert "\x1b[3" not in terminal.getvalue()


def test_a_terminal_that_is_gone_does_not_end_the_download(terminal: Counted, view: LiveView) -> None:
    view.event(STARTED)
    wait_for("the first picture", lambda: view.draws)
    terminal.is_gone = True
    view.event(progress(5.0))
    view.close()
