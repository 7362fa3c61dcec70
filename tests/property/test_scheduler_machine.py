"""The scheduler under arbitrary interleavings: whatever happens, its invariants hold and, once one
worker behaves, the download ends."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from msd.client.scheduling import events as core
from msd.client.scheduling.events import SegmentState
from msd.client.scheduling.scheduler import Scheduler
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.time_passed import TimePassed

WORKERS = (1, 2, 3)
SEGMENTS = 12

numbers = st.sampled_from(WORKERS)
CATALOGUES = st.sampled_from([b"", b"one", b"two", b"three"])
REASONS = st.sampled_from(
    [RefusalReason.SLEEPING, RefusalReason.BUSY, RefusalReason.UNKNOWN, RefusalReason.CHANGED, RefusalReason.UNREADABLE]
)


class SchedulerMachine(RuleBasedStateMachine):
    """Plays the connections: ``asked`` are the requests that are out on each of them, ``stale``
    those that the scheduler has given up and that may be answered all the same."""

    @initialize(unchecked=st.sets(st.integers(0, SEGMENTS - 1)))
    def begin(self, unchecked: set[int]) -> None:
        self.now = 100.0
        self.scheduler = Scheduler(SEGMENTS, WORKERS, unchecked=sorted(unchecked))
        self.unchecked = set(unchecked)
        self.asked: dict[int, list[int]] = {}
        self.stale: dict[int, list[int]] = {}
        self.verified: set[int] = set()
        self.epoch = 0
        self.ended: core.Action | None = None
        self.feed(TimePassed())

    def feed(self, event: core.Event) -> None:
        before = [self.scheduler.where(index) for index in range(SEGMENTS)]
        actions = self.scheduler.handle(event, self.now)
        self.check_transitions(before, event, actions)
        for action in actions:
            assert self.ended is None
            match action:
                case core.RequestSegment(worker, index):
                    assert worker in self.asked, "asked a worker that is not connected"
                    assert index not in self.asked[worker], "asked twice of the same worker"
                    assert index not in self.verified, "asked for what is there already"
                    assert index not in self.unchecked, "asked for what the disk may have"
                    self.asked[worker].append(index)
                case core.Ban(worker, _):
                    del self.asked[worker]
                case core.Finish():
                    assert self.verified == set(range(SEGMENTS))
                    self.ended = action
                case core.Unban(worker):
                    assert worker not in self.asked, "readmitted while it is connected"
                    assert isinstance(event, core.CatalogueVouched)
                case core.GiveUp():
                    assert not self.asked, "given up while somebody is there"
                    self.ended = action

    def check_transitions(self, before: list[SegmentState], event: core.Event, actions: list[core.Action]) -> None:
        """What became of each segment is in the table, by this event or by being asked for after it."""
        for index, start in enumerate(before):
            end = self.scheduler.where(index)
            asked = any(isinstance(a, core.RequestSegment) and a.index == index for a in actions)
            steps = [(start, end)]
            if asked and end is SegmentState.ASKED and start is not SegmentState.ASKED:
                middle = {SegmentState.UNCHECKED: SegmentState.UNASKED}.get(start, start)
                steps = [(start, middle), (middle, SegmentState.ASKED)]
            for one, other in steps:
                causes = core.TRANSITIONS.get((one, other), ())
                by_request = asked and core.RequestSegment in causes
                assert one == other or by_request or type(event) in causes, (index, start, end, event, actions)

    @rule(catalogue=CATALOGUES)
    def vouch(self, catalogue: bytes) -> None:
        self.feed(core.CatalogueVouched(catalogue))

    @rule(worker=numbers, renewed=st.booleans(), catalogue=CATALOGUES)
    def connect(self, worker: int, renewed: bool, catalogue: bytes) -> None:
        if worker not in self.asked:
            self.epoch += renewed
            self.asked[worker], self.stale[worker] = [], []
            self.feed(core.WorkerReady(worker, self.epoch, catalogue=catalogue))
            if self.scheduler.workers[worker].ban:
                self.asked.pop(worker, None)

    @rule(worker=numbers)
    def lose(self, worker: int) -> None:
        if self.asked.pop(worker, None) is not None:
            self.feed(core.WorkerLost(worker))

    @rule(worker=numbers, choice=st.integers(0, 99), good=st.booleans())
    def deliver(self, worker: int, choice: int, good: bool) -> None:
        out = self.asked.get(worker) or self.stale.get(worker)
        if worker not in self.asked or not out:
            return
        index = out.pop(choice % len(out))
        if index in self.verified:
            self.feed(core.SegmentLate(worker, index))
        elif good:
            self.verified.add(index)
            self.feed(core.SegmentWritten(worker, index))
        else:
            self.feed(core.SegmentCorrupt(worker, index))

    @rule(worker=numbers, choice=st.integers(0, 99), reason=REASONS)
    def refuse(self, worker: int, choice: int, reason: RefusalReason) -> None:
        if self.asked.get(worker):
            index = self.asked[worker].pop(choice % len(self.asked[worker]))
            if reason is RefusalReason.SLEEPING:
                self.stale[worker] += self.asked[worker]
                self.asked[worker] = []
            self.feed(core.SegmentRefused(worker, index, reason))

    @precondition(lambda self: self.unchecked)
    @rule(good=st.booleans())
    def check_disk(self, good: bool) -> None:
        index = self.unchecked.pop()
        if good:
            self.verified.add(index)
        self.feed(core.SegmentChecked(index, good))

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.6, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.feed(TimePassed())

    @rule(seconds=st.sampled_from([0.3, 5.0]))
    def stall(self, seconds: float) -> None:
        self.now += seconds
        self.feed(core.ClientStalled(seconds))

    @invariant()
    def holds(self) -> None:
        self.scheduler.check_invariants()
        for worker in WORKERS:
            assert not set(self.scheduler.x(worker)) - self.verified
        delivered = [index for worker in WORKERS for index in self.scheduler.x(worker)]
        assert len(delivered) == len(set(delivered)), "one segment in two X"

    @invariant()
    def deadline_is_ahead(self) -> None:
        due = self.scheduler.next_deadline(self.now)
        assert due is None or due > self.now

    def teardown(self) -> None:
        """From here on worker 9 behaves: it must be able to finish the download."""
        if not hasattr(self, "scheduler") or self.ended:
            return
        while self.unchecked:
            self.check_disk(good=False)
        self.asked.setdefault(9, [])
        self.feed(core.WorkerReady(9, 1))
        for _ in range(1000):
            if self.ended:
                break
            if self.asked[9]:
                index = self.asked[9].pop(0)
                late = index in self.verified
                self.verified.add(index)
                self.feed(core.SegmentLate(9, index) if late else core.SegmentWritten(9, index))
            else:
                self.now += 0.5
                self.feed(TimePassed())
        assert self.ended == core.Finish(), "one worker that behaves must be enough"


SchedulerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
test_any_interleaving = SchedulerMachine.TestCase
