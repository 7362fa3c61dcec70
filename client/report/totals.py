"""Computes the totals of a download from its events: retries by cause, waiting time and rates.

Pure: times are arguments, in monotonic seconds. ``client/operations/transfer.py`` counts the bytes.
"""

from __future__ import annotations

from array import array
from collections import Counter

from msd.client.events import Event, FileChanged, Progress, Retried, Started, Totals, Waiting, WorkerChanged
from msd.client.report.rate_meter import SETTLING_S


class RunningTotals:
    """Updates the totals of one download with each of its events."""

    def __init__(self) -> None:
        self._retries: Counter[str] = Counter()
        #: Total seconds of the finished waits, and the start of the current wait.
        self._waited = 0.0
        self._waiting_since: float | None = None
        #: Verified bytes so far, received or reused.
        self._bytes = 0
        #: The current rate at each ``Progress``, except 0, from the end of the first second on: before, the first burst
        #: would count as the peak.
        self._rates = array("d")
        #: The current rate at the last ``Progress``: that of a download shorter than a second.
        self._last_rate = 0.0

    def handle(self, event: Event, now: float) -> None:
        match event:
            case Retried(cause=cause):
                self._retries[cause] += 1
            case WorkerChanged(state="lost", segments=segments) if segments:
                self._retries["lost"] += segments
            case Waiting(seconds=seconds) if self._waiting_since is None:
                self._waiting_since = now - seconds
            case Started() | FileChanged():
                self._stop_waiting(now)
            case Progress():
                self._on_progress(event, now)
            case _:
                pass

    def compute(self, now: float) -> Totals:
        """Returns the totals up to ``now``."""
        waiting = now - self._waiting_since if self._waiting_since is not None else 0.0
        rates = sorted(self._rates) or [self._last_rate]
        return Totals(
            retries=dict(sorted(self._retries.items())),
            waited_seconds=self._waited + waiting,
            # The median; the module ``statistics`` would take 3 ms to import.
            rate_p50=(rates[len(rates) // 2] + rates[~(len(rates) // 2)]) / 2,
            rate_peak=rates[-1],
        )

    def _on_progress(self, progress: Progress, now: float) -> None:
        if progress.bytes > self._bytes:
            self._stop_waiting(now)
        self._bytes = progress.bytes
        self._last_rate = progress.current_rate
        if self._last_rate and progress.seconds >= SETTLING_S:
            self._rates.append(self._last_rate)

    def _stop_waiting(self, now: float) -> None:
        if self._waiting_since is not None:
            self._waited += now - self._waiting_since
            self._waiting_since = None
