"""The live view draws at a limited rate and never blocks the transfer."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pytest

from msd.client.display.live_view import LiveView
from msd.client.events import FileResult, Outcome, Retried
from msd.wire.errors import DiskError
from tests.processes import wait_for
from tests.unit.client.display.test_live_layout import FILES_STARTED, STARTED, progress


class FakeTerminal(io.StringIO):
    """A terminal that counts writes and can be closed."""

    writes = 0
    is_closed = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.is_closed:
            raise OSError(5, "Input/output error")
        self.writes += bool(text)
        return super().write(text)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    monkeypatch.setenv("TERM", "xterm")
    return FakeTerminal()


@pytest.fixture
def view(terminal: FakeTerminal) -> Iterator[LiveView]:
    view = LiveView(terminal)
    yield view
    view.close()


def test_the_view_is_drawn_at_most_10_times_a_second(terminal: FakeTerminal, view: LiveView) -> None:
    view.on_event(STARTED)
    wait_for("the first frame", lambda: view.draw_count)
    start, draws, writes = time.monotonic(), view.draw_count, terminal.writes
    events = 0
    while (seconds := time.monotonic() - start) < 1.0:
        view.on_event(progress(seconds))
        events += 1
    assert events > 1000
    drawn = view.draw_count - draws
    # The thread that draws may be a frame ahead of this one.
    assert 2 <= drawn <= 10 * (time.monotonic() - start) + 1
    wait_for("one write for each frame", lambda: terminal.writes - writes == view.draw_count - draws)


def test_the_line_about_a_corrupt_segment_stays_on_the_terminal(terminal: FakeTerminal, view: LiveView) -> None:
    view.on_event(STARTED)
    view.on_event(Retried("3", 7, "sleeping"))
    view.on_event(Retried("3", 7, "corrupt"))
    view.close()
    assert "worker 3 sent a corrupt copy of segment 7; retrying elsewhere" in terminal.getvalue()
    assert terminal.getvalue().count("worker 3") == 1


def test_the_line_about_a_file_that_failed_stays_on_the_terminal(terminal: FakeTerminal, view: LiveView) -> None:
    view.on_event(FILES_STARTED)
    view.on_event(FileResult("a", Outcome.KEPT, 5))
    view.on_event(FileResult("b", Outcome.FAILED, error=DiskError("out/b exists", arguments=("force",))))
    view.close()
    assert "msd: out/b exists (--force)" in terminal.getvalue()
    assert terminal.getvalue().count("msd:") == 1


def test_the_bar_is_coloured(terminal: FakeTerminal, view: LiveView) -> None:
    view.on_event(STARTED)
    view.on_event(progress(5.0))
    wait_for("a coloured bar", lambda: "\x1b[32m" in terminal.getvalue())


def test_the_variable_no_color_is_respected(terminal: FakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    view = LiveView(terminal)
    view.on_event(STARTED)
    view.on_event(progress(5.0))
    wait_for("a frame", lambda: "20 %" in terminal.getvalue())
    view.close()
    assert "━" in terminal.getvalue()
    assert "\x1b[3" not in terminal.getvalue()


def test_a_closed_terminal_does_not_end_the_download(terminal: FakeTerminal, view: LiveView) -> None:
    view.on_event(STARTED)
    wait_for("the first frame", lambda: view.draw_count)
    terminal.is_closed = True
    view.on_event(progress(5.0))
    view.close()
