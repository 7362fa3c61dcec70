"""Prints and logs without blocking the broker's poll loop, whatever a terminal or pipe does.

If nothing can be written for long, texts are dropped, except announcements. Does not format anything.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from msd.wire.support.line_writer import LineWriter
from msd.wire.support.log_line import Level, log_line

#: Seconds that a blocked terminal or pipe may take to write the last texts.
CLOSE_TIMEOUT_S = 0.5


class OutputThread:
    """Writes tables and lines to the descriptor ``stdout``, and notes to standard error."""

    def __init__(self, stdout: int, *, verbose: bool = False, prints_tables: bool = True) -> None:
        self._stdout = LineWriter(stdout)
        # A terminal shows tables and notes in their order: one thread writes both.
        self._stderr = self._stdout if _is_same_file(stdout, 2) else LineWriter(2)
        self._prints_tables = prints_tables
        self._verbose = verbose
        #: The last table queued. A dropped table is not recorded, so it will be retried.
        self._last_table = ""
        #: Announcements to print after ``resume()``; None unless suspended.
        self._held_announcements: list[str] | None = None

    @property
    def is_terminal(self) -> bool:
        """True if people read the output as it is printed: no file, pipe or journal keeps it."""
        return self._prints_tables

    def show_table(self, table: str) -> None:
        """Prints the table if it differs from the last one and tables are printed at all."""
        if not self._prints_tables:
            return
        if self._held_announcements is None and table != self._last_table and self._stdout.write(_encoded(table)):
            self._last_table = table

    def print_line(self, line: str) -> None:
        if self._held_announcements is None:
            self._stdout.write(_encoded(line))

    def print_event(self, text: str) -> None:
        """Prints an event, unless tables or the log show it."""
        if not self._prints_tables and not self._verbose:
            self.print_line(text)

    def announce(self, line: str) -> None:
        """Prints a line that is never dropped, because it is printed only once."""
        if self._held_announcements is not None:
            self._held_announcements.append(line)
        else:
            self._stdout.write(_encoded(line), may_drop=False)

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
        if self._held_announcements is None or not sys.stderr.isatty():
            self._stderr.write(_encoded(line))

    def close(self) -> None:
        """Waits at most half a second for the queued texts to be written."""
        for writer in (self._stdout, self._stderr):
            with contextlib.suppress(OSError):  # Output that cannot be written is no reason to fail.
                writer.close(CLOSE_TIMEOUT_S)


def _encoded(text: str) -> bytes:
    return (text + "\n").encode("utf-8", "replace")


def _is_same_file(first: int, second: int) -> bool:
    try:
        return os.path.sameopenfile(first, second)
    except OSError:
        return False
