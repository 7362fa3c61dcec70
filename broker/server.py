"""``msd serve``: the poll loop that joins the supervisor to processes, sockets and the console.

Frames, exits, signals and orders become events of ``broker/supervision/supervisor.py``; its actions are carried
out here. When a toggle is answered is decided in ``broker/supervision/pending_toggles.py``, when ``--until-done`` ends
the servers in ``broker/supervision/until_done.py``.
"""

from __future__ import annotations

import math
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import zmq

from msd.broker.network.control_socket import Route
from msd.broker.network.listeners import Listeners
from msd.broker.network.ports import hold_port
from msd.broker.network.signal_fd import SignalDescriptor
from msd.broker.status.event_log import EventLog
from msd.broker.status.history import SAMPLE
from msd.broker.status.snapshot import SnapshotBuilder
from msd.broker.supervision import supervisor
from msd.broker.supervision.indexer_supervisor import IndexerSupervisor
from msd.broker.supervision.pending_toggles import PendingToggles
from msd.broker.supervision.processes import WorkerProcesses
from msd.broker.supervision.runtime_folder import make_folder, remove_folder
from msd.broker.supervision.until_done import UntilDone
from msd.broker.terminal.local_console import LocalConsole
from msd.broker.terminal.output_thread import OutputThread
from msd.wire.config.settings import Config
from msd.wire.errors import NotFoundError, UsageError
from msd.wire.net.sockets import raise_descriptor_limit
from msd.wire.protocol.child_messages import Indexed
from msd.wire.protocol.messages import (
    Accepted,
    Complaint,
    ControlRequest,
    Done,
    Heartbeat,
    Order,
    Quit,
    QuitOrder,
    Rejected,
    Status,
    StatusRequest,
    Toggle,
    WorkerOrder,
)
from msd.wire.security.keys import Role
from msd.wire.support.stall_detector import StallDetector
from msd.wire.support.time_passed import TimePassed

#: Seconds after which the loop looks even if nothing is due, so that no stall hides in a long wait.
LONGEST_WAIT = 0.5
#: What only operators may ask for.
ORDERS = (Toggle, Quit)


class Broker:
    """A broker and its workers. ``run()`` returns the exit code; ``close()`` ends what is left.

    Raises ``MsdError`` where it cannot start.
    """

    def __init__(
        self, config: Config, screen: OutputThread, *, until_done: bool = False, console: Sequence[str] | None = None
    ) -> None:
        if config.path is None:
            raise UsageError("nothing to share: give -f PATH, or [share] path in config.toml")
        config.server_keys()  # Wanting, they are reported before anything is opened.
        if not config.path.exists():
            raise NotFoundError(f"{config.path}: no such file or folder to share: check -f or [share] path")
        self._config = config
        self._screen = screen
        self._until_done = until_done
        self._supervisor = supervisor.Supervisor(range(1, len(config.workers) + 1), config.hang_limit)
        self._board = SnapshotBuilder(config)
        self._token = secrets.token_bytes(16)
        self._sessions = UntilDone()
        self._toggles: PendingToggles[Route] = PendingToggles()
        self._exit_code: int | None = None
        self._next_publish = self._next_look = 0.0
        #: The last snapshot, for the metrics.
        self._latest: Status | None = None
        self._journal = EventLog(screen.log)
        self._resources = ExitStack()
        try:
            self._open(config, console)
        except BaseException:
            self._resources.close()
            raise

    def run(self) -> int:
        """Serves until quit, SIGINT, SIGTERM, SIGHUP, or (with ``until_done``) a client's ``done``."""
        while self._exit_code is None or not self._stopped:
            for source in self._wait():
                self._sources[source]()
            now = time.monotonic()
            # It may have been stopped since the wait has ended.
            self._excuse(self._stalls.after_work(now), now)
            self._handle(TimePassed(), now)
            for peer, answer in self._toggles.answers(self._supervisor, now):
                peer.send(answer)
            self._sessions.pass_time(now, awake=self._supervisor.any_awake)
            if self._until_done and not self._supervisor.quitting and self._sessions.may_end(now):
                self._end(0)
            if now >= self._next_publish:
                self._publish(now)
            if now >= self._next_look:
                # The journal keeps a rate for each second, however seldom snapshots are published.
                self._next_look = now + SAMPLE
                self._journal.snapshot(self._snapshot(), time.time())
            self._indexing.pass_time(now)
            if self._doors.look(now):
                # The new sockets know nothing of what the old ones said.
                self._publish(now)
        return self._exit_code

    def close(self) -> None:
        """Ends all processes and frees all ports."""
        self._resources.close()

    # Start.

    def _open(self, config: Config, console: Sequence[str] | None) -> None:
        release = self._resources.callback
        context = zmq.Context()
        release(context.term)
        for number, worker in enumerate(config.workers, 1):
            release(hold_port(worker.endpoint, f"worker {number}").close)
        if config.metrics is not None:
            from msd.broker.status.metrics import Metrics

            release(Metrics(config.metrics, lambda: self._latest).close)
        self._poller = zmq.Poller()
        self._sources: dict[object, Callable[[], None]] = {}
        self._doors = Listeners(
            context, config, listen=self._listen, ignore=self._poller.unregister, on_requests=self._read_control
        )
        release(self._doors.close)
        self._folder = make_folder(config.control)
        release(remove_folder, self._folder)
        endpoint = self._doors.open_local(self._folder)
        self._processes = WorkerProcesses(config, self._folder, endpoint, self._token, self._doors.keys)
        release(self._processes.close)
        # The end of the terminal is an order to end; started with nohup it is none.
        hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
        self._signals = SignalDescriptor(signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, *hangup)
        release(self._signals.close)
        self._stopped = False
        self._stalls = StallDetector(time.monotonic())
        assert config.path is not None
        self._indexing = IndexerSupervisor(
            config.path,
            self._folder,
            note=self._screen.note,
            listen=lambda source: self._listen(source, self._read_indexer),
            ignore=self._poller.unregister,
        )
        release(self._indexing.close)
        self._listen(self._signals.fileno(), self._read_signals)
        self._desk = LocalConsole(
            config,
            self._screen,
            console,
            listen=self._listen,
            ignore=self._poller.unregister,
            toggle=lambda number: self._handle(supervisor.ToggleReceived(number, None), time.monotonic()),
            end=self._end,
        )
        release(self._desk.close)

    def _listen(self, source: zmq.Socket[bytes] | int, handler: Callable[[], None]) -> None:
        self._poller.register(source, zmq.POLLIN)
        self._sources[source] = handler

    # The supervisor's events and actions.

    def _handle(self, event: supervisor.Event, now: float) -> None:
        self._journal.take(event)
        for action in self._supervisor.handle(event, now):
            self._do(action, now)

    def _do(self, action: supervisor.Action, now: float) -> None:
        match action:
            case supervisor.Spawn(number, wanted, edition):
                try:
                    pid = self._processes.spawn(number, wanted, edition)
                    event: supervisor.Event = supervisor.Spawned(number, pid)
                except OSError as error:
                    event = supervisor.Exited(number, 0, f"cannot be started: {error.strerror}")
                self._handle(event, now)
            case supervisor.SendOrder(number, wanted, edition):
                self._order(number, Order(wanted=wanted, edition=edition))
            case supervisor.SendQuit(number):
                self._order(number, QuitOrder())
            case supervisor.Kill(number):
                self._processes.kill(number)
            case supervisor.Publish():
                self._publish(now)
            case supervisor.Stop():
                self._stopped = True

    def _order(self, number: int, order: WorkerOrder) -> None:
        # One that has not reported yet is told when it does.
        route = self._supervisor.workers[number].route
        if isinstance(route, Route):
            route.send(order)

    def _publish(self, now: float) -> None:
        self._next_publish = now + self._config.interval
        status = self._latest = self._snapshot()
        self._journal.snapshot(status, time.time())
        self._doors.publish(status)
        if not self._supervisor.quitting:
            self._desk.show(status, self._doors.keys.public if self._doors.keys else None)

    def _snapshot(self) -> Status:
        now = time.monotonic()
        return self._board.snapshot(
            self._supervisor,
            now,
            malformed_messages=self._doors.malformed_messages,
            rejected_connections=self._doors.rejected_connections,
        )

    def _end(self, code: int) -> None:
        if self._supervisor.quitting:
            return
        self._exit_code = code
        self._desk.close()
        self._handle(supervisor.QuitReceived(), time.monotonic())

    # What arrives.

    def _read_signals(self) -> None:
        for number in self._signals.read():
            if number == signal.SIGCHLD:
                now = time.monotonic()
                for ended in self._processes.reap():
                    self._handle(supervisor.Exited(ended.number, ended.pid, ended.reason), now)
                self._desk.look()
            else:
                self._end(128 + number)

    def _read_indexer(self) -> None:
        for indexed in self._indexing.read(time.monotonic()):
            if not self._supervisor.edition:
                self._vouch(indexed)
            self._handle(supervisor.CatalogueReady(indexed.edition), time.monotonic())

    def _vouch(self, indexed: Indexed) -> None:
        """Says from now on that this catalogue is right."""
        self._board.files = indexed.files
        self._board.catalogue = bytes.fromhex(indexed.catalogue)

    def _read_control(self) -> None:
        now = time.monotonic()
        for peer, role, request in self._doors.requests():
            if isinstance(request, Heartbeat):
                self._hear(peer, request, now)
            elif isinstance(request, ORDERS) and role is not Role.OPERATOR:
                message = "this key is admitted as a client: orders are an operator's to give"
                peer.send(Rejected(rid=request.rid, message=message, denied=True))
            else:
                self._obey(peer, request, now)

    def _hear(self, peer: Route, beat: Heartbeat, now: float) -> None:
        if not secrets.compare_digest(beat.token, self._token):
            return
        event = supervisor.HeartbeatReceived(
            beat.number, beat.pid, beat.epoch, beat.state, beat.edition, beat.load, frozenset(beat.sessions), peer
        )
        self._handle(event, now)
        indexed = self._indexing.latest
        if beat.edition == indexed.edition:
            if beat.load.stale:
                self._indexing.nudge()
            if self._board.catalogue.hex() != indexed.catalogue:
                # Not before there is a worker who has it, or clients would look for it in vain.
                self._vouch(indexed)
                self._publish(now)
        # What the supervisor made of it: the late word of a process that is gone counts for nothing.
        if (worker := self._supervisor.workers.get(beat.number)) is not None:
            self._board.measure(worker.number, worker.load.bytes_sent, now)
            self._sessions.reported(worker.sessions)

    def _obey(self, peer: Route, request: ControlRequest, now: float) -> None:
        match request:
            case Toggle(rid=rid, number=number, want=want):
                if number not in self._supervisor.workers:
                    message = f"there is no worker {number}: they are 1 to {len(self._supervisor.workers)}"
                    peer.send(Rejected(rid=rid, message=message))
                    return
                self._toggles.add(peer, rid, number, now)
                self._handle(supervisor.ToggleReceived(number, want), now)
            case StatusRequest(rid=rid):
                peer.send(self._journal.report(rid, self._snapshot()))
            case Quit(rid=rid):
                peer.send(Accepted(rid=rid))
                self._end(0)
            case Done(rid=rid, session=session):
                peer.send(Accepted(rid=rid))
                self._sessions.done(session, now)
            case Complaint(rid=rid, number=number):
                peer.send(Accepted(rid=rid))
                if number in self._supervisor.workers:
                    self._supervisor.workers[number].complaints += 1

    # Time.

    def _wait(self) -> list[object]:
        """The sources that something has arrived from; waits until something is due."""
        began = time.monotonic()
        until = max(began, min(began + LONGEST_WAIT, *self._due()))
        ready = [source for source, _ in self._poller.poll(math.ceil((until - began) * 1000))]
        now = time.monotonic()
        self._excuse(self._stalls.after_wait(began, until, now), now)
        return ready

    def _excuse(self, stalled: float, now: float) -> None:
        """Tells the cores for how long this process did not look."""
        if stalled:
            self._handle(supervisor.Stalled(stalled), now)
            self._sessions.stalled(stalled)

    def _due(self) -> list[float]:
        """When time alone will matter."""
        times = [
            self._next_publish,
            self._next_look,
            self._indexing.next_deadline(),
            self._toggles.next_deadline(),
            self._supervisor.next_deadline(),
        ]
        if self._until_done and not self._supervisor.quitting:
            times.append(self._sessions.next_deadline())
        return [deadline for deadline in times if deadline is not None]


def serve(
    config: Config,
    *,
    until_done: bool,
    console: Sequence[str] | None = None,
    stdout: int = 1,
    verbose: bool = False,
) -> int:
    """Runs a broker as ``config`` says; its exit code. ``console`` is the command of the console to show in
    place of the plain one; ``verbose`` logs to standard error. Raises ``MsdError`` where it cannot.
    """
    raise_descriptor_limit()  # A subscriber is a descriptor; there may be thousands.
    screen = OutputThread(stdout, verbose=verbose)
    try:
        broker = Broker(config, screen, until_done=until_done, console=console)
        try:
            return broker.run()
        finally:
            broker.close()
    finally:
        screen.close()
