"""Runs the indexer, restarts it when it exits, and shows its notes.

Does not decide when to restart it (see ``wire/sharing/indexer_restarts.py``) and does not format the notes (see
``wire/sharing/indexer_notes.py``). Does not switch workers to a new edition of the catalogue: see
``broker/supervision/supervisor.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msd.wire.errors import MsdError
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.child_messages import (
    Indexed,
    IndexingDone,
    IndexLeftOut,
    IndexProgress,
    IndexSkipped,
    IndexSkips,
    NotShared,
)
from msd.wire.protocol.messages import SuspectSegment
from msd.wire.sharing.indexer_notes import indexer_notes
from msd.wire.sharing.indexer_process import IndexerProcess
from msd.wire.sharing.indexer_restarts import IndexerExited, IndexerRestarts, RestartIndexer, ShowNote
from msd.wire.support.core import TimePassed


class IndexerSupervisor:
    """The indexer, which writes catalogues of the share to ``folder``. Call ``close()`` when done.

    ``note`` is called with each note to display, ``on_edition`` with each completed edition,
    ``on_left_out`` with each line about what is not shared. ``poll_loop`` polls the
    indexer's output; its ``dispatch()`` raises ``MsdError`` if the indexer exits before its first edition. After the
    first edition an indexer that exits is restarted instead. Raises ``OSError`` if the first start fails.
    """

    def __init__(
        self,
        folder: Path,
        poll_loop: PollLoop,
        *,
        note: Callable[[str], None],
        on_edition: Callable[[Indexed], None],
        on_left_out: Callable[[NotShared], None],
    ) -> None:
        self._folder = folder
        self._poll_loop = poll_loop
        self._show_note = note
        self._on_edition = on_edition
        self._on_left_out = on_left_out
        #: The latest edition of the catalogue; number 0 before the first.
        self.latest = Indexed(files=0, size=0, hashed=0, catalogue="")
        #: The percentage of the bytes that the present indexing has processed; None if it has reported none.
        self.progress: int | None = None
        #: None if, and only if, a restart is pending.
        self._indexer: IndexerProcess | None = None
        self._restarts = IndexerRestarts(poll_loop.now)
        self._start()

    @property
    def pids(self) -> list[int]:
        """The indexer's process, if it has not been reaped yet."""
        return [self._indexer.pid] if self._indexer is not None else []

    def request_rescan(self, suspect: SuspectSegment | None) -> None:
        """Asks the indexer to check the files for changes now, and to compare the data of ``suspect``."""
        if self._indexer is not None:
            self._indexer.request_rescan(suspect)

    def pass_time(self, now: float) -> None:
        """Restarts the indexer if a restart is due."""
        self._handle(TimePassed(), now)

    def next_deadline(self, now: float) -> float | None:
        """Time of the next restart; None if none is pending."""
        return self._restarts.next_deadline(now)

    def close(self) -> None:
        if self._indexer is not None:
            self._poll_loop.unregister(self._indexer.fileno())
            self._indexer.close()
            self._indexer = self.progress = None

    def _start(self) -> None:
        self._indexer = IndexerProcess(self._folder)
        self._poll_loop.register(self._indexer.fileno(), self._read)

    def _read(self) -> None:
        assert self._indexer is not None
        try:
            lines = self._indexer.read_lines()
        except MsdError as error:
            if not self.latest.edition:
                raise
            self.close()
            self._handle(IndexerExited(str(error)), self._poll_loop.now)
            return
        for line in lines:
            notes = indexer_notes(line)
            for note in notes:
                self._show_note(note)
            match line:
                case IndexProgress(percent=percent):
                    self.progress = percent
                case IndexingDone():
                    self.progress = None
                case IndexLeftOut() | IndexSkipped() | IndexSkips():
                    self._on_left_out(line)
                case Indexed():
                    self.latest = line
                    self._on_edition(line)

    def _handle(self, event: IndexerExited | TimePassed, now: float) -> None:
        for action in self._restarts.handle(event, now):
            match action:
                case ShowNote(text):
                    self._show_note(text)
                case RestartIndexer():
                    try:
                        self._start()
                    except OSError as error:
                        self._handle(IndexerExited(str(error.strerror)), now)
