"""What the broker's own workers share: runs the indexer, and keeps the files of the last edition of the catalogue.

A broker without workers of its own shares nothing: then there is no indexer. Does not switch workers to a new edition:
see ``broker/supervision/supervisor.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from msd.broker.supervision.complaints import read_segment_counts
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.child_messages import EDITION_FILES, SHARE_FILE, Indexed, NotShared, ShareSettings
from msd.wire.protocol.messages import SuspectSegment
from msd.wire.sharing.indexer_supervisor import IndexerSupervisor
from msd.wire.sharing.kept_files import KeptFiles
from msd.wire.sharing.shared_paths import write_share


class SharedFiles:
    """The files that ``share`` selects, None for none. Their catalogue is in the broker's ``folder``.

    ``note`` is called with each note to display, ``on_edition`` with each completed edition, ``on_left_out`` with each
    line about what is not shared. See ``IndexerSupervisor`` for the errors. Call ``close()`` when done.
    """

    def __init__(
        self,
        folder: Path,
        share: ShareSettings | None,
        poll_loop: PollLoop,
        *,
        note: Callable[[str], None],
        on_edition: Callable[[Indexed], None],
        on_left_out: Callable[[NotShared], None],
    ) -> None:
        self._folder = folder
        self._on_edition = on_edition
        self._kept_files = KeptFiles(folder)
        self._indexer: IndexerSupervisor | None = None
        #: The edition that was read for the last complaint, and the number of segments of each of its files, by id.
        self._segment_counts: tuple[int, Mapping[bytes, int]] = 0, {}
        if share is None:
            return
        try:
            write_share(folder / "catalogue", share)
            self._kept_files.keep("share", [f"catalogue/{SHARE_FILE}"])
            self._indexer = IndexerSupervisor(
                folder, poll_loop, note=note, on_edition=self._keep_edition, on_left_out=on_left_out
            )
        except BaseException:
            self._kept_files.close()
            raise

    @property
    def latest(self) -> Indexed | None:
        """The latest edition of the catalogue; None before the first."""
        return self._indexer.latest if self._indexer is not None and self._indexer.latest.edition else None

    @property
    def progress(self) -> int | None:
        """The percentage of the bytes that the present indexing has processed; None if it has reported none."""
        return self._indexer.progress if self._indexer is not None else None

    @property
    def pids(self) -> list[int]:
        """The indexer's process, if it has not been reaped yet."""
        return self._indexer.pids if self._indexer is not None else []

    def pass_time(self, now: float) -> None:
        """Restarts the indexer if a restart is due."""
        if self._indexer is not None:
            self._indexer.pass_time(now)

    def next_deadline(self, now: float) -> float | None:
        """Time of the next restart; None if none is pending."""
        return self._indexer.next_deadline(now) if self._indexer is not None else None

    def request_rescan(self, suspect: SuspectSegment | None) -> None:
        """Asks the indexer to check the files for changes now, and to compare the data of ``suspect``."""
        if self._indexer is not None:
            self._indexer.request_rescan(suspect)

    def segment_counts(self, edition: int) -> Mapping[bytes, int]:
        """The number of segments of each file of an edition, by id. Reads each edition at most once."""
        if self._segment_counts[0] != edition:
            # If a newer edition has already replaced this one, use the last edition that was read.
            with suppress(OSError):
                self._segment_counts = edition, read_segment_counts(self._folder / "catalogue" / str(edition))
        return self._segment_counts[1]

    def restore(self) -> bool:
        """Writes the files again that another program has removed; returns True if there were any. Raises ``MsdError``
        and ``OSError``.
        """
        return self._kept_files.restore()

    def close(self) -> None:
        if self._indexer is not None:
            self._indexer.close()
        self._kept_files.close()

    def _keep_edition(self, indexed: Indexed) -> None:
        with suppress(OSError):  # Already replaced by a newer edition.
            folder = f"catalogue/{indexed.edition}"
            self._kept_files.keep("catalogue", [f"{folder}/{name}" for name in EDITION_FILES])
        self._on_edition(indexed)
