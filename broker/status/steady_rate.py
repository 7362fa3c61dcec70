"""The rate at which a total grows, as a mean over some seconds. Pure: the caller passes the time.

Totals grow by whole replies, so the rates of single seconds jump: a worker that sends 1 MiB/s sends no segment in one
second, and two in the next one. Therefore a rate is measured from one growth of the total to another.
"""

from __future__ import annotations

from collections import deque

#: Seconds of which a rate is the mean. If the total has not grown twice in that time, the last two times count.
RATE_WINDOW_S = 5.0
#: The least time in seconds for which a rate is computed: a limited sender may begin with a burst.
MIN_SPAN_S = 2.0
#: A total is idle if it has not grown for ``RATE_WINDOW_S`` seconds and for this multiple of the usual gap.
IDLE_GAPS = 2.0


class SteadyRate:
    """The rate of a total that is updated often. A total that was idle is measured from when it begins to grow."""

    def __init__(self) -> None:
        #: The time and the total of the last update; None before the first one.
        self._last: tuple[float, float] | None = None
        #: The same for each update with which the total has grown. The first one is where the window begins; none if
        #: the total is idle.
        self._grown: deque[tuple[float, float]] = deque()

    def update(self, total: float, now: float) -> None:
        """Records the total. If it has become smaller, another process counts it."""
        if self._last is not None and (total < self._last[1] or now < self._last[0]):
            self._grown.clear()
        elif self._last is not None and total > self._last[1]:
            if not self._grown:
                self._grown.append(self._last)
            self._grown.append((now, total))
        self._last = now, total
        while len(self._grown) > 2 and self._grown[1][0] <= now - RATE_WINDOW_S:
            self._grown.popleft()
        if self._grown and now - self._grown[-1][0] >= max(RATE_WINDOW_S, IDLE_GAPS * self._usual_gap):
            self._grown.clear()

    @property
    def rate(self) -> float:
        """Units of the total per second at the last update; 0 if the total is idle."""
        if self._last is None or not self._grown:
            return 0.0
        (start, first), (end, last) = self._grown[0], self._grown[-1]
        # A segment that is overdue lowers the rate before it arrives.
        return (last - first) / max(end - start, self._last[0] - self._usual_gap - start, MIN_SPAN_S)

    @property
    def _usual_gap(self) -> float:
        """The mean time between two updates with which the total has grown."""
        return (self._grown[-1][0] - self._grown[0][0]) / (len(self._grown) - 1)
