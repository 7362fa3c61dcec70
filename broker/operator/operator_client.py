"""An operator's side of the control socket: one request, one reply, each within a deadline.

Finds the control socket through server 5's snapshot, so that one port is all it has to know.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from types import TracebackType
from typing import Self, TypeVar

import zmq

from msd.wire.config.settings import Servers
from msd.wire.errors import NoAnswerError, NotAllowedError, ProtocolError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import Monitor
from msd.wire.net.sockets import Frames, receive, tune
from msd.wire.protocol.codec import STATUS_TOPIC, decode, encode
from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    Accepted,
    ControlReply,
    Message,
    Quit,
    Rejected,
    Status,
    StatusReport,
    StatusRequest,
    Toggle,
    Toggled,
)
from msd.wire.protocol.states import ConnectionRefusal, WantedState

#: Seconds for one request after which nobody is taken to answer any more. A toggle may take three.
PATIENCE = 5.0
#: Seconds for which the servers break off every handshake before they are taken to have another key.
BROKEN_OFF_FOR = 1.0

R = TypeVar("R", bound=Message)


class OperatorClient:
    """Gives orders to the broker of ``servers``. A context manager; raises ``MsdError``."""

    def __init__(self, servers: Servers, patience: float = PATIENCE) -> None:
        self._status = servers.status
        self._credentials = servers.credentials
        self._patience = patience
        self._context = zmq.Context()
        self._monitors: list[Monitor] = []
        try:
            self._snapshots, self._snapshots_monitor = self._connect(zmq.SUB, self._status)
            #: The latest word of server 5, by whichever way it came.
            self.latest = self._snapshot(time.monotonic() + patience)
            control = Endpoint.parse(self.latest.control)
            self._control, self._control_monitor = self._connect(zmq.DEALER, Endpoint(self._status.host, control.port))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def status(self) -> Status:
        return self.report().status

    def report(self) -> StatusReport:
        """The status, and what happened lately."""
        report = self._ask(StatusRequest(rid=_rid()), StatusReport)
        self.latest = report.status
        return report

    def toggle(self, number: int, want: WantedState | None) -> Toggled:
        """Toggles a worker, or sets what is wanted of it; returns when it is there, or 3 s later."""
        return self._ask(Toggle(rid=_rid(), number=number, want=want), Toggled)

    def quit(self) -> None:
        self._ask(Quit(rid=_rid()), Message)

    def next_snapshot(self) -> Status:
        """What server 5 publishes after the status told last. It is not there any more when it misses its
        interval three times.
        """
        give_up = time.monotonic() + 3 * self.latest.interval + 1
        while True:
            status = self._snapshot(give_up)
            # A report may be newer than the snapshots that were on their way before it.
            if status.epoch != self.latest.epoch or status.seq > self.latest.seq:
                self.latest = status
                return status

    def _snapshot(self, give_up: float) -> Status:
        while True:
            if status := published(self._next(self._snapshots, self._snapshots_monitor, give_up)):
                return status

    def _connect(self, kind: int, endpoint: Endpoint) -> tuple[zmq.Socket[bytes], Monitor]:
        socket = self._context.socket(kind)
        tune(socket, ipv6=endpoint.is_ipv6, credentials=self._credentials)
        socket.linger = 0
        if kind == zmq.SUB:
            socket.subscribe(STATUS_TOPIC)
        monitor = Monitor(socket, encrypted=self._credentials is not None)
        self._monitors.append(monitor)
        socket.connect(endpoint.url)
        return socket, monitor

    def close(self) -> None:
        for monitor in self._monitors:
            monitor.close()
        self._context.destroy(0)

    def _ask(self, request: Message, kind: type[R]) -> R:
        give_up = time.monotonic() + self._patience
        # A connection that was cut off takes nothing: its monitor will tell why.
        with contextlib.suppress(zmq.Again):
            self._control.send(encode(request), zmq.NOBLOCK)
        while True:
            reply = answered(self._next(self._control, self._control_monitor, give_up))
            if reply is None or reply.rid != getattr(request, "rid", None):
                continue
            if isinstance(reply, Rejected):
                raise (NotAllowedError if reply.denied else UsageError)(reply.message)
            if isinstance(reply, kind):
                return reply

    def _next(self, socket: zmq.Socket[bytes], monitor: Monitor, give_up: float) -> list[zmq.Frame]:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(monitor.socket, zmq.POLLIN)
        broken_off_since: float | None = None
        while (left := give_up - time.monotonic()) > 0:
            ready = dict(poller.poll(int(left * 1000)))
            if socket in ready:
                return receive(socket) or []
            for event in monitor.read():
                if event is ConnectionRefusal.HANDSHAKE:
                    # A server that dies may break off a handshake; only one with another key does so on and on.
                    broken_off_since = broken_off_since or time.monotonic()
                    if time.monotonic() < broken_off_since + BROKEN_OFF_FOR:
                        continue
                if isinstance(event, ConnectionRefusal):
                    raise NotAllowedError(event.explained(self._status, encrypted=self._credentials is not None))
        raise NoAnswerError(f"server 5 at {self._status} does not answer: is msd serve running there?")


def published(frames: Frames) -> Status | None:
    """The snapshot in a message of the status socket, None if it is none. Raises ``NotAllowedError`` for
    another version of the protocol.
    """
    try:
        status: Status | None = decode(frames[0].bytes.removeprefix(STATUS_TOPIC), Status) if len(frames) == 1 else None
    except ProtocolError:
        return None
    if status is not None and status.version != PROTOCOL_VERSION:
        raise NotAllowedError(
            f"server 5 speaks version {status.version} of the protocol, this command version"
            f" {PROTOCOL_VERSION}: update the older side"
        )
    return status


def answered(frames: Frames) -> Accepted | Toggled | StatusReport | Rejected | None:
    """The reply in a message of the control socket, None if it is none."""
    try:
        reply: Accepted | Toggled | StatusReport | Rejected | None = (
            decode(frames[0].buffer, ControlReply) if len(frames) == 1 else None
        )
    except ProtocolError:
        return None
    return reply


def _rid() -> int:
    return secrets.randbits(62)
