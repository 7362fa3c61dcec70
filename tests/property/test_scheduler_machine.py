"""The scheduler under arbitrary interleavings of events: its invariants always hold, and one worker without faults
is enough to finish the download."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from msd.client.network_events import Ban, BanReason, ConnectionClosed, SnapshotReceived, Unban
from msd.client.scheduling import scheduler_events as core
from msd.client.scheduling.scheduler import Scheduler
from msd.client.scheduling.scheduler_events import UnitState
from msd.wire.protocol.states import RefusalReason, WorkerState
from msd.wire.support.core import Stalled, TimePassed
from tests.connections import opened
from tests.unit.snapshots import snapshot, with_worker

WORKERS = (1, 2, 3)
UNITS = 12

numbers = st.sampled_from(WORKERS)
CATALOGUES = st.sampled_from([b"", b"one", b"two", b"three"])
REASONS = st.sampled_from(
    [RefusalReason.SLEEPING, RefusalReason.BUSY, RefusalReason.UNKNOWN, RefusalReason.CHANGED, RefusalReason.UNREADABLE]
)
#: The reasons of bans that end when the caller continues.
LACKING = (BanReason.UNKNOWN, BanReason.CHANGED)


def is_running(machine: SchedulerMachine) -> bool:
    """False between ``GiveUp`` and ``Resumed``: then the caller handles no connections and no data."""
    return machine.ended is None


class SchedulerMachine(RuleBasedStateMachine):
    """Simulates the connections.

    ``outstanding`` holds the requests on each connection. ``dropped`` holds requests that the scheduler dropped after a
    "sleeping" refusal, but that the worker may still answer.
    """

    @initialize(
        unchecked=st.sets(st.integers(0, UNITS - 1)),
        max_rate=st.sampled_from([None, 0.4, 3.0, 100.0]),
        max_ahead=st.sampled_from([None, 1, 3]),
    )
    def begin(self, unchecked: set[int], max_rate: float | None, max_ahead: int | None) -> None:
        self.now = 100.0
        self.scheduler = Scheduler(UNITS, WORKERS, max_ahead=max_ahead, unchecked=sorted(unchecked), max_rate=max_rate)
        self.max_ahead = UNITS if max_ahead is None else max_ahead
        #: All units before the position are verified and in the output.
        self.position = 0
        self.unchecked = set(unchecked)
        self.outstanding: dict[int, list[int]] = {}
        self.dropped: dict[int, list[int]] = {}
        self.verified: set[int] = set()
        self.epoch = 0
        #: The epoch of the current process of each worker.
        self.epochs = dict.fromkeys(WORKERS, 0)
        self.ended: core.Action | None = None
        self.feed(TimePassed())

    def feed(self, event: core.Event) -> None:
        before = [self.scheduler.state_of(index) for index in range(UNITS)]
        actions = self.scheduler.handle(event, self.now)
        self.check_transitions(before, event, actions)
        for action in actions:
            assert self.ended is None
            match action:
                case core.RequestUnit(worker, index):
                    assert worker in self.outstanding, "requested from a worker that is not connected"
                    assert index not in self.outstanding[worker], "requested twice from the same worker"
                    assert index not in self.verified, "requested a verified unit"
                    assert index not in self.unchecked, "requested an unchecked unit"
                    assert index < self.position + self.max_ahead, "requested a unit too early"
                    self.outstanding[worker].append(index)
                case Ban(worker, _):
                    del self.outstanding[worker]
                case core.Finish():
                    assert self.verified == set(range(UNITS))
                    self.ended = action
                case Unban(worker):
                    assert worker not in self.outstanding, "unbanned a connected worker"
                    assert isinstance(event, SnapshotReceived | core.Resumed)
                case core.GiveUp():
                    # ``connect`` also simulates connections of banned workers.
                    assert self.outstanding.keys() <= action.bans.keys(), "gave up while a worker was connected"
                    self.ended = action
                    self.lacking = {number for number, reason in action.bans.items() if reason in LACKING}

    def check_transitions(self, before: list[UnitState], event: core.Event, actions: list[core.Action]) -> None:
        """Checks that ``TRANSITIONS`` allows each change of state, by the event or by a request that follows it."""
        for index, start in enumerate(before):
            end = self.scheduler.state_of(index)
            requested = any(isinstance(a, core.RequestUnit) and a.unit == index for a in actions)
            steps = [(start, end)]
            if requested and end is UnitState.OUTSTANDING and start is not UnitState.OUTSTANDING:
                middle = {UnitState.UNCHECKED: UnitState.UNREQUESTED}.get(start, start)
                steps = [(start, middle), (middle, UnitState.OUTSTANDING)]
            for before_step, after_step in steps:
                causes = core.TRANSITIONS.get((before_step, after_step), ())
                by_request = requested and core.RequestUnit in causes
                allowed = before_step == after_step or by_request or type(event) in causes
                assert allowed, (index, start, end, event, actions)

    @precondition(lambda self: isinstance(self.ended, core.GiveUp) and self.lacking)
    @rule()
    def resume(self) -> None:
        self.ended = None
        self.feed(core.Resumed())
        assert {number for number in WORKERS if self.scheduler.workers[number].ban_reason}.isdisjoint(self.lacking)

    @rule(catalogue=CATALOGUES)
    def publish(self, catalogue: bytes) -> None:
        status = snapshot(*[WorkerState.AWAKE] * len(WORKERS), catalogue=catalogue)
        for worker in WORKERS:
            status = with_worker(status, worker, epoch=self.epochs[worker])
        self.feed(SnapshotReceived(status))

    @precondition(is_running)
    @rule(worker=numbers, is_new_process=st.booleans(), catalogue=CATALOGUES)
    def connect(self, worker: int, is_new_process: bool, catalogue: bytes) -> None:
        if worker not in self.outstanding:
            self.epoch += is_new_process
            self.epochs[worker] = self.epoch
            self.outstanding[worker], self.dropped[worker] = [], []
            self.feed(opened(worker, epoch=self.epoch, catalogue=catalogue))
            if self.scheduler.workers[worker].ban_reason:
                self.outstanding.pop(worker, None)

    @precondition(is_running)
    @rule(worker=numbers)
    def lose(self, worker: int) -> None:
        if self.outstanding.pop(worker, None) is not None:
            self.feed(ConnectionClosed(worker))

    @precondition(is_running)
    @rule(worker=numbers, choice=st.integers(0, 99), valid=st.booleans())
    def deliver(self, worker: int, choice: int, valid: bool) -> None:
        requests = self.outstanding.get(worker) or self.dropped.get(worker)
        if worker not in self.outstanding or not requests:
            return
        index = requests.pop(choice % len(requests))
        if index in self.verified:
            self.feed(core.UnitDuplicate(worker, index))
        elif valid:
            self.verified.add(index)
            self.feed(core.UnitWritten(worker, index))
        else:
            self.feed(core.UnitCorrupt(worker, index))

    @precondition(is_running)
    @rule(worker=numbers, choice=st.integers(0, 99), reason=REASONS)
    def refuse(self, worker: int, choice: int, reason: RefusalReason) -> None:
        if self.outstanding.get(worker):
            index = self.outstanding[worker].pop(choice % len(self.outstanding[worker]))
            if reason is RefusalReason.SLEEPING:
                self.dropped[worker] += self.outstanding[worker]
                self.outstanding[worker] = []
            self.feed(core.UnitRefused(worker, index, reason))

    @precondition(lambda self: self.position in self.verified)
    @rule()
    def advance_output(self) -> None:
        self.position += 1
        self.feed(core.OutputAdvanced(self.position))

    @precondition(lambda self: self.unchecked and is_running(self))
    @rule(valid=st.booleans())
    def check_disk(self, valid: bool) -> None:
        index = self.unchecked.pop()
        if valid:
            self.verified.add(index)
        self.feed(core.UnitChecked(index, valid))

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.6, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.feed(TimePassed())

    @rule(seconds=st.sampled_from([0.3, 5.0]))
    def stall(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Stalled(seconds))

    @invariant()
    def invariants_hold(self) -> None:
        self.scheduler.check_invariants()
        for worker in WORKERS:
            assert not set(self.scheduler.delivered_by(worker)) - self.verified
        delivered = [index for worker in WORKERS for index in self.scheduler.delivered_by(worker)]
        assert len(delivered) == len(set(delivered)), "two workers count as having delivered the same unit"

    @invariant()
    def deadline_is_ahead(self) -> None:
        due = self.scheduler.next_deadline(self.now)
        assert due is None or due > self.now

    def teardown(self) -> None:
        """Connects worker 9, which has no faults and must be able to finish the download."""
        if not hasattr(self, "scheduler") or self.ended:
            return
        while self.unchecked:
            self.check_disk(valid=False)
        self.outstanding.setdefault(9, [])
        self.feed(opened(9))
        for _ in range(1000):
            if self.ended:
                break
            if self.position in self.verified:
                self.advance_output()
            if self.outstanding[9]:
                index = self.outstanding[9].pop(0)
                is_duplicate = index in self.verified
                self.verified.add(index)
                self.feed(core.UnitDuplicate(9, index) if is_duplicate else core.UnitWritten(9, index))
            else:
                self.now += 0.5
                self.feed(TimePassed())
        assert self.ended == core.Finish(), "a worker without faults did not finish the download"


SchedulerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
test_any_interleaving = SchedulerMachine.TestCase
