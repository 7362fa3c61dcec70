"""A ROUTER socket with a ZAP handler, and clients that connect to it, for tests of admission and of monitors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from msd.wire.net.monitor import ConnectionEvent, Monitor
from msd.wire.net.sockets import receive, tune
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials, KeyPair, Role
from msd.wire.security.zap import ZapHandler

#: Seconds after which a test stops waiting and fails.
TIMEOUT = 10.0


@dataclass
class Client:
    """A DEALER socket that has sent a message, and the events of its monitor."""

    socket: zmq.Socket[bytes]
    monitor: Monitor
    events: list[ConnectionEvent | ConnectionRefusal] = field(default_factory=list)

    @property
    def refusals(self) -> list[ConnectionRefusal]:
        return [event for event in self.events if isinstance(event, ConnectionRefusal)]


class ZapServer:
    """A server that handles ZAP requests, messages and monitor events only during ``wait_until``."""

    def __init__(self, stack: ExitStack, own: KeyPair | None, folder: Path | None) -> None:
        self._stack = stack
        self.context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self.zap_handler = ZapHandler(self.context, own, folder)
        stack.callback(self.zap_handler.close)
        self.clients: list[Client] = []
        #: The received messages, each with the present role of its sender.
        self.received: list[tuple[bytes, Role | None]] = []
        self.socket = self._open()
        self.url = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def connect(self, credentials: Credentials | None, message: bytes = b"hello", *, reconnect_ms: int = -1) -> Client:
        """Connects a client and sends ``message``. The client reconnects only if ``reconnect_ms`` is not -1."""
        socket = self._stack.enter_context(self.context.socket(zmq.DEALER))
        tune(socket, credentials=credentials)
        socket.linger = 0
        socket.reconnect_ivl = reconnect_ms
        client = Client(socket, Monitor(socket, encrypted=credentials is not None))
        self._stack.callback(client.monitor.close)
        socket.connect(self.url)
        # A client that was refused and does not reconnect cannot send; without NOBLOCK, the call would block.
        with suppress(zmq.Again):
            socket.send(message, zmq.NOBLOCK)
        self.clients.append(client)
        return client

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Runs the server until ``condition()`` is true; fails after ``TIMEOUT`` seconds."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            events = [client.events for client in self.clients]
            assert time.monotonic() < deadline, f"timed out: received {self.received}, events {events}"
            self._poll_once()

    def _open(self) -> zmq.Socket[bytes]:
        socket = self._stack.enter_context(self.context.socket(zmq.ROUTER))
        tune(socket)
        socket.linger = 0
        self.zap_handler.protect(socket)
        socket.bind("tcp://127.0.0.1:*")
        return socket

    def _poll_once(self) -> None:
        poller = zmq.Poller()
        for socket in (self.zap_handler.socket, self.socket, *(client.monitor.socket for client in self.clients)):
            if not socket.closed:
                poller.register(socket, zmq.POLLIN)
        poller.poll(50)
        if not self.zap_handler.socket.closed:
            self.zap_handler.handle()
        while not self.socket.closed and (frames := receive(self.socket)) is not None:
            role = self.zap_handler.role_of(self.zap_handler.key_of(frames[1]))
            self.received.append((frames[1].bytes, role))
        for client in self.clients:
            client.events += client.monitor.read()


@contextmanager
def zap_server(own: KeyPair | None = None, folder: Path | None = None) -> Iterator[ZapServer]:
    """A running ``ZapServer`` with key pair ``own`` and key folder ``folder``, without keys if both are None."""
    with ExitStack() as stack:
        yield ZapServer(stack, own, folder)
