"""A worker's connection to a broker on any machine: over TCP, and opened again whenever it ends.

Says why the broker does not answer. Does not decide when to join or what to send: see
``workers/serving/worker_life.py``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import zmq

from msd.wire.config.error_flags import with_flags
from msd.wire.errors import UsageError
from msd.wire.net.contact_probes import ContactProbes
from msd.wire.net.contacts import Expecting, Refused
from msd.wire.net.diagnosis import Outcome, refused_error
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import ConnectionEvent, Monitor
from msd.wire.net.name_lookup import NameLookup
from msd.wire.net.poll_loop import PollLoop
from msd.wire.net.sockets import exchange_packets, tcp_socket
from msd.wire.protocol.messages import PROTOCOL_VERSION, Message, WorkerMessage
from msd.wire.security.keys import Credentials
from msd.wire.support.backoff import backoff
from msd.workers.serving.broker_connection import prepare, received, send

#: Seconds before the broker is connected to again: the first delay, which doubles with every failure, and the maximum.
MIN_RECONNECT_S, MAX_RECONNECT_S = 0.25, 1.0
#: Seconds between two looks at the connection, and without a packet from the broker's machine after which it is lost.
CHECK_INTERVAL_S, SILENT_S = 0.25, 2.5
#: Seconds without an answer after which the worker says why, and after which the broker's name is looked up again.
EXPLAIN_AFTER_S, LOOK_UP_AFTER_S = 2.0, 5.0
#: What messages call the broker's address.
CONTROL = "control port of server 5"


class RemoteBroker:
    """A broker on any machine, whose control socket is at ``endpoint``. Connects again whenever the connection ends.

    ``show`` is called with each line about the connection.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        credentials: Credentials | None,
        show: Callable[[str], None],
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._credentials = credentials
        self._show = show
        self._probes = ContactProbes(encrypted=credentials is not None)
        self._socket: zmq.Socket[bytes] | None = None
        #: When to connect again; None while there is a connection or an attempt.
        self._reconnect_at: float | None = None
        self._failures = 0
        self._unanswered_since = time.monotonic()
        #: The last explanation, which is not repeated.
        self._explained = ""
        self._lookup: NameLookup | None = None

    def start(self, poll_loop: PollLoop, on_readable: Callable[[], None]) -> None:
        self._poll_loop, self._on_readable = poll_loop, on_readable
        poll_loop.register(self._probes.fd, self._probes.read)
        self._connect()

    def send(self, message: Message) -> bool:
        return self._socket is not None and send(self._socket, message)

    def receive(self) -> Iterator[WorkerMessage]:
        if self._socket is None:
            return
        for message in received(self._socket):
            if self._explained:
                self._show(f"server 5 at {self._endpoint} answers again")
            self._failures, self._explained = 0, ""
            self._unanswered_since = math.inf
            yield message

    def pass_time(self, now: float) -> float:
        self._finish_look_up()
        if self._socket is None:
            if self._reconnect_at is not None and now >= self._reconnect_at:
                self._connect()
        elif self._monitor.silent_seconds > SILENT_S:
            self._lose(now)
        is_answered = now < self._unanswered_since
        self._probes.handle(Expecting({CONTROL: self._endpoint}, frozenset() if is_answered else frozenset({CONTROL})))
        if now >= self._unanswered_since + EXPLAIN_AFTER_S:
            self._explain()
        if now >= self._unanswered_since + LOOK_UP_AFTER_S and self._lookup is None and self._endpoint.name_to_look_up:
            self._lookup = NameLookup([self._endpoint.name_to_look_up])
        return now + CHECK_INTERVAL_S

    def close(self) -> None:
        if self._lookup is not None:
            self._lookup.cancel()
        self._disconnect(linger_ms=200)
        self._poll_loop.unregister(self._probes.fd)
        self._probes.close()

    def _connect(self) -> None:
        self._reconnect_at = None
        self._socket = prepare(tcp_socket(self._context, zmq.DEALER, self._endpoint, self._credentials))
        exchange_packets(self._socket)
        self._monitor = Monitor(self._socket, encrypted=self._credentials is not None)
        self._poll_loop.register(self._socket, self._on_readable)
        self._poll_loop.register(self._monitor.socket, self._read_monitor)
        self._monitor.connect(self._endpoint)

    def _disconnect(self, linger_ms: int = 0) -> None:
        if self._socket is not None:
            self._poll_loop.unregister(self._socket)
            self._poll_loop.unregister(self._monitor.socket)
            self._monitor.close()
            self._socket.close(linger_ms)
            self._socket = None

    def _read_monitor(self) -> None:
        for event in [*self._monitor.read()]:
            if isinstance(event, ConnectionEvent):
                if event is ConnectionEvent.CLOSED:
                    self._lose(time.monotonic())
                    return
            else:
                self._probes.handle(Refused(CONTROL, self._endpoint, event))

    def _lose(self, now: float) -> None:
        """The connection has ended, or cannot be opened: connects again later. ZeroMQ does not after every error."""
        self._disconnect()
        self._failures += 1
        self._unanswered_since = min(self._unanswered_since, now)
        self._reconnect_at = now + backoff(self._failures, MIN_RECONNECT_S, MAX_RECONNECT_S)

    def _explain(self) -> None:
        contacts = self._probes.contacts.current()
        text = f"waiting: {with_flags(refused_error(contacts, PROTOCOL_VERSION))}; trying again"
        if text != self._explained and any(contact.outcome is not Outcome.UNKNOWN for contact in contacts):
            self._explained = text
            self._show(text)

    def _finish_look_up(self) -> None:
        if self._lookup is None or not self._lookup.wait(0.0):
            return
        lookup, self._lookup = self._lookup, None
        with suppress(UsageError):  # The name does not exist at present: keep its last addresses.
            endpoint = self._endpoint.with_addresses(lookup.result())
            if {*endpoint.addresses} != {*self._endpoint.addresses}:
                self._endpoint = endpoint
                self._disconnect()
                self._connect()
