"""Measures the rate of a growing total over windows of time. Pure: the caller passes the time."""

from __future__ import annotations


class WindowedRate:
    """Measures the rate in one window after another. ``window`` is the minimum length of a window in seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        #: Time and total at the start of the current window; None before the first update.
        self.start: tuple[float, float] | None = None
        #: The rate of the last complete window; 0 before the first one, and after the total has become smaller.
        self.rate = 0.0

    def update(self, total: float, now: float) -> float | None:
        """Returns the rate (units of ``total`` per second) of the window that ends now, or None if the window has not
        ended yet.

        If ``total`` has become smaller, the process that counts it was restarted, and a new window starts.
        """
        if self.start is None or total < self.start[1]:
            self.start, self.rate = (now, total), 0.0
            return None
        started_at, before = self.start
        if now - started_at < self._window:
            return None
        self.start, self.rate = (now, total), (total - before) / (now - started_at)
        return self.rate
