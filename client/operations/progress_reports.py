"""Tells server 5 what a download fetches and how far it is, for its operators.

Converts the events of the download to messages; sends them through ``client/network/pool.py``. The download does not
depend on them.
"""

from __future__ import annotations

import time
from types import TracebackType

from msd.client.events import Event, FileResult, FilesStarted, Hashing, Progress, Started, Syncing, is_peer_name
from msd.client.network.pool import ConnectionPool
from msd.wire.errors import MsdError
from msd.wire.protocol.messages import MAX_SELECTION, DownloadProgress
from msd.wire.protocol.states import DownloadState
from msd.wire.support.presentable_names import presentable

#: Seconds between two reports.
REPORT_INTERVAL_S = 2.0


class ProgressReports:
    """The reports of one download, sent through ``pool``. A context manager: reports how the download ended, unless
    ``end()`` was called. ``name`` is how the client calls itself; empty if it does not.
    """

    def __init__(self, pool: ConnectionPool, name: str) -> None:
        self._pool = pool
        self._name = name
        #: What is downloaded; None until the download has begun, and once it has ended.
        self._selection: str | None = None
        self._state = DownloadState.DOWNLOADING
        #: The time of the first request; None before it.
        self._requested_at: float | None = None
        self._next_at = 0.0
        self._last = Progress(0, 0, 0, 0, 0.0, 0.0, ())

    def handle(self, event: Event) -> None:
        """Handles an event of the download."""
        match event:
            case FileResult():
                pass  # First, because there may be very many.
            case Progress():
                self._last = event
                self._requested_at = time.monotonic() - event.seconds
                if time.monotonic() >= self._next_at:
                    self._report()
            case Started(name=name):
                self._selection = name
            case FilesStarted(names=names, dry_run=False):
                self._selection = " ".join(names)
            case Hashing() | Syncing() if self._state is DownloadState.DOWNLOADING:
                # It may take long, and no report is sent meanwhile.
                self._state = DownloadState.FINISHING
                self._report()
            case _:
                pass

    def end(self, exit_code: int = 0) -> None:
        """Reports that the download has ended with this exit code: 0 if it is done."""
        self._state = DownloadState.BROKEN if exit_code else DownloadState.DONE
        self._report(exit_code)
        self._selection = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        if error is not None:
            self.end(error.exit_code if isinstance(error, MsdError) else 1)

    def _report(self, exit_code: int = 0) -> None:
        if self._selection is None:
            return
        now, progress = time.monotonic(), self._last
        self._next_at = now + REPORT_INTERVAL_S
        has_ended = self._state in (DownloadState.DONE, DownloadState.BROKEN)
        senders = [worker for worker in progress.workers if (worker.received if has_ended else worker.rate)]
        peers = sum(is_peer_name(worker.name) for worker in senders)
        self._pool.report_progress(
            DownloadProgress(
                session=self._pool.session,
                state=self._state,
                selection=presentable(self._selection)[:MAX_SELECTION],
                bytes=progress.bytes,
                total=progress.total,
                name=self._name,
                received=progress.received_bytes,
                files=progress.files.counts.listed if progress.files is not None else 1,
                rate=progress.rate if has_ended else progress.current_rate,
                seconds=now - self._requested_at if self._requested_at is not None else 0.0,
                workers=len(senders) - peers,
                peers=peers,
                peer_bytes=sum(worker.received for worker in progress.workers if is_peer_name(worker.name)),
                passes_on=self._pool.peers is not None,
                exit_code=exit_code,
            )
        )
