"""Where the broker prints: a thread of its own, so that a terminal or pipe nobody reads cannot stop
the loop that supervises. What does not fit into its short queue is dropped.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading

#: Texts waiting to be written. A stopped reader costs this much, then nothing more.
DEPTH = 64


class Screen:
    """Writes tables and lines to the descriptor ``stdout``, and notes to standard error."""

    def __init__(self, stdout: int) -> None:
        self._stdout = stdout
        self._texts: queue.Queue[tuple[int, str] | None] = queue.Queue(DEPTH)
        self._shown = ""
        self._thread = threading.Thread(target=self._write, name="screen", daemon=True)
        self._thread.start()

    def show(self, table: str) -> None:
        """Shows the table, if it is not the one already shown."""
        if table != self._shown:
            self._shown = table
            self.say(table)

    def say(self, line: str) -> None:
        self._put(self._stdout, line)

    def note(self, line: str) -> None:
        if sys.stderr is not None:  # It is None where the shell closed it (2>&-).
            self._put(sys.stderr.fileno(), line)

    def close(self) -> None:
        """Writes what is queued, for a moment at most."""
        try:
            self._texts.put(None, timeout=0.2)
        except queue.Full:
            return
        self._thread.join(0.5)

    def _put(self, descriptor: int, text: str) -> None:
        with contextlib.suppress(queue.Full):
            self._texts.put_nowait((descriptor, text))

    def _write(self) -> None:
        while (item := self._texts.get()) is not None:
            descriptor, text = item
            data = (text + "\n").encode("utf-8", "replace")
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            except OSError:
                continue  # A closed pipe is not an error: the servers go on.
