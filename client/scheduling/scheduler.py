"""Who gets asked for which segment: the pure core of the client.

Takes events and ``now`` (seconds, monotonic), returns actions; knows no socket, clock or file, and
never holds a payload: a segment is a number. For each worker it keeps **X**, the segments that it
delivered and that verified, and **Y**, those asked of it that are not here yet; for the file, those
nobody has been asked for.

The rules:

- A worker has a window of outstanding requests, from its measured rate and round trip: enough to
  keep its connection busy, and little to be lost or waited for. Whoever has credit is asked next.
- A lost worker's Y goes back to the front of the queue at once. X is never asked for again.
- When nothing unasked is left, a worker with credit takes the outstanding segment with the latest
  predicted finish, if it would beat it. So nobody waits for a slow or frozen worker, and no worker
  is ever given up for being slow. The first verified copy wins.
- A corrupt segment goes elsewhere; a worker that sent three is set aside for good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Set
from functools import partial

from msd.client.scheduling.events import (
    Action,
    Ban,
    CatalogueVouched,
    ClientStalled,
    Event,
    Fault,
    Finish,
    GiveUp,
    RequestSegment,
    SegmentChecked,
    SegmentCorrupt,
    SegmentLate,
    SegmentRefused,
    SegmentState,
    SegmentWritten,
    Unban,
    WorkerLost,
    WorkerReady,
)
from msd.client.scheduling.segment_table import SegmentTable
from msd.client.scheduling.worker_pace import LEAST_WINDOW, MAX_WINDOW, WorkerPace
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.time_passed import TimePassed

#: Seconds by which a second request must beat the first to be worth the waste: more than what a busy machine
#: lets a process wait now and then.
HEDGE_GAIN = 0.05
#: A segment is asked of at most this many workers that are not under suspicion.
MAX_OWNERS = 2
#: How often predictions are looked at again while somebody has nothing to do, in seconds.
HEDGE_INTERVAL = 0.02
#: Seconds for which a worker that says "sleeping" or "busy" is left alone.
SLEEPING_PAUSE, BUSY_PAUSE = 0.5, 0.1
#: Corrupt segments after which a worker is set aside.
MAX_CORRUPT = 3
#: Faults of a worker whose files are other ones than those of the manifest.
OTHER_FILES = (Fault.CHANGED, Fault.UNKNOWN)


class Scheduler:
    """Schedules the ``segments`` of one file over ``workers`` (numbers from 1).

    ``window`` bounds what may be outstanding with one worker, for the sake of memory. ``unchecked``
    are segments that the disk may hold; they are not asked for before a
    ``SegmentChecked`` says so. All state is changed by ``handle`` alone.
    """

    def __init__(
        self, segments: int, workers: Iterable[int], *, window: int = MAX_WINDOW, unchecked: Iterable[int] = ()
    ) -> None:
        self.workers = {number: WorkerPace(number) for number in workers}
        self._window = window
        self._ledger = SegmentTable(segments, unchecked)
        #: What server 5 vouches for, and all that it has vouched for since the file was found.
        self._catalogue = b""
        self._vouched: set[bytes] = set()
        self._over = False

    # What others may ask.

    @property
    def remaining(self) -> int:
        """How many segments are not verified yet."""
        return self._ledger.remaining

    def is_missing(self, index: int) -> bool:
        """True if a segment is not verified yet."""
        return self._ledger.is_missing(index)

    def where(self, index: int) -> SegmentState:
        """Where a segment is."""
        return self._ledger.where(index)

    def x(self, worker: int) -> list[int]:
        """X: the segments that ``worker`` delivered. Takes time in proportion to the file."""
        return self._ledger.delivered_by(worker)

    def y(self, worker: int) -> list[int]:
        """Y: the segments asked of ``worker`` that are still missing, in the order asked."""
        return [index for index in self.workers[worker].asked if index in self._ledger.owners]

    # Events and actions.

    def handle(self, event: Event, now: float) -> list[Action]:
        if self._over:
            return []
        actions: list[Action] = [*self._react(event, now), *self._ask(event, now)]
        if not self._ledger.remaining:
            actions = [action for action in actions if not isinstance(action, RequestSegment)]
            actions.append(Finish())
            self._over = True
        # Who has sent a segment is not set aside for it.
        elif not isinstance(event, SegmentWritten) and self._is_hopeless():
            faults = {w.number: w.ban for w in self.workers.values() if w.ban}
            if (lacking := self._ledger.first_missing()) is not None:
                actions.append(GiveUp(faults, lacking))
                self._over = True
        return actions

    def next_deadline(self, now: float) -> float | None:
        """When ``TimePassed`` may have an effect; None if only another event can."""
        due = [w.paused_until for w in self.workers.values() if w.ready and w.paused_until > now]
        if self._ledger.owners and any(self._has_credit(w, now) for w in self.workers.values()):
            due.append(now + HEDGE_INTERVAL)
        return None if self._over else min(due, default=None)

    def check_invariants(self) -> None:
        self._ledger.check_invariants()
        asked: dict[int, set[int]] = {}
        for worker in self.workers.values():
            assert worker.ready or not worker.asked, worker
            assert not (worker.ready and worker.ban), worker
            assert worker.seen or not worker.ready, worker
            assert len(worker.asked) <= self._window, worker
            for index in worker.asked:
                if self._ledger.is_missing(index):
                    asked.setdefault(index, set()).add(worker.number)
        assert {index: set(owners) for index, owners in self._ledger.owners.items()} == asked

    def _is_hopeless(self) -> bool:
        """True if nobody can be expected to have what is missing."""
        workers = self.workers.values()
        if all(worker.ban for worker in workers):
            return bool(workers)
        if len(self._vouched) < 2:
            return False
        # The file may have changed. Those that cannot be asked will come back with what is shared now:
        # what all say that were there since then, if one of them is of the servers of server 5.
        seen = [worker for worker in workers if worker.seen]
        return all(worker.ban for worker in seen) and any(
            worker.ban in OTHER_FILES and worker.catalogue in self._vouched for worker in seen
        )

    # One handler for each event.

    def _react(self, event: Event, now: float) -> Iterator[Action]:
        match event:
            case WorkerReady():
                self._ready(event, now)
            case WorkerLost(number):
                worker = self.workers[number]
                self._forget_requests(worker)
                worker.ready = False
            case SegmentWritten(number, index):
                self._arrived(self.workers[number], index, now)
                self._ledger.written(index, number)
            case SegmentLate(number, index):
                self._arrived(self.workers[number], index, now)
            case SegmentCorrupt(number, index):
                yield from self._corrupt(self.workers[number], index, now)
            case SegmentRefused(number, index, reason):
                yield from self._refused(self.workers[number], index, reason, now)
            case SegmentChecked(index, good):
                self._ledger.checked(index, good=good)
            case CatalogueVouched(catalogue):
                yield from self._vouch(catalogue)
            case ClientStalled(seconds):
                for worker in self.workers.values():
                    worker.since += seconds
                    worker.span_start += seconds
            case TimePassed():
                pass

    def _ready(self, event: WorkerReady, now: float) -> None:
        worker = self.workers.setdefault(event.worker, WorkerPace(event.worker))
        # A new process may have a new catalogue; a liar stays one.
        if worker.ban is not Fault.CORRUPT and event.epoch != worker.epoch:
            worker.ban = None
        worker.epoch = event.epoch
        worker.catalogue = event.catalogue
        worker.round_trip = event.round_trip
        worker.ready = worker.ban is None
        worker.seen = worker.seen or worker.ready
        worker.paused_until = now

    def _vouch(self, catalogue: bytes) -> Iterator[Unban]:
        """What was said of another catalogue is forgotten: each one gives each worker one chance."""
        if not catalogue or catalogue == self._catalogue:
            return
        self._catalogue = catalogue
        self._vouched.add(catalogue)
        if len(self._vouched) < 2:
            return
        for worker in self.workers.values():
            worker.seen = worker.ready
            if worker.ban in OTHER_FILES:
                worker.ban = None
                yield Unban(worker.number)

    def _arrived(self, worker: WorkerPace, index: int, now: float) -> None:
        """A reply of whatever kind to a request for ``index`` is here."""
        worker.measure(now)
        worker.asked.pop(index, None)

    def _corrupt(self, worker: WorkerPace, index: int, now: float) -> Iterator[Action]:
        self._arrived(worker, index, now)
        worker.corrupt += 1
        self._ledger.corrupt(index, worker.number)
        if worker.corrupt >= MAX_CORRUPT and not worker.ban:
            yield self._ban(worker, Fault.CORRUPT)

    def _refused(self, worker: WorkerPace, index: int, reason: RefusalReason, now: float) -> Iterator[Action]:
        worker.asked.pop(index, None)
        worker.since = now
        self._ledger.disown(index, worker.number)
        match reason:
            case RefusalReason.SLEEPING:
                # All that was asked of it will be refused, or never answered.
                self._forget_requests(worker)
                worker.paused_until = now + SLEEPING_PAUSE
            case RefusalReason.BUSY:
                worker.paused_until = now + BUSY_PAUSE
            case _:
                # Of one that was set aside, and readmitted since, it is an old word.
                if worker.ready:
                    yield self._ban(worker, Fault(reason.value))

    def _ban(self, worker: WorkerPace, fault: Fault) -> Ban:
        self._forget_requests(worker)
        worker.ready = False
        worker.ban = fault
        return Ban(worker.number, fault)

    def _forget_requests(self, worker: WorkerPace) -> None:
        """Y goes back to the front of the queue, in its order."""
        asked, worker.asked = worker.asked, {}
        for index in reversed(asked):
            self._ledger.disown(index, worker.number)

    # Whom to ask for what.

    def _ask(self, event: Event, now: float) -> Iterator[Action]:
        """Gives work to whoever may have credit now; one segment each in turn, to be fair."""
        # What came from one worker gives credit to that one alone, and every other one already
        # has all it may have: so the work for an event does not grow with their number.
        able = [self.workers[event.worker]] if isinstance(event, SegmentWritten) else [*self.workers.values()]
        while able:
            able = [worker for worker in able if self._has_credit(worker, now)]
            for worker in [*able]:
                index = self._ledger.next_unasked(partial(self._may_try, worker))
                if index is None:
                    index = self._hedge(worker, now)
                if index is None:
                    able.remove(worker)
                    continue
                if not worker.asked:
                    worker.since = worker.span_start = now
                    worker.span_count = 0
                worker.asked[index] = None
                self._ledger.ask(index, worker.number)
                yield RequestSegment(worker.number, index)

    def _has_credit(self, worker: WorkerPace, now: float) -> bool:
        if not worker.ready or now < worker.paused_until:
            return False
        most = min(worker.window, self._window)
        if worker.rate is None:
            # An equal share, so that something is left for who comes later.
            most = min(most, max(LEAST_WINDOW, math.ceil(self._ledger.remaining / len(self.workers))))
        return len(worker.asked) < most

    def _may_try(self, worker: WorkerPace, liars: Set[int]) -> bool:
        """True unless ``worker`` sent the segment corrupt and somebody else has not tried yet."""
        others = {w.number for w in self.workers.values() if not w.ban}
        return worker.number not in liars or others <= liars

    def _hedge(self, worker: WorkerPace, now: float) -> int | None:
        """The outstanding segment with the latest predicted finish, if ``worker`` would beat it."""
        mine = self._next_finish(worker, now)
        finish: dict[int, float] = {}
        for other in self.workers.values():
            if other.asked:
                first, step = other.arrivals(now)
                for position, index in enumerate(other.asked):
                    if index in self._ledger.owners:
                        finish[index] = min(first + position * step, finish.get(index, math.inf))
        late = [(time, index) for index, time in finish.items() if time > mine + HEDGE_GAIN]
        return max(((t, i) for t, i in late if self._may_hedge(worker, i, now)), default=(0.0, None))[1]

    def _next_finish(self, worker: WorkerPace, now: float) -> float:
        """When ``worker`` would deliver one more segment; one not measured yet gets its chance."""
        if not worker.asked:
            return now + (1 / worker.rate if worker.rate else worker.round_trip)
        first, step = worker.arrivals(now)
        return first + len(worker.asked) * step

    def _may_hedge(self, worker: WorkerPace, index: int, now: float) -> bool:
        owners = self._ledger.owners[index]
        if worker.number in owners or worker.number in self._ledger.liars(index):
            return False
        trusted = sum(not self.workers[owner].is_suspect(now) for owner in owners)
        return trusted < MAX_OWNERS
