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
from msd.wire.net.contact_probes import ContactProbes
from msd.wire.net.contacts import Expecting, Refused
from msd.wire.net.diagnosis import diagnose, refused_error
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import ConnectionEvent, Monitor
from msd.wire.net.poll_loop import PollLoop
from msd.wire.net.sockets import receive, tcp_socket
from msd.wire.net.status_subscriber import OtherVersion, StatusSubscriber
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
#: The names of the two addresses in messages.
SERVER_5, CONTROL = "server 5", "control port of server 5"

Reply = Accepted | Toggled | StatusReport | Rejected
T = TypeVar("T")
R = TypeVar("R", bound=Message)


class OperatorClient:
    """Requests the status and sends orders to the broker of ``servers``. ``timeout`` is in seconds per request.

    A context manager. Its methods raise ``MsdError``: ``NoAnswerError`` after the timeout, or earlier if the
    addresses show that msd does not run, ``NotAllowedError`` for a refused connection or order, ``UsageError`` for an
    invalid order.

    A caller that must not block sends its requests with ``send``, polls ``loop`` and calls ``take_messages``.
    """

    def __init__(self, servers: Servers, timeout: float = REQUEST_TIMEOUT_S) -> None:
        servers = servers.resolved(timeout)
        self._addresses = {SERVER_5: servers.status}
        self._probes = ContactProbes(encrypted=servers.credentials is not None)
        self._credentials = servers.credentials
        self._timeout = timeout
        self._snapshots: deque[Status] = deque()
        self._replies: deque[Reply] = deque()
        #: Server 5 definitively refuses this operator.
        self._is_refused = False
        self._failing_since: float | None = None
        #: The servers that closed a connection after the first snapshot.
        self._closed: set[str] = set()
        self.loop = PollLoop()
        with contextlib.ExitStack() as resources:
            context = zmq.Context()
            resources.callback(context.destroy, 0)
            resources.callback(self._probes.close)
            self.loop.register(self._probes.fd, self._probes.read)
            subscriber = StatusSubscriber(context, servers.status, self._credentials)
            resources.callback(subscriber.close)
            snapshots, connection = subscriber.sources
            self.loop.register(snapshots, lambda: self._on_snapshots(subscriber.read_snapshots()))
            self.loop.register(connection, lambda: self._on_connection(SERVER_5, subscriber.read_connection()))
            #: The newest status received, whether published or sent as a reply.
            self.latest = self._receive(SERVER_5, self._snapshots, time.monotonic() + timeout)
            self._closed.clear()
            control = subscriber.endpoint.at_port(Endpoint.parse(self.latest.control).port)
            self._addresses = {CONTROL: control, SERVER_5: servers.status}
            self._control = tcp_socket(context, zmq.DEALER, control, self._credentials)
            monitor = Monitor(self._control, encrypted=self._credentials is not None)
            resources.callback(monitor.close)
            self.loop.register(self._control, self._on_replies)
            self.loop.register(monitor.socket, lambda: self._on_connection(CONTROL, monitor.read()))
            monitor.connect(control)
            self._resources = resources.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._resources.close()

    @property
    def is_lost(self) -> bool:
        """True if a connection was closed after the first snapshot."""
        return bool(self._closed)

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
            status = self._receive(SERVER_5, self._snapshots, deadline)
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
        if self._is_refused:
            raise refused_error(self._probes.contacts.refusals(), PROTOCOL_VERSION)
        messages = [*self._snapshots, *self._replies]
        self._snapshots.clear()
        self._replies.clear()
        return messages

    def _request(self, request: Message, reply_type: type[R]) -> R:
        deadline = time.monotonic() + self._timeout
        self.send(request)
        while True:
            reply = self._receive(CONTROL, self._replies, deadline)
            if reply.rid != getattr(request, "rid", None):
                continue
            if isinstance(reply, Rejected):
                raise (NotAllowedError if reply.denied else UsageError)(reply.message)
            if isinstance(reply, reply_type):
                return reply

    def _receive(self, name: str, queue: deque[T], deadline: float) -> T:
        """Waits until ``queue`` contains a message of the server ``name``, and takes it."""
        self._failing_since = None
        while not queue:
            if self._is_refused:
                raise refused_error(self._probes.contacts.refusals(), PROTOCOL_VERSION)
            self._expect(name)
            if (now := time.monotonic()) >= deadline or self._probes.contacts.is_msd_absent:
                raise NoAnswerError(diagnose(self._probes.contacts.current(), PROTOCOL_VERSION))
            self.loop.wait([deadline, self._probes.contacts.next_deadline(now)])
            self.loop.dispatch()
        self._probes.handle(Expecting(self._addresses, frozenset()))
        return queue.popleft()

    def _expect(self, name: str) -> None:
        """Expects an answer from the server ``name``. While the control port does not answer, it matters whether server
        5 still does; the other way round it does not.
        """
        addresses = self._addresses if name == CONTROL else {name: self._addresses[name]}
        self._probes.handle(Expecting(addresses, frozenset({name, *self._closed} & addresses.keys())))

    def _on_snapshots(self, snapshots: Iterable[Status | OtherVersion]) -> None:
        for status in snapshots:
            if isinstance(status, OtherVersion):
                self._refuse(SERVER_5, ConnectionRefusal.VERSION, status.version)
            else:
                self._snapshots.append(status)

    def _on_replies(self) -> None:
        while (frames := receive(self._control)) is not None:
            if len(frames) == 1:
                with contextlib.suppress(ProtocolError):
                    self._replies.append(decode(frames[0].buffer, ControlReply))

    def _on_connection(self, name: str, events: Iterable[ConnectionEvent | ConnectionRefusal]) -> None:
        for event in events:
            if isinstance(event, ConnectionRefusal):
                self._refuse(name, event)
            elif event is ConnectionEvent.CLOSED:
                self._closed.add(name)

    def _refuse(self, name: str, refusal: ConnectionRefusal, version: int | None = None) -> None:
        self._expect(name)
        self._probes.handle(Refused(name, self._addresses[name], refusal, version))
        if refusal is ConnectionRefusal.HANDSHAKE:
            # A server that is shutting down may abort one handshake; with a wrong key every handshake fails. A probe
            # shows whether it is another program that closes every connection.
            self._failing_since = self._failing_since or time.monotonic()
            if time.monotonic() < self._failing_since + HANDSHAKE_FAILURE_WINDOW_S:
                return
            if not self._probes.contacts.refusals():
                return
        self._is_refused = True
