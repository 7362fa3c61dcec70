"""Computes the totals of a download from its events: retries by cause, waiting time and rates.

Pure: times are arguments, in monotonic seconds. ``client/operations/transfer.py`` counts the bytes.
"""

from __future__ import annotations

from array import array
from collections import Counter

from msd.client.events import MIN_SPAN_S, Event, Progress, Retried, Started, Totals, Waiting, WorkerChanged
from msd.wire.support.windowed_rate import WindowedRate

#: Seconds over which a rate is measured. Only complete segments count, so with a much shorter window the peak rate
#: would depend on the size of the segments.
RATE_WINDOW_S = 1.0


class RunningTotals:
    """Updates the totals of one download with each of its events."""

    def __init__(self) -> None:
        self._retries: Counter[str] = Counter()
        #: Total seconds of the finished waits, and the start of the current wait.
        self._waited = 0.0
        self._waiting_since: float | None = None
        #: Verified bytes so far, received or reused.
        self._bytes = 0
        #: Time (seconds) and received bytes at the last ``Progress``.
        self._last_sample = (0.0, 0)
        self._window = WindowedRate(RATE_WINDOW_S)
        # The first window starts at second 0, the time of the first request.
        self._window.update(0, 0.0)
        #: The rate of each finished window in which data arrived.
        self._rates = array("d")

    def handle(self, event: Event, now: float) -> None:
        match event:
            case Retried(cause=cause):
                self._retries[cause] += 1
            case WorkerChanged(state="lost", segments=segments) if segments:
                self._retries["lost"] += segments
            case Waiting(seconds=seconds) if self._waiting_since is None:
                self._waiting_since = now - seconds
            case Started():
                self._stop_waiting(now)
            case Progress():
                self._on_progress(event, now)
            case _:
                pass

    def compute(self, now: float) -> Totals:
        """Returns the totals up to ``now``."""
        waiting = now - self._waiting_since if self._waiting_since is not None else 0.0
        rates = sorted([*self._rates, *self._last_window()])
        return Totals(
            retries=dict(sorted(self._retries.items())),
            waited_seconds=self._waited + waiting,
            # The median; the module ``statistics`` would take 3 ms to import.
            rate_p50=(rates[len(rates) // 2] + rates[~(len(rates) // 2)]) / 2 if rates else 0.0,
            rate_peak=rates[-1] if rates else 0.0,
        )

    def _on_progress(self, progress: Progress, now: float) -> None:
        if progress.bytes > self._bytes:
            self._stop_waiting(now)
        self._bytes = progress.bytes
        seconds, received = self._last_sample = (progress.seconds, progress.bytes - progress.reused_bytes)
        if rate := self._window.update(received, seconds):
            self._rates.append(rate)

    def _last_window(self) -> list[float]:
        """Returns a list with the rate of the unfinished window.

        The list is empty if no data arrived in that window, or if the window is shorter than half of
        ``RATE_WINDOW_S`` and is not the only one.
        """
        start, received_before = self._window.start or (0.0, 0)
        seconds, received = self._last_sample
        is_long_enough = seconds - start >= RATE_WINDOW_S / 2 or not self._rates
        if not is_long_enough or received <= received_before:
            return []
        return [(received - received_before) / max(seconds - start, MIN_SPAN_S)]

    def _stop_waiting(self, now: float) -> None:
        if self._waiting_since is not None:
            self._waited += now - self._waiting_since
            self._waiting_since = None
