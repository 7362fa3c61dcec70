"""Keeps an indexer running, and has its notes shown.

What it says is turned into notes by ``broker/supervision/indexer_notes.py``; what a new edition of the catalogue
leads to is decided in ``broker/supervision/supervisor.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from msd.broker.supervision.indexer_notes import IndexerNotes
from msd.broker.supervision.processes import IndexerProcess
from msd.wire.errors import MsdError
from msd.wire.protocol.child_messages import Indexed

#: Seconds after which an indexer that has ended is started again: at first, and at most. One that ran
#: for as long as the latter counts as mended.
BACKOFF_FIRST, BACKOFF_LAST = 2.0, 60.0


class IndexerBackoff:
    """When an indexer that has ended is started again, and whether that is news."""

    def __init__(self) -> None:
        self._why = ""
        self._delay = 0.0

    def ended(self, why: str, ran: float) -> tuple[float, bool]:
        """It has ended after so many seconds. In how many it is started again, each time twice as many
        as before, and whether people have not just been told that very reason.
        """
        if ran >= BACKOFF_LAST:
            self._why, self._delay = "", 0.0
        is_news, self._why = why != self._why, why
        self._delay = min(2 * self._delay, BACKOFF_LAST) or BACKOFF_FIRST
        return self._delay, is_news


class IndexerSupervisor:
    """The indexer of ``root``, whose catalogues go into ``folder``. ``close()`` it.

    ``note`` shows a note to people; ``listen`` and ``ignore`` say which descriptor to call ``read`` for.
    Raises ``OSError`` where the indexer cannot be started at first.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        *,
        note: Callable[[str], None],
        listen: Callable[[int], None],
        ignore: Callable[[int], None],
    ) -> None:
        self._root = root
        self._folder = folder
        self._note = note
        self._listen = listen
        self._ignore = ignore
        self._notes = IndexerNotes()
        #: The latest edition of the catalogue; number 0 while there is none.
        self.latest = Indexed(files=0, size=0, hashed=0, catalogue="")
        #: None while, and only while, it is to be started again.
        self._indexer: IndexerProcess | None = None
        self._start_at: float | None = None
        self._restarts = IndexerBackoff()
        self._started_at = time.monotonic()
        self._start()

    def read(self, now: float) -> list[Indexed]:
        """The editions that are complete since the last call. Raises the ``MsdError`` with which the
        first one failed.
        """
        assert self._indexer is not None
        try:
            lines = self._indexer.lines()
        except MsdError as error:
            if not self.latest.edition:
                raise
            self.close()
            self._start_later(str(error), now)
            return []
        editions = []
        for line in lines:
            for note in self._notes.of(line):
                self._note(note)
            if isinstance(line, Indexed):
                self.latest = line
                self._notes = IndexerNotes()
                editions.append(line)
        return editions

    def nudge(self) -> None:
        """Has the indexer look whether the files have changed."""
        if self._indexer is not None:
            self._indexer.nudge()

    def pass_time(self, now: float) -> None:
        """It is ``now``: starts the indexer again if that is due."""
        if self._start_at is not None and now >= self._start_at:
            self._started_at = now
            try:
                self._start()
            except OSError as error:
                self._start_later(str(error.strerror), now)

    def next_deadline(self) -> float | None:
        """When ``pass_time`` will have something to do."""
        return self._start_at

    def close(self) -> None:
        if self._indexer is not None:
            self._ignore(self._indexer.fileno())
            self._indexer.close()
            self._indexer = None

    def _start(self) -> None:
        self._indexer = IndexerProcess(self._root, self._folder)
        self._listen(self._indexer.fileno())
        self._start_at = None
        self._notes = IndexerNotes()

    def _start_later(self, why: str, now: float) -> None:
        delay, is_news = self._restarts.ended(why, now - self._started_at)
        if is_news:
            self._note(f"the indexer has ended ({why}) and is started again in {delay:g} s")
        self._start_at = now + delay
