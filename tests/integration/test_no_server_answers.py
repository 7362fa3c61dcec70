"""What a client says if no server answers: a real peer for each row of the table in ``wire/net/diagnosis.py``."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import zmq

from msd.client.events import Event, Waiting
from msd.client.network.pool import ConnectionPool
from msd.wire.config.servers import Servers
from msd.wire.errors import MsdError, NotAllowedError
from msd.wire.net.contacts import PROBE_DELAY_S, PROBE_INTERVAL_S, PROBE_TIMEOUT_S
from msd.wire.net.diagnosis import Outcome
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.sockets import receive
from msd.wire.protocol.codec import STATUS_TOPIC, encode
from msd.wire.protocol.messages import PROTOCOL_VERSION, Message, Natural, Seconds
from msd.wire.security.keys import Credentials, KeyPair
from msd.wire.security.zap import ZapHandler
from tests.connections import poll

LOOPBACK = "127.0.0.1"
#: Seconds within which a client without an answer says why.
LIMIT_S = 2.0
#: Seconds after which the second probes are over.
PROBES_S = PROBE_DELAY_S + PROBE_INTERVAL_S + PROBE_TIMEOUT_S
#: Seconds after which a test stops waiting and fails.
TIMEOUT = 15.0
VERSION = PROTOCOL_VERSION + 1


class LaterStatus(Message, frozen=True, tag="status"):
    """A snapshot of a later version of the protocol, in which a key has another type."""

    version: Natural
    workers: Seconds


class Peers:
    """Listeners on loopback, none of which is a server that this client can use."""

    def __init__(self, stack: ExitStack, keys: Path) -> None:
        self._stack = stack
        self._ended = threading.Event()
        stack.callback(self._ended.set)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(self._context.destroy, 0)
        self._sockets: list[zmq.Socket[bytes]] = []
        self.own = KeyPair.generate()
        self._zap = ZapHandler(self._context, self.own, keys)
        stack.callback(self._zap.close)

    def serve(self) -> None:
        """Lets the ZeroMQ sockets work: they answer connections and subscriptions only in their own calls."""
        self._zap.handle()
        for listening in self._sockets:
            receive(listening)

    def tcp(self, behaviour: Callable[[socket.socket], None]) -> Endpoint:
        """A listener that calls ``behaviour`` with each connection."""
        listener = self._listener(50)
        held: list[socket.socket] = []

        def close() -> None:
            for connection in held:
                connection.close()

        self._stack.callback(close)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                held.append(connection)
                behaviour(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)
        return _endpoint(listener)

    def dropping(self) -> Endpoint:
        """Drops connections, as a firewall does: its queue of waiting connections is full."""
        listener = self._listener(0)
        for _ in range(2):
            waiting = self._stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        return _endpoint(listener)

    def unused(self) -> Endpoint:
        """A port without a listener; as it stays bound, no other program gets it."""
        bound = self._stack.enter_context(closing(socket.socket()))
        bound.bind((LOOPBACK, 0))
        return _endpoint(bound)

    def zeromq(self, kind: int, *, encrypted: bool = False, admission: bool = False, welcome: bytes = b"") -> Endpoint:
        listening = self._stack.enter_context(self._context.socket(kind))
        listening.linger = 0
        self._sockets.append(listening)
        if admission:
            self._zap.protect(listening)
        elif encrypted:
            listening.curve_server = True
            listening.curve_secretkey = self.own.secret
        if welcome:
            listening.setsockopt(zmq.XPUB_WELCOME_MSG, welcome)
        return Endpoint(LOOPBACK, listening.bind_to_random_port(f"tcp://{LOOPBACK}"))

    def _listener(self, backlog: int) -> socket.socket:
        listener = self._stack.enter_context(closing(socket.socket()))
        listener.bind((LOOPBACK, 0))
        listener.listen(backlog)
        return listener


def _endpoint(bound: socket.socket) -> Endpoint:
    return Endpoint(LOOPBACK, bound.getsockname()[1])


def answer_http(connection: socket.socket) -> None:
    if b"\r\n\r\n" in connection.recv(99):
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


class Scene:
    """One client, what it said, and when."""

    def __init__(self, status: Endpoint, worker: Endpoint, credentials: Credentials | None) -> None:
        self.servers = Servers(status, {1: worker}, pinned=True, credentials=credentials)
        self.events: list[Event] = []
        self.error: MsdError | None = None
        self.pool = ConnectionPool(self.servers, download=True, on_event=self.events.append)

    def poll(self) -> None:
        if self.error is None:
            try:
                poll(self.pool, time.monotonic())
            except MsdError as error:
                self.error = error

    @property
    def waits(self) -> list[Waiting]:
        return [event for event in self.events if isinstance(event, Waiting)]

    def says(self, words: str) -> bool:
        """True if the error, or else the last reason for waiting, contains ``words``."""
        said = [str(self.error)] if self.error is not None else [waiting.reason for waiting in self.waits]
        return bool(said) and words in said[-1]


def test_within_two_seconds_a_client_says_what_each_address_answered(tmp_path: Path) -> None:
    with ExitStack() as stack:
        peers = Peers(stack, tmp_path)
        own = KeyPair.generate()
        right, wrong = (Credentials(own, key.public) for key in (peers.own, KeyPair.generate()))
        snapshot = STATUS_TOPIC + encode(LaterStatus(version=VERSION, workers=1.0))
        later = peers.zeromq(zmq.XPUB, welcome=snapshot)
        ssh = peers.tcp(lambda connection: connection.sendall(b"SSH-2.0-test\r\n"))
        silent, closing_peer = peers.tcp(lambda connection: None), peers.tcp(socket.socket.close)
        rows: dict[str, tuple[Endpoint, Endpoint, Credentials | None, Outcome, Outcome, str]] = {}
        for name, peer, outcome, words in (
            ("refused", peers.unused(), Outcome.REFUSED, " refuse the connection: is msd serve running there?"),
            ("dropped", peers.dropping(), Outcome.NO_ANSWER, " do not answer: check the address, and that no firewall"),
            ("unreachable", Endpoint("255.255.255.255", 9), Outcome.UNREACHABLE, " (network is unreachable): "),
            ("silent", silent, Outcome.SILENT, "accept the connection, but send nothing: its process is stopped, or"),
            ("closed", closing_peer, Outcome.CLOSED, "accept the connection and close it at once: "),
            ("http", peers.tcp(answer_http), Outcome.NOT_MSD, "are not msd (it sends 'HTTP/1.1 400 Bad Request')"),
            ("ssh", ssh, Outcome.NOT_MSD, "answer, but are not msd (it sends 'SSH-2.0-test'): check the address and"),
            ("other ZeroMQ", peers.zeromq(zmq.REP), Outcome.NO_REPLY, "accept ZeroMQ connections, but send no reply"),
        ):
            rows[name] = (peer, peer, None, outcome, outcome, words)
        # With a key, too, what closes every connection is not taken for a server with another key.
        rows["closed, with a key"] = (
            closing_peer,
            closing_peer,
            wrong,
            Outcome.CLOSED,
            Outcome.CLOSED,
            "and close it at",
        )
        rows["ssh, with a key"] = (ssh, ssh, wrong, Outcome.NOT_MSD, Outcome.NOT_MSD, "(it sends 'SSH-2.0-test')")
        half = f"worker 1 at {silent} accepts the connection, but sends nothing: "
        rows["half"] = (peers.unused(), silent, None, Outcome.REFUSED, Outcome.SILENT, half)
        scenes = {name: Scene(*row[:3]) for name, row in rows.items()}
        #: Refusals end the command, so they have no outcomes in an event.
        encrypted, plain = peers.zeromq(zmq.XPUB, encrypted=True), peers.zeromq(zmq.XPUB)
        admission = peers.zeromq(zmq.XPUB, admission=True)
        refusals = {
            "key required": (encrypted, None, "requires a key: give the server key that its msd serve prints"),
            "not admitted": (admission, right, "does not admit this key: ask the operator to run msd keys admit"),
            "no keys": (plain, wrong, "does not use keys: leave out the server key, also in config.toml"),
            "wrong key": (encrypted, wrong, "does not have this server key: compare it with the key that msd serve"),
            "version": (later, None, f"protocol version {VERSION}, but this side uses version {PROTOCOL_VERSION}: upd"),
        }
        for name, (peer, credentials, _) in refusals.items():
            scenes[name] = Scene(peer, peers.unused(), credentials)
        for scene in scenes.values():
            stack.callback(scene.pool.close)
        expected = {name: row[-1] for name, row in rows.items()} | {name: row[-1] for name, row in refusals.items()}

        def is_over(name: str) -> bool:
            """A client that is refused says why before it is sure."""
            return scenes[name].says(expected[name]) and (name in rows or scenes[name].error is not None)

        start = time.monotonic()
        # Another round of probes begins after a second.
        while (missing := [name for name in expected if not is_over(name)]) or time.monotonic() < start + PROBES_S:
            assert time.monotonic() < start + TIMEOUT, [
                (name, scenes[name].error, scenes[name].waits) for name in missing
            ]
            peers.serve()
            for scene in scenes.values():
                scene.poll()
            time.sleep(0.005)
        for name, (status, worker, _, server5, worker1, _) in rows.items():
            scene = scenes[name]
            assert [contact.outcome for contact in scene.waits[-1].addresses] == [server5, worker1], name
            assert scene.says(str(status)), name
            assert scene.says(str(worker)), name
            assert scene.waits[0].seconds < LIMIT_S, name
            # Nothing is said twice, and nothing else: further probes find the same.
            reasons = [waiting.reason for waiting in scene.waits]
            assert len(reasons) == len(set(reasons)) == len(scene.events), name
        for name, (peer, *_) in refusals.items():
            assert scenes[name].says(f"server 5 at {peer} "), name
            assert isinstance(scenes[name].error, NotAllowedError), name
