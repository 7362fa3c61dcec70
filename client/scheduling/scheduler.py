"""Decides which worker is asked for which part of which unit: the pure core of the client.

Takes events and ``now`` (seconds, monotonic) and returns actions. Uses no sockets, clocks, files or payloads: a unit is
just a number and a size. For each worker the scheduler tracks **X**, the verified units that the worker completed, and
**Y**, what was requested from the worker and has not arrived. It also tracks what is not requested from any worker.

The rules:

- A worker is asked for whole units if it delivers one in about a second, otherwise for smaller parts. Unrequested parts
  of the oldest unit are requested first, so that slow workers complete the same unit.
- Each worker has a window of outstanding bytes, computed from its measured rate and round-trip time: large enough to
  keep its connection busy, and small enough that little is delayed if the worker fails. A worker with credit gets the
  next request.
- The Y of a lost worker is requested again at once. What has arrived is never requested again.
- When nothing is unrequested, a worker with credit is asked for the outstanding part that is predicted to arrive last,
  if this worker is expected to deliver it sooner (a hedge). So a download never waits for a slow or frozen worker, and
  no worker is ever dropped for being slow. The first copy wins.
- A worker may hold some of the units only, for example a receiver that passes on what it has. Where there are such
  holders, units are requested in random runs, so that the receivers get different units and can pass them on.
  Otherwise they are requested in order.
- A corrupt unit is requested from a different worker. A worker that has sent three corrupt units is banned from this
  download. If a corrupt unit arrived in parts from several workers, none of them is blamed: the unit is requested as a
  whole.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence, Set

from msgspec import Struct

from msd.client.network_events import Ban, BanReason, ConnectionClosed, ConnectionOpened, SnapshotReceived, Unban
from msd.client.scheduling.ranges import add_range, end_of_range, is_in_ranges, numbers_in_ranges, remove_range
from msd.client.scheduling.rate_limit import RateLimit
from msd.client.scheduling.refusal_policy import BAN_SCOPES, GROUP_BANS, REFUSAL_POLICIES, BanScope
from msd.client.scheduling.scheduler_events import (
    Action,
    CheckUnit,
    Event,
    GroupBan,
    GroupLost,
    GroupRemoved,
    GroupUnban,
    LimitMoved,
    PartReceived,
    PartsChecked,
    RequestHolds,
    RequestUnit,
    Resumed,
    UnitChecked,
    UnitCorrupt,
    UnitDuplicate,
    UnitRefused,
    UnitsAdded,
    UnitsFollow,
    UnitsHeld,
    UnitState,
    UnitWritten,
    WorkerRemoved,
)
from msd.client.scheduling.unit_table import StartedUnit, UnitTable
from msd.client.scheduling.worker_pace import MAX_REQUESTS, MIN_PART, UNIT_S, WorkerPace
from msd.wire.protocol.messages import PASSES_ON, READS_STORE, Status
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Core, Stalled, TimePassed

#: Seconds by which a hedge must beat the first request to be worth the waste: larger than typical scheduling
#: delays on a busy machine.
MIN_HEDGE_GAIN_S = 0.05
#: The same where there are holders: many senders of changing rates are hard to predict.
MIN_HOLDER_GAIN_S = 1.0
#: The same for a worker that reads from a store: its reads take different times, and what a store sends costs money.
MIN_STORE_GAIN_S = 0.25
#: A part is requested from at most this many workers that are not stalled.
MAX_WORKERS_PER_PART = 2
#: Seconds between two evaluations of the predictions while a worker has credit but gets no request.
HEDGE_INTERVAL_S = 0.02
#: Number of corrupt units after which a worker is banned.
MAX_CORRUPT_UNITS = 3
#: These events give credit only to the worker that sent the data; the others already have as many requests as they may
#: have. So the time to handle a unit does not grow with the number of workers.
CREDITS_ONE_WORKER = (UnitWritten, PartReceived, UnitsHeld)
CREDITS_ONE_OF_MANY = (*CREDITS_ONE_WORKER, UnitRefused)
#: The events that change what the windows of all workers depend on, if the rate is not limited.
CHANGES_LIMITS = (UnitsAdded, ConnectionOpened, WorkerRemoved)
#: Frequent events that cannot leave a group without a worker.
LOSES_NO_GROUP = (UnitDuplicate, UnitsHeld, TimePassed)
#: Seconds between two rounds in which holders are asked for what they have, and the same for each unit: so the answers,
#: which have a bit for each unit, take at most 6 KB a second from each.
HOLDS_INTERVAL_S, HOLDS_INTERVAL_PER_UNIT_S = 0.2, 2e-5
#: The number of units that follow one another and are requested from one worker where there are holders.
RUN_UNITS = 4
#: Where there are holders, the pause after a refusal as busy is doubled at most this many times, until data arrives.
MAX_BUSY_DOUBLED = 2
#: A holder that has sent nothing for this many seconds is not counted on.
HOLDER_SILENCE_S = 1.0
#: What holders have is left to them while they deliver at least this share of what the other workers deliver.
HOLDERS_SHARE = 0.5
#: While units are unrequested, only what stalled workers have is hedged. It is looked for at this interval, in seconds.
STALLS_INTERVAL_S = 0.25
#: A holder that has sent nothing for this many seconds should be exchanged for another one.
USELESS_AFTER_S = 0.25
#: A worker whose connection was opened while it served another catalogue than the one in which a group was found may
#: load that one in a moment. For this many seconds, from then or since the group was added, it is not banned for an
#: unknown file, but asked again after the pause.
CATALOGUE_LOAD_S, CATALOGUE_LOAD_PAUSE_S = 2.0, 0.5
#: The scopes of bans that end with a worker's process.
PROCESS_SCOPES = frozenset({BanScope.PROCESS, BanScope.CATALOGUE})


class Group(Struct):
    """Units that follow one another and fail together: from ``first`` to before ``end``."""

    first: int
    end: int
    catalogue: bytes
    added_at: float
    #: The number of changes of the catalogue before the group was found.
    changes: int


class Scheduler(Core[Event, Action]):
    """Distributes units among the workers.

    ``workers`` are the numbers of the workers, from 1. ``memory`` limits the bytes that are outstanding at all workers
    together; one request to each is always allowed. ``max_rate`` limits the requests, in bytes per second; None means
    no limit. ``choose`` returns a random number from 0 to below its argument. When ``remaining`` is 0, every unit so
    far is verified, and the output has it.
    """

    def __init__(
        self,
        workers: Iterable[int],
        *,
        memory: int,
        max_rate: float | None = None,
        choose: Callable[[int], int] = lambda count: 0,
    ) -> None:
        super().__init__()
        self.workers = {number: WorkerPace(number) for number in workers}
        self._memory = memory
        self._units = UnitTable()
        self._rate_limit = RateLimit(max_rate) if max_rate is not None else None
        self._choose = choose
        #: The number of units of the plan that is passed on; 0 if other receivers get no units from this one. If they
        #: do, units are requested in random order.
        self.plan_units = 0
        #: While an event is handled: the bits of the units that the holders have; None until that is needed.
        self._held_by_holders: int | None = None
        #: The ready workers that hold some of the units only, and when they are asked next for what they have.
        self._holders: dict[int, WorkerPace] = {}
        self._holds_round_at = 0.0
        #: While requests are chosen: when each outstanding request is expected to be answered, and whether any worker
        #: is stalled. None until that is needed.
        self._arrivals: dict[RequestUnit, float] | None = None
        self._has_stalled: bool | None = None
        #: The size in bytes of the largest unit.
        self._largest = 0
        self._groups: list[Group] = []
        #: The first unit of each group.
        self._first_units: list[int] = []
        #: Pairs of a worker and a group of which the worker is asked for no units before a time, in the order of the
        #: times.
        self._pauses: dict[tuple[int, int], float] = {}
        #: The groups of which no units are requested, because no worker can be expected to have them, and their units
        #: as ranges.
        self._lost: set[int] = set()
        self._lost_units: list[int] = []
        #: The catalogue that server 5 publishes now, all that it has published, and the number of changes.
        self._catalogue = b""
        self._published: set[bytes] = set()
        self._changes = 0
        #: Only units below the limit are requested. Either one of them is missing, or all are verified and the limit
        #: will move.
        self._limit = math.inf
        #: True while the caller adds further groups.
        self._units_follow = False
        #: The caller has read all replies that had arrived by this time; later ones may wait to be read. A reply is not
        #: late for the time that the caller itself was busy.
        self.read_until = math.inf

    # Queries.

    @property
    def remaining(self) -> int:
        """The number of units that are not verified yet."""
        return self._units.remaining

    def missing_bytes(self, unit: int, start: int, length: int) -> int:
        """Returns how many of the ``length`` bytes of the unit from ``start`` on are neither verified nor received."""
        return self._units.missing_bytes(unit, start, length)

    def state_of(self, unit: int) -> UnitState:
        return self._units.state_of(unit)

    def delivered_by(self, worker: int) -> list[int]:
        """X: the units that ``worker`` completed. Takes time proportional to the total number of units."""
        return self._units.delivered_by(worker)

    def outstanding(self, worker: int) -> list[int]:
        """Y: the missing units of which a part is outstanding at ``worker``, in the order of the requests."""
        requests = self.workers[worker].outstanding.values()
        return [*dict.fromkeys(request.unit for request in requests if request.unit in self._units.started)]

    def outstanding_bytes(self, worker: int) -> int:
        """Returns how many bytes were requested from ``worker`` and have arrived from no worker."""
        requests = self.workers[worker].outstanding.values()
        return sum(self._units.missing_bytes(request.unit, request.start, request.length) for request in requests)

    def waits_for_rate_limit(self, now: float) -> bool:
        """True if the rate limit defers the next request to a worker that could get it."""
        if self._rate_limit is None or now >= self._rate_limit.next_at:
            return False
        return any(self._credit_at(worker) < math.inf for worker in self.workers.values())

    def useless_holders(self, now: float) -> list[int]:
        """Returns the holders that send nothing at present, although they were not just connected: the ones that have
        sent nothing for the longest time first.
        """
        idle = [
            holder
            for holder in self._holders.values()
            if now - holder.delivered_at > USELESS_AFTER_S and (not holder.outstanding or holder.is_stalled(now))
        ]
        return [holder.number for holder in sorted(idle, key=lambda holder: holder.delivered_at)]

    # Events and actions.

    def _decide(self, event: Event, now: float) -> list[Action]:
        # First, because it is by far the most frequent event. It cannot leave a group without a worker.
        if type(event) is UnitWritten:
            self._count_reply(self.workers[event.worker], event.unit, 0, now)
            self._units.mark_written(event.worker, event.unit)
            return self._request_units(event, now)
        actions: list[Action] = [*self._handle_event(event, now), *self._request_units(event, now)]
        # Not ``isinstance``, which takes much longer to return False.
        if type(event) is PartReceived:
            # After the requests, which should not wait until the unit is hashed.
            started = self._units.started.get(event.unit)
            if started is not None and started.is_received:
                actions.append(CheckUnit(event.worker, event.unit, frozenset(started.senders)))
        elif type(event) not in LOSES_NO_GROUP:
            actions += self._find_lost_groups(event, actions)
        return actions

    def next_deadline(self, now: float) -> float | None:
        credit_times = [self._credit_at(worker, worker.units_at_once) for worker in self.workers.values()]
        due = [time for time in credit_times if now < time < math.inf]
        if any(time <= now for time in credit_times) and (
            (self._holders and self._units.remaining) or any(worker.outstanding for worker in self.workers.values())
        ):
            is_racing = not self._holders or self._units.first_unrequested(0, self._limit) is None
            due.append(now + (HEDGE_INTERVAL_S if is_racing else STALLS_INTERVAL_S))
        if self._holders and self._units.remaining:
            due.append(self._holds_round_at)
        if self._pauses:
            due.append(next(iter(self._pauses.values())))
        return min(due, default=None)

    def _assert_invariants(self) -> None:
        self._units.check_invariants()
        outstanding = set()
        for worker in self.workers.values():
            requests = worker.outstanding.values()
            assert worker.ready or not requests, worker
            assert not (worker.ready and worker.ban_reason), worker
            assert worker.seen_since_change or not worker.ready, worker
            assert worker.outstanding_bytes == sum(request.length for request in requests), worker
            assert len(requests) <= MAX_REQUESTS, worker
            assert len(requests) < 2 or worker.outstanding_bytes <= self._memory / len(self.workers) + self._largest, (
                worker
            )
            outstanding |= {request for request in requests if request.unit in self._units.started}
            banned = {unit for group in worker.group_bans for unit in self._units_of(group)}
            paused = {
                unit for number, group in self._pauses if number == worker.number for unit in self._units_of(group)
            }
            assert banned | paused == numbers_in_ranges(worker.excluded), worker
            assert banned.isdisjoint(request.unit for request in requests), worker
        lost = {unit for group in self._lost for unit in self._units_of(group)}
        assert lost == numbers_in_ranges(self._lost_units)
        # What was requested from holders before may still arrive.
        assert lost.isdisjoint(request.unit for request in outstanding if self.workers[request.worker].held is None)
        assert [*self._pauses.values()] == sorted(self._pauses.values())
        for number, group in enumerate(self._groups):
            is_missing = self._units.first_missing(group.first, group.end) is not None
            assert number in self._lost or not (is_missing and self._is_hopeless(number)), number
        assert all(unit < self._limit for unit in self._units.started)
        assert outstanding == {request for started in self._units.started.values() for request in started.requests}

    def _find_lost_groups(self, event: Event, actions: Sequence[Action]) -> Iterator[GroupLost]:
        """Finds the groups whose missing units no worker can be expected to have, after an event and its actions."""
        for number in sorted(self._doubtful_groups(event, actions) - self._lost):
            group = self._groups[number]
            if self._is_hopeless(number) and (unit := self._units.first_missing(group.first, group.end)) is not None:
                self._lost.add(number)
                add_range(self._lost_units, group.first, group.end)
                workers = self._complete_workers()
                bans = {w.number: reason for w in workers if (reason := self._ban_reason(w, number)) is not None}
                yield GroupLost(number, bans, unit)

    def _doubtful_groups(self, event: Event, actions: Sequence[Action]) -> set[int]:
        """Returns the groups that may have become hopeless. Of thousands of groups these are few after most events."""
        match event:
            case UnitChecked(unit, valid=False):
                return {self._group_of(unit)}
            case UnitsAdded():
                return {len(self._groups) - 1}
            case Resumed(number):
                return {number}
            case ConnectionOpened():
                pass  # The worker may now be known as one of this broker.
            case _ if not any(isinstance(action, Ban) for action in actions):
                return {action.group for action in actions if isinstance(action, GroupBan)}
        bans = [w.group_bans for w in self._complete_workers() if w.seen_since_change and not w.ban_reason]
        return set(bans[0]).intersection(*bans[1:]) if bans else {*range(len(self._groups))}

    def _is_hopeless(self, number: int) -> bool:
        """True if no worker can be expected to have the missing units of the group. Holders of some units do not count:
        there may be a unit that none of them has.
        """
        workers = self._complete_workers()
        if all(self._ban_reason(worker, number) for worker in workers):
            return bool(workers)
        group = self._groups[number]
        if self._changes <= group.changes:
            return False
        # The file may have changed. Workers that are offline will return with the new catalogue, so judge only by
        # workers seen since the change, provided at least one belongs to this broker.
        published = {*self._published, group.catalogue} - {b""}
        seen = [worker for worker in workers if worker.seen_since_change]
        return all(self._ban_reason(worker, number) for worker in seen) and any(
            number in worker.group_bans
            and BAN_SCOPES[worker.group_bans[number]] is BanScope.CATALOGUE
            and worker.catalogue in published
            for worker in seen
        )

    def _ban_reason(self, worker: WorkerPace, group: int) -> BanReason | None:
        """Returns why the worker is not asked for the units of the group, None if it is."""
        return worker.ban_reason or worker.group_bans.get(group)

    def _complete_workers(self) -> list[WorkerPace]:
        """The workers that are not known to hold some of the units only."""
        return [worker for worker in self.workers.values() if worker.held is None]

    def _units_of(self, group: int) -> range:
        return range(self._groups[group].first, self._groups[group].end)

    def _group_of(self, unit: int) -> int:
        return bisect_right(self._first_units, unit) - 1

    # Event handlers.

    def _handle_event(self, event: Event, now: float) -> Iterator[Action]:
        match event:
            case PartReceived(number, unit, start, length):
                self._count_reply(self.workers[number], unit, start, now)
                self._units.mark_received(number, unit, start, length)
            case PartsChecked(number, unit, valid):
                yield from self._on_parts_checked(self.workers[number], unit, valid=valid)
            case ConnectionOpened():
                yield from self._on_connection_opened(event, now)
            case ConnectionClosed(number) if number in self.workers:
                worker = self.workers[number]
                self._drop_requests(worker)
                worker.ready = False
                self._holders.pop(number, None)
            case WorkerRemoved(number) if number in self.workers:
                self._drop_requests(self.workers.pop(number))
                self._holders.pop(number, None)
                for pause in [pause for pause in self._pauses if pause[0] == number]:
                    del self._pauses[pause]
            case UnitsHeld(number, units):
                worker = self.workers[number]
                worker.held, worker.awaits_holds, worker.useless_at = units, False, -1
            case UnitDuplicate(number, unit, start):
                self._count_reply(self.workers[number], unit, start, now)
                self._units.drop_request(number, unit, start)
            case UnitCorrupt(number, unit):
                self._count_reply(self.workers[number], unit, 0, now)
                self._units.mark_corrupt(number, unit)
                yield from self._count_corrupt(self.workers[number])
            case UnitRefused():
                yield from self._on_refused(self.workers[event.worker], event, now)
            case UnitChecked(unit, valid):
                self._units.mark_checked(unit, valid=valid)
            case UnitsAdded():
                self._on_units_added(event, now)
            case GroupRemoved(number):
                group = self._groups[number]
                for worker in self.workers.values():
                    self._drop_requests(worker, group.first, group.end)
                    if worker.group_bans.pop(number, None):
                        self._update_excluded(worker, number)
                self._units.remove(group.first, group.end)
            case LimitMoved(limit):
                self._limit = limit
            case UnitsFollow(follow):
                self._units_follow = follow
            case SnapshotReceived(status):
                yield from self._on_snapshot(status)
            case Resumed(number):
                if number in self._lost:
                    self._lost.remove(number)
                    remove_range(self._lost_units, self._groups[number].first, self._groups[number].end)
                for worker in self.workers.values():
                    yield from self._unban_groups(worker, {BanScope.CATALOGUE}, {number})
            case Stalled(seconds):
                for worker in self.workers.values():
                    worker.waiting_since += seconds
                    worker.span_start += seconds

    def _on_units_added(self, event: UnitsAdded, now: float) -> None:
        first = len(self._units.sizes)
        self._units.add(event.sizes)
        self._units.mark_unchecked(event.unchecked)
        self._largest = max(self._largest, *event.sizes, 0)
        if event.catalogue and not self._catalogue:
            self._catalogue = event.catalogue
            self._published.add(event.catalogue)
        is_outdated = event.catalogue not in (b"", self._catalogue)
        self._groups.append(Group(first, len(self._units.sizes), event.catalogue, now, self._changes - is_outdated))
        self._first_units.append(first)

    def _on_connection_opened(self, event: ConnectionOpened, now: float) -> Iterator[GroupUnban]:
        worker = self.workers.setdefault(event.worker, WorkerPace(event.worker))
        if event.welcome.epoch != worker.epoch:
            yield from self._unban_groups(worker, PROCESS_SCOPES)
        worker.epoch = event.welcome.epoch
        worker.catalogue = event.welcome.catalogue
        worker.round_trip = event.round_trip
        worker.reads_store = READS_STORE in event.welcome.features
        worker.ready = worker.ban_reason is None
        worker.seen_since_change = worker.seen_since_change or worker.ready
        worker.paused_until = worker.opened_at = worker.delivered_at = now
        if PASSES_ON in event.welcome.features:
            worker.held, worker.awaits_holds, worker.run_left = 0, False, 0
            if worker.ready:
                self._holders[worker.number] = worker
                self._holds_round_at = now
        for pause in [pause for pause in self._pauses if pause[0] == worker.number]:
            self._end_pause(*pause)

    def _on_snapshot(self, status: Status) -> Iterator[Unban | GroupUnban]:
        """Lifts the bans that end with a worker's process, or with a change of the catalogue, of server 5 or of the
        worker: each allows another try.

        Only a change counts: an endpoint may belong to the worker of another broker, whose epoch is never reported.
        """
        is_changed = status.catalogue not in (b"", self._catalogue)
        if is_changed:
            is_changed = bool(self._catalogue)
            self._changes += is_changed
            self._catalogue = status.catalogue
            self._published.add(status.catalogue)
        for reported in status.workers:
            if worker := self.workers.get(reported.number):
                is_new_process = reported.epoch not in (worker.epoch, worker.reported_epoch)
                worker.reported_epoch = reported.epoch
                if is_new_process:
                    yield from self._unban_groups(worker, PROCESS_SCOPES)
                    if worker.ban_scope is BanScope.PROCESS:
                        yield self._unban(worker)
                before = worker.reported_catalogue or worker.catalogue
                worker.reported_catalogue = reported.catalogue
                if before and reported.catalogue not in (b"", before):
                    yield from self._unban_groups(worker, {BanScope.CATALOGUE})
        if is_changed:
            for worker in self.workers.values():
                worker.seen_since_change = worker.ready
                yield from self._unban_groups(worker, {BanScope.CATALOGUE})

    def _count_reply(self, worker: WorkerPace, unit: int, start: int, now: float) -> None:
        """Records that the worker replied to a request with data, valid or not."""
        if worker.count_reply(unit, start, now):
            self._update_limits([worker])

    def _on_parts_checked(self, worker: WorkerPace, unit: int, *, valid: bool) -> Iterator[Action]:
        if valid:
            self._units.mark_written(worker.number, unit)
        else:
            sender = self._units.mark_parts_corrupt(unit)
            if sender is not None:
                yield from self._count_corrupt(self.workers[sender])

    def _count_corrupt(self, worker: WorkerPace) -> Iterator[Action]:
        worker.corrupt_count += 1
        if worker.corrupt_count >= MAX_CORRUPT_UNITS and not worker.ban_reason:
            yield self._ban(worker, BanReason.CORRUPT)

    def _on_refused(self, worker: WorkerPace, event: UnitRefused, now: float) -> Iterator[Action]:
        length = worker.end_request(event.unit, event.start)
        if self._rate_limit is not None:
            self._rate_limit.refund(length)
        worker.waiting_since = now
        self._units.drop_request(worker.number, event.unit, event.start)
        if not length:
            return  # A stale reply, from before a ban of the worker was lifted.
        if event.reason is RefusalReason.MISSING and worker.held is not None:
            worker.held &= ~(1 << event.unit)
            return
        policy = REFUSAL_POLICIES[event.reason]
        group = self._group_of(event.unit)
        if policy.returns_all:
            self._drop_requests(worker)
        if policy.pause_s:
            doubled = min(worker.busy_count, MAX_BUSY_DOUBLED) if self._holders else 0
            worker.busy_count = worker.busy_count + 1 if event.reason is RefusalReason.BUSY else 0
            worker.paused_until = now + policy.pause_s * 2**doubled
        if event.reason is RefusalReason.UNKNOWN and self._may_load(worker, self._groups[group], now):
            self._pauses.pop((worker.number, group), None)
            self._pauses[worker.number, group] = now + CATALOGUE_LOAD_PAUSE_S
            self._update_excluded(worker, group)
        elif policy.ban in GROUP_BANS:
            yield from self._ban_group(worker, group, policy.ban)
        elif policy.ban:
            yield self._ban(worker, policy.ban)

    def _may_load(self, worker: WorkerPace, group: Group, now: float) -> bool:
        """True if the worker may have the group in a moment: when its connection was opened, it served neither the
        catalogue of the group nor the one that is published now, and it has delivered nothing of the group.
        """
        return (
            now < max(worker.opened_at, group.added_at) + CATALOGUE_LOAD_S
            and group.catalogue != b""
            and worker.catalogue not in (b"", group.catalogue, self._catalogue)
            and not self._units.has_delivered(worker.number, group.first, group.end)
        )

    def _ban(self, worker: WorkerPace, reason: BanReason) -> Ban:
        self._drop_requests(worker)
        worker.ready = False
        worker.ban_reason = reason
        self._holders.pop(worker.number, None)
        return Ban(worker.number, reason)

    def _unban(self, worker: WorkerPace) -> Unban:
        worker.ban_reason = None
        return Unban(worker.number)

    def _ban_group(self, worker: WorkerPace, group: int, reason: BanReason) -> Iterator[GroupBan]:
        if group not in worker.group_bans:
            self._drop_requests(worker, self._groups[group].first, self._groups[group].end)
            worker.group_bans[group] = reason
            self._update_excluded(worker, group)
            yield GroupBan(worker.number, group, reason)

    def _unban_groups(
        self, worker: WorkerPace, scopes: Set[BanScope], groups: Set[int] | None = None
    ) -> Iterator[GroupUnban]:
        """Lifts the worker's bans with these scopes, from all groups or from ``groups``."""
        for group, reason in [*worker.group_bans.items()]:
            if BAN_SCOPES[reason] in scopes and (groups is None or group in groups):
                del worker.group_bans[group]
                self._update_excluded(worker, group)
                yield GroupUnban(worker.number, group)

    def _end_pause(self, number: int, group: int) -> None:
        del self._pauses[number, group]
        self._update_excluded(self.workers[number], group)

    def _update_excluded(self, worker: WorkerPace, group: int) -> None:
        """Updates the units that the worker is not asked for, after a ban or a pause has begun or ended."""
        is_excluded = group in worker.group_bans or (worker.number, group) in self._pauses
        change = add_range if is_excluded else remove_range
        change(worker.excluded, self._groups[group].first, self._groups[group].end)

    def _drop_requests(self, worker: WorkerPace, first: int = 0, end: float = math.inf) -> None:
        """Makes what was requested from the worker of the units from ``first`` to before ``end`` unrequested, as far as
        no other worker was asked for it.
        """
        for request in worker.drop_requests(first, end):
            self._units.drop_request(worker.number, request.unit, request.start)
            if self._rate_limit is not None:
                self._rate_limit.refund(request.length)

    # Choosing workers and parts.

    def _request_units(self, event: Event, now: float) -> list[Action]:
        """Requests parts from all workers with credit: one, or one run of units, from each in turn, to be fair."""
        has_paused = False
        while self._pauses and self._pauses[pause := next(iter(self._pauses))] <= now:
            self._end_pause(*pause)
            has_paused = True
        # Among many holders refusals are frequent, and some worker soon has credit for the unit.
        credits_one = CREDITS_ONE_WORKER if not self._holders else CREDITS_ONE_OF_MANY
        if isinstance(event, credits_one) and self._rate_limit is None and not has_paused:
            workers = [self.workers[event.worker]]
        else:
            workers = [*self.workers.values()]
            if self._rate_limit is not None or type(event) in CHANGES_LIMITS:
                self._update_limits(workers)
            if has_paused or type(event) is not TimePassed:
                for holder in self._holders.values():
                    holder.useless_at = -1
        if type(event) in (LimitMoved, UnitsAdded) or self._rate_limit is not None:
            # There is rarely more than one request at a time: let the workers take turns. If one worker had several of
            # the units that are added one by one, the idle workers would hedge them.
            workers.sort(key=lambda worker: (len(worker.outstanding), worker.waiting_since))
        requests: list[Action] = []
        self._arrivals = self._has_stalled = self._held_by_holders = None
        while workers:
            for worker in [*workers]:
                has_credit = self._credit_at(worker, worker.units_at_once) <= now
                request = self._choose_request(worker, event, now) if has_credit else None
                if request is None:
                    workers.remove(worker)
                    continue
                requests.append(self._add_request(request, now))
                for _ in range(1, worker.units_at_once):
                    request = self._choose_unrequested(worker, now) if self._credit_at(worker) <= now else None
                    if request is None:
                        break
                    requests.append(self._add_request(request, now))
        if self._holders and self._units.remaining and now >= self._holds_round_at:
            # The plan may have many more units than are added yet.
            units = max(self.plan_units, len(self._units.sizes))
            self._holds_round_at = now + max(HOLDS_INTERVAL_S, HOLDS_INTERVAL_PER_UNIT_S * units)
            requests += self._request_holds()
        return requests

    def _held_bits(self, now: float) -> int:
        """Returns the bits of the units that are left to the holders: all that they have while they deliver enough,
        otherwise none. So the others send what no holder has yet.
        """
        if self._held_by_holders is None:
            holders = [h for h in self._holders.values() if h.ready and now - h.delivered_at <= HOLDER_SILENCE_S]
            workers = [w for w in self.workers.values() if w.ready and w.held is None]
            self._held_by_holders = 0
            delivered = sum(holder.rate or 0.0 for holder in holders)
            if delivered >= HOLDERS_SHARE * sum(worker.rate or 0.0 for worker in workers):
                for holder in holders:
                    self._held_by_holders |= holder.held or 0
        return self._held_by_holders

    def _request_holds(self) -> Iterator[RequestHolds]:
        """Asks the holders for what they have."""
        for holder in self._holders.values():
            if not holder.awaits_holds:
                holder.awaits_holds = True
                yield RequestHolds(holder.number)

    def _add_request(self, request: RequestUnit, now: float) -> RequestUnit:
        self._arrivals = None
        self.workers[request.worker].add_request(request, now)
        self._units.add_request(request)
        if self._rate_limit is not None:
            self._rate_limit.count_request(request.length, now)
        return request

    def _credit_at(self, worker: WorkerPace, requests: int = 1) -> float:
        """Returns the time from which the worker may get further requests; infinity if that depends on an event."""
        if not worker.ready:
            return math.inf
        if worker.outstanding and (
            worker.outstanding_bytes + requests * worker.part_size > worker.window
            or len(worker.outstanding) >= MAX_REQUESTS
        ):
            return math.inf
        return worker.paused_until if self._rate_limit is None else max(worker.paused_until, self._rate_limit.next_at)

    def _update_limits(self, workers: Iterable[WorkerPace]) -> None:
        """Updates the window and the size of a part, after something has changed on which they depend."""
        max_part, max_window = self._largest, self._memory / max(1, len(self.workers))
        if self._rate_limit is not None:
            # What is outstanding may arrive at once, for example after a stall: at most one second of the maximum rate.
            ready = sum(worker.ready for worker in self.workers.values())
            max_part = min(max_part, max(MIN_PART, int(UNIT_S * self._rate_limit.rate)))
            max_window = min(max_window, self._rate_limit.rate / max(1, ready))
        for worker in workers:
            worker.update_limits(max_part, max_window, has_holders=bool(self._holders))

    def _choose_request(self, worker: WorkerPace, event: Event, now: float) -> RequestUnit | None:
        if worker.held is None or worker.useless_at != self._units.returned:
            request = self._choose_unrequested(worker, now)
            if request is not None:
                worker.useless_at = -1
                return request
            worker.useless_at = self._units.returned
        # A holder may have nothing useful while others still have much to do: then only stalled workers matter.
        is_racing = not self._units_follow and (
            worker.held is None or self._units.first_unrequested(0, self._limit) is None
        )
        if worker.held is not None and not is_racing and type(event) is not TimePassed:
            return None
        return self._choose_hedge(worker, now, is_racing=is_racing)

    def _choose_unrequested(self, worker: WorkerPace, now: float) -> RequestUnit | None:
        """Returns a request for something that is not requested from any worker, None if there is nothing."""
        # Several workers complete a unit together if they are slow. Others would all read the whole of it for that.
        shares = worker.is_slow or self._rate_limit is not None
        if self._units.incomplete and (request := self._choose_part(worker, now, shares=shares)) is not None:
            return request
        if self._holders or self.plan_units:
            unit = self._choose_unit_of_run(worker, now)
        else:
            unit = self._units.first_unrequested(0, self._limit)
            if unit is not None and (worker.excluded or self._lost_units):
                unit = self._skip_excluded(worker, unit, now)
        if unit is not None:
            return RequestUnit(worker.number, unit, 0, min(self._units.sizes[unit], worker.part_size))
        return self._choose_part(worker, now, shares=True) if self._units.incomplete and not shares else None

    def _choose_unit_of_run(self, worker: WorkerPace, now: float) -> int | None:
        """Returns an unrequested unit that the worker has: the next one of a run or, after ``RUN_UNITS``, the first one
        from a random unit on. None if there is none.
        """
        if not worker.run_left:
            worker.run_unit, worker.run_left = self._choose(max(1, len(self._units.sizes))), RUN_UNITS
        for start in (worker.run_unit, 0):
            first = self._units.first_unrequested(start, self._limit)
            unit = self._skip_excluded(worker, first, now) if first is not None else None
            if unit is not None:
                worker.run_unit, worker.run_left = unit + 1, worker.run_left - 1
                return unit
        return None

    def _skip_excluded(self, worker: WorkerPace, first: int, now: float) -> int | None:
        """Returns the first unit from ``first`` on that is unrequested, not excluded, and that the worker has; None if
        there is none.
        """
        unit: int | None = first
        held = worker.held & self._units.missing_bits if worker.held is not None else None
        if held is None and self._holders:
            held = self._units.missing_bits & ~self._held_bits(now)
        # Groups that follow one another are one range. So this takes few steps even if thousands of them are excluded.
        while unit is not None:
            end = end_of_range(worker.excluded, unit) or end_of_range(self._lost_units, unit)
            if end is None and held is not None:
                # What the worker has is missing, so few of these units are not unrequested: those that are started.
                rest = held >> unit
                if not rest:
                    return None
                end = unit + (rest & -rest).bit_length() - 1
            if end is None or end == unit:
                break
            unit = self._units.first_unrequested(end, self._limit)
        return unit

    def _is_excluded(self, worker: WorkerPace, unit: int) -> bool:
        """True if the worker is not asked for the group of the unit, or does not have the unit."""
        return not worker.has(unit) or is_in_ranges(worker.excluded, unit) or is_in_ranges(self._lost_units, unit)

    def _choose_part(self, worker: WorkerPace, now: float, *, shares: bool) -> RequestUnit | None:
        """Returns a request for a part of the oldest unit that is not requested completely, None if there is none. With
        ``shares``, also of a unit that another worker is completing.
        """
        for unit in sorted(self._units.incomplete):
            started = self._units.started[unit]
            if not shares and any(self._is_ready(number) for number in started.workers - {worker.number}):
                continue
            part = started.unrequested_part()
            if worker.held is None and self._holders and self._held_bits(now) >> unit & 1:
                continue
            if part is not None and self._may_request(worker, unit, started):
                length = part[1] - part[0]
                if not started.is_next_whole:
                    length = min(length, worker.part_size)
                return RequestUnit(worker.number, unit, part[0], length)
        return None

    def _is_ready(self, number: int) -> bool:
        """True if requests can be sent to the worker."""
        worker = self.workers.get(number)
        return worker is not None and worker.ready

    def _may_request(self, worker: WorkerPace, unit: int, started: StartedUnit) -> bool:
        """False if ``worker`` is not asked for the unit, if it has sent a corrupt copy of the unit and
        some other usable worker has not, or if it still sends a part of a unit that is requested as a whole.
        """
        if self._is_excluded(worker, unit):
            return False
        if started.is_next_whole and any(request.worker == worker.number for request in started.requests):
            return False
        if worker.number not in started.corrupt_senders:
            return True
        group = self._group_of(unit)
        usable = {w.number for w in self.workers.values() if w.has(unit) and not self._ban_reason(w, group)}
        return usable <= started.corrupt_senders

    def _choose_hedge(self, worker: WorkerPace, now: float, *, is_racing: bool) -> RequestUnit | None:
        """Returns a request for the outstanding part that is predicted to arrive last, None if there is none.

        Considers only parts that ``worker`` is expected to deliver sooner. An idle worker is also asked for parts that
        only stalled workers have, whatever is expected of it: its rate may have been measured while it was frozen.
        """
        seen = min(now, self.read_until)
        if self._has_stalled is None:
            self._has_stalled = any(other.is_stalled(seen) for other in self.workers.values())
        if not is_racing and not self._has_stalled:
            return None
        if self._arrivals is None:
            workers = self.workers.values()
            self._arrivals = {request: time for other in workers for request, time in other.predict_arrivals(seen)}
        arrivals = self._arrivals
        latest, hedge = 0.0, None
        gain = self._min_hedge_gain(worker)
        for unit, started in self._units.started.items():
            if self._is_excluded(worker, unit):
                continue
            for start, end, requests in started.parts():
                length = min(end - start, worker.part_size)
                arrival = min((arrivals[request] for request in requests), default=0.0)
                is_sooner = arrival > worker.predict_next_arrival(length, now) + gain
                is_late = (is_sooner and is_racing) or (
                    not worker.outstanding
                    and all(self.workers[request.worker].is_stalled(seen) for request in requests)
                )
                if is_late and arrival > latest and self._may_hedge(worker, started, requests, seen):
                    latest, hedge = arrival, RequestUnit(worker.number, unit, start, length)
        return hedge

    def _min_hedge_gain(self, worker: WorkerPace) -> float:
        """Returns by how many seconds the worker must be sooner than the first request."""
        if self._holders:
            return MIN_HOLDER_GAIN_S
        return MIN_STORE_GAIN_S if worker.reads_store else MIN_HEDGE_GAIN_S

    def _may_hedge(self, worker: WorkerPace, started: StartedUnit, requests: list[RequestUnit], now: float) -> bool:
        numbers = {request.worker for request in requests}
        if started.is_next_whole or worker.number in numbers | started.corrupt_senders:
            return False
        moving = sum(not self.workers[number].is_stalled(now) for number in numbers)
        return moving < MAX_WORKERS_PER_PART
