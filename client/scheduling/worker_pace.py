"""One worker as the scheduler sees it: what is asked of it, how fast it is, when it is due. Pure.

Times are in seconds on the caller's monotonic clock, rates in segments a second.
"""

from __future__ import annotations

import math

from msgspec import Struct, field

from msd.client.scheduling.events import Fault

#: The window of a worker, in requests: one, and ``WINDOW_GAIN`` times what its rate delivers in a round
#: trip. A gain of 1 would be a fixed point: the rate measured is the one the window allows.
WINDOW_GAIN = 2.0
#: Until its rate is known; the least, for of one alone no rate could be known.
FIRST_WINDOW, LEAST_WINDOW = 4, 2
#: Round trips are taken for at least this long (seconds): both ends have other things to do. More puts more in
#: flight, and what has left the processor's caches costs more to receive, to hash and to write.
MIN_ROUND_TRIP = 0.001
#: No worker gets more, whatever the memory allows.
MAX_WINDOW = 64
#: Seconds of arrivals from which a worker's rate is read: single replies come in bursts.
RATE_SPAN = 0.1
#: Seconds without an expected arrival after which a worker is under suspicion (and at least
#: ``SUSPECT_STEPS`` times the usual time between two).
SUSPECT_AFTER, SUSPECT_STEPS = 0.5, 4.0


class WorkerPace(Struct):
    """What is known of one worker."""

    number: int
    epoch: int = 0
    #: True while requests can be sent.
    ready: bool = False
    ban: Fault | None = None
    #: What it served when it was connected to, and whether it was ready since server 5 has vouched for
    #: what it vouches for now.
    catalogue: bytes = b""
    seen: bool = False
    #: Y: the segments asked of it and not here yet, in the order asked. Some may have come from
    #: another worker since.
    asked: dict[int, None] = field(default_factory=dict)
    #: Nothing is asked of it before this time.
    paused_until: float = 0.0
    #: Since when the next arrival is awaited: the last one, or when Y stopped being empty.
    since: float = 0.0
    #: Segments a second, None until measured; measured from ``span_start`` on.
    rate: float | None = None
    round_trip: float = 0.0
    #: How many requests may be outstanding, as far as memory allows.
    window: int = FIRST_WINDOW
    span_start: float = 0.0
    span_count: int = 0
    corrupt: int = 0

    def arrivals(self, now: float) -> tuple[float, float]:
        """When the first segment of Y is expected, and how long each after it takes (seconds).

        One that is overdue is expected to be as late again as it is already; so is the first of all.
        """
        waited = now - self.since
        if self.rate is None:
            return now + waited, waited
        step = 1 / self.rate
        return (self.since + step if waited <= step else now + waited - step), step

    def is_suspect(self, now: float) -> bool:
        """True if an arrival is long overdue."""
        step = 1 / self.rate if self.rate else 0.0
        return bool(self.asked) and now - self.since > max(SUSPECT_AFTER, SUSPECT_STEPS * step)

    def measure(self, now: float) -> None:
        """Counts one arrival."""
        self.since = now
        self.span_count += 1
        span = now - self.span_start
        if span >= RATE_SPAN:
            lately = self.span_count / span
            self.rate = lately if self.rate is None else (self.rate + lately) / 2
            self.span_start, self.span_count = now, 0
            pipe = self.rate * max(self.round_trip, MIN_ROUND_TRIP)
            self.window = min(1 + math.ceil(WINDOW_GAIN * pipe), MAX_WINDOW)
