"""The rate of a growing total, in windows of time. Pure: the caller knows the time."""

from __future__ import annotations


class WindowedRate:
    """Measures a total in one window after another. ``window`` is the least length of a window in seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        #: Time and total at the start of the present window; None before the first update.
        self.start: tuple[float, float] | None = None
        #: The rate of the last complete window; 0 before the first one, and once the total has become smaller.
        self.rate = 0.0

    def update(self, total: float, now: float) -> float | None:
        """Returns the rate (units of ``total`` per second) of the window that ends now, or None while it lasts.

        A total that has become smaller starts a new window: the process that counts was restarted.
        """
        if self.start is None or total < self.start[1]:
            self.start, self.rate = (now, total), 0.0
            return None
        started_at, before = self.start
        if now - started_at < self._window:
            return None
        self.start, self.rate = (now, total), (total - before) / (now - started_at)
        return self.rate
