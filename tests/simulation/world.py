"""Simulates workers with given rates, delays and faults on a virtual clock, around a real scheduler.

A worker serves its requests one after another and needs ``1 / rate`` seconds (times jitter) for a segment. Requests
and replies each take ``delay`` seconds and keep their order. A run never sleeps, and its seed is the only source of
randomness, so the same seed repeats the run exactly.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from msd.client.network_events import Ban, ConnectionClosed
from msd.client.scheduling import scheduler_events as core
from msd.client.scheduling.scheduler import Scheduler
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Stalled, TimePassed
from tests.connections import opened

#: Seconds until the client detects that a connection was lost.
LOSS_DETECTION_S = 0.002
#: Seconds for which a worker that goes to sleep refuses requests before it closes its port.
REFUSAL_PERIOD_S = 0.25


@dataclass
class Worker:
    """A simulated worker.

    ``rate`` is in segments per second. ``delay`` is the one-way delay in seconds, ``jitter`` the fraction by which
    service times vary, and ``corrupt`` the probability that a segment is corrupt. With ``quantiles``, pairs of a share
    and the seconds that this share of the segments takes at most, service times have this distribution instead.
    """

    rate: float
    delay: float = 0.0005
    jitter: float = 0.0
    corrupt: float = 0.0
    quantiles: tuple[tuple[float, float], ...] = ()
    up: bool = True
    frozen: bool = False
    asleep: bool = False
    epoch: int = 1
    queue: deque[int] = field(default_factory=deque)
    #: The segment being served, None if the worker is idle.
    serving: int | None = None
    #: When the worker finishes the segment being served.
    finish_at: float = 0.0
    #: Seconds of work left on the segment being served, while the worker is frozen.
    work_left: float = 0.0
    #: Incremented whenever the scheduled ``finish_at`` becomes invalid.
    generation: int = 0
    #: When the latest reply arrives at the client; the next reply cannot arrive earlier.
    last_arrival: float = 0.0


@dataclass
class Reader:
    """The reader of a stream, which takes ``rate`` segments per second in order. The client keeps at most ``ahead``
    segments that it has not taken.
    """

    rate: float
    ahead: int = 64
    paused: bool = False
    #: The number of segments that it has taken, and whether it is taking the next one.
    position: int = 0
    is_reading: bool = False


@dataclass
class Outcome:
    """How a download ended: its duration in seconds, the segments received and those wasted, and the last action."""

    seconds: float
    wasted: int
    received: int
    result: core.Action
    #: When each segment arrived, in seconds.
    arrivals: list[float]


class World:
    """One download of ``segments`` segments from ``workers``, to a file or to ``reader``. If ``check``, checks
    invariants after each event.
    """

    def __init__(
        self,
        segments: int,
        workers: list[Worker],
        seed: int = 0,
        *,
        check: bool = True,
        max_rate: float | None = None,
        reader: Reader | None = None,
    ) -> None:
        self.now = 0.0
        self.workers = dict(enumerate(workers, 1))
        max_ahead = reader.ahead if reader else None
        self.scheduler = Scheduler(segments, self.workers, max_ahead=max_ahead, max_rate=max_rate)
        self.reader = reader
        #: The verified segments that the reader has not taken.
        self._pending: set[int] = set()
        self._rng = random.Random(seed)
        self._check = check
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._stalled_until = 0.0
        self._inbox: list[Callable[[], None]] = []
        self._timer: float | None = None
        self.result: core.Action | None = None
        self.received = self.wasted = 0
        #: When each segment arrived.
        self.arrivals: list[float] = []
        self.segments = segments
        self.log: list[str] = []

    def at(self, time: float, callback: Callable[[], None]) -> None:
        """Schedules a call to ``callback`` at the virtual time ``time``."""
        heapq.heappush(self._events, (max(time, self.now), next(self._order), callback))

    def run(self, limit: float = 10_000.0) -> Outcome:
        """Runs the download to its end. Fails after ``limit`` virtual seconds, or if no event is left."""
        for number, worker in self.workers.items():
            if worker.up:
                self._connect(number)
        self._feed(TimePassed())
        while self.result is None:
            assert self._events, f"deadlock: {self.describe_state()}"
            self.now, _, callback = heapq.heappop(self._events)
            assert self.now < limit, f"not finished after {limit} s: {self.describe_state()}"
            callback()
        return Outcome(self.now, self.wasted, self.received, self.result, self.arrivals)

    def describe_state(self) -> str:
        """Describes the state and the latest events, for the message of a failed test."""
        states = [f"{n}: outstanding={self.scheduler.outstanding(n)} {w}" for n, w in self.workers.items()]
        return "\n".join([f"t={self.now:.3f} remaining={self.scheduler.remaining}", *states, *self.log[-20:]])

    # Faults of workers and of the client.

    def freeze(self, number: int) -> None:
        """Suspends the worker's process."""
        worker = self.workers[number]
        if worker.up and not worker.frozen:
            worker.frozen = True
            worker.generation += 1
            worker.work_left = worker.finish_at - self.now

    def thaw(self, number: int) -> None:
        """Resumes a frozen worker."""
        worker = self.workers[number]
        if worker.up and worker.frozen:
            worker.frozen = False
            if worker.serving is not None:
                self._finish_at(number, self.now + worker.work_left)
            else:
                self._serve(number)

    def kill(self, number: int) -> None:
        """Kills the worker's process."""
        worker = self.workers[number]
        if worker.up:
            self._stop(worker)
            worker.up = False
            self._deliver(LOSS_DETECTION_S, lambda: self._feed(ConnectionClosed(number)))

    def start(self, number: int) -> None:
        """Starts a new process for a worker that was killed or whose port is closed."""
        worker = self.workers[number]
        if not worker.up:
            worker.up, worker.frozen, worker.asleep = True, False, False
            worker.epoch += 1
            self._connect(number)

    def sleep(self, number: int) -> None:
        """Puts the worker to sleep: it refuses its pending requests, then closes its port."""
        worker = self.workers[number]
        if not worker.up or worker.asleep:
            return
        pending = [*([worker.serving] if worker.serving is not None else []), *worker.queue]
        self._stop(worker)
        worker.asleep = True
        for index in pending:
            self._refuse(number, index)
        epoch = worker.epoch

        def close() -> None:
            if worker.asleep and worker.epoch == epoch:
                worker.up = False
                self._deliver(LOSS_DETECTION_S, lambda: self._feed(ConnectionClosed(number)))

        self.at(self.now + REFUSAL_PERIOD_S, close)

    def stall(self, seconds: float) -> None:
        """Suspends the client for this many seconds."""
        self._stalled_until = max(self._stalled_until, self.now + seconds)

        def resume() -> None:
            if self.now < self._stalled_until:
                return
            inbox, self._inbox = self._inbox, []
            self._feed(Stalled(seconds))
            for callback in inbox:
                callback()
            self._feed(TimePassed())

        self.at(self._stalled_until, resume)

    def pause_reader(self, seconds: float) -> None:
        """Makes the reader take nothing more for this many seconds."""
        if self.reader is None or self.reader.paused:
            return
        self.reader.paused = True

        def resume() -> None:
            assert self.reader is not None
            self.reader.paused = False
            self._read()

        self.at(self.now + seconds, resume)

    # Events in virtual time.

    def _read(self) -> None:
        """Begins to take the next segment, if it is there."""
        reader = self.reader
        if reader is None or reader.is_reading or reader.paused or reader.position not in self._pending:
            return
        reader.is_reading = True

        def taken() -> None:
            reader.is_reading = False
            self._pending.remove(reader.position)
            reader.position += 1
            self._feed(core.OutputAdvanced(reader.position))
            self._read()

        self._deliver(1 / reader.rate, taken)

    def _stop(self, worker: Worker) -> None:
        worker.generation += 1
        worker.serving = None
        worker.queue.clear()

    def _connect(self, number: int) -> None:
        worker = self.workers[number]
        epoch = worker.epoch

        def open_connection() -> None:
            if worker.up and worker.epoch == epoch:
                self._feed(opened(number, epoch=epoch, round_trip=2 * worker.delay))

        # The client connects again only after it has detected the loss of the old connection.
        self._deliver(max(2 * worker.delay, 2 * LOSS_DETECTION_S), open_connection)

    def _deliver(self, delay: float, callback: Callable[[], None]) -> None:
        """Calls ``callback`` after ``delay`` seconds, or when the client's stall ends if that is later."""

        def arrive() -> None:
            if self.now < self._stalled_until:
                self._inbox.append(callback)
            else:
                callback()

        self.at(self.now + delay, arrive)

    def _feed(self, event: core.Event) -> None:
        for action in self.scheduler.handle(event, self.now):
            match action:
                case core.RequestUnit(number, index):
                    self._request(number, index)
                case core.Finish() | core.GiveUp():
                    self.result = action
                case Ban(number, _):
                    self._stop(self.workers[number])
        self.log.append(f"{self.now:.4f} {event}")
        del self.log[:-50]
        if self._check:
            self.scheduler.check_invariants()
        due = self.scheduler.next_deadline(self.now)
        if due is not None and (self._timer is None or due < self._timer):
            self._timer = due
            self.at(due, self._tick)

    def _tick(self) -> None:
        if self._timer is not None and self.now >= self._timer:
            self._timer = None
            if self.now >= self._stalled_until:
                self._feed(TimePassed())

    def _request(self, number: int, index: int) -> None:
        worker = self.workers[number]
        epoch = worker.epoch
        if self.reader is not None:
            assert index < self.reader.position + self.reader.ahead, f"requested segment {index} too early"

        def arrive() -> None:
            if not worker.up or worker.epoch != epoch:
                return
            if worker.asleep:
                self._refuse(number, index)
            else:
                worker.queue.append(index)
                self._serve(number)

        self.at(self.now + worker.delay, arrive)

    def _refuse(self, number: int, index: int) -> None:
        self._deliver(
            self.workers[number].delay, lambda: self._feed(core.UnitRefused(number, index, RefusalReason.SLEEPING))
        )

    def _serve(self, number: int) -> None:
        worker = self.workers[number]
        if worker.serving is None and worker.queue and not worker.frozen:
            worker.serving = worker.queue.popleft()
            self._finish_at(number, self.now + self._service_time(worker))

    def _service_time(self, worker: Worker) -> float:
        if not worker.quantiles:
            return self._rng.uniform(1 - worker.jitter, 1 + worker.jitter) / worker.rate
        share = self._rng.random()
        (low, least), (high, most) = next(
            (before, after) for before, after in pairwise(worker.quantiles) if share <= after[0]
        )
        return least + (most - least) * (share - low) / (high - low)

    def _finish_at(self, number: int, time: float) -> None:
        worker = self.workers[number]
        worker.generation += 1
        worker.finish_at = time
        generation, index = worker.generation, worker.serving
        assert index is not None

        def finish() -> None:
            if worker.generation != generation:
                return
            worker.serving = None
            delay = worker.delay * self._rng.uniform(1, 1 + worker.jitter)
            worker.last_arrival = max(worker.last_arrival, self.now + delay)
            epoch, is_corrupt = worker.epoch, self._rng.random() < worker.corrupt
            self._deliver(worker.last_arrival - self.now, lambda: self._arrive(number, index, epoch, is_corrupt))
            self._serve(number)

        self.at(time, finish)

    def _arrive(self, number: int, index: int, epoch: int, is_corrupt: bool) -> None:
        if epoch != self.workers[number].epoch or self.scheduler.workers[number].ban_reason:
            return  # The connection is closed.
        self.received += 1
        self.arrivals.append(self.now)
        if not self.scheduler.is_missing(index):
            self.wasted += 1
            self._feed(core.UnitDuplicate(number, index))
        elif is_corrupt:
            self.wasted += 1
            self._feed(core.UnitCorrupt(number, index))
        else:
            self._pending.add(index)
            self._feed(core.UnitWritten(number, index))
            self._read()


def ideal(segments: int, workers: list[Worker]) -> float:
    """Returns the seconds that an ideal client needs: the number of segments divided by the sum of the rates."""
    return segments / sum(worker.rate for worker in workers)
