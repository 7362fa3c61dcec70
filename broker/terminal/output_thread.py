"""Prints and logs from a separate thread, so that a blocked terminal or pipe cannot block the broker's poll loop. A
terminal whose background jobs must not write (``stty tostop``) counts as blocked while the broker is in the background.

If the queue is full, texts are dropped, except announcements. Does not format anything.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time

from msd.wire.support.job_control import may_write
from msd.wire.support.log_line import Level, log_line

#: Seconds between two checks whether this process may write to its terminal again (``stty tostop``).
FOREGROUND_CHECK_INTERVAL_S = 0.25
#: Maximum number of queued texts; bounds the memory used while the terminal or pipe is blocked.
MAX_QUEUED = 256


class OutputThread:
    """Writes tables and lines to the descriptor ``stdout``, and notes to standard error."""

    def __init__(self, stdout: int, *, verbose: bool = False, prints_tables: bool = True) -> None:
        self._stdout = stdout
        self._prints_tables = prints_tables
        self._verbose = verbose
        self._texts: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        #: The last table queued. A dropped table is not recorded, so it will be retried.
        self._last_table = ""
        #: Announcements to print after ``resume()``; None unless suspended.
        self._held_announcements: list[str] | None = None
        self._thread = threading.Thread(target=self._write, name="output", daemon=True)
        self._thread.start()

    def show_table(self, table: str) -> None:
        """Prints the table if it differs from the last one and tables are printed at all."""
        if not self._prints_tables:
            return
        if self._held_announcements is None and table != self._last_table and self._enqueue(self._stdout, table):
            self._last_table = table

    def print_line(self, line: str) -> None:
        if self._held_announcements is None:
            self._enqueue(self._stdout, line)

    def print_event(self, text: str) -> None:
        """Prints an event, unless tables or the log show it."""
        if not self._prints_tables and not self._verbose:
            self.print_line(text)

    def announce(self, line: str) -> None:
        """Prints a line that is never dropped, because it is printed only once."""
        if self._held_announcements is not None:
            self._held_announcements.append(line)
        else:
            self._texts.put((self._stdout, line))

    def suspend(self) -> None:
        """Leaves the terminal to another process: holds back announcements and drops all other texts."""
        self._held_announcements = []
        self._last_table = ""

    def resume(self, reset_sequence: str) -> None:
        """Takes the terminal back: writes ``reset_sequence``, then the announcements held back."""
        announcements, self._held_announcements = self._held_announcements or [], None
        if reset_sequence:
            self.print_line(reset_sequence)
        for line in announcements:
            self.announce(line)

    def log(self, level: Level, source: str, text: str) -> None:
        """In verbose mode, logs an event of ``source`` (a worker or server 5) to standard error."""
        if self._verbose:
            self._print_error(log_line(time.time(), level, source, text))

    def note(self, line: str) -> None:
        """Prints a line to standard error, in verbose mode as a log line."""
        if self._verbose:
            self.log("info", "server 5", line)
        else:
            self._print_error(line)

    def _print_error(self, line: str) -> None:
        # Standard error is None if the shell closed it (2>&-).
        if sys.stderr is not None and (self._held_announcements is None or not sys.stderr.isatty()):
            self._enqueue(sys.stderr.fileno(), line)

    def close(self) -> None:
        """Waits at most half a second for the queued texts to be written."""
        self._texts.put(None)
        self._thread.join(0.5)

    def _enqueue(self, descriptor: int, text: str) -> bool:
        """Returns False if the queue is full and the text was dropped. Only the broker's loop adds texts, so the queue
        cannot grow after its size was checked.
        """
        if self._texts.qsize() >= MAX_QUEUED:
            return False
        self._texts.put((descriptor, text))
        return True

    def _write(self) -> None:
        # If the shell moves this process to the background after the check, the write must not stop the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        while (item := self._texts.get()) is not None:
            descriptor, text = item
            data = (text + "\n").encode("utf-8", "replace")
            while not may_write(descriptor):
                time.sleep(FOREGROUND_CHECK_INTERVAL_S)
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            except OSError:
                continue  # A closed pipe is not an error: the servers keep running.
