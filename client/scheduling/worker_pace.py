"""The scheduler's record of one worker: its outstanding requests, its rate and its predicted replies. Pure.

Times are in seconds on the caller's monotonic clock, rates in units per second.
"""

from __future__ import annotations

import math

from msgspec import Struct, field

from msd.client.network_events import BanReason
from msd.client.scheduling.refusal_policy import BAN_SCOPES, BanScope

#: A worker's window, in requests, is 1 plus ``WINDOW_GAIN`` times the number of units delivered in one round trip.
#: With a gain of 1 the window would never grow: the measured rate would be the rate that the window allows.
WINDOW_GAIN = 2.0
#: The window until the rate is known, and the minimum window: a rate cannot be measured with one request in flight.
INITIAL_WINDOW, MIN_WINDOW = 4, 2
#: Shorter round trips (seconds) count as this long, because both ends also need time for other work. A larger value
#: would put more data in flight, and data that has left the processor's caches takes longer to receive, hash and write.
MIN_ROUND_TRIP_S = 0.001
#: The maximum window, even if memory allows more.
MAX_WINDOW = 64
#: Seconds over which arrivals are counted to measure a worker's rate: over a shorter time, bursts would distort it.
RATE_SPAN_S = 0.1
#: Silence of this many seconds is no sign of a slow or frozen worker: on a machine whose processors are busy with two
#: other processes, 0.1 % of the units arrive more than 70 ms after the previous unit from the same worker.
SCHEDULING_DELAY_S = 0.075
#: A worker with outstanding requests is stalled if nothing has arrived for this many seconds and for ``STALL_STEPS``
#: times its usual time between two arrivals.
STALL_TIMEOUT_S, STALL_STEPS = 0.5, 4.0


def memory_window(memory: int, workers: int, segment_size: int) -> int:
    """Returns the largest window with which all workers together have at most ``memory`` bytes outstanding.

    ``workers`` is the number of workers. The window is in units of ``segment_size`` bytes, at least 1 and at most
    ``MAX_WINDOW``.
    """
    return max(1, min(MAX_WINDOW, memory // max(1, workers * segment_size)))


class WorkerPace(Struct):
    """The state of one worker in a download."""

    number: int
    #: The epoch of the process to which the connection was opened last, and the epoch in the latest snapshot.
    epoch: int = 0
    reported_epoch: int = 0
    #: True while requests can be sent to the worker.
    ready: bool = False
    ban_reason: BanReason | None = None
    #: The catalogue that the worker served when its connection was opened.
    catalogue: bytes = b""
    #: True if the worker has been ready at any time since server 5 published the current catalogue.
    seen_since_change: bool = False
    #: Y: the units that were requested from the worker and have no reply yet, in the order of the requests. Another
    #: worker may have delivered some of them since.
    outstanding: dict[int, None] = field(default_factory=dict)
    #: Until this time the worker may load the published catalogue, so that it may have the file then.
    may_load_until: float = 0.0
    #: No requests are sent to the worker before this time.
    paused_until: float = 0.0
    #: The time of the last reply, or of the first request if Y was empty before that request.
    waiting_since: float = 0.0
    #: Units per second, None until measured; arrivals are counted from ``span_start`` on.
    rate: float | None = None
    round_trip: float = 0.0
    #: How many requests may be outstanding, unless memory limits them further.
    window: int = INITIAL_WINDOW
    span_start: float = 0.0
    span_count: int = 0
    corrupt_count: int = 0

    @property
    def ban_scope(self) -> BanScope | None:
        """How long the worker is banned, None if it is not."""
        return BAN_SCOPES[self.ban_reason] if self.ban_reason else None

    def predict_arrivals(self, now: float) -> tuple[float, float]:
        """Returns the time at which the first unit of Y is expected, and the seconds between two units of Y.

        A unit that is overdue for more than ``SCHEDULING_DELAY_S`` is expected to take as long again. If the rate is
        unknown, the first unit is overdue from ``waiting_since`` on, and the others are expected with it: a worker
        that waits for a processor sends them one right after the other.
        """
        step = 1 / self.rate if self.rate else 0.0
        late = now - self.waiting_since - step
        return (self.waiting_since + step if late <= 0 else now + max(0.0, late - SCHEDULING_DELAY_S)), step

    def is_stalled(self, now: float) -> bool:
        """True if the next unit is long overdue."""
        step = 1 / self.rate if self.rate else 0.0
        return bool(self.outstanding) and now - self.waiting_since > max(STALL_TIMEOUT_S, STALL_STEPS * step)

    def count_arrival(self, now: float) -> None:
        """Counts one arrival; updates the rate and the window after each span of ``RATE_SPAN_S`` seconds."""
        self.waiting_since = now
        self.span_count += 1
        span = now - self.span_start
        if span >= RATE_SPAN_S:
            latest = self.span_count / span
            self.rate = latest if self.rate is None else (self.rate + latest) / 2
            self.span_start, self.span_count = now, 0
            pipe = self.rate * max(self.round_trip, MIN_ROUND_TRIP_S)
            self.window = min(1 + math.ceil(WINDOW_GAIN * pipe), MAX_WINDOW)
