"""The current rate and the remaining time of a download, for the live view. Pure: no clock, no output.

Bytes arrive in whole segments, so a rate is measured from one arrival to another. A rate measured up to the present
would fall between two segments and jump at each arrival.
"""

from __future__ import annotations

import math
from collections import deque

from msd.client.events import MIN_SPAN_S

#: Seconds over which the displayed rate is measured, and seconds for the rate used to estimate the remaining time.
RATE_WINDOW_S, REMAINING_WINDOW_S = 3.0, 15.0
#: Minimum number of arrivals to keep, even if they are older than the window.
MIN_ARRIVALS = 4
#: A download is stalled if nothing has arrived for this many seconds and for this multiple of the usual gap between
#: arrivals.
STALL_S, STALL_GAPS = 2.0, 4.0
#: Time constant (seconds) used to smooth the displayed remaining time.
SMOOTHING_S = 3.0


class RateMeter:
    """Measures how fast a total grows, in bytes per second, over the last ``window`` seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        #: The time of each arrival, and the total at that time.
        self._arrivals: deque[tuple[float, int]] = deque()

    def update(self, total: int, now: float) -> None:
        """Records the current total."""
        if total == (self._arrivals[-1][1] if self._arrivals else 0):
            return
        if self.is_stalled(now):
            self._arrivals.clear()
        self._arrivals.append((now, total))
        while len(self._arrivals) > MIN_ARRIVALS and self._arrivals[1][0] <= now - self._window:
            self._arrivals.popleft()

    def is_stalled(self, now: float) -> bool:
        """True if nothing has arrived for much longer than the usual gap between arrivals."""
        if len(self._arrivals) < 2:
            return False
        usual_gap = (self._arrivals[-1][0] - self._arrivals[0][0]) / (len(self._arrivals) - 1)
        return now - self._arrivals[-1][0] > max(STALL_S, STALL_GAPS * usual_gap)

    def rate(self, now: float) -> float:
        """Returns the rate in bytes per second, 0 during a stall."""
        if len(self._arrivals) < 2 or self.is_stalled(now):
            return 0.0
        (start, first_total), (end, last_total) = self._arrivals[0], self._arrivals[-1]
        return (last_total - first_total) / max(end - start, MIN_SPAN_S)


class TimeRemaining:
    """Estimates the remaining time. The estimate counts down evenly and adapts slowly to changes in the rate."""

    def __init__(self) -> None:
        self._meter = RateMeter(REMAINING_WINDOW_S)
        #: The smoothed estimate of the end time (None if unknown), and when it was last updated.
        self._end: float | None = None
        self._updated_at = 0.0

    def update(self, received: int, missing: int, now: float) -> None:
        """Records the bytes received over the network and the bytes still missing."""
        self._meter.update(received, now)
        rate = self._meter.rate(now)
        if not rate:
            self._end = None
            return
        end = now + missing / rate
        if self._end is None:
            self._end = end
        self._end += (end - self._end) * -math.expm1(-(now - self._updated_at) / SMOOTHING_S)
        self._updated_at = now

    def seconds(self, now: float) -> float | None:
        """Returns the remaining seconds, None if unknown."""
        return None if self._end is None else max(0.0, self._end - now)
