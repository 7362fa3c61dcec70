"""How fast it has been lately, and how long the rest will take, for people: a pure core.

Bytes arrive a whole segment at a time. A rate is therefore taken from one arrival to another, never up to
the present moment, which would have it fall between two segments and jump with each.
"""

from __future__ import annotations

import math
from collections import deque

#: Seconds from which a rate is taken, and the remaining time.
LATELY, LONG = 3.0, 15.0
#: Arrivals that count at least, however long ago they were.
FEWEST = 4
#: Nothing has come for so many seconds, and for so many times the usual gap: it stands still.
STILL, GAPS = 2.0, 4.0
#: No time is shorter (seconds).
SHORTEST = 0.001
#: Seconds in which the remaining time that is shown turns to another one.
SETTLING = 3.0


class RateMeter:
    """The rate of a total that grows, in bytes a second, over the last ``window`` seconds of ``now``."""

    def __init__(self, window: float) -> None:
        self._window = window
        #: When how much was there: at each arrival.
        self._arrivals: deque[tuple[float, int]] = deque()

    def take(self, total: int, now: float) -> None:
        """There is so much now."""
        if total == (self._arrivals[-1][1] if self._arrivals else 0):
            return
        if self.is_still(now):
            self._arrivals.clear()
        self._arrivals.append((now, total))
        while len(self._arrivals) > FEWEST and self._arrivals[1][0] <= now - self._window:
            self._arrivals.popleft()

    def is_still(self, now: float) -> bool:
        """Nothing has come for longer than usual."""
        if len(self._arrivals) < 2:
            return False
        usual = (self._arrivals[-1][0] - self._arrivals[0][0]) / (len(self._arrivals) - 1)
        return now - self._arrivals[-1][0] > max(STILL, GAPS * usual)

    def rate(self, now: float) -> float:
        """0 while nothing comes."""
        if len(self._arrivals) < 2 or self.is_still(now):
            return 0.0
        (begin, before), (end, after) = self._arrivals[0], self._arrivals[-1]
        return (after - before) / max(end - begin, SHORTEST)


class TimeRemaining:
    """When ``wanted`` bytes will be there: a time that runs down evenly, and turns slowly where the rate does."""

    def __init__(self) -> None:
        self._meter = RateMeter(LONG)
        #: The end as it is shown, and when that was last looked at.
        self._end: float | None = None
        self._at = 0.0

    def take(self, received: int, missing: int, now: float) -> None:
        """So many bytes have come over the network, so many are missing."""
        self._meter.take(received, now)
        rate = self._meter.rate(now)
        if not rate:
            self._end = None
            return
        end = now + missing / rate
        if self._end is None:
            self._end = end
        self._end += (end - self._end) * -math.expm1(-(now - self._at) / SETTLING)
        self._at = now

    def seconds(self, now: float) -> float | None:
        """None while nobody can say."""
        return None if self._end is None else max(0.0, self._end - now)
