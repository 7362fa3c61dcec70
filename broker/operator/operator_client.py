"""A blocking client of server 5: sends one request at a time and waits for its reply until a deadline.

Reads the control socket's port from a snapshot, so only the status port has to be configured. Does not reconnect and
does not print.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable
from typing import Self, TypeVar

import zmq

from msd.wire.config.servers import Servers
from msd.wire.errors import NoAnswerError, NotAllowedError, ProtocolError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import ConnectionEvent, Monitor
from msd.wire.net.poll_loop import PollLoop
from msd.wire.net.sockets import receive, tcp_socket
from msd.wire.net.status_subscriber import StatusSubscriber
from msd.wire.protocol.codec import decode, encode
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
    new_rid,
)
from msd.wire.protocol.states import ConnectionRefusal, WantedState

#: Seconds to wait for the reply to one request. The broker answers a toggle within 3 s.
REQUEST_TIMEOUT_S = 5.0
#: Seconds for which every handshake must fail before a wrong server key is reported as the cause.
HANDSHAKE_FAILURE_WINDOW_S = 1.0

Reply = Accepted | Toggled | StatusReport | Rejected
T = TypeVar("T")
R = TypeVar("R", bound=Message)


class OperatorClient:
    """Requests the status and sends orders to the broker of ``servers``. ``timeout`` is in seconds per request.

    A context manager. Its methods raise ``MsdError``: ``NoAnswerError`` after the timeout, ``NotAllowedError`` for a
    refused connection or order, ``UsageError`` for an invalid order.

    A caller that must not block sends its requests with ``send``, polls ``loop`` and calls ``take_messages``.
    """

    def __init__(self, servers: Servers, timeout: float = REQUEST_TIMEOUT_S) -> None:
        self._server5 = servers.status
        self._credentials = servers.credentials
        self._timeout = timeout
        self._snapshots: deque[Status] = deque()
        self._replies: deque[Reply] = deque()
        #: Why server 5 refuses this operator; None if it does not.
        self._refusal: NotAllowedError | None = None
        self._failing_since: float | None = None
        self.loop = PollLoop()
        with contextlib.ExitStack() as resources:
            context = zmq.Context()
            resources.callback(context.destroy, 0)
            subscriber = StatusSubscriber(context, self._server5, self._credentials)
            resources.callback(subscriber.close)
            snapshots, connection = subscriber.sources
            self.loop.register(snapshots, lambda: self._on_snapshots(subscriber.read_snapshots()))
            self.loop.register(connection, lambda: self._on_connection(subscriber.read_connection()))
            #: The newest status received, whether published or sent as a reply.
            self.latest = self._receive(self._snapshots, time.monotonic() + timeout)
            #: True if a connection was closed after the first snapshot.
            self.is_lost = False
            control = Endpoint(self._server5.host, Endpoint.parse(self.latest.control).port)
            self._control = tcp_socket(context, zmq.DEALER, control, self._credentials)
            monitor = Monitor(self._control, encrypted=self._credentials is not None)
            resources.callback(monitor.close)
            self.loop.register(self._control, self._on_replies)
            self.loop.register(monitor.socket, lambda: self._on_connection(monitor.read()))
            self._control.connect(control.url)
            self._resources = resources.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._resources.close()

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
            status = self._receive(self._snapshots, deadline)
            # Snapshots published before the latest report may arrive after it.
            if status.epoch != self.latest.epoch or status.seq > self.latest.seq:
                self.latest = status
                return status

    def send(self, request: Message) -> None:
        """Sends a request without waiting for its reply."""
        # Sending on a closed connection fails; the monitor reports the cause.
        with contextlib.suppress(zmq.Again):
            self._control.send(encode(request), zmq.NOBLOCK)

    def take_messages(self) -> list[Status | Reply]:
        """Returns the snapshots and replies received since the last call. Raises ``NotAllowedError`` if this
        operator is refused.
        """
        if self._refusal is not None:
            raise self._refusal
        messages = [*self._snapshots, *self._replies]
        self._snapshots.clear()
        self._replies.clear()
        return messages

    def _request(self, request: Message, reply_type: type[R]) -> R:
        deadline = time.monotonic() + self._timeout
        self.send(request)
        while True:
            reply = self._receive(self._replies, deadline)
            if reply.rid != getattr(request, "rid", None):
                continue
            if isinstance(reply, Rejected):
                raise (NotAllowedError if reply.denied else UsageError)(reply.message)
            if isinstance(reply, reply_type):
                return reply

    def _receive(self, queue: deque[T], deadline: float) -> T:
        """Waits until ``queue`` contains a message, and takes it."""
        self._failing_since = None
        while not queue:
            if self._refusal is not None:
                raise self._refusal
            if time.monotonic() >= deadline:
                raise NoAnswerError(f"server 5 at {self._server5} does not answer: is msd serve running there?")
            self.loop.wait([deadline])
            self.loop.dispatch()
        return queue.popleft()

    def _on_snapshots(self, snapshots: Iterable[Status]) -> None:
        for status in snapshots:
            if status.version == PROTOCOL_VERSION:
                self._snapshots.append(status)
            else:
                self._refusal = NotAllowedError(
                    f"server 5 uses protocol version {status.version}, but this command uses version"
                    f" {PROTOCOL_VERSION}: update the older side"
                )

    def _on_replies(self) -> None:
        while (frames := receive(self._control)) is not None:
            if len(frames) == 1:
                with contextlib.suppress(ProtocolError):
                    self._replies.append(decode(frames[0].buffer, ControlReply))

    def _on_connection(self, events: Iterable[ConnectionEvent | ConnectionRefusal]) -> None:
        for event in events:
            if event is ConnectionEvent.CLOSED:
                self.is_lost = True
            if event is ConnectionRefusal.HANDSHAKE:
                # A server that is shutting down may abort one handshake; with a wrong key every handshake fails.
                self._failing_since = self._failing_since or time.monotonic()
                if time.monotonic() < self._failing_since + HANDSHAKE_FAILURE_WINDOW_S:
                    continue
            if isinstance(event, ConnectionRefusal):
                self._refusal = NotAllowedError(event.explain(self._server5, encrypted=self._credentials is not None))
