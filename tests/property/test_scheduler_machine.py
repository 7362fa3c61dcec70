"""The scheduler under arbitrary interleavings of events: its invariants always hold, and one worker without faults
is enough to finish the download: all groups of units but those that were removed."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from msd.client.network_events import Ban, BanReason, ConnectionClosed, ConnectionOpened, SnapshotReceived, Unban
from msd.client.scheduling import scheduler_events as core
from msd.client.scheduling.refusal_policy import REFUSAL_POLICIES
from msd.client.scheduling.scheduler import Scheduler
from msd.client.scheduling.scheduler_events import RequestUnit, UnitState
from msd.client.scheduling.worker_pace import MIN_PART
from msd.wire.protocol.messages import PASSES_ON, READS_STORE
from msd.wire.protocol.states import RefusalReason, WorkerState
from msd.wire.support.core import Stalled, TimePassed
from tests.connections import opened
from tests.unit.snapshots import snapshot, with_worker

WORKERS = (1, 2, 3)
#: The one of them that reads from a store, and a receiver that passes on what it has.
STORE_READER, HOLDER = 3, 4
MAX_UNITS = 12
WRONG = 100
KIB = 1 << 10

numbers = st.sampled_from((*WORKERS, HOLDER))
#: Units that are requested whole from the first on, and units that need several parts.
SIZES = st.lists(st.sampled_from([1, MIN_PART, MIN_PART + 1, 50 * KIB, 200 * KIB]), max_size=MAX_UNITS)
CATALOGUES = st.sampled_from([b"", b"one", b"two", b"three"])
REASONS = st.sampled_from([reason for reason in RefusalReason if reason is not RefusalReason.VERSION])
#: The reasons of bans that end when the caller continues.
LACKING = (BanReason.UNKNOWN, BanReason.CHANGED)


def units_of(machine: SchedulerMachine, group: int) -> range:
    bounds = [*machine.groups, len(machine.sizes)]
    return range(bounds[group], bounds[group + 1])


class SchedulerMachine(RuleBasedStateMachine):
    """Simulates the connections.

    ``outstanding`` holds the requests on each connection. ``dropped`` holds requests that the scheduler dropped, after
    a "sleeping" refusal or with a group, but that the worker may still answer.
    """

    @initialize(
        max_rate=st.sampled_from([None, 20 * KIB, 1000 * KIB]),
        max_ahead=st.sampled_from([None, 1, 3]),
        untrusted=st.sets(numbers),
        sizes=SIZES,
        catalogue=CATALOGUES,
        connected=st.sets(numbers),
    )
    def begin(
        self,
        max_rate: float | None,
        max_ahead: int | None,
        untrusted: set[int],
        sizes: list[int],
        catalogue: bytes,
        connected: set[int],
    ) -> None:
        self.now = 100.0
        choose = random.Random(len(sizes)).randrange
        self.scheduler = Scheduler(WORKERS, memory=1 << 20, max_rate=max_rate, choose=choose)
        self.max_ahead = MAX_UNITS if max_ahead is None else max_ahead
        self.sizes: list[int] = []
        #: The first unit of each group.
        self.groups: list[int] = []
        self.lost: dict[int, core.GroupLost] = {}
        #: The groups that each worker is not asked for.
        self.group_bans: dict[int, dict[int, BanReason]] = {number: {} for number in (*WORKERS, HOLDER, 9)}
        #: The missing units of removed groups.
        self.removed: set[int] = set()
        #: All units before the position are verified and in the output, or removed.
        self.position = 0
        self.unchecked: set[int] = set()
        self.outstanding: dict[int, list[RequestUnit]] = {}
        self.dropped: dict[int, list[RequestUnit]] = {}
        self.verified: set[int] = set()
        #: For each byte of a unit the number of its sender, plus ``WRONG`` if it is wrong; 0 if it has not arrived.
        self.received: list[bytearray] = []
        #: The workers that send wrong data now and then.
        self.untrusted = untrusted
        self.epoch = 0
        #: The epoch of the current process of each worker.
        self.epochs = dict.fromkeys((*WORKERS, HOLDER), 0)
        #: What the holder has said that it has, and whether it is asked for that.
        self.held: set[int] = set()
        self.awaits_holds = False
        if self.max_ahead < MAX_UNITS:
            self.feed(core.LimitMoved(self.max_ahead))
        self.feed(core.UnitsAdded(sizes, (), catalogue))
        for worker in sorted(connected):
            self.connect(worker, is_new_process=True, catalogue=b"")

    def feed(self, event: core.Event) -> None:
        before = [self.scheduler.state_of(unit) for unit in range(len(self.sizes))]
        if isinstance(event, core.UnitsAdded):
            first = len(self.sizes)
            self.groups.append(first)
            self.sizes += event.sizes
            self.received += [bytearray(size) for size in event.sizes]
            added = range(first, len(self.sizes))
            before += [UnitState.UNCHECKED if unit in event.unchecked else UnitState.UNREQUESTED for unit in added]
        actions = self.scheduler.handle(event, self.now)
        self.check_transitions(before, event, actions)
        for action in actions:
            match action:
                case RequestUnit(worker, unit, start, length):
                    assert worker in self.outstanding, "requested from a worker that is not connected"
                    own = [r for r in self.outstanding[worker] if r.unit == unit]
                    assert all(r.end <= start or action.end <= r.start for r in own), "requested twice from a worker"
                    assert 0 <= start < start + length <= self.sizes[unit], "requested bytes outside of the unit"
                    assert self.scheduler.missing_bytes(unit, start, length), "requested nothing that is missing"
                    assert unit not in self.verified, "requested a verified unit"
                    assert unit not in self.unchecked, "requested an unchecked unit"
                    assert unit not in self.removed, "requested a removed unit"
                    group = self.group_of(unit)
                    assert group not in self.lost, "requested a unit of a lost group"
                    assert group not in self.group_bans[worker], "requested from a worker without the group"
                    assert unit < self.position + self.max_ahead, "requested a unit too early"
                    assert worker != HOLDER or unit in self.held, "requested a unit that the holder lacks"
                    self.outstanding[worker].append(action)
                case core.RequestHolds(worker):
                    assert worker == HOLDER in self.outstanding
                    assert not self.awaits_holds
                    self.awaits_holds = True
                case core.CheckUnit(worker, unit, senders):
                    received = self.received[unit]
                    assert worker in senders
                    assert {code % WRONG for code in received} <= senders, "a sender is missing, or a part"
                    self.received[unit] = bytearray(len(received))
                    is_valid = max(received) < WRONG
                    if is_valid:
                        self.verified.add(unit)
                    self.feed(core.PartsChecked(worker, unit, is_valid))
                case Ban(worker, _):
                    del self.outstanding[worker]
                case Unban(worker):
                    assert worker not in self.outstanding, "unbanned a connected worker"
                    assert isinstance(event, SnapshotReceived)
                case core.GroupBan(worker, group, reason):
                    assert isinstance(event, core.UnitRefused)
                    assert worker in self.outstanding
                    assert group not in self.group_bans[worker]
                    self.group_bans[worker][group] = reason
                    self.drop(worker, group)
                case core.GroupUnban(worker, group):
                    assert isinstance(event, ConnectionOpened | SnapshotReceived | core.Resumed)
                    del self.group_bans[worker][group]
                case core.GroupLost(group, bans, unit):
                    assert group not in self.lost
                    assert self.outstanding.keys() - {HOLDER} <= bans.keys(), (
                        "lost a group that a connected worker may have"
                    )
                    for worker, reason in bans.items():
                        assert reason in (self.group_bans[worker].get(group), self.scheduler.workers[worker].ban_reason)
                    missing = {*units_of(self, group)} - self.verified - self.removed - self.unchecked
                    assert unit == min(missing)
                    self.lost[group] = action

    def group_of(self, unit: int) -> int:
        return max(number for number, first in enumerate(self.groups) if first <= unit)

    def drop(self, worker: int, group: int) -> None:
        """The scheduler expects no answers to the requests for the units of the group, but the worker may send some."""
        dropped = [request for request in self.outstanding[worker] if request.unit in units_of(self, group)]
        self.dropped[worker] += dropped
        self.outstanding[worker] = [request for request in self.outstanding[worker] if request not in dropped]

    def check_transitions(self, before: list[UnitState], event: core.Event, actions: list[core.Action]) -> None:
        """Checks that ``TRANSITIONS`` allows each change of state, by the event or by a request that follows it."""
        for unit, start in enumerate(before):
            end = self.scheduler.state_of(unit)
            requested = any(isinstance(a, RequestUnit) and a.unit == unit for a in actions)
            steps = [(start, end)]
            if requested and end is UnitState.STARTED and start is not UnitState.STARTED:
                middle = {UnitState.UNCHECKED: UnitState.UNREQUESTED}.get(start, start)
                steps = [(start, middle), (middle, UnitState.STARTED)]
            for before_step, after_step in steps:
                causes = core.TRANSITIONS.get((before_step, after_step), ())
                by_request = requested and RequestUnit in causes
                allowed = before_step == after_step or by_request or type(event) in causes
                assert allowed, (unit, start, end, event, actions)

    @rule(sizes=SIZES, unchecked=st.sets(st.integers(0, MAX_UNITS - 1)), catalogue=CATALOGUES)
    def add_group(self, sizes: list[int], unchecked: set[int], catalogue: bytes) -> None:
        first = len(self.sizes)
        sizes = sizes[: MAX_UNITS - first]
        added = [first + number for number in sorted(unchecked) if number < len(sizes)]
        self.unchecked |= {*added}
        self.feed(core.UnitsAdded(sizes, added, catalogue))

    @precondition(lambda self: self.lost)
    @rule(choice=st.integers(0, 99))
    def resume(self, choice: int) -> None:
        group = [*self.lost][choice % len(self.lost)]
        del self.lost[group]
        self.feed(core.Resumed(group))
        if group in self.lost:
            assert {*self.lost[group].bans.values()}.isdisjoint(LACKING), "a worker got no further try"

    @rule(choice=st.integers(0, 99))
    def remove_group(self, choice: int) -> None:
        group = choice % len(self.groups)
        units = {*units_of(self, group)}
        self.removed |= units - self.verified
        self.unchecked -= units
        self.lost.pop(group, None)
        for worker in self.outstanding:
            self.drop(worker, group)
        for bans in self.group_bans.values():
            bans.pop(group, None)
        self.feed(core.GroupRemoved(group))

    @rule(catalogue=CATALOGUES)
    def publish(self, catalogue: bytes) -> None:
        status = snapshot(*[WorkerState.AWAKE] * len(WORKERS), catalogue=catalogue)
        for worker in WORKERS:
            status = with_worker(status, worker, epoch=self.epochs[worker])
        self.feed(SnapshotReceived(status))

    @rule(worker=numbers, is_new_process=st.booleans(), catalogue=CATALOGUES)
    def connect(self, worker: int, is_new_process: bool, catalogue: bytes) -> None:
        if worker not in self.outstanding:
            self.epoch += is_new_process
            self.epochs[worker] = self.epoch
            self.outstanding[worker], self.dropped[worker] = [], []
            if worker == HOLDER:
                self.held, self.awaits_holds = set(), False
            features = {HOLDER: [PASSES_ON], STORE_READER: [READS_STORE]}.get(worker, [])
            self.feed(opened(worker, epoch=self.epoch, catalogue=catalogue, features=features))
            if self.scheduler.workers[worker].ban_reason:
                self.outstanding.pop(worker, None)

    @rule(worker=numbers)
    def lose(self, worker: int) -> None:
        if self.outstanding.pop(worker, None) is not None:
            self.feed(ConnectionClosed(worker))

    @precondition(lambda self: HOLDER in self.outstanding and self.awaits_holds)
    @rule(units=st.sets(st.integers(0, MAX_UNITS - 1)))
    def tell_units(self, units: set[int]) -> None:
        self.held, self.awaits_holds = units, False
        self.feed(core.UnitsHeld(HOLDER, sum(1 << unit for unit in units)))

    @precondition(lambda self: HOLDER in self.outstanding)
    @rule()
    def remove_holder(self) -> None:
        del self.outstanding[HOLDER]
        self.group_bans[HOLDER] = {}
        self.feed(core.WorkerRemoved(HOLDER))

    @precondition(lambda self: self.pending())
    @rule(choice=st.integers(0, 99), valid=st.booleans())
    def deliver(self, choice: int, valid: bool) -> None:
        pending = self.pending()
        requests, request = pending[choice % len(pending)]
        requests.remove(request)
        worker, place = request.worker, (request.unit, request.start)
        again = [r for r in self.outstanding[worker] if (r.unit, r.start) == place]
        if requests is self.dropped.get(worker) and again:
            # The scheduler cannot tell a late reply from that to the same request, which it has sent again since.
            self.outstanding[worker].remove(again[0])
            requests.append(again[0])
        self.arrive(request, valid=valid or request.worker not in self.untrusted)

    def pending(self) -> list[tuple[list[RequestUnit], RequestUnit]]:
        """The requests that the workers may answer, each with the list that contains it."""
        lists = [requests[worker] for worker in self.outstanding for requests in (self.outstanding, self.dropped)]
        return [(requests, request) for requests in lists for request in requests]

    def arrive(self, request: RequestUnit, *, valid: bool) -> None:
        """The reply to ``request`` arrives, which the scheduler may have dropped."""
        worker, unit, start, length = request.worker, request.unit, request.start, request.length
        missing = self.scheduler.missing_bytes(unit, start, length)
        is_needed = unit not in self.verified | self.removed and 0 in self.received[unit][start : request.end]
        assert (missing > 0) == is_needed
        if not missing:
            self.feed(core.UnitDuplicate(worker, unit, start))
            return
        if length == self.sizes[unit]:
            self.received[unit] = bytearray(self.sizes[unit])
            if valid:
                self.verified.add(unit)
            self.feed(core.UnitWritten(worker, unit) if valid else core.UnitCorrupt(worker, unit))
        else:
            code = worker if valid else worker + WRONG
            self.received[unit][start : request.end] = bytes([code]) * length
            self.feed(core.PartReceived(worker, unit, start, length))

    @rule(worker=numbers, choice=st.integers(0, 99), reason=REASONS)
    def refuse(self, worker: int, choice: int, reason: RefusalReason) -> None:
        if self.outstanding.get(worker):
            request = self.outstanding[worker].pop(choice % len(self.outstanding[worker]))
            if REFUSAL_POLICIES[reason].returns_all:
                self.dropped[worker] += self.outstanding[worker]
                self.outstanding[worker] = []
            if worker == HOLDER and reason is RefusalReason.MISSING:
                self.held.discard(request.unit)
            self.feed(core.UnitRefused(worker, request.unit, reason, request.start))

    @precondition(lambda self: any(self.dropped.values()))
    @rule(worker=numbers, choice=st.integers(0, 99), reason=REASONS)
    def refuse_late(self, worker: int, choice: int, reason: RefusalReason) -> None:
        """The worker refuses a request that the scheduler has dropped: it is banned from nothing for that."""
        again = {(request.unit, request.start) for request in self.outstanding.get(worker, [])}
        late = [r for r in self.dropped.get(worker, []) if (r.unit, r.start) not in again]
        if worker in self.outstanding and late:
            request = late[choice % len(late)]
            self.dropped[worker].remove(request)
            bans = dict(self.group_bans[worker])
            self.feed(core.UnitRefused(worker, request.unit, reason, request.start))
            assert (worker in self.outstanding, self.group_bans[worker]) == (True, bans)

    @precondition(lambda self: self.position in self.verified | self.removed)
    @rule()
    def advance_output(self) -> None:
        self.position += 1
        if self.max_ahead < MAX_UNITS:
            self.feed(core.LimitMoved(self.position + self.max_ahead))

    @precondition(lambda self: self.unchecked)
    @rule(valid=st.booleans())
    def check_disk(self, valid: bool) -> None:
        unit = self.unchecked.pop()
        if valid:
            self.verified.add(unit)
        self.feed(core.UnitChecked(unit, valid))

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.6, 5.0]), event=st.sampled_from([TimePassed, Stalled]))
    def wait(self, seconds: float, event: type[TimePassed | Stalled]) -> None:
        self.now += seconds
        self.feed(TimePassed() if event is TimePassed else Stalled(seconds))

    @invariant()
    def invariants_hold(self) -> None:
        self.scheduler.check_invariants()
        for worker in WORKERS:
            assert not set(self.scheduler.delivered_by(worker)) - self.verified
            is_blamed = self.scheduler.workers[worker].corrupt_count > 0
            assert worker in self.untrusted or not is_blamed, "blamed an honest worker"
        delivered = [unit for worker in WORKERS for unit in self.scheduler.delivered_by(worker)]
        assert len(delivered) == len(set(delivered)), "two workers count as having delivered the same unit"
        assert self.scheduler.remaining == len(self.sizes) - len(self.verified | self.removed)

    @invariant()
    def deadline_is_ahead(self) -> None:
        due = self.scheduler.next_deadline(self.now)
        assert due is None or due > self.now

    def teardown(self) -> None:
        """Connects worker 9, which has no faults and must be able to finish the download. Lost groups are continued."""
        if not hasattr(self, "scheduler"):
            return
        while self.unchecked:
            self.check_disk(valid=False)
        self.outstanding[9], self.dropped[9] = [], []
        self.feed(opened(9))
        while self.lost:
            self.resume(0)
        for _ in range(1000):
            if not self.scheduler.remaining:
                break
            if self.position in self.verified | self.removed:
                self.advance_output()
            if self.outstanding[9]:
                self.arrive(self.outstanding[9].pop(0), valid=True)
            else:
                self.now += 0.5
                self.feed(TimePassed())
        assert not self.scheduler.remaining, "a worker without faults did not finish the download"


class LongRun(SchedulerMachine):
    """The same rules, for ``make soak``."""


SchedulerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=60)
LongRun.TestCase.settings = settings(max_examples=2000, stateful_step_count=60)
test_any_interleaving = SchedulerMachine.TestCase
test_more_interleavings = pytest.mark.soak(LongRun.TestCase)
