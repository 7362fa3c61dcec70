"""Where the broker prints and logs: a thread of its own, so that a terminal or pipe nobody reads cannot stop
the loop that supervises. What comes while too much is waiting is dropped, announcements apart.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time

from msd.wire.support.log_line import Level, log_line

#: Texts that may wait to be written. A stopped reader costs this much, then nothing more.
DEPTH = 256


class OutputThread:
    """Writes tables and lines to the descriptor ``stdout``, and notes to standard error."""

    def __init__(self, stdout: int, *, verbose: bool = False) -> None:
        self._stdout = stdout
        self._verbose = verbose
        self._texts: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        #: The table written or waiting last. One that was dropped is not shown: it will be tried again.
        self._shown = ""
        #: What was announced while another has the terminal; None while nobody has.
        self._held: list[str] | None = None
        self._thread = threading.Thread(target=self._write, name="screen", daemon=True)
        self._thread.start()

    def show(self, table: str) -> None:
        """Shows the table, if it is not the one already shown."""
        if self._held is None and table != self._shown and self._put(self._stdout, table):
            self._shown = table

    def say(self, line: str) -> None:
        if self._held is None:
            self._put(self._stdout, line)

    def announce(self, line: str) -> None:
        """Says what is said only once, and therefore never dropped."""
        if self._held is not None:
            self._held.append(line)
        else:
            self._texts.put((self._stdout, line))

    def hold(self) -> None:
        """Another has the terminal: from now on announcements wait, and all else is dropped."""
        self._held = []
        self._shown = ""

    def release(self, restore: str) -> None:
        """The terminal is free; ``restore`` is written to it first."""
        held, self._held = self._held or [], None
        if restore:
            self.say(restore)
        for line in held:
            self.announce(line)

    def log(self, level: Level, who: str, text: str) -> None:
        """What is written only where it was asked for."""
        if self._verbose:
            self._say_aside(log_line(time.time(), level, who, text))

    def note(self, line: str) -> None:
        if self._verbose:
            self.log("info", "server 5", line)
        else:
            self._say_aside(line)

    def _say_aside(self, line: str) -> None:
        # There is none where the shell closed it (2>&-).
        if sys.stderr is not None and (self._held is None or not sys.stderr.isatty()):
            self._put(sys.stderr.fileno(), line)

    def close(self) -> None:
        """Writes what is waiting, for a moment at most."""
        self._texts.put(None)
        self._thread.join(0.5)

    def _put(self, descriptor: int, text: str) -> bool:
        """False if it was dropped. Only the broker's loop puts texts: there can be fewer of them than
        counted, never more.
        """
        if self._texts.qsize() >= DEPTH:
            return False
        self._texts.put((descriptor, text))
        return True

    def _write(self) -> None:
        while (item := self._texts.get()) is not None:
            descriptor, text = item
            data = (text + "\n").encode("utf-8", "replace")
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            except OSError:
                continue  # A closed pipe is not an error: the servers go on.
