"""A world on a virtual clock: workers of given rate, delay and misfortune around a real scheduler.

A worker serves its requests one after another, a segment in ``1 / rate`` seconds (times jitter);
requests and replies each take ``delay`` seconds and keep their order. Nothing here waits or draws
from the real world: a seed repeats a run exactly.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from msd.client.scheduling import events as core
from msd.client.scheduling.scheduler import Scheduler
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.time_passed import TimePassed

#: Seconds after which a client notices that a worker's process was killed.
LOSS_NOTICED = 0.002
#: Seconds for which a worker that goes to sleep refuses requests before its port is closed.
FAREWELL = 0.25


@dataclass
class Worker:
    """A worker: ``rate`` in segments a second, ``delay`` in seconds one way, ``jitter`` the share by
    which a service time varies."""

    rate: float
    delay: float = 0.0005
    jitter: float = 0.0
    corrupt: float = 0.0
    up: bool = True
    frozen: bool = False
    asleep: bool = False
    epoch: int = 1
    queue: deque[int] = field(default_factory=deque)
    #: Changes whenever what is being served is not served any more.
    turn: int = 0
    serving: int | None = None
    #: Seconds of work left on what is being served while frozen.
    left: float = 0.0
    ends: float = 0.0
    last_arrival: float = 0.0


@dataclass
class Outcome:
    """``seconds`` it took, segments received in vain, and how it ended."""

    seconds: float
    wasted: int
    received: int
    ended: core.Action


class World:
    """One download of ``segments`` segments from ``workers``."""

    def __init__(self, segments: int, workers: list[Worker], seed: int = 0, *, check: bool = True) -> None:
        self.now = 0.0
        self.workers = dict(enumerate(workers, 1))
        self.scheduler = Scheduler(segments, self.workers)
        self._rng = random.Random(seed)
        self._check = check
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._stalled_until = 0.0
        self._inbox: list[Callable[[], None]] = []
        self._timer: float | None = None
        self.ended: core.Action | None = None
        self.received = self.wasted = 0
        self.segments = segments
        self.log: list[str] = []

    def at(self, time: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time, self.now), next(self._order), act))

    def run(self, limit: float = 10_000.0) -> Outcome:
        for number, worker in self.workers.items():
            if worker.up:
                self._connect(number)
        self._feed(TimePassed())
        while self.ended is None:
            assert self._events, f"nothing will ever happen again: {self.story()}"
            self.now, _, act = heapq.heappop(self._events)
            assert self.now < limit, f"not done after {limit} s: {self.story()}"
            act()
        return Outcome(self.now, self.wasted, self.received, self.ended)

    def story(self) -> str:
        """What a failure needs to be understood."""
        states = [f"{n}: y={self.scheduler.y(n)} {w}" for n, w in self.workers.items()]
        return "\n".join([f"t={self.now:.3f} remaining={self.scheduler.remaining}", *states, *self.log[-20:]])

    # What may happen to workers and to the client.

    def freeze(self, number: int) -> None:
        worker = self.workers[number]
        if worker.up and not worker.frozen:
            worker.frozen = True
            worker.turn += 1
            worker.left = worker.ends - self.now

    def thaw(self, number: int) -> None:
        worker = self.workers[number]
        if worker.up and worker.frozen:
            worker.frozen = False
            if worker.serving is not None:
                self._finish_at(number, self.now + worker.left)

    def kill(self, number: int) -> None:
        worker = self.workers[number]
        if worker.up:
            self._stop(worker)
            worker.up = False
            self._deliver(LOSS_NOTICED, lambda: self._feed(core.WorkerLost(number)))

    def start(self, number: int) -> None:
        worker = self.workers[number]
        if not worker.up:
            worker.up, worker.frozen, worker.asleep = True, False, False
            worker.epoch += 1
            self._connect(number)

    def sleep(self, number: int) -> None:
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
                self._deliver(LOSS_NOTICED, lambda: self._feed(core.WorkerLost(number)))

        self.at(self.now + FAREWELL, close)

    def stall(self, seconds: float) -> None:
        """The client itself does nothing for so long."""
        self._stalled_until = max(self._stalled_until, self.now + seconds)

        def go_on() -> None:
            if self.now < self._stalled_until:
                return
            inbox, self._inbox = self._inbox, []
            self._feed(core.ClientStalled(seconds))
            for act in inbox:
                act()
            self._feed(TimePassed())

        self.at(self._stalled_until, go_on)

    # The mechanics.

    def _stop(self, worker: Worker) -> None:
        worker.turn += 1
        worker.serving = None
        worker.queue.clear()

    def _connect(self, number: int) -> None:
        worker = self.workers[number]
        epoch = worker.epoch

        def up() -> None:
            if worker.up and worker.epoch == epoch:
                self._feed(core.WorkerReady(number, epoch, 2 * worker.delay))

        # A client opens a new connection after it has noticed that the old one is gone.
        self._deliver(max(2 * worker.delay, 2 * LOSS_NOTICED), up)

    def _deliver(self, delay: float, act: Callable[[], None]) -> None:
        """Has the client see something ``delay`` seconds from now, or when it looks again."""

        def arrive() -> None:
            if self.now < self._stalled_until:
                self._inbox.append(act)
            else:
                act()

        self.at(self.now + delay, arrive)

    def _feed(self, event: core.Event) -> None:
        for action in self.scheduler.handle(event, self.now):
            match action:
                case core.RequestSegment(number, index):
                    self._request(number, index)
                case core.Finish() | core.GiveUp():
                    self.ended = action
                case core.Ban(number, _):
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
            self.workers[number].delay, lambda: self._feed(core.SegmentRefused(number, index, RefusalReason.SLEEPING))
        )

    def _serve(self, number: int) -> None:
        worker = self.workers[number]
        if worker.serving is None and worker.queue and not worker.frozen:
            worker.serving = worker.queue.popleft()
            time = self._rng.uniform(1 - worker.jitter, 1 + worker.jitter) / worker.rate
            self._finish_at(number, self.now + time)

    def _finish_at(self, number: int, time: float) -> None:
        worker = self.workers[number]
        worker.turn += 1
        worker.ends = time
        turn, index = worker.turn, worker.serving
        assert index is not None

        def finish() -> None:
            if worker.turn != turn:
                return
            worker.serving = None
            delay = worker.delay * self._rng.uniform(1, 1 + worker.jitter)
            worker.last_arrival = max(worker.last_arrival, self.now + delay)
            epoch, bad = worker.epoch, self._rng.random() < worker.corrupt
            self._deliver(worker.last_arrival - self.now, lambda: self._arrive(number, index, epoch, bad))
            self._serve(number)

        self.at(time, finish)

    def _arrive(self, number: int, index: int, epoch: int, bad: bool) -> None:
        if epoch != self.workers[number].epoch or self.scheduler.workers[number].ban:
            return  # The connection is closed.
        self.received += 1
        if not self.scheduler.is_missing(index):
            self.wasted += 1
            self._feed(core.SegmentLate(number, index))
        elif bad:
            self.wasted += 1
            self._feed(core.SegmentCorrupt(number, index))
        else:
            self._feed(core.SegmentWritten(number, index))


def ideal(segments: int, workers: list[Worker]) -> float:
    """Seconds that an ideal client needs: segments over the sum of the rates."""
    return segments / sum(worker.rate for worker in workers)
