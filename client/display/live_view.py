"""The live view of a download on a terminal: a progress bar, and a row for each worker.

Draws in its own thread a few times a second, so that the transfer never waits for the terminal. The content of a frame
is computed in ``client/display/live_layout.py``. In the background of a shell nothing is drawn.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from typing import TextIO

from rich.console import Console

from msd.client.display.failure_lines import FailureLines
from msd.client.display.live_layout import LiveLayout
from msd.client.display.printers import event_lines, print_result
from msd.client.display.terminal_painter import TerminalPainter
from msd.client.events import Event, FileChanged, FileResult, FilesReport, Report, Retried, Warned

#: Time between two frames.
REDRAW_INTERVAL_S = 0.125
#: Maximum interval between two ``Progress`` events while the view is shown.
PROGRESS_INTERVAL_S = 0.2
#: How long ``close`` waits for a blocked terminal.
CLOSE_TIMEOUT_S = 1.0


class LiveView:
    """Shows a download on ``terminal`` and prints the result to standard output."""

    def __init__(self, terminal: TextIO) -> None:
        self._console = Console(file=terminal, highlight=False)
        self._layout = LiveLayout() if self._console.encoding.startswith("utf") else LiveLayout(("#", "-"))
        self._painter = TerminalPainter(self._console)
        #: Guards the layout: the caller's thread updates it, the view's thread reads it.
        self._layout_lock = threading.Lock()
        #: Held while a frame is drawn.
        self._draw_lock = threading.Lock()
        #: Lines that will be printed permanently above the view.
        self._pending_lines: deque[str] = deque()
        self._failures = FailureLines()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live view", daemon=True)
        self._thread.start()
        self._handles_suspend = signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
        if self._handles_suspend:
            signal.signal(signal.SIGTSTP, self._suspend)

    @property
    def draw_count(self) -> int:
        """Number of frames drawn."""
        return self._painter.draw_count

    def on_event(self, event: Event) -> None:
        with self._layout_lock:
            self._layout.handle(event, time.monotonic())
            if isinstance(event, FileResult):
                line = self._failures.line(event)
            else:
                line = event_lines(event) if isinstance(event, Retried | FileChanged | Warned) else ""
            if line:
                self._pending_lines.append(line)

    def on_done(self, report: Report | FilesReport) -> None:
        self.close()
        print_result(report)

    def close(self, timeout: float | None = None) -> None:
        """Erases the view and stops its thread."""
        self._closed.set()
        self._thread.join(CLOSE_TIMEOUT_S if timeout is None else timeout)
        if self._handles_suspend:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def _suspend(self, *_: object) -> None:
        """Handles Ctrl-Z: erases the view and suspends the process. The view returns when the process resumes."""
        with self._draw_lock:
            self._painter.draw([])
            # SIGTSTP, not SIGSTOP: the kernel ignores SIGTSTP if no shell could continue the process.
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, self._suspend)

    def _run(self) -> None:
        # If a shell moves this process to the background between the check and a write, do not stop the download.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        # A lost terminal must not end the download.
        with contextlib.suppress(OSError):
            while not self._closed.wait(REDRAW_INTERVAL_S):
                if self._painter.may_draw:
                    self._draw(*self._painter.size)
            if self._painter.may_draw:
                self._draw(0, 0)

    def _draw(self, width: int, height: int) -> None:
        with self._layout_lock:
            # Leave the last column free: after a full line, the cursor position differs between terminals.
            lines = self._layout.lines(width - 1, height - 1, time.monotonic()) if width else []
            above = [self._pending_lines.popleft() for _ in range(len(self._pending_lines))]
        with self._draw_lock:
            self._painter.draw(lines, above)
