"""Runs the indexer, restarts it when it exits, and shows its notes.

Does not format the notes: see ``broker/supervision/indexer_notes.py``. Does not switch workers to a new edition of the
catalogue: see ``broker/supervision/supervisor.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from msd.broker.supervision.indexer_notes import indexer_notes
from msd.broker.supervision.processes import IndexerProcess
from msd.wire.errors import MsdError
from msd.wire.protocol.child_messages import Indexed

#: Seconds before the indexer is restarted: the first delay, which doubles with every exit, and the maximum. A run of
#: ``MAX_BACKOFF_S`` seconds resets it.
MIN_BACKOFF_S, MAX_BACKOFF_S = 2.0, 60.0


class IndexerBackoff:
    """Decides when the indexer is restarted, and whether its exit is worth a note."""

    def __init__(self) -> None:
        self._last_reason = ""
        self._delay = 0.0

    def on_exit(self, reason: str, uptime: float) -> tuple[float, bool]:
        """Returns the seconds until the restart, and whether ``reason`` differs from that of the previous exit.
        ``uptime`` is how long the indexer ran, in seconds.
        """
        if uptime >= MAX_BACKOFF_S:
            self._last_reason, self._delay = "", 0.0
        is_new_reason, self._last_reason = reason != self._last_reason, reason
        self._delay = min(2 * self._delay, MAX_BACKOFF_S) or MIN_BACKOFF_S
        return self._delay, is_new_reason


class IndexerSupervisor:
    """The indexer of ``root``, which writes its catalogues to ``folder``. Call ``close()`` when done.

    ``note`` is called with each note to display. ``register`` and ``unregister`` are called with the indexer's
    descriptor; call ``read_editions`` when it is readable. Raises ``OSError`` if the first start fails.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        *,
        note: Callable[[str], None],
        register: Callable[[int], None],
        unregister: Callable[[int], None],
    ) -> None:
        self._root = root
        self._folder = folder
        self._show_note = note
        self._register = register
        self._unregister = unregister
        #: The latest edition of the catalogue; number 0 before the first.
        self.latest = Indexed(files=0, size=0, hashed=0, catalogue="")
        #: None if, and only if, a restart is pending.
        self._indexer: IndexerProcess | None = None
        self._restart_at: float | None = None
        self._backoff = IndexerBackoff()
        self._started_at = time.monotonic()
        self._start()

    def read_editions(self, now: float) -> list[Indexed]:
        """The editions completed since the last call. Raises ``MsdError`` if the indexer exited before its first
        edition. After the first edition an indexer that exits is restarted instead.
        """
        assert self._indexer is not None
        try:
            lines = self._indexer.read_lines()
        except MsdError as error:
            if not self.latest.edition:
                raise
            self.close()
            self._schedule_restart(str(error), now)
            return []
        editions = []
        for line in lines:
            for note in indexer_notes(line):
                self._show_note(note)
            if isinstance(line, Indexed):
                self.latest = line
                editions.append(line)
        return editions

    def request_rescan(self) -> None:
        """Asks the indexer to check the files for changes now."""
        if self._indexer is not None:
            self._indexer.request_rescan()

    def pass_time(self, now: float) -> None:
        """Restarts the indexer if a restart is due."""
        if self._restart_at is not None and now >= self._restart_at:
            self._started_at = now
            try:
                self._start()
            except OSError as error:
                self._schedule_restart(str(error.strerror), now)

    def next_deadline(self) -> float | None:
        """Time of the next restart; None if none is pending."""
        return self._restart_at

    def close(self) -> None:
        if self._indexer is not None:
            self._unregister(self._indexer.fileno())
            self._indexer.close()
            self._indexer = None

    def _start(self) -> None:
        self._indexer = IndexerProcess(self._root, self._folder)
        self._register(self._indexer.fileno())
        self._restart_at = None

    def _schedule_restart(self, reason: str, now: float) -> None:
        delay, is_new_reason = self._backoff.on_exit(reason, now - self._started_at)
        if is_new_reason:
            self._show_note(f"indexer exited ({reason}): restarting in {delay:g} s")
        self._restart_at = now + delay
