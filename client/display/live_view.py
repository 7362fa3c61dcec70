"""The live view of a download on a terminal: a total bar, and a row for each worker.

Draws from a thread of its own, a few times a second: the loop that transfers only says what has happened,
and never waits for a terminal.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections import deque
from typing import TextIO

from rich.console import Console

from msd.client.display.live_layout import LiveLayout
from msd.client.display.printers import result, told
from msd.client.display.terminal_painter import TerminalPainter
from msd.client.events import Event, Report, Retried
from msd.wire.support.output import print_line

#: Seconds between two redraws.
REDRAW = 0.125
#: Seconds between two looks at how far it is.
LIVE_INTERVAL = 0.25
#: Seconds that the end waits for a terminal that takes nothing.
CLOSE = 1.0


class LiveView:
    """Shows a download on ``terminal``; the result goes to standard output."""

    def __init__(self, terminal: TextIO) -> None:
        self._console = Console(file=terminal, highlight=False)
        self._view = LiveLayout() if self._console.encoding.startswith("utf") else LiveLayout(("#", "-"))
        self._painter = TerminalPainter(self._console)
        #: Guards the view: events come from one thread, pictures are taken by another.
        self._lock = threading.Lock()
        #: Held while something is drawn.
        self._drawing = threading.Lock()
        #: LinePrinter that are to stay, and were not written yet.
        self._staying: deque[str] = deque()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live view", daemon=True)
        self._thread.start()
        self._pauses = signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
        if self._pauses:
            signal.signal(signal.SIGTSTP, self._pause)

    @property
    def draws(self) -> int:
        """How often it has drawn."""
        return self._painter.draws

    def event(self, event: Event) -> None:
        with self._lock:
            self._view.take(event, time.monotonic())
            if isinstance(event, Retried) and (line := told(event)):
                self._staying.append(line)

    def done(self, report: Report) -> None:
        self.close()
        print_line(result(report), sys.stdout)

    def close(self) -> None:
        """Takes the picture away."""
        self._end.set()
        self._thread.join(CLOSE)
        if self._pauses:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def _pause(self, *_: object) -> None:
        """Ctrl-Z: the terminal is the shell's, until this goes on."""
        with self._drawing:
            self._painter.draw([])
            # Not SIGSTOP: where no shell could continue it the system ignores SIGTSTP, and so does this.
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, self._pause)

    def _run(self) -> None:
        # Where the terminal is gone there is nothing to show, and no reason to end the download.
        with contextlib.suppress(OSError):
            while not self._end.wait(REDRAW):
                self._draw(*self._painter.size)
            self._draw(0, 0)

    def _draw(self, width: int, height: int) -> None:
        with self._lock:
            # A line as wide as the terminal would leave it open where the cursor is.
            lines = self._view.lines(width - 1, height - 1, time.monotonic()) if width else []
            above = [self._staying.popleft() for _ in range(len(self._staying))]
        with self._drawing:
            self._painter.draw(lines, above)
