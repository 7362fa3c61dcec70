"""A ROUTER behind a doorkeeper and clients that knock: for the tests of who is let in, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from msd.wire.net.monitor import Handshake, Monitor
from msd.wire.net.sockets import receive, tune
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials, KeyPair, Role
from msd.wire.security.zap import ZapHandler, role_of

#: Seconds until something that should happen is taken to never happen.
PATIENCE = 10.0


@dataclass
class Client:
    """A DEALER that has sent a message, and what its monitor has told."""

    socket: zmq.Socket[bytes]
    monitor: Monitor
    told: list[Handshake | ConnectionRefusal] = field(default_factory=list)

    @property
    def refused(self) -> list[ConnectionRefusal]:
        return [event for event in self.told if isinstance(event, ConnectionRefusal)]


class Doorway:
    """Answers, receives and listens only while a test waits ``until`` something is so."""

    def __init__(self, stack: ExitStack, own: KeyPair | None, folder: Path | None) -> None:
        self._stack = stack
        self.context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self.doorkeeper = ZapHandler(self.context, own, folder)
        stack.callback(self.doorkeeper.close)
        self.clients: list[Client] = []
        #: What came in, and in which role.
        self.arrived: list[tuple[bytes, Role]] = []
        self.socket = self._open()
        self.url = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def knock(self, shown: Credentials | None, message: bytes = b"hello", *, again_ms: int = -1) -> Client:
        """Connects and sends; tries again only where ``again_ms`` says after how long."""
        socket = self._stack.enter_context(self.context.socket(zmq.DEALER))
        tune(socket, credentials=shown)
        socket.linger = 0
        socket.reconnect_ivl = again_ms
        client = Client(socket, Monitor(socket, encrypted=shown is not None))
        self._stack.callback(client.monitor.close)
        socket.connect(self.url)
        # Whoever is refused for good cannot send: without NOBLOCK that would wait for ever.
        with suppress(zmq.Again):
            socket.send(message, zmq.NOBLOCK)
        self.clients.append(client)
        return client

    def until(self, is_so: Callable[[], object]) -> None:
        give_up = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < give_up, f"arrived {self.arrived}, told {[c.told for c in self.clients]}"
            self._turn()

    def _open(self) -> zmq.Socket[bytes]:
        socket = self._stack.enter_context(self.context.socket(zmq.ROUTER))
        tune(socket)
        socket.linger = 0
        self.doorkeeper.protect(socket)
        socket.bind("tcp://127.0.0.1:*")
        return socket

    def _turn(self) -> None:
        poller = zmq.Poller()
        for source in (self.doorkeeper.socket, self.socket, *(client.monitor.socket for client in self.clients)):
            if not source.closed:
                poller.register(source, zmq.POLLIN)
        poller.poll(50)
        if not self.doorkeeper.socket.closed:
            self.doorkeeper.handle()
        while not self.socket.closed and (frames := receive(self.socket)) is not None:
            self.arrived.append((frames[1].bytes, role_of(frames[1])))
        for client in self.clients:
            client.told += client.monitor.read()


@contextmanager
def doorway(own: KeyPair | None = None, folder: Path | None = None) -> Iterator[Doorway]:
    with ExitStack() as stack:
        yield Doorway(stack, own, folder)
