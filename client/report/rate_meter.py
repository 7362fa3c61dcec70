"""The current rate of one worker, which every output shows. Pure: the caller passes the time.

The rate of a download is the sum of the rates of its workers. Replies arrive whole, so a rate is measured from one
arrival to another: measured up to the present, it would fall between two arrivals and jump at each of them.
"""

from __future__ import annotations

from collections import deque

from msd.client.events import MIN_SPAN_S

#: Seconds over which the rate is measured. If fewer than two segments arrive in that time, the last two count.
RATE_WINDOW_S = 2.0
#: The burst after a start says little about the rate: bytes that arrive in the first second count as those of a second,
#: and the rates of a download's first second count as the one at its end. Only a download that is shorter has no other.
SETTLING_S = 1.0
#: A worker is stalled if nothing has arrived for this many seconds and for this multiple of its usual gap. The rate of
#: a slower worker is still useful: a segment of 1 MiB takes 4 s at 0.25 MiB/s.
STALL_S, STALL_GAPS = 5.0, 4.0


class RateMeter:
    """Measures how many useful bytes a worker delivers per second."""

    def __init__(self) -> None:
        self._total = 0
        #: The time of each arrival in the window and the total after it. The first entry is where the window starts;
        #: without entries nothing is measured.
        self._arrivals: deque[tuple[float, int]] = deque()
        self._min_span = SETTLING_S

    def start(self, now: float, *, is_first_request: bool = False) -> None:
        """Starts to measure: requests are sent to the worker from now on.

        ``is_first_request`` is True if ``now`` is the time of the first request of the download.
        """
        self._arrivals.clear()
        self._arrivals.append((now, self._total))
        self._min_span = MIN_SPAN_S if is_first_request else SETTLING_S

    def stop(self) -> None:
        """Stops to measure: the worker is known to send nothing. The next arrival starts a new measurement."""
        self._arrivals.clear()
        self._min_span = SETTLING_S

    def count(self, size: int, now: float) -> None:
        """Records the arrival of ``size`` bytes."""
        # ``_is_stalled`` need not be called for each of thousands of arrivals per second.
        if self._arrivals and now - self._arrivals[-1][0] > STALL_S and self._is_stalled(now):
            self.stop()
        self._total += size
        self._arrivals.append((now, self._total))

    def rate(self, now: float, *, is_complete: bool = False) -> float:
        """Returns the rate in bytes per second, 0 if unknown or stalled.

        ``is_complete`` is True if no request is outstanding any more, so that no segment is on its way.
        """
        arrivals = self._arrivals
        while len(arrivals) > 2 and arrivals[1][0] <= now - RATE_WINDOW_S:
            arrivals.popleft()
        if len(arrivals) < 2 or self._is_stalled(now):
            return 0.0
        (start, first_total), (last_at, last_total) = arrivals[0], arrivals[-1]
        # An overdue segment lowers the rate at once, not only when it arrives.
        end = now if is_complete else max(last_at, now - self._usual_gap())
        return (last_total - first_total) / max(end - start, self._min_span)

    def _is_stalled(self, now: float) -> bool:
        return len(self._arrivals) > 1 and now - self._arrivals[-1][0] > max(STALL_S, STALL_GAPS * self._usual_gap())

    def _usual_gap(self) -> float:
        """Returns the mean time between two arrivals in the window."""
        return (self._arrivals[-1][0] - self._arrivals[0][0]) / (len(self._arrivals) - 1)
