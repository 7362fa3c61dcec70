"""Decides which worker is asked for which unit: the pure core of the client.

Takes events and ``now`` (seconds, monotonic) and returns actions. Uses no sockets, clocks, files or payloads: a unit
is just a number. For each worker the scheduler tracks **X**, the verified units that the worker delivered, and
**Y**, the units that were requested from the worker and have not arrived. It also tracks the units that are not
requested from any worker.

The rules:

- Each worker has a window of outstanding requests, computed from its measured rate and round-trip time: large
  enough to keep its connection busy, and small enough that few units are delayed if the worker fails. A worker with
  credit gets the next request.
- The Y of a lost worker goes back to the front of the queue at once. X is never requested again.
- When no unrequested unit is left, a worker with credit is asked for the outstanding unit that is predicted
  to arrive last, if this worker is expected to deliver the unit sooner (a hedge). So a download never waits for a
  slow or frozen worker, and no worker is ever dropped for being slow. The first verified copy wins.
- A corrupt unit is requested from a different worker. A worker that has sent three corrupt units is banned from
  this download.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Set
from functools import partial

from msd.client.network_events import Ban, BanReason, ConnectionClosed, ConnectionOpened, SnapshotReceived, Unban
from msd.client.scheduling.rate_limit import RateLimit
from msd.client.scheduling.refusal_policy import REFUSAL_POLICIES, BanScope, RefusalPolicy
from msd.client.scheduling.scheduler_events import (
    Action,
    Event,
    Finish,
    GiveUp,
    OutputAdvanced,
    RequestUnit,
    Resumed,
    UnitChecked,
    UnitCorrupt,
    UnitDuplicate,
    UnitRefused,
    UnitState,
    UnitWritten,
)
from msd.client.scheduling.unit_table import UnitTable
from msd.client.scheduling.worker_pace import MAX_WINDOW, MIN_WINDOW, WorkerPace
from msd.wire.protocol.messages import Status
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Core, Stalled

#: Seconds by which a hedge must beat the first request to be worth the waste: larger than typical scheduling
#: delays on a busy machine.
MIN_HEDGE_GAIN_S = 0.05
#: A unit is requested from at most this many workers that are not stalled.
MAX_WORKERS_PER_UNIT = 2
#: Seconds between two evaluations of the predictions while a worker has credit but gets no request.
HEDGE_INTERVAL_S = 0.02
#: Number of corrupt units after which a worker is banned.
MAX_CORRUPT_UNITS = 3
#: A worker whose connection was opened while it served another catalogue than the published one may load that one in a
#: moment. For this many seconds it is not banned for an unknown file, but asked again after the pause.
CATALOGUE_LOAD_S, CATALOGUE_LOAD_PAUSE_S = 2.0, 0.5


class Scheduler(Core[Event, Action]):
    """Distributes the units of one file among the workers.

    ``units`` is the number of units, and ``workers`` are the numbers of the workers, from 1. ``window`` is the
    maximum number of outstanding requests per worker; it limits memory use. The disk may hold the units in
    ``unchecked``; none of them is requested before its ``UnitChecked`` event. Of an output that takes the units
    in order, only the ``max_ahead`` units after its position are requested; that limits memory use, too.
    ``catalogue`` is the digest of the catalogue that server 5 published when the manifest was found; if it is empty,
    the first snapshot sets it. ``max_rate`` limits the requests, in units per second; None means no limit. After
    ``Finish`` or ``GiveUp`` the scheduler returns no more actions; ``Resumed`` makes it continue after ``GiveUp``.
    """

    def __init__(
        self,
        units: int,
        workers: Iterable[int],
        *,
        catalogue: bytes = b"",
        window: int = MAX_WINDOW,
        max_ahead: int | None = None,
        unchecked: Iterable[int] = (),
        max_rate: float | None = None,
    ) -> None:
        super().__init__()
        self.workers = {number: WorkerPace(number) for number in workers}
        self._window = window
        self._unit_table = UnitTable(units, unchecked)
        self._rate_limit = RateLimit(max_rate) if max_rate is not None else None
        #: The catalogue that server 5 publishes now, and all that it has published since the manifest was found.
        self._catalogue = catalogue
        self._published = {catalogue} - {b""}
        self._max_ahead = units if max_ahead is None else max_ahead
        #: Only units below the limit are requested. Either one of them is missing, or all are verified and the
        #: output will advance.
        self._limit = self._max_ahead
        self._ended = False

    # Queries.

    @property
    def remaining(self) -> int:
        """The number of units that are not verified yet."""
        return self._unit_table.remaining

    def is_missing(self, index: int) -> bool:
        """True if the unit is not verified yet."""
        return self._unit_table.is_missing(index)

    def state_of(self, index: int) -> UnitState:
        return self._unit_table.state_of(index)

    def delivered_by(self, worker: int) -> list[int]:
        """X: the units that ``worker`` delivered. Takes time proportional to the total number of units."""
        return self._unit_table.delivered_by(worker)

    def outstanding(self, worker: int) -> list[int]:
        """Y: the units that were requested from ``worker`` and are still missing, in the order of the requests."""
        return [index for index in self.workers[worker].outstanding if index in self._unit_table.requested_from]

    def waits_for_rate_limit(self, now: float) -> bool:
        """True if the rate limit defers the next request to a worker that could get it."""
        if self._rate_limit is None or now >= self._rate_limit.next_at:
            return False
        return any(self._credit_at(worker) < math.inf for worker in self.workers.values())

    # Events and actions.

    def _decide(self, event: Event, now: float) -> list[Action]:
        if self._ended and not isinstance(event, Resumed):
            return []
        actions: list[Action] = [*self._handle_event(event, now), *self._request_units(event, now)]
        if not self._unit_table.remaining:
            actions = [action for action in actions if not isinstance(action, RequestUnit)]
            actions.append(Finish())
            self._ended = True
        # A successful write cannot make the download hopeless; skip the check.
        elif not isinstance(event, UnitWritten) and self._is_hopeless():
            bans = {w.number: w.ban_reason for w in self.workers.values() if w.ban_reason}
            if (missing := self._unit_table.first_missing()) is not None:
                actions.append(GiveUp(bans, missing))
                self._ended = True
        return actions

    def next_deadline(self, now: float) -> float | None:
        if self._ended:
            return None
        credit_times = [self._credit_at(worker) for worker in self.workers.values()]
        due = [time for time in credit_times if now < time < math.inf]
        if self._unit_table.requested_from and any(time <= now for time in credit_times):
            due.append(now + HEDGE_INTERVAL_S)
        return min(due, default=None)

    def _assert_invariants(self) -> None:
        self._unit_table.check_invariants()
        requested_from: dict[int, set[int]] = {}
        for worker in self.workers.values():
            assert worker.ready or not worker.outstanding, worker
            assert not (worker.ready and worker.ban_reason), worker
            assert worker.seen_since_change or not worker.ready, worker
            assert len(worker.outstanding) <= self._window, worker
            for index in worker.outstanding:
                if self._unit_table.is_missing(index):
                    requested_from.setdefault(index, set()).add(worker.number)
        assert all(index < self._limit for index in requested_from)
        assert {index: set(numbers) for index, numbers in self._unit_table.requested_from.items()} == requested_from

    def _is_hopeless(self) -> bool:
        """True if no worker can be expected to have the missing units."""
        workers = self.workers.values()
        if all(worker.ban_reason for worker in workers):
            return bool(workers)
        if len(self._published) < 2:
            return False
        # The file may have changed. Workers that are offline will return with the new catalogue, so judge only by
        # workers seen since the change, provided at least one belongs to this broker.
        seen = [worker for worker in workers if worker.seen_since_change]
        return all(worker.ban_reason for worker in seen) and any(
            worker.ban_scope is BanScope.CATALOGUE and worker.catalogue in self._published for worker in seen
        )

    # Event handlers.

    def _handle_event(self, event: Event, now: float) -> Iterator[Action]:
        match event:
            # First, because it is by far the most frequent event.
            case UnitWritten(number, index):
                self._count_reply(self.workers[number], index, now)
                self._unit_table.mark_written(index, number)
            case ConnectionOpened():
                self._on_connection_opened(event, now)
            case ConnectionClosed(number) if number in self.workers:
                worker = self.workers[number]
                self._drop_requests(worker)
                worker.ready = False
            case UnitDuplicate(number, index):
                self._count_reply(self.workers[number], index, now)
            case UnitCorrupt(number, index):
                yield from self._on_corrupt(self.workers[number], index, now)
            case UnitRefused(number, index, reason):
                yield from self._on_refused(self.workers[number], index, reason, now)
            case UnitChecked(index, valid):
                self._unit_table.mark_checked(index, valid=valid)
            case OutputAdvanced(position):
                self._limit = position + self._max_ahead
            case SnapshotReceived(status):
                yield from self._on_snapshot(status)
            case Resumed():
                self._ended = False
                for worker in self.workers.values():
                    if worker.ban_scope is BanScope.CATALOGUE:
                        yield self._unban(worker)
            case Stalled(seconds):
                for worker in self.workers.values():
                    worker.waiting_since += seconds
                    worker.span_start += seconds

    def _on_connection_opened(self, event: ConnectionOpened, now: float) -> None:
        worker = self.workers.setdefault(event.worker, WorkerPace(event.worker))
        worker.epoch = event.welcome.epoch
        worker.catalogue = event.welcome.catalogue
        worker.round_trip = event.round_trip
        worker.ready = worker.ban_reason is None
        worker.seen_since_change = worker.seen_since_change or worker.ready
        worker.paused_until = now
        is_behind = bool(self._catalogue and worker.catalogue) and worker.catalogue != self._catalogue
        worker.may_load_until = now + CATALOGUE_LOAD_S if is_behind else now

    def _on_snapshot(self, status: Status) -> Iterator[Unban]:
        """Lifts the bans that end with a worker's process, or with a change of the catalogue: both allow another try.

        Only a change counts: an endpoint may belong to the worker of another broker, whose epoch is never reported.
        """
        is_changed = status.catalogue not in (b"", self._catalogue)
        if is_changed:
            self._catalogue = status.catalogue
            is_changed = bool(self._published)
            self._published.add(status.catalogue)
        for reported in status.workers:
            if worker := self.workers.get(reported.number):
                is_new_process = reported.epoch not in (worker.epoch, worker.reported_epoch)
                worker.reported_epoch = reported.epoch
                if is_new_process and worker.ban_scope in (BanScope.PROCESS, BanScope.CATALOGUE):
                    yield self._unban(worker)
        if is_changed:
            for worker in self.workers.values():
                worker.seen_since_change = worker.ready
                if worker.ban_scope is BanScope.CATALOGUE:
                    yield self._unban(worker)

    def _count_reply(self, worker: WorkerPace, index: int, now: float) -> None:
        """Records that the worker replied to its request for ``index`` with data, valid or not."""
        worker.count_arrival(now)
        worker.outstanding.pop(index, None)

    def _on_corrupt(self, worker: WorkerPace, index: int, now: float) -> Iterator[Action]:
        self._count_reply(worker, index, now)
        worker.corrupt_count += 1
        self._unit_table.mark_corrupt(index, worker.number)
        if worker.corrupt_count >= MAX_CORRUPT_UNITS and not worker.ban_reason:
            yield self._ban(worker, BanReason.CORRUPT)

    def _on_refused(self, worker: WorkerPace, index: int, reason: RefusalReason, now: float) -> Iterator[Action]:
        if index in worker.outstanding:
            del worker.outstanding[index]
            if self._rate_limit is not None:
                self._rate_limit.refund(1)
        worker.waiting_since = now
        self._unit_table.drop_request(index, worker.number)
        policy = REFUSAL_POLICIES[reason]
        if reason is RefusalReason.UNKNOWN and now < worker.may_load_until:
            policy = RefusalPolicy(pause_s=CATALOGUE_LOAD_PAUSE_S)
        worker.paused_until = now + policy.pause_s
        if policy.returns_all:
            self._drop_requests(worker)
        # If the worker is not ready, this is a stale reply from before its ban was lifted.
        if policy.ban and worker.ready:
            yield self._ban(worker, policy.ban)

    def _ban(self, worker: WorkerPace, reason: BanReason) -> Ban:
        self._drop_requests(worker)
        worker.ready = False
        worker.ban_reason = reason
        return Ban(worker.number, reason)

    def _unban(self, worker: WorkerPace) -> Unban:
        worker.ban_reason = None
        return Unban(worker.number)

    def _drop_requests(self, worker: WorkerPace) -> None:
        """Puts the worker's Y back at the front of the queue, in the same order."""
        outstanding, worker.outstanding = worker.outstanding, {}
        if self._rate_limit is not None:
            self._rate_limit.refund(len(outstanding))
        for index in reversed(outstanding):
            self._unit_table.drop_request(index, worker.number)

    # Choosing workers and units.

    def _request_units(self, event: Event, now: float) -> Iterator[Action]:
        """Requests units from all workers with credit: one from each in turn, to be fair."""
        # A written unit gives credit only to the worker that sent it; the others already have as many requests as
        # they may have. So the time to handle a unit does not grow with the number of workers.
        if isinstance(event, UnitWritten) and self._rate_limit is None:
            workers = [self.workers[event.worker]]
        else:
            workers = [*self.workers.values()]
        if isinstance(event, OutputAdvanced) or self._rate_limit is not None:
            # There is rarely more than one request at a time: let the workers take turns.
            workers.sort(key=lambda worker: (len(worker.outstanding), worker.waiting_since))
        while workers:
            for worker in [*workers]:
                index = self._choose_unit(worker, now) if self._credit_at(worker) <= now else None
                if index is None:
                    workers.remove(worker)
                    continue
                if not worker.outstanding:
                    worker.waiting_since = worker.span_start = now
                    worker.span_count = 0
                worker.outstanding[index] = None
                self._unit_table.add_request(index, worker.number)
                if self._rate_limit is not None:
                    self._rate_limit.count_request(now)
                yield RequestUnit(worker.number, index)

    def _choose_unit(self, worker: WorkerPace, now: float) -> int | None:
        index = self._unit_table.take_unrequested(partial(self._may_request, worker), self._limit)
        return index if index is not None else self._choose_hedge(worker, now)

    def _credit_at(self, worker: WorkerPace) -> float:
        """Returns the time from which the worker may get another request; infinity if that depends on an event."""
        if not worker.ready:
            return math.inf
        limit = min(worker.window, self._window)
        if worker.rate is None:
            # Until the rate is measured, cap at an equal share, so that workers that connect later still get work.
            limit = min(limit, max(MIN_WINDOW, math.ceil(self._unit_table.remaining / len(self.workers))))
        time = worker.paused_until
        if self._rate_limit is not None:
            # What is outstanding may arrive at once, for example after a stall: at most one second of the maximum rate.
            ready = sum(other.ready for other in self.workers.values())
            limit = min(limit, math.ceil(self._rate_limit.rate / ready))
            time = max(time, self._rate_limit.next_at)
        return time if len(worker.outstanding) < limit else math.inf

    def _may_request(self, worker: WorkerPace, senders: Set[int]) -> bool:
        """False if ``worker`` is among the ``senders`` of corrupt copies and some other usable worker is not."""
        usable = {w.number for w in self.workers.values() if not w.ban_reason}
        return worker.number not in senders or usable <= senders

    def _choose_hedge(self, worker: WorkerPace, now: float) -> int | None:
        """Returns the outstanding unit predicted to arrive last, None if there is none.

        Considers only units that ``worker`` is expected to deliver sooner.
        """
        own_finish = self._predict_next_finish(worker, now)
        finishes: dict[int, float] = {}
        for other in self.workers.values():
            if other.outstanding:
                first, step = other.predict_arrivals(now)
                for position, index in enumerate(other.outstanding):
                    if index in self._unit_table.requested_from:
                        finishes[index] = min(first + position * step, finishes.get(index, math.inf))
        late = [(time, index) for index, time in finishes.items() if time > own_finish + MIN_HEDGE_GAIN_S]
        return max(((t, i) for t, i in late if self._may_hedge(worker, i, now)), default=(0.0, None))[1]

    def _predict_next_finish(self, worker: WorkerPace, now: float) -> float:
        """Predicts when ``worker`` would deliver one more unit.

        An idle worker is assumed to take one round trip if its rate is unknown.
        """
        if not worker.outstanding:
            return now + (1 / worker.rate if worker.rate else worker.round_trip)
        first, step = worker.predict_arrivals(now)
        return first + len(worker.outstanding) * step

    def _may_hedge(self, worker: WorkerPace, index: int, now: float) -> bool:
        numbers = self._unit_table.requested_from[index]
        if worker.number in numbers or worker.number in self._unit_table.corrupt_senders(index):
            return False
        moving = sum(not self.workers[number].is_stalled(now) for number in numbers)
        return moving < MAX_WORKERS_PER_UNIT
