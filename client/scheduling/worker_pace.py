"""The scheduler's record of one worker: its outstanding requests, its rate and its predicted replies. Pure.

Times are in seconds on the caller's monotonic clock, sizes in bytes, rates in bytes per second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from msgspec import Struct, field

from msd.client.network_events import BanReason
from msd.client.scheduling.refusal_policy import BAN_SCOPES, BanScope
from msd.client.scheduling.scheduler_events import RequestUnit

#: The size in bytes of a part until the first one has arrived, and the least. At 64 kbit/s, it takes two seconds.
MIN_PART = 16 << 10
#: A unit is requested as a whole if the worker delivers it in ``UNIT_S`` seconds. Otherwise a part is what the worker
#: delivers in ``PART_S``. Two parts are in flight: something arrives often on a slow link, and little is lost with a
#: connection.
UNIT_S, PART_S = 1.0, 0.5
#: Workers that deliver less than this many bytes in ``UNIT_S`` complete a unit together.
SHARED_SIZE = 64 << 10
#: From one arrival to the next, what is requested at once grows at most by this factor: the first rates are inaccurate.
PART_GROWTH = 4
#: A worker's window is two parts, and ``WINDOW_GAIN`` times what the worker delivers in one round trip. With a gain of
#: 1 the window would never grow: the measured rate would be the rate that the window allows.
WINDOW_GAIN = 2.0
#: The number of parts that wait at a worker while it sends one. A worker that reads from a store waits for each, up to
#: a tenth of a second, so it reads several at once.
AHEAD, STORE_AHEAD = 1, 3
#: A worker that reads from a store is asked for units in runs of this many, which it reads in one go, if it delivers a
#: run in ``STORE_RUN_S`` seconds: nothing of a run arrives before all of it is read. Meanwhile, a second run is
#: outstanding.
STORE_RUN_UNITS, STORE_RUN_S = 4, 0.25
#: Shorter round trips (seconds) count as this long, because both ends also need time for other work. A larger value
#: would put more data in flight, and data that has left the processor's caches takes longer to receive, hash and write.
MIN_ROUND_TRIP_S = 0.001
#: The maximum number of outstanding requests, even if they are small.
MAX_REQUESTS = 64
#: Seconds over which arrivals are counted to measure a worker's rate: over a shorter time, bursts would distort it.
RATE_SPAN_S = 0.1
#: A lower bound for the time in which something arrives, so that a rate stays finite.
MIN_SPAN_S = 1e-6
#: Silence of this many seconds is no sign of a slow or frozen worker: on a machine whose processors are busy with two
#: other processes, 0.1 % of the segments arrive more than 70 ms after the previous segment from the same worker.
SCHEDULING_DELAY_S = 0.075
#: A worker with outstanding requests is stalled if nothing has arrived for this many seconds and for ``STALL_STEPS``
#: times the time that the reply should take.
STALL_TIMEOUT_S, STALL_STEPS = 0.5, 4.0
#: The same for a worker that holds some of the units only, if that is sooner: there are others to ask.
HOLDER_STALL_TIMEOUT_S, HOLDER_STALL_STEPS = 1.0, 2.0


class WorkerPace(Struct):
    """The state of one worker in a download."""

    number: int
    #: The epoch of the process to which the connection was opened last, and the epoch in the latest snapshot.
    epoch: int = 0
    reported_epoch: int = 0
    #: True while requests can be sent to the worker.
    ready: bool = False
    #: True if the worker reads from a store what it sends.
    reads_store: bool = False
    ban_reason: BanReason | None = None
    #: The catalogue that the worker served when its connection was opened.
    catalogue: bytes = b""
    #: The catalogue that the worker serves according to the latest snapshot; empty if unknown.
    reported_catalogue: bytes = b""
    #: True if the worker has been ready at any time since server 5 published the current catalogue.
    seen_since_change: bool = False
    #: The requests that have no reply yet, by unit and start, in the order in which they were sent. Another worker may
    #: have delivered some of the bytes since.
    outstanding: dict[tuple[int, int], RequestUnit] = field(default_factory=dict)
    outstanding_bytes: int = 0
    #: When the connection was opened.
    opened_at: float = 0.0
    #: The groups of which the worker is asked for no units, each with the reason.
    group_bans: dict[int, BanReason] = field(default_factory=dict)
    #: The units of these groups, and of those with which the worker pauses, as ranges.
    excluded: list[int] = field(default_factory=list)
    #: How often the worker has refused requests because of others, since it has sent data.
    busy_count: int = 0
    #: No requests are sent to the worker before this time.
    paused_until: float = 0.0
    #: The time of the last reply, or of the first request if none was outstanding before that request.
    waiting_since: float = 0.0
    #: None until measured; the bytes that arrive are counted from ``span_start`` on.
    rate: float | None = None
    round_trip: float = 0.0
    #: What the worker is asked for at once, at most, and how many bytes may be outstanding: see ``update_limits``.
    part_size: int = 0
    window: float = 0.0
    #: The number of units that the worker is asked for together.
    units_at_once: int = 1
    #: The sizes that the worker's rate allows: of a unit that is requested as a whole, and of a part of a larger one.
    whole_size: float = MIN_PART
    part_for_rate: float = MIN_PART
    #: True once anything has arrived from the worker, and if it is then asked for whole units.
    has_delivered: bool = False
    is_fast: bool = False
    #: True until what the worker is asked for at once is as much as its rate allows.
    is_growing: bool = True
    span_start: float = 0.0
    span_bytes: int = 0
    corrupt_count: int = 0
    #: The units that the worker has, as bits; None if it has all. ``awaits_holds`` is True while it is asked for them.
    #: ``useless_at`` is the ``UnitTable.returned`` at which it had nothing that could be requested, and has nothing
    #: since if that has not changed; otherwise -1.
    held: int | None = None
    awaits_holds: bool = False
    useless_at: int = -1
    #: The unit after the last one that was requested from the worker, and how many units are left of the run.
    run_unit: int = 0
    run_left: int = 0
    #: When data arrived last, or the connection was opened.
    delivered_at: float = 0.0

    @property
    def ban_scope(self) -> BanScope | None:
        """How long the worker is banned, None if it is not."""
        return BAN_SCOPES[self.ban_reason] if self.ban_reason else None

    @property
    def is_slow(self) -> bool:
        """True if the worker needs so long for a unit that several workers complete it together."""
        return not (self.is_growing or self.is_fast) and self.whole_size < SHARED_SIZE

    def has(self, unit: int) -> bool:
        """True if the worker has the unit, as far as is known."""
        return self.held is None or self.held >> unit & 1 == 1

    def update_limits(self, max_part: int, max_window: float, *, has_holders: bool = False) -> None:
        """Computes the size of a part and the window. They are at most ``max_part`` and ``max_window`` bytes. Where
        there are holders, no part waits at a worker while it sends one.
        """
        is_whole = max_part <= self.whole_size
        self.is_fast = is_whole and self.has_delivered
        self.part_size = max_part if is_whole else int(self.part_for_rate)
        self.units_at_once = 1
        window = float(self.part_size)
        if self.has_delivered:
            rate = self.rate or 0.0
            ahead = AHEAD
            if has_holders:
                ahead = 0
            elif self.reads_store and self.is_fast:
                ahead = STORE_AHEAD
                run = STORE_RUN_UNITS * self.part_size
                if run <= STORE_RUN_S * rate and 2 * run <= max_window:
                    ahead, self.units_at_once = 2 * STORE_RUN_UNITS - 1, STORE_RUN_UNITS
            window = (1 + ahead) * self.part_size + WINDOW_GAIN * rate * max(self.round_trip, MIN_ROUND_TRIP_S)
        self.window = min(window, max_window)

    def predict_arrivals(self, now: float) -> Iterator[tuple[RequestUnit, float]]:
        """Yields the outstanding requests, each with the time at which its reply is expected.

        A reply that is overdue for more than ``SCHEDULING_DELAY_S`` is expected to take as long again. If the rate is
        unknown, the first reply is overdue from ``waiting_since`` on, and the others are expected with it: a worker
        that waits for a processor sends them one right after the other.
        """
        time = None
        for request in self.outstanding.values():
            step = self._seconds_for(request.length)
            if time is None:
                late = now - self.waiting_since - step
                time = self.waiting_since + step if late <= 0 else now + max(0.0, late - SCHEDULING_DELAY_S)
            else:
                time += step
            yield request, time

    def predict_next_arrival(self, length: int, now: float) -> float:
        """Predicts when the worker would deliver ``length`` more bytes.

        An idle worker is assumed to take one round trip if its rate is unknown.
        """
        if not self.outstanding:
            return now + (self._seconds_for(length) if self.rate else self.round_trip)
        first, time = next(self.predict_arrivals(now))
        return time + self._seconds_for(self.outstanding_bytes - first.length + length)

    def is_stalled(self, now: float) -> bool:
        """True if the next reply is long overdue."""
        first = next(iter(self.outstanding.values()), None)
        if first is None:
            return False
        expected = self._seconds_for(first.length)
        limit = max(STALL_TIMEOUT_S, STALL_STEPS * expected)
        if self.held is not None:
            limit = min(limit, max(HOLDER_STALL_TIMEOUT_S, HOLDER_STALL_STEPS * expected))
        return now - self.waiting_since > limit

    def add_request(self, request: RequestUnit, now: float) -> None:
        if not self.outstanding:
            self.waiting_since = self.span_start = now
            self.span_bytes = 0
        self.outstanding[request.unit, request.start] = request
        self.outstanding_bytes += request.length

    def end_request(self, unit: int, start: int) -> int:
        """Removes a request that was answered, and returns its length; 0 if it was dropped before."""
        request = self.outstanding.pop((unit, start), None)
        if request is None:
            return 0
        self.outstanding_bytes -= request.length
        return request.length

    def drop_requests(self, first: int = 0, end: float = math.inf) -> list[RequestUnit]:
        """Removes and returns the requests for the units from ``first`` to before ``end``."""
        dropped = [request for request in self.outstanding.values() if first <= request.unit < end]
        for request in dropped:
            del self.outstanding[request.unit, request.start]
            self.outstanding_bytes -= request.length
        return dropped

    def count_reply(self, unit: int, start: int, now: float) -> bool:
        """Removes a request that was answered with data, and measures the worker's rate. Returns True if the rate or
        the size of a part changes. Does nothing if the request was dropped before.
        """
        length = self.end_request(unit, start)
        if not length:
            return False
        self.waiting_since = self.delivered_at = now
        self.busy_count = 0
        self.span_bytes += length
        span = now - self.span_start
        if span < RATE_SPAN_S and self.is_fast:
            return False
        self.has_delivered = True
        latest = self.span_bytes / max(span, MIN_SPAN_S)
        limit = latest if self.rate is None else self.rate
        if span >= RATE_SPAN_S:
            self.rate = latest if self.rate is None or latest > self.rate else (self.rate + latest) / 2
            self.span_start, self.span_bytes = now, 0
            # Parts shrink as soon as the link becomes slow.
            limit = min(self.rate, latest)
        self.is_growing = PART_GROWTH * self.whole_size < UNIT_S * limit
        self.whole_size = min(PART_GROWTH * self.whole_size, max(MIN_PART, UNIT_S * limit))
        self.part_for_rate = min(self.whole_size, max(MIN_PART, PART_S * limit))
        return True

    def _seconds_for(self, length: int) -> float:
        return length / self.rate if self.rate else 0.0
