"""Decides when workers are started, killed, restarted and lost: the pure core of the broker.

Takes events and ``now`` (seconds, monotonic), returns actions; starts no process and uses no socket or clock.
The caller (``broker/server.py``) handles all received messages before ``TimePassed``, and reports stalls of its own
event loop (``Stalled``), so that a stall of the broker or of the whole machine does not make the workers look silent.
Workers that the broker did not start are recorded and ordered in the same way, but never started, killed or restarted;
and they count as awake only once the broker has reached them at their endpoint.
``broker/supervision/supervisor_events.py`` has the events, the actions, and how the state of a worker changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from msd.broker.supervision.supervisor_events import (
    AN_OPERATOR,
    BACKOFF_PASSED,
    HEARTBEATS_MISSED,
    LEFT,
    REVOKED,
    TRANSITIONS,
    Abandon,
    Action,
    CatalogueReady,
    ComplaintCounted,
    ComplaintReceived,
    Event,
    Exited,
    Forget,
    HeartbeatReceived,
    KeyRevoked,
    Kill,
    Publish,
    QuitReceived,
    Reach,
    ReachTried,
    SendOrder,
    SendQuit,
    Spawn,
    Spawned,
    StateChanged,
    Stop,
    ToggleReceived,
    WorkerJoined,
)
from msd.broker.supervision.worker_record import NO_HEARTBEAT, Departed, Process, WorkerRecord
from msd.wire.protocol.messages import Heartbeat, Join
from msd.wire.protocol.states import ReportedState, WantedState, WorkerState
from msd.wire.support.backoff import backoff
from msd.wire.support.core import Core, Stalled, TimePassed

#: Seconds without a heartbeat after which a worker is silent: three times the heartbeat interval of 0.25 s.
SILENT_AFTER_S = 0.75
#: Seconds without a heartbeat after which a worker is lost, unless the broker started it.
LOST_AFTER_S = 10.0
#: Seconds between two attempts to reach a worker: the first delay, which doubles with every failure, and the maximum.
MIN_REACH_S, MAX_REACH_S = 0.5, 10.0
#: Seconds after which a worker that has left in order is not listed any more: longer than a restart or an update of its
#: program takes. A worker that is lost for another reason stays in the list: an operator has to look after it.
FORGET_AFTER_S = 60.0
#: Maximum number of names whose number and wanted state are remembered.
MAX_DEPARTED = 256
#: Why a worker is lost whose heartbeats are missing.
NO_HEARTBEATS = f"no heartbeats for {LOST_AFTER_S:.0f} s"
#: Seconds before a restart: the first delay, which doubles with every crash, and the maximum.
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.2, 10.0
#: Seconds of uptime after which earlier crashes no longer count.
STEADY_AFTER_S = 30.0
#: A worker that crashes this often within ``CRASH_WINDOW_S`` seconds has failed and is not restarted.
MAX_CRASHES, CRASH_WINDOW_S = 5, 60.0
#: Seconds the workers have to exit after ``SendQuit`` before they are killed.
QUIT_GRACE_S = 1.5
#: Seconds after which the broker ends without a worker that was killed: the kernel ends no process that waits for a
#: disk or a mount.
ABANDON_AFTER_S = 2.0

#: The time of a worker's next timer, and the method to call at that time.
Timer = tuple[float, Callable[[WorkerRecord], list[Action]]]


class Supervisor(Core[Event, Action]):
    """The records of all workers. Only ``handle`` changes them. ``endpoints`` are those of the workers that the broker
    starts, in the order of their numbers.
    """

    def __init__(self, endpoints: Sequence[str], hang_limit: float) -> None:
        super().__init__()
        self.workers = {
            number: WorkerRecord(number, str(number), endpoint, Process())
            for number, endpoint in enumerate(endpoints, 1)
        }
        #: The workers that are not listed any more, by name, the latest last.
        self._departed: dict[str, Departed] = {}
        #: The edition of the catalogue that all workers should serve; 0 before the first.
        self.edition = 0
        self._hang_limit = hang_limit
        self._quit_deadline: float | None = None
        #: The changes of state that the event being handled has caused.
        self._changes: list[StateChanged] = []

    @property
    def quitting(self) -> bool:
        return self._quit_deadline is not None

    @property
    def any_awake(self) -> bool:
        return any(worker.state is WorkerState.AWAKE for worker in self.workers.values())

    @property
    def sessions(self) -> frozenset[int]:
        """The sessions of the clients that are being served. A worker lists a limited number of them."""
        return frozenset().union(*(worker.heartbeat.sessions for worker in self.workers.values()))

    def recall(self, join: Join) -> Join:
        """Returns a join with the number and the wanted state that the worker of this name had before it left, unless
        it brings them itself.
        """
        departed = self._departed.get(join.name)
        if departed is None or join.number is not None:
            return join
        return replace(join, number=departed.number, wanted=departed.wanted)

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        timers = [timer for worker in self.workers.values() if (timer := self._timer(worker)) is not None]
        return min((deadline for deadline, _ in timers), default=None)

    def _decide(self, event: Event, now: float) -> list[Action]:
        self._changes = []
        wanted = [worker.wanted for worker in self.workers.values()]
        # The changes come first: to perform the other actions may cause further changes.
        actions = self._dispatch(event, now)
        actions = [*self._changes, *actions]
        if self._changes or wanted != [worker.wanted for worker in self.workers.values()]:
            actions.append(Publish())
        if self.quitting and not any(w.pid for w in self.workers.values()):
            actions.append(Stop())
        return actions

    def _assert_invariants(self) -> None:
        for worker in self.workers.values():
            assert worker.heartbeat is NO_HEARTBEAT or worker.heartbeat.epoch == worker.epoch != 0, worker
            assert worker.epoch or worker.route is None, worker
            process = worker.process
            if process is None:
                assert worker.epoch or worker.state is WorkerState.LOST, worker
                assert worker.is_reached or worker.state is not WorkerState.AWAKE, worker
                assert worker.state not in (WorkerState.DEAD, WorkerState.FAILED), worker
                continue
            assert worker.heartbeat is NO_HEARTBEAT or worker.state is not WorkerState.STARTING, worker
            assert worker.state not in (WorkerState.LOST, WorkerState.UNREACHABLE), worker
            assert not (process.pid and worker.is_down), worker
            assert process.pid or not worker.epoch, worker
            assert (process.restart_at is not None) == (worker.state is WorkerState.DEAD and not self.quitting), worker
            assert len(process.crashes) <= MAX_CRASHES, worker
        names = [*self._departed, *(worker.name for worker in self.workers.values())]
        assert len({*names}) == len(names), names
        assert len(self._departed) <= MAX_DEPARTED

    def _dispatch(self, event: Event, now: float) -> list[Action]:
        match event:
            case CatalogueReady(edition):
                return self._on_catalogue(edition)
            case Spawned(number, pid):
                worker, process = self._child(number)
                process.pid = pid
                process.started_at = worker.last_heartbeat_at = now
                process.killed = process.abandoned = False
                return [SendQuit(number)] if self.quitting else []
            case Exited(number, pid, reason):
                self._on_exit(*self._child(number), pid, reason, now)
                return []
            case WorkerJoined():
                self._on_join(event, now)
                return []
            case HeartbeatReceived(heartbeat, route):
                return self._on_heartbeat(heartbeat, route, now)
            case ReachTried(number, epoch, reason):
                if number in self.workers:
                    self._on_reach_tried(self.workers[number], epoch, reason, now)
                return []
            case KeyRevoked(number):
                self._lose(self.workers[number], REVOKED, KeyRevoked)
                return []
            case ToggleReceived(number, wanted, operator):
                return self._on_toggle(self.workers[number], wanted, operator)
            case ComplaintReceived(number, client):
                worker = self.workers[number]
                worker.complaints += 1
                return [ComplaintCounted(number, worker.complaints, client)]
            case QuitReceived():
                return self._on_quit(now)
            case Stalled(seconds):
                self._on_stall(seconds, now)
                return []
            case TimePassed():
                return [action for worker in [*self.workers.values()] for action in self._run_timers(worker, now)]

    def _on_catalogue(self, edition: int) -> list[Action]:
        is_first, self.edition = not self.edition, edition
        if self.quitting:
            return []
        if is_first:
            return [Spawn(w.number, w.wanted, edition) for w in self.workers.values() if w.process is not None]
        return [self._order(w) for w in self.workers.values() if w.pid]

    def _child(self, number: int) -> tuple[WorkerRecord, Process]:
        worker = self.workers[number]
        assert worker.process is not None
        return worker, worker.process

    def _on_exit(self, worker: WorkerRecord, process: Process, pid: int, reason: str, now: float) -> None:
        if pid != process.pid:
            return
        # A process that could not be started (pid 0) has no uptime.
        if pid and now >= process.started_at + STEADY_AFTER_S:
            process.crashes.clear()
        process.pid = 0
        worker.reason = reason
        worker.epoch, worker.route, worker.heartbeat = 0, None, NO_HEARTBEAT
        while process.crashes and now - process.crashes[0] > CRASH_WINDOW_S:
            process.crashes.popleft()
        process.crashes.append(now)
        if len(process.crashes) >= MAX_CRASHES and not self.quitting:
            self._change_state(worker, WorkerState.FAILED, Exited)
            return
        self._change_state(worker, WorkerState.DEAD, Exited)
        if not self.quitting:
            process.restart_at = now + backoff(len(process.crashes), MIN_BACKOFF_S, MAX_BACKOFF_S)

    def _on_join(self, joined: WorkerJoined, now: float) -> None:
        join = joined.join
        worker = self.workers.get(joined.number)
        if worker is None or worker.name != join.name:
            # A new worker, or one that takes the number of a lost worker.
            state = worker.state if worker is not None else WorkerState.STARTING
            if worker is not None:
                self._remember(worker)
            self._departed.pop(join.name, None)
            worker = WorkerRecord(joined.number, join.name, join.endpoint, wanted=join.wanted, state=state)
            # Snapshots list the workers in the order of their numbers.
            self.workers = dict(sorted({**self.workers, joined.number: worker}.items()))
        is_new_run = (worker.epoch, worker.token) != (join.epoch, join.token)
        is_moved = worker.process is None and (worker.endpoint, worker.key) != (join.endpoint, join.key)
        worker.epoch, worker.token, worker.route, worker.host = join.epoch, join.token, joined.route, joined.host
        if worker.process is None:
            worker.endpoint, worker.key, worker.admission = join.endpoint, join.key, joined.admission
        if is_new_run:
            worker.heartbeat, worker.last_heartbeat_at = NO_HEARTBEAT, now
            worker.joined_at = now
        if is_new_run or is_moved:
            worker.reason = ""
            worker.is_reached = worker.is_reaching = False
            worker.failed_attempts, worker.next_attempt = 0, now
            self._change_state(worker, WorkerState.STARTING, WorkerJoined)

    def _on_heartbeat(self, heartbeat: Heartbeat, route: object, now: float) -> list[Action]:
        worker = self.workers.get(heartbeat.number)
        if worker is None or (heartbeat.epoch, route) != (worker.epoch, worker.route):
            return []
        if heartbeat.state is ReportedState.LEAVING:
            worker.last_heartbeat_at = now
            self._lose(worker, LEFT, HeartbeatReceived)
            return []
        worker.last_heartbeat_at = now
        worker.heartbeat = heartbeat
        if heartbeat.state is ReportedState.AWAKE and worker.process is None and not worker.is_reached:
            if worker.state in (WorkerState.SILENT, WorkerState.LOST):
                worker.reason = ""
                self._change_state(worker, WorkerState.STARTING, HeartbeatReceived)
            return [*self._reach(worker, now), *self._correct(worker)]
        worker.reason = ""
        self._change_state(worker, WorkerState(heartbeat.state), HeartbeatReceived)
        return self._correct(worker)

    def _correct(self, worker: WorkerRecord) -> list[Action]:
        """Orders what the worker's last heartbeat lacks."""
        if self.quitting:
            return [SendQuit(worker.number)] if worker.process is not None else []
        order = self._order(worker)
        if worker.heartbeat.state.value != worker.wanted.value or worker.heartbeat.edition != order.edition:
            return [order]
        return []

    def _reach(self, worker: WorkerRecord, now: float) -> list[Action]:
        """Tries to reach a worker that is awake, if it is time."""
        if worker.is_reaching or now < worker.next_attempt:
            return []
        worker.is_reaching = True
        return [Reach(worker.number, worker.epoch, worker.endpoint, worker.key)]

    def _on_reach_tried(self, worker: WorkerRecord, epoch: int, reason: str, now: float) -> None:
        if not worker.is_reaching or epoch != worker.epoch:
            return
        worker.is_reaching = False
        worker.is_reached = not reason
        if reason:
            worker.failed_attempts += 1
            worker.next_attempt = now + backoff(worker.failed_attempts, MIN_REACH_S, MAX_REACH_S)
        if worker.state in (WorkerState.SILENT, WorkerState.LOST) or worker.heartbeat.state is not ReportedState.AWAKE:
            return  # The next heartbeat, if there is one, decides.
        worker.reason = reason
        self._change_state(worker, WorkerState.UNREACHABLE if reason else WorkerState.AWAKE, ReachTried)

    def _lose(self, worker: WorkerRecord, reason: str, cause: type[Event] | str) -> None:
        """Records the loss of a worker that the broker did not start. Its run has to join again."""
        if worker.process is None and worker.state is not WorkerState.LOST:
            worker.epoch, worker.route, worker.heartbeat = 0, None, NO_HEARTBEAT
            worker.reason = reason
            self._change_state(worker, WorkerState.LOST, cause)

    def _on_toggle(self, worker: WorkerRecord, wanted: WantedState | None, operator: str) -> list[Action]:
        if self.quitting:
            return []
        if wanted is None:
            # Toggling a worker that is dead or failed restarts it. One that is lost is to be awake when it returns.
            sleep = worker.wanted is WantedState.AWAKE and not worker.is_down
            wanted = WantedState.ASLEEP if sleep else WantedState.AWAKE
        worker.wanted, worker.operator = wanted, operator
        process = worker.process
        if process is None or process.pid:
            return [] if worker.is_down else [self._order(worker)]
        if worker.is_down and wanted is WantedState.AWAKE:
            process.crashes.clear()
            return self._restart(worker, process, ToggleReceived)
        return []

    def _on_quit(self, now: float) -> list[Action]:
        if self.quitting:
            return []
        self._quit_deadline = now + QUIT_GRACE_S
        for worker in self.workers.values():
            if worker.process is not None:
                worker.process.restart_at = None
        return [SendQuit(w.number) for w in self.workers.values() if w.pid]

    def _on_stall(self, seconds: float, now: float) -> None:
        # Extend the workers' deadlines only: delaying the broker's own restarts would not help.
        for worker in self.workers.values():
            worker.last_heartbeat_at = min(worker.last_heartbeat_at + seconds, now)
        if self._quit_deadline is not None:
            self._quit_deadline = min(self._quit_deadline + seconds, now + QUIT_GRACE_S)

    def _timer(self, worker: WorkerRecord) -> Timer | None:
        """The worker's next timer if no event arrives before it; None if there is none."""
        process = worker.process
        if process is not None:
            if process.restart_at is not None:
                return process.restart_at, self._restart_after_backoff
            if not process.pid:
                return None
            if self._quit_deadline is not None:
                if process.abandoned:
                    return None
                if process.killed:
                    return self._quit_deadline + ABANDON_AFTER_S, self._abandon
                return self._quit_deadline, self._kill
        if worker.state in (WorkerState.AWAKE, WorkerState.ASLEEP, WorkerState.UNREACHABLE):
            return worker.last_heartbeat_at + SILENT_AFTER_S, self._report_silence
        if process is not None:
            return None if process.killed else (worker.last_heartbeat_at + self._hang_limit, self._kill)
        if worker.is_down:
            return (worker.last_heartbeat_at + FORGET_AFTER_S, self._forget) if worker.reason == LEFT else None
        return worker.last_heartbeat_at + LOST_AFTER_S, self._report_loss

    def _run_timers(self, worker: WorkerRecord, now: float) -> list[Action]:
        actions = []
        while worker.number in self.workers and (timer := self._timer(worker)) is not None and now >= timer[0]:
            actions += timer[1](worker)
        return actions

    def _report_silence(self, worker: WorkerRecord) -> list[Action]:
        worker.reason = ""
        self._change_state(worker, WorkerState.SILENT, HEARTBEATS_MISSED)
        return []

    def _report_loss(self, worker: WorkerRecord) -> list[Action]:
        worker.heartbeat, worker.reason = NO_HEARTBEAT, NO_HEARTBEATS
        self._change_state(worker, WorkerState.LOST, HEARTBEATS_MISSED)
        return []

    def _forget(self, worker: WorkerRecord) -> list[Action]:
        del self.workers[worker.number]
        self._remember(worker)
        return [Forget(worker.number)]

    def _remember(self, worker: WorkerRecord) -> None:
        self._departed[worker.name] = Departed(worker.number, worker.wanted)
        if len(self._departed) > MAX_DEPARTED:
            del self._departed[next(iter(self._departed))]

    def _restart_after_backoff(self, worker: WorkerRecord) -> list[Action]:
        return self._restart(*self._child(worker.number), BACKOFF_PASSED)

    def _restart(self, worker: WorkerRecord, process: Process, cause: type[Event] | str) -> list[Action]:
        process.restart_at = None
        self._change_state(worker, WorkerState.STARTING, cause)
        process.restarts += 1
        return [Spawn(worker.number, worker.wanted, self.edition)]

    def _change_state(self, worker: WorkerRecord, state: WorkerState, cause: type[Event] | str) -> None:
        """The only place that changes a worker's state."""
        if state is not worker.state:
            assert cause in TRANSITIONS.get((worker.state, state), ()), (worker, state, cause)
            operator = self._who_ordered(worker, state, cause)
            self._changes.append(StateChanged(worker.number, worker.state, state, worker.reason, operator))
            worker.state = state

    @staticmethod
    def _who_ordered(worker: WorkerRecord, state: WorkerState, cause: type[Event] | str) -> str:
        """Returns which operator has ordered a change to ``state``; empty if none has."""
        if state is WorkerState.ASLEEP:
            # A worker that has joined may bring the order, and then it is not known who gave it.
            return (worker.operator or AN_OPERATOR) if worker.wanted is WantedState.ASLEEP else ""
        # A worker that wakes up may already have to sleep again: then another operator has woken it up.
        wakes_up = (worker.state, state) == (WorkerState.ASLEEP, WorkerState.AWAKE)
        is_ordered = cause is ToggleReceived or (wakes_up and worker.wanted is WantedState.AWAKE)
        return worker.operator if is_ordered else ""

    def _order(self, worker: WorkerRecord) -> SendOrder:
        # A worker that the broker did not start indexes its own files: it stays with its edition.
        edition = self.edition if worker.process is not None else worker.heartbeat.edition
        return SendOrder(worker.number, worker.wanted, edition)

    def _kill(self, worker: WorkerRecord) -> list[Action]:
        assert worker.process is not None
        worker.process.killed = True
        return [Kill(worker.number)]

    def _abandon(self, worker: WorkerRecord) -> list[Action]:
        assert worker.process is not None
        worker.process.abandoned = True
        return [Abandon(worker.number)]
