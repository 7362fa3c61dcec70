"""What becomes of the workers: the pure core of the broker.

Takes events and ``now`` (seconds, monotonic), returns actions; knows no process, socket or clock.
The shell (``broker/server.py``) reads what it has received before it lets time pass, and says for how
long it did not look (``Stalled``), so that a stall of the broker itself, or of the whole machine,
is not taken for the workers' silence.

States, and what leads from one to another::

    starting ──heartbeat──► awake ⇄ asleep      (as the worker reports)
    awake, asleep ──3 heartbeats missed──► silent ──heartbeat──► awake, asleep
    silent, starting ──hang_limit──► (killed) ──► dead
    any ──process ends──► dead ──back-off──► starting
    dead ──too many crashes──► failed ──toggle, wake──► starting
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec import Struct, field

from msd.wire.protocol.messages import Load
from msd.wire.protocol.states import WantedState, WorkerState
from msd.wire.support.time_passed import TimePassed

#: Seconds without a heartbeat after which a worker is silent: three of its 0.25 s missed.
SILENT_AFTER = 0.75
#: IndexerBackoff: the first at once-ish, then doubling; forgotten after ``STEADY`` seconds up.
BACKOFF_FIRST, BACKOFF_LAST = 0.2, 10.0
STEADY = 30.0
#: This many crashes within ``CRASH_WINDOW`` seconds and the worker is given up.
CRASHES, CRASH_WINDOW = 5, 60.0
#: Seconds the workers have for an orderly end.
QUIT_GRACE = 1.5


# Events.


class CatalogueReady(Struct, frozen=True):
    """The files are indexed: workers can be started, or turn to this edition of the catalogue."""

    edition: int


class Spawned(Struct, frozen=True):
    number: int
    pid: int


class Exited(Struct, frozen=True):
    """A worker's process ended (or could not be started: pid 0); ``reason`` is for people."""

    number: int
    pid: int
    reason: str


class HeartbeatReceived(Struct, frozen=True):
    number: int
    pid: int
    epoch: int
    state: WorkerState
    edition: int
    load: Load
    sessions: frozenset[int]
    #: Where it came from; opaque here, see ``WorkerRecord.route``.
    route: object = None


class ToggleReceived(Struct, frozen=True):
    """An operator's order; ``want`` None flips what is wanted."""

    number: int
    want: WantedState | None


class QuitReceived(Struct, frozen=True):
    """Everything is to end in order."""


class Stalled(Struct, frozen=True):
    """The broker itself did not look for so many seconds, up to now."""

    seconds: float


Event = CatalogueReady | Spawned | Exited | HeartbeatReceived | ToggleReceived | QuitReceived | Stalled | TimePassed


# Actions.


class Spawn(Struct, frozen=True):
    number: int
    wanted: WantedState
    edition: int


class SendOrder(Struct, frozen=True):
    """Tell a worker what is wanted of it. Orders are repeated until its heartbeats agree."""

    number: int
    wanted: WantedState
    edition: int


class SendQuit(Struct, frozen=True):
    number: int


class Kill(Struct, frozen=True):
    number: int


class Publish(Struct, frozen=True):
    """Something a client should know at once has changed."""


class Stop(Struct, frozen=True):
    """Every worker has ended: so may the broker."""


Action = Spawn | SendOrder | SendQuit | Kill | Publish | Stop


class WorkerRecord(Struct):
    """All that is known of one worker."""

    number: int
    wanted: WantedState = WantedState.AWAKE
    state: WorkerState = WorkerState.STARTING
    #: 0 while and only while there is no process.
    pid: int = 0
    #: 0 until the process reported.
    epoch: int = 0
    #: When the process was last heard of: its heartbeat, or its start.
    heard_at: float = 0.0
    started_at: float = 0.0
    restarts: int = 0
    #: Times of the crashes within ``CRASH_WINDOW`` that no ``STEADY`` run has redeemed.
    crashes: deque[float] = field(default_factory=deque)
    #: When to start it again: set in and only in state dead.
    restart_at: float | None = None
    #: True once ``Kill`` was said for this process.
    killed: bool = False
    reason: str = ""
    load: Load = field(default_factory=Load)
    sessions: frozenset[int] = frozenset()
    #: The way to the process, for orders, as its heartbeats came; None until it reported.
    route: object = None
    complaints: int = 0


class Supervisor:
    """The states of all workers. ``handle`` is the only thing that changes them."""

    def __init__(self, numbers: Iterable[int], hang_limit: float) -> None:
        self.workers = {number: WorkerRecord(number) for number in numbers}
        #: The edition of the catalogue that all are to serve; 0 while there is none.
        self.edition = 0
        self._hang_limit = hang_limit
        self._quit_by: float | None = None

    @property
    def quitting(self) -> bool:
        return self._quit_by is not None

    @property
    def all_awake(self) -> bool:
        return all(worker.state is WorkerState.AWAKE for worker in self.workers.values())

    @property
    def any_awake(self) -> bool:
        return any(worker.state is WorkerState.AWAKE for worker in self.workers.values())

    def handle(self, event: Event, now: float) -> list[Action]:
        before = [(w.state, w.wanted, w.epoch) for w in self.workers.values()]
        actions = self._react(event, now)
        if before != [(w.state, w.wanted, w.epoch) for w in self.workers.values()]:
            actions.append(Publish())
        if self.quitting and not any(w.pid for w in self.workers.values()):
            actions.append(Stop())
        return actions

    def next_deadline(self) -> float | None:
        """When ``TimePassed`` will next have an effect."""
        times = [time for w in self.workers.values() if (time := self._deadline(w)) is not None]
        return min(times, default=None)

    def check_invariants(self) -> None:
        for worker in self.workers.values():
            gone = worker.state in (WorkerState.DEAD, WorkerState.FAILED)
            assert not (gone and worker.pid), worker
            assert (worker.restart_at is not None) == (worker.state is WorkerState.DEAD and not self.quitting), worker
            assert worker.epoch == 0 or worker.state is not WorkerState.STARTING, worker
            assert worker.epoch or not (worker.route or worker.sessions), worker
            assert len(worker.crashes) <= CRASHES, worker

    def _react(self, event: Event, now: float) -> list[Action]:
        match event:
            case CatalogueReady(edition):
                return self._turn_to(edition)
            case Spawned(number, pid):
                worker = self.workers[number]
                worker.pid = pid
                worker.started_at = worker.heard_at = now
                worker.killed = False
                return [SendQuit(number)] if self.quitting else []
            case Exited(number, pid, reason):
                self._exited(self.workers[number], pid, reason, now)
                return []
            case HeartbeatReceived():
                return self._heard(event, now)
            case ToggleReceived(number, want):
                return self._ordered(self.workers[number], want)
            case QuitReceived():
                return self._quit(now)
            case Stalled(seconds):
                self._stalled(seconds, now)
                return []
            case TimePassed():
                return [action for worker in self.workers.values() for action in self._overdue(worker, now)]

    def _turn_to(self, edition: int) -> list[Action]:
        first, self.edition = not self.edition, edition
        if self.quitting:
            return []
        if first:
            return [Spawn(w.number, w.wanted, edition) for w in self.workers.values()]
        return [self._order(w) for w in self.workers.values() if w.pid]

    def _exited(self, worker: WorkerRecord, pid: int, reason: str, now: float) -> None:
        if pid != worker.pid:
            return
        # A process that could not even be started (pid 0) was never up.
        if pid and now >= worker.started_at + STEADY:
            worker.crashes.clear()
        worker.pid = worker.epoch = 0
        worker.reason = reason
        worker.sessions = frozenset()
        worker.load = Load()
        worker.route = None
        while worker.crashes and now - worker.crashes[0] > CRASH_WINDOW:
            worker.crashes.popleft()
        worker.crashes.append(now)
        worker.state = WorkerState.DEAD
        if self.quitting:
            return
        if len(worker.crashes) >= CRASHES:
            worker.state = WorkerState.FAILED
            return
        worker.restart_at = now + min(BACKOFF_FIRST * 2 ** (len(worker.crashes) - 1), BACKOFF_LAST)

    def _heard(self, heartbeat: HeartbeatReceived, now: float) -> list[Action]:
        worker = self.workers.get(heartbeat.number)
        if worker is None or heartbeat.pid != worker.pid:
            return []
        worker.heard_at = now
        worker.epoch = heartbeat.epoch
        worker.state = heartbeat.state
        worker.load = heartbeat.load
        worker.sessions = heartbeat.sessions
        worker.route = heartbeat.route
        worker.reason = ""
        if self.quitting:
            return [SendQuit(worker.number)]
        if worker.state.value != worker.wanted.value or heartbeat.edition != self.edition:
            return [self._order(worker)]
        return []

    def _ordered(self, worker: WorkerRecord, want: WantedState | None) -> list[Action]:
        if self.quitting:
            return []
        gone = worker.state in (WorkerState.DEAD, WorkerState.FAILED)
        if want is None:
            flip = worker.wanted is WantedState.AWAKE and not gone
            want = WantedState.ASLEEP if flip else WantedState.AWAKE
        worker.wanted = want
        if worker.pid:
            return [self._order(worker)]
        if gone and want is WantedState.AWAKE:
            worker.crashes.clear()
            return self._restart(worker)
        return []

    def _quit(self, now: float) -> list[Action]:
        if self.quitting:
            return []
        self._quit_by = now + QUIT_GRACE
        for worker in self.workers.values():
            worker.restart_at = None
        return [SendQuit(w.number) for w in self.workers.values() if w.pid]

    def _stalled(self, seconds: float, now: float) -> None:
        # Only what others have to do in time: the broker's own plans are not helped by more delay.
        for worker in self.workers.values():
            worker.heard_at = min(worker.heard_at + seconds, now)
        if self._quit_by is not None:
            self._quit_by = min(self._quit_by + seconds, now + QUIT_GRACE)

    def _overdue(self, worker: WorkerRecord, now: float) -> list[Action]:
        if worker.restart_at is not None and now >= worker.restart_at:
            return self._restart(worker)
        if not worker.pid:
            return []
        if self._quit_by is not None:
            return self._kill(worker) if now >= self._quit_by else []
        # Compared as ``_deadline`` computes them: a difference could be rounded to just below.
        if worker.state in (WorkerState.AWAKE, WorkerState.ASLEEP) and now >= worker.heard_at + SILENT_AFTER:
            worker.state = WorkerState.SILENT
        return self._kill(worker) if now >= worker.heard_at + self._hang_limit else []

    def _restart(self, worker: WorkerRecord) -> list[Action]:
        worker.restart_at = None
        worker.state = WorkerState.STARTING
        worker.restarts += 1
        return [Spawn(worker.number, worker.wanted, self.edition)]

    def _order(self, worker: WorkerRecord) -> SendOrder:
        return SendOrder(worker.number, worker.wanted, self.edition)

    def _kill(self, worker: WorkerRecord) -> list[Action]:
        if worker.killed:
            return []
        worker.killed = True
        return [Kill(worker.number)]

    def _deadline(self, worker: WorkerRecord) -> float | None:
        if worker.restart_at is not None:
            return worker.restart_at
        if not worker.pid or worker.killed:
            return None
        if self._quit_by is not None:
            return self._quit_by
        if worker.state in (WorkerState.AWAKE, WorkerState.ASLEEP):
            return worker.heard_at + SILENT_AFTER
        return worker.heard_at + self._hang_limit
