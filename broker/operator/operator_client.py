"""A blocking client of server 5: sends one request at a time and waits for its reply until a deadline.

Reads the control socket's port from a snapshot, so only the status port has to be configured. Does not reconnect and
does not print.
"""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Self, TypeVar

import zmq

from msd.wire.config.servers import Servers
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
from msd.wire.protocol.request_ids import new_rid
from msd.wire.protocol.states import ConnectionRefusal, WantedState

#: Seconds to wait for the reply to one request. The broker answers a toggle within 3 s.
REQUEST_TIMEOUT_S = 5.0
#: Seconds for which every handshake must fail before a wrong server key is reported as the cause.
HANDSHAKE_FAILURE_WINDOW_S = 1.0

R = TypeVar("R", bound=Message)


class OperatorClient:
    """Requests the status and sends orders to the broker of ``servers``. ``timeout`` is in seconds per request.

    A context manager. Its methods raise ``MsdError``: ``NoAnswerError`` after the timeout, ``NotAllowedError`` for a
    refused connection or order, ``UsageError`` for an invalid order.
    """

    def __init__(self, servers: Servers, timeout: float = REQUEST_TIMEOUT_S) -> None:
        self._server5 = servers.status
        self._credentials = servers.credentials
        self._timeout = timeout
        self._context = zmq.Context()
        self._monitors: list[Monitor] = []
        try:
            self._status_socket, self._status_monitor = self._connect(zmq.SUB, self._server5)
            #: The newest status received, published or as a reply.
            self.latest = self._receive_snapshot(time.monotonic() + timeout)
            control = Endpoint.parse(self.latest.control)
            self._control_socket, self._control_monitor = self._connect(
                zmq.DEALER, Endpoint(self._server5.host, control.port)
            )
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
        """Returns the status with the latest events and rates."""
        report = self._request(StatusRequest(rid=new_rid()), StatusReport)
        self.latest = report.status
        return report

    def toggle(self, number: int, wanted: WantedState | None) -> Toggled:
        """Toggles a worker, or sets its wanted state. Returns once the worker has reached it, or after 3 s."""
        return self._request(Toggle(rid=new_rid(), number=number, wanted=wanted), Toggled)

    def quit(self) -> None:
        self._request(Quit(rid=new_rid()), Message)

    def next_snapshot(self) -> Status:
        """Waits for the first snapshot newer than ``latest``. Raises ``NoAnswerError`` if none arrives within three
        status intervals plus one second.
        """
        deadline = time.monotonic() + 3 * self.latest.interval + 1
        while True:
            status = self._receive_snapshot(deadline)
            # Snapshots published before the latest report may arrive after it.
            if status.epoch != self.latest.epoch or status.seq > self.latest.seq:
                self.latest = status
                return status

    def _receive_snapshot(self, deadline: float) -> Status:
        while True:
            if status := parse_snapshot(self._receive(self._status_socket, self._status_monitor, deadline)):
                return status

    def _connect(self, socket_type: int, endpoint: Endpoint) -> tuple[zmq.Socket[bytes], Monitor]:
        socket = self._context.socket(socket_type)
        tune(socket, ipv6=endpoint.is_ipv6, credentials=self._credentials)
        socket.linger = 0
        if socket_type == zmq.SUB:
            socket.subscribe(STATUS_TOPIC)
        monitor = Monitor(socket, encrypted=self._credentials is not None)
        self._monitors.append(monitor)
        socket.connect(endpoint.url)
        return socket, monitor

    def close(self) -> None:
        for monitor in self._monitors:
            monitor.close()
        self._context.destroy(0)

    def _request(self, request: Message, reply_type: type[R]) -> R:
        deadline = time.monotonic() + self._timeout
        # Sending on a closed connection fails; the monitor reports the cause.
        with contextlib.suppress(zmq.Again):
            self._control_socket.send(encode(request), zmq.NOBLOCK)
        while True:
            reply = parse_reply(self._receive(self._control_socket, self._control_monitor, deadline))
            if reply is None or reply.rid != getattr(request, "rid", None):
                continue
            if isinstance(reply, Rejected):
                raise (NotAllowedError if reply.denied else UsageError)(reply.message)
            if isinstance(reply, reply_type):
                return reply

    def _receive(self, socket: zmq.Socket[bytes], monitor: Monitor, deadline: float) -> list[zmq.Frame]:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(monitor.socket, zmq.POLLIN)
        failing_since: float | None = None
        while (seconds_left := deadline - time.monotonic()) > 0:
            ready = dict(poller.poll(int(seconds_left * 1000)))
            if socket in ready:
                return receive(socket) or []
            for event in monitor.read():
                if event is ConnectionRefusal.HANDSHAKE:
                    # A server that is shutting down may abort one handshake; with a wrong key every handshake fails.
                    failing_since = failing_since or time.monotonic()
                    if time.monotonic() < failing_since + HANDSHAKE_FAILURE_WINDOW_S:
                        continue
                if isinstance(event, ConnectionRefusal):
                    raise NotAllowedError(event.explain(self._server5, encrypted=self._credentials is not None))
        raise NoAnswerError(f"server 5 at {self._server5} does not answer: is msd serve running there?")


def parse_snapshot(frames: Frames) -> Status | None:
    """Returns the snapshot in a message from the status socket, None for a malformed message. Raises
    ``NotAllowedError`` if server 5 uses another version of the protocol.
    """
    try:
        status: Status | None = decode(frames[0].bytes.removeprefix(STATUS_TOPIC), Status) if len(frames) == 1 else None
    except ProtocolError:
        return None
    if status is not None and status.version != PROTOCOL_VERSION:
        raise NotAllowedError(
            f"server 5 uses protocol version {status.version}, but this command uses version"
            f" {PROTOCOL_VERSION}: update the older side"
        )
    return status


def parse_reply(frames: Frames) -> Accepted | Toggled | StatusReport | Rejected | None:
    """Returns the reply in a message from the control socket, None for a malformed message."""
    try:
        reply: Accepted | Toggled | StatusReport | Rejected | None = (
            decode(frames[0].buffer, ControlReply) if len(frames) == 1 else None
        )
    except ProtocolError:
        return None
    return reply
