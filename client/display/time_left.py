"""The time left of a download, for the live view. Pure: no clock, no output.

The estimate is bytes left / current rate (``client/report/rate_meter.py``).
"""

from __future__ import annotations

import math

#: Time constant (seconds) with which the displayed time follows a slightly different estimate: the bytes left fall in
#: whole segments, and the displayed time counts down evenly.
SMOOTHING_S = 2.0
#: An estimate that differs by more than this share is displayed at once: the rate has changed.
MAX_DEVIATION = 0.1


class TimeLeft:
    """Estimates the time left. The estimate counts down evenly and follows a new rate at once."""

    def __init__(self) -> None:
        #: The displayed end time (None if unknown), and when it was last updated.
        self._end: float | None = None
        self._updated_at = 0.0

    def update(self, missing: int, rate: float, now: float) -> None:
        """Records the bytes still missing and the current rate."""
        if not rate:
            self._end = None
            return
        end = now + missing / rate
        if self._end is None or abs(end - self._end) > MAX_DEVIATION * (end - now):
            self._end = end
        self._end += (end - self._end) * -math.expm1(-(now - self._updated_at) / SMOOTHING_S)
        self._updated_at = now

    def seconds(self, now: float) -> float | None:
        """Returns the seconds left, None if unknown."""
        return None if self._end is None else max(0.0, self._end - now)
