"""``msd serve``: the poll loop that joins the supervisor to processes, sockets and the console.

Frames, exits, signals and lines become events of ``broker/supervision.py``; its actions are carried
out here. No policy lives in this module but what a session is: see ``Sessions``.
"""

from __future__ import annotations

import math
import os
import resource
import secrets
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType

import zmq

from broker.console import QuitLine, ToggleLine, WrongLine, parse, table
from broker.control import Control
from broker.folder import make_folder, remove_folder
from broker.processes import Indexer, WorkerProcesses, cannot_listen, hold_port
from broker.screen import Screen
from broker.status import Board, Publisher
from broker.supervision import (
    Action,
    CatalogueReady,
    Event,
    Exited,
    HeartbeatReceived,
    Kill,
    Ordered,
    Publish,
    QuitOrdered,
    SendOrder,
    SendQuit,
    Spawn,
    Spawned,
    Stop,
    Supervisor,
    TimePassed,
)
from wire.config import Config
from wire.errors import NotFoundError, UsageError
from wire.messages import (
    Accepted,
    AskStatus,
    Complaint,
    ControlRequest,
    Done,
    Heartbeat,
    Indexed,
    IndexProgress,
    IndexSkipped,
    Order,
    Quit,
    QuitOrder,
    Rejected,
    Report,
    Toggle,
    Toggled,
)
from wire.states import State

#: Seconds a toggle waits for the worker to get there before it is answered all the same.
TOGGLE_PATIENCE = 3.0
#: Seconds from a client's ``done`` until it is known who else is being served: two heartbeats.
UNTIL_DONE_DELAY = 0.5


@dataclass(frozen=True, slots=True)
class _PendingToggle:
    peer: bytes
    rid: int
    number: int
    answer_by: float


class Broker:
    """A broker and its workers. ``run()`` returns the exit code; ``close()`` ends what is left.

    Raises ``MsdError`` where it cannot start.
    """

    def __init__(self, config: Config, screen: Screen, *, until_done: bool = False) -> None:
        if config.path is None:
            raise UsageError("nothing to share: give -f PATH, or [share] path in config.toml")
        if not config.path.exists():
            raise NotFoundError(f"{config.path}: no such file or folder to share: check -f or [share] path")
        self._config = config
        self._screen = screen
        self._until_done = until_done
        self._supervisor = Supervisor(range(1, len(config.workers) + 1), config.hang_limit)
        self._board = Board(config)
        self._token = secrets.token_bytes(16)
        #: The routing id of each worker that has reported, for orders to it.
        self._peers: dict[int, bytes] = {}
        self._toggles: list[_PendingToggle] = []
        self._done_at: float | None = None
        self._finished: set[int] = set()
        self._exit_code: int | None = None
        self._ready_said = False
        self._next_publish = 0.0
        self._resources = ExitStack()
        try:
            self._open(config)
        except BaseException:
            self._resources.close()
            raise

    def run(self) -> int:
        """Serves until quit, SIGINT, SIGTERM, or (with ``until_done``) a client's ``done``."""
        while self._exit_code is None or not self._stopped:
            for source, _ in self._poller.poll(self._timeout_ms()):
                self._sources[source]()
            now = time.monotonic()
            self._handle(TimePassed(), now)
            self._answer_toggles(now)
            self._check_done(now)
            if now >= self._next_publish:
                self._publish(now)
        return self._exit_code

    def close(self) -> None:
        """Ends all processes and frees all ports."""
        self._resources.close()

    # Start.

    def _open(self, config: Config) -> None:
        release = self._resources.callback
        context = zmq.Context()
        release(context.term)
        for number, worker in enumerate(config.workers, 1):
            release(hold_port(worker.endpoint, f"worker {number}").close)
        try:
            self._publisher = Publisher(context, config)
        except zmq.ZMQError as error:
            raise cannot_listen(config.status, "server 5", error.errno or 0) from None
        release(self._publisher.close)
        try:
            self._control = Control(context, config)
        except zmq.ZMQError as error:
            raise cannot_listen(config.control, "control", error.errno or 0) from None
        release(self._control.close)
        self._folder = make_folder(config.control.port)
        release(remove_folder, self._folder)
        endpoint = self._control.bind_local(self._folder)
        self._processes = WorkerProcesses(config, self._folder, endpoint, self._token)
        release(self._processes.close)
        assert config.path is not None
        self._indexer = Indexer(config.path, self._folder)
        release(self._indexer.close)
        self._stopped = False
        self._poller = zmq.Poller()
        self._sources: dict[object, Callable[[], None]] = {}
        self._listen(self._publisher.socket, self._publisher.drain)
        self._listen(self._control.socket, self._read_control)
        self._listen(self._indexer.fileno(), self._read_indexer)
        self._listen(self._catch_signals(), self._read_signals)
        self._listen(0, self._read_lines)
        self._line = b""

    def _listen(self, source: zmq.Socket[bytes] | int, handler: Callable[[], None]) -> None:
        self._poller.register(source, zmq.POLLIN)
        self._sources[source] = handler

    def _catch_signals(self) -> int:
        """Turns signals into bytes on a socket, which ends a poll; its descriptor."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._signals = reader

        def noted(number: int, frame: FrameType | None) -> None:
            pass

        before = {number: signal.signal(number, noted) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
        old = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        def restore() -> None:
            signal.set_wakeup_fd(old)
            for number, handler in before.items():
                signal.signal(number, handler)
            reader.close()
            writer.close()

        self._resources.callback(restore)
        return reader.fileno()

    # The supervisor's events and actions.

    def _handle(self, event: Event, now: float) -> None:
        for action in self._supervisor.handle(event, now):
            self._do(action, now)

    def _do(self, action: Action, now: float) -> None:
        match action:
            case Spawn(number, wanted):
                self._peers.pop(number, None)
                try:
                    event: Event = Spawned(number, self._processes.spawn(number, wanted))
                except OSError as error:
                    event = Exited(number, 0, f"cannot be started: {error.strerror}")
                self._handle(event, now)
            case SendOrder(number, wanted):
                if number in self._peers:
                    self._control.send(self._peers[number], Order(wanted=wanted))
            case SendQuit(number):
                if number in self._peers:
                    self._control.send(self._peers[number], QuitOrder())
            case Kill(number):
                self._processes.kill(number)
            case Publish():
                self._publish(now)
            case Stop():
                self._stopped = True

    def _publish(self, now: float) -> None:
        self._next_publish = now + self._config.interval
        status = self._board.snapshot(self._supervisor)
        self._publisher.publish(status)
        if not self._supervisor.quitting:
            self._screen.show(table(status))
        if self._supervisor.all_awake and not self._ready_said:
            self._ready_said = True
            files = f"{status.files} file{'s' if status.files != 1 else ''}"
            self._screen.say(f"ready: {len(status.workers)} workers share {files}; {self._client_line()}")

    def _client_line(self) -> str:
        """The command a client needs, to be pasted."""
        host = self._config.status.seen_from("127.0.0.1").host
        if len(self._config.workers) == 4 and all(w.endpoint.host == self._config.host for w in self._config.workers):
            ports = " ".join(str(w.endpoint.port) for w in self._config.workers)
            return f"msd download -a {host} -p {ports} {self._config.status_port}"
        return f"msd download --server5 {self._config.status.seen_from('127.0.0.1')}"

    def _end(self, code: int) -> None:
        if self._exit_code is None:
            self._exit_code = code
        self._handle(QuitOrdered(), time.monotonic())

    # What arrives.

    def _read_signals(self) -> None:
        for number in self._signals.recv(4096):
            if number == signal.SIGCHLD:
                now = time.monotonic()
                for ended in self._processes.reap():
                    self._handle(Exited(ended.number, ended.pid, ended.reason), now)
            else:
                self._end(128 + number)

    def _read_lines(self) -> None:
        try:
            data = os.read(0, 4096)
        except OSError:
            data = b""
        if not data:
            # The end of the input is no order: a server started in the background has none.
            self._poller.unregister(0)
            return
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[-4096:]
        for line in lines:
            match parse(line.decode("utf-8", "replace"), len(self._config.workers)):
                case ToggleLine(number):
                    self._handle(Ordered(number, None), time.monotonic())
                case QuitLine():
                    self._end(0)
                case WrongLine(message):
                    self._screen.say(message)

    def _read_indexer(self) -> None:
        lines = self._indexer.lines()
        if lines is None:
            self._poller.unregister(self._indexer.fileno())
            self._handle(CatalogueReady(), time.monotonic())
            return
        for line in lines:
            match line:
                case IndexProgress(name=name, done=done, total=total):
                    self._screen.note(f"indexing {name}: {100 * done // max(total, 1)} %")
                case IndexSkipped(name=name, why=why):
                    self._screen.note(f"not shared: {name}: {why}")
                case Indexed(files=files, catalogue=catalogue):
                    self._board.files = files
                    self._board.catalogue = bytes.fromhex(catalogue)

    def _read_control(self) -> None:
        now = time.monotonic()
        for peer, request in self._control.requests():
            if isinstance(request, Heartbeat):
                self._hear(peer, request, now)
            else:
                self._obey(peer, request, now)

    def _hear(self, peer: bytes, heartbeat: Heartbeat, now: float) -> None:
        if not secrets.compare_digest(heartbeat.token, self._token):
            return
        self._peers[heartbeat.number] = peer
        self._board.measure(heartbeat.number, heartbeat.load.bytes_sent, now)
        self._handle(
            HeartbeatReceived(
                heartbeat.number,
                heartbeat.pid,
                heartbeat.epoch,
                heartbeat.state,
                heartbeat.load,
                frozenset(heartbeat.sessions),
            ),
            now,
        )

    def _obey(self, peer: bytes, request: ControlRequest, now: float) -> None:
        match request:
            case Toggle(rid=rid, number=number, want=want):
                if number not in self._supervisor.workers:
                    message = f"there is no worker {number}: they are 1 to {len(self._supervisor.workers)}"
                    self._control.send(peer, Rejected(rid=rid, message=message))
                    return
                self._toggles.append(_PendingToggle(peer, rid, number, now + TOGGLE_PATIENCE))
                self._handle(Ordered(number, want), now)
            case AskStatus(rid=rid):
                self._control.send(peer, Report(rid=rid, status=self._board.snapshot(self._supervisor)))
            case Quit(rid=rid):
                self._control.send(peer, Accepted(rid=rid))
                self._end(0)
            case Done(rid=rid, session=session):
                self._control.send(peer, Accepted(rid=rid))
                self._finished.add(session)
                self._done_at = now
            case Complaint(rid=rid, number=number):
                self._control.send(peer, Accepted(rid=rid))
                if number in self._supervisor.workers:
                    self._supervisor.workers[number].complaints += 1

    # What is due.

    def _answer_toggles(self, now: float) -> None:
        waiting = []
        for toggle in self._toggles:
            worker = self._supervisor.workers[toggle.number]
            reached = worker.state.value == worker.wanted.value
            if not reached and now < toggle.answer_by and not self._supervisor.quitting:
                waiting.append(toggle)
                continue
            reply = Toggled(rid=toggle.rid, number=toggle.number, state=worker.state, reached=reached)
            self._control.send(toggle.peer, reply)
        self._toggles = waiting

    def _check_done(self, now: float) -> None:
        if not self._until_done or self._done_at is None or now < self._done_at + UNTIL_DONE_DELAY:
            return
        served = [w.sessions for w in self._supervisor.workers.values() if w.state in (State.AWAKE, State.ASLEEP)]
        if not set().union(*served) - self._finished:
            self._end(0)

    def _timeout_ms(self) -> int:
        now = time.monotonic()
        due = [self._next_publish, *(toggle.answer_by for toggle in self._toggles)]
        if (deadline := self._supervisor.next_deadline()) is not None:
            due.append(deadline)
        if self._until_done and self._done_at is not None:
            due.append(max(now + 0.05, self._done_at + UNTIL_DONE_DELAY))
        return max(0, math.ceil((min(due) - now) * 1000))


def serve(config: Config, *, until_done: bool, stdout: int = 1) -> int:
    """Runs a broker as ``config`` says; its exit code. Raises ``MsdError`` where it cannot."""
    # A subscriber is a descriptor; there may be thousands.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    screen = Screen(stdout)
    try:
        broker = Broker(config, screen, until_done=until_done)
        try:
            return broker.run()
        finally:
            broker.close()
    finally:
        screen.close()
