"""What a download sums up at its end: retries by cause, time waited, and how fast it was.

A pure core, fed with the events of the download and with ``now`` (seconds, monotonic). Knows nothing
of segments or files; the bytes are counted by ``client/operations/transfer.py``.
"""

from __future__ import annotations

from array import array
from collections import Counter

from msgspec import Struct, field

from msd.client.events import Event, Progress, Retried, Sampled, Started, Waiting, WorkerChanged

#: No time is shorter (seconds), where there is a rate to be told.
SHORTEST = 0.001
#: Seconds over which a rate is taken. Segments arrive whole, so over much less a peak would tell of
#: their size, not of the network.
WINDOW = 1.0


class Totals(Struct, frozen=True):
    """Segments that were asked for again, by cause (``lost`` is that of a lost connection), seconds in
    which nothing moved, and rates in bytes a second.
    """

    retries: dict[str, int] = field(default_factory=dict)
    waited_seconds: float = 0.0
    rate_p50: float = 0.0
    rate_peak: float = 0.0


class RunningTotals:
    """Sums up one download: give it every event."""

    def __init__(self) -> None:
        self._retries: Counter[str] = Counter()
        #: Seconds of the waits that are over, and when the present one began.
        self._waited = 0.0
        self._waiting_since: float | None = None
        #: Bytes verified so far, wherever they came from.
        self._bytes = 0
        #: Where the present window began, and where the transfer is: seconds and received bytes.
        self._window: tuple[float, int] | None = None
        self._here = (0.0, 0)
        #: The rate of each window that is over and in which something arrived.
        self._rates = array("d")

    def take(self, event: Event, now: float) -> None:
        match event:
            case Retried(cause=cause):
                self._retries[cause] += 1
            case WorkerChanged(state="lost", segments=segments) if segments:
                self._retries["lost"] += segments
            case Waiting(seconds=seconds) if self._waiting_since is None:
                self._waiting_since = now - seconds
            case Started():
                self._stop_waiting(now)
            case Sampled(progress):
                self._sample(progress, now)
            case _:
                pass

    def totals(self, now: float) -> Totals:
        """The sums up to now."""
        waiting = now - self._waiting_since if self._waiting_since is not None else 0.0
        rates = sorted([*self._rates, *self._last_window()])
        return Totals(
            retries=dict(sorted(self._retries.items())),
            waited_seconds=self._waited + waiting,
            # Not by the module of statistics, which takes 3 ms to import.
            rate_p50=(rates[len(rates) // 2] + rates[~(len(rates) // 2)]) / 2 if rates else 0.0,
            rate_peak=rates[-1] if rates else 0.0,
        )

    def _sample(self, progress: Progress, now: float) -> None:
        if progress.bytes > self._bytes:
            self._stop_waiting(now)
        self._bytes = progress.bytes
        self._here = (progress.seconds, progress.bytes - progress.reused_bytes)
        if self._window is None:
            # From the first request on, which is the zero of ``seconds``.
            self._window = (0.0, 0)
        begin, before = self._window
        seconds, received = self._here
        if seconds >= begin + WINDOW:
            if received > before:
                self._rates.append((received - before) / (seconds - begin))
            self._window = self._here

    def _last_window(self) -> list[float]:
        """The rate of the window that is not over, where it is long enough to count, or all there is."""
        begin, before = self._window or (0.0, 0)
        seconds, received = self._here
        is_long = seconds - begin >= WINDOW / 2 or not self._rates
        return [(received - before) / max(seconds - begin, SHORTEST)] if is_long and received > before else []

    def _stop_waiting(self, now: float) -> None:
        if self._waiting_since is not None:
            self._waited += now - self._waiting_since
            self._waiting_since = None
