"""With keys, over real sockets: who learns of receivers that pass on and gets from them, and where anybody connects."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq

from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import ConnectionEvent
from msd.wire.net.sockets import tune
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import (
    Announce,
    DataRequest,
    Hello,
    Holder,
    Holders,
    Rejected,
)
from msd.wire.protocol.segments import cut
from msd.wire.protocol.states import RefusalReason
from msd.wire.security.keys import Credentials, KeyPair, Role
from tests.hostile_clients import Keyring, Peer
from tests.passing import from_peers, get, holders, receiver_welcome, wait_until_serving
from tests.processes import MIB, TIMEOUT, Download, Serve, Source, System, files_equal, wait_for


class Swarm:
    """Servers with keys, and the download of alice, which is complete and passes on: ``receiver``."""

    def __init__(self, stack: ExitStack, serve: Serve, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self.keys = Keyring(folder / "keys")
        self.keys.create_key("alice", Role.CLIENT)
        self.bob = self.keys.create_key("bob", Role.CLIENT)
        self.system: System = self.keys.serve(serve, path, "--rate", "256KiB")
        alice = stack.enter_context(self.receive("alice", "--keep-serving", "10m"))
        wait_until_serving(alice)
        self.plan = bytes.fromhex(alice.events_of("start")[0]["id"])
        (self.receiver,) = wait_for("the receiver", self.holders)
        self.port = Endpoint.parse(self.receiver.endpoint).port

    @property
    def control_port(self) -> int:
        return self.system.ports[4] + 1

    def receive(self, owner: str, *arguments: str) -> Download:
        flags = ("-o", owner, "--pass-on", *arguments)
        return self.system.download(*flags, env=self.keys.env(owner), cwd=self.folder)

    def holders(self) -> list[Holder]:
        """The receivers of which bob learns."""
        return holders(self.system.ports[4], self.plan, self.bob)

    def connect(self, credentials: Credentials | None) -> Peer:
        """Connects to the receiver, with its serving key."""
        own = Credentials(credentials.own, self.receiver.key) if credentials is not None else None
        return Peer(zmq.DEALER, self.port, own)

    def announce(self, endpoint: str = "", key: bytes = b"") -> Announce:
        return Announce(rid=1, plan=self.plan, units=9, endpoint=endpoint, key=key)


@pytest.fixture
def swarm(serve: Serve, source: Source, tmp_path: Path) -> Iterator[Swarm]:
    with ExitStack() as stack:
        yield Swarm(stack, serve, source(MIB), tmp_path)


def test_only_whom_the_broker_admits_learns_of_a_receiver_and_gets_from_it(swarm: Swarm) -> None:
    """
    1. Bob, who is admitted, learns of the receiver and gets a segment, but only with its own serving key.
    2. Without a key, with an unknown one or with one for workers, no client learns of it or gets anything.
    3. A client that is invited for another file gets nothing either.
    4. Bob's key is revoked. The receiver closes his connection, and he learns of nothing any more.
    """
    unknown, host = swarm.keys.create_key("unknown"), swarm.keys.create_key("host", Role.WORKER)
    carol = swarm.keys.create_key("carol")
    public = (swarm.keys.key_folder("carol").path / "carol.pub").read_text()
    swarm.keys.key_folder("servers").admit(public, Role.CLIENT, scope="other file")
    content = bytes(cut(memoryview(swarm.path.read_bytes()))[3])
    with swarm.connect(swarm.bob) as bob:
        assert bob.is_accepted()
        assert get(bob, swarm.plan, 3) == content
        with Peer(zmq.DEALER, swarm.port, swarm.bob) as peer:
            assert not peer.is_accepted(), "with the key of the servers"
        for credentials in (None, unknown, host):
            with swarm.connect(credentials) as peer:
                assert not peer.is_accepted()
            with Peer(zmq.DEALER, swarm.control_port, credentials) as peer:
                if credentials is not host:
                    assert not peer.is_accepted()
                else:
                    answer = peer.request(swarm.announce(), Holders | Rejected)
                    assert isinstance(answer, Rejected)
                    assert answer.denied

        def refused() -> bool:
            # The receiver does not know the key before its next announcement.
            with swarm.connect(carol) as peer:
                return peer.is_accepted() and get(peer, swarm.plan, 3) is RefusalReason.UNKNOWN

        wait_for("the invited client to be refused", refused)
        swarm.keys.key_folder("servers").revoke("bob")
        assert next(bob.events()) is ConnectionEvent.CLOSED
    for peer in (swarm.connect(swarm.bob), Peer(zmq.DEALER, swarm.control_port, swarm.bob)):
        with peer:
            assert not peer.is_accepted()


@contextmanager
def listening(host: str) -> Iterator[socket.socket]:
    """A program that accepts connections, and never answers."""
    with socket.create_server((host, 0)) as listener:
        listener.settimeout(TIMEOUT)
        yield listener


def has_connection(listener: socket.socket) -> bool:
    """True if a connection waits to be accepted."""
    listener.setblocking(False)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def wait_until_given_up(listener: socket.socket) -> None:
    """Accepts the two connections of an attempt of the broker, and waits until it has ended them."""
    for _ in range(2):
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(TIMEOUT)
            while connection.recv(4096):
                pass


class Router:
    """The port of a receiver with this serving key. ``close()`` frees it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], key: KeyPair, port: int = 0) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.rcvtimeo = int(TIMEOUT * 1000)
        self.socket.curve_server = True
        self.socket.curve_secretkey = key.secret
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_ACCEPTED)
        wait_for("the port", lambda: self._bind(port))
        self.port = Endpoint.parse(self.socket.getsockopt_string(zmq.LAST_ENDPOINT)).port

    def _bind(self, port: int) -> bool:
        try:
            self.socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        except zmq.ZMQError:
            return False  # ZeroMQ has not freed it yet.
        return True

    def answer_hello(self) -> None:
        ident, frame = self.socket.recv_multipart()
        request = decode(frame, DataRequest)
        assert isinstance(request, Hello)
        self.socket.send_multipart([ident, encode(receiver_welcome(request.rid))])

    def was_contacted(self) -> bool:
        """True if a process has connected, at least with TCP."""
        return bool(self._monitor.poll(int(TIMEOUT * 1000)))

    def close(self) -> None:
        self._monitor.close()
        self.socket.close()


def test_no_process_connects_where_no_receiver_with_the_announced_key_answers(swarm: Swarm) -> None:
    """Eve, who is admitted, announces
    1. the address of another machine, where a program listens: no process connects there;
    2. alice's receiver with another key, and a program of her own: only the broker connects there, and names neither;
    3. a receiver whose port then belongs to another one: bob does not get past the handshake, and sends nothing.
    """
    eve = swarm.keys.create_key("eve", Role.CLIENT)
    own, other = KeyPair.generate(), KeyPair.generate()
    with (
        # The broker would connect to 127.0.0.1 for a receiver on loopback.
        listening("0.0.0.0") as foreign,
        listening("127.0.0.1") as program,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as control,
    ):
        tune(control, credentials=eve)
        control.linger = 0
        control.connect(f"tcp://127.0.0.1:{swarm.control_port}")
        control.send(encode(swarm.announce(f"tcp://127.0.0.2:{foreign.getsockname()[1]}", own.public)))
        control.send(encode(swarm.announce(f"tcp://*:{swarm.port}", own.public)))
        control.send(encode(swarm.announce(f"tcp://*:{program.getsockname()[1]}", own.public)))
        wait_until_given_up(program)
        assert swarm.holders() == [swarm.receiver]
        router = Router(context, own)
        announce = swarm.announce(f"tcp://*:{router.port}", own.public)
        control.send(encode(announce))
        router.answer_hello()
        wait_for("both receivers", lambda: len(swarm.holders()) == 2)
        router.close()
        impostor = Router(context, other, router.port)
        control.send(encode(announce))
        with swarm.receive("bob") as download:
            done = download.wait_until_done()
        assert impostor.was_contacted()
        assert not impostor.socket.poll(0)
        impostor.close()
        assert not has_connection(program)
        assert not has_connection(foreign)
    assert from_peers(done) > 0
    assert files_equal(swarm.path, swarm.folder / "bob")
    peers = [event for event in download.events_of("worker") if event["name"].startswith("peer")]
    assert {event["place"].partition(",")[0] for event in peers} == {f"127.0.0.1:{swarm.port}"}
