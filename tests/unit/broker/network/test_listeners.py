"""The broker's sockets, with real clients: who comes in, and what becomes of them when keys are revoked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zmq
from msgspec.structs import replace

from msd.broker.network.control_socket import Control, Route
from msd.broker.network.listeners import LOOK, Listeners
from msd.broker.network.publisher import MAX_FOREIGN, Publisher
from msd.wire.config.settings import Config
from msd.wire.errors import UsageError
from msd.wire.net.monitor import Handshake, Monitor
from msd.wire.net.sockets import tune
from msd.wire.protocol.codec import STATUS_TOPIC, encode
from msd.wire.protocol.messages import PROTOCOL_VERSION, Accepted, Status, StatusRequest
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials, KeyFolder, KeyPair, Role
from tests.system import free_ports

PATIENCE = 10.0
STATUS = Status(version=PROTOCOL_VERSION, epoch=1, seq=1, interval=2.0, control="", catalogue=b"", files=0, workers=[])


@dataclass
class Client:
    """A socket that is connected to the doors, and what its monitor has told."""

    socket: zmq.Socket[bytes]
    monitor: Monitor
    told: list[Handshake | ConnectionRefusal] = field(default_factory=list)

    def ask(self, rid: int) -> None:
        # Whoever is refused for good cannot: without NOBLOCK that would wait for ever.
        with suppress(zmq.Again):
            self.socket.send(encode(StatusRequest(rid=rid)), zmq.NOBLOCK)

    def receive(self) -> bytes | None:
        return self.socket.recv() if self.socket.poll(0) else None


class Bench:
    """Listeners on free ports whose requests are accepted, and clients; all of it moves in ``until`` only."""

    def __init__(self, stack: ExitStack, folder: KeyFolder | None) -> None:
        self._stack = stack
        self._poller = zmq.Poller()
        self._handlers: dict[object, Callable[[], None]] = {}
        self._clients: list[Client] = []
        self.now = 1000.0
        #: Who asked, by request id, and in which role.
        self.asked: dict[int, Role] = {}
        self.routes: dict[int, Route] = {}
        ports = free_ports()
        self.config = Config(status_port=ports[3], control_port=ports[4], keys=folder.path if folder else None)
        self.context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self.doors = Listeners(
            self.context, self.config, listen=self._listen, ignore=self._poller.unregister, on_requests=self._read
        )
        stack.callback(self.doors.close)

    def connect(self, kind: int, url: str, shown: Credentials | None) -> Client:
        socket = self._stack.enter_context(self.context.socket(kind))
        tune(socket, credentials=shown)
        socket.linger = 0
        socket.reconnect_ivl = 5
        if kind == zmq.SUB:
            socket.subscribe(STATUS_TOPIC)
        client = Client(socket, Monitor(socket, encrypted=shown is not None))
        self._stack.callback(client.monitor.close)
        socket.connect(url)
        self._clients.append(client)
        return client

    def asking(self, shown: Credentials | None) -> Client:
        return self.connect(zmq.DEALER, self.config.control.url, shown)

    def subscribed(self, shown: Credentials | None) -> Client:
        return self.connect(zmq.SUB, self.config.status.url, shown)

    def look(self) -> bool:
        self.now += LOOK
        return self.doors.look(self.now)

    def until(self, is_so: Callable[[], object]) -> None:
        give_up = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < give_up, f"asked {self.asked}, told {[client.told for client in self._clients]}"
            for source, _ in self._poller.poll(5):
                self._handlers[source]()
            for client in self._clients:
                client.told += client.monitor.read()

    def _listen(self, source: zmq.Socket[bytes], handler: Callable[[], None]) -> None:
        self._poller.register(source, zmq.POLLIN)
        self._handlers[source] = handler

    def _read(self) -> None:
        for route, role, request in self.doors.requests():
            assert isinstance(request, StatusRequest)
            self.asked[request.rid], self.routes[request.rid] = role, route
            route.send(Accepted(rid=request.rid))


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    """With the servers' own pair."""
    made = KeyFolder(tmp_path / "keys")
    made.init()
    return made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def bench(stack: ExitStack, folder: KeyFolder) -> Bench:
    return Bench(stack, folder)


def admitted(bench: Bench, folder: KeyFolder, name: str, role: Role) -> Credentials:
    """What somebody shows who was just admitted."""
    assert bench.doors.keys is not None
    pair = KeyPair.generate()
    folder.admit(f"{name} {pair.public.hex()}", role)
    assert not bench.look()
    return Credentials(pair, bench.doors.keys.public)


def own(bench: Bench) -> Credentials:
    assert bench.doors.keys is not None
    return Credentials(bench.doors.keys, bench.doors.keys.public)


def accepted(client: Client, rid: int) -> bool:
    return client.receive() == encode(Accepted(rid=rid))


# Who comes in.


def test_requests_come_with_the_role_in_which_their_senders_were_let_in(bench: Bench, folder: KeyFolder) -> None:
    shown = [own(bench), *(admitted(bench, folder, role, role) for role in (Role.CLIENT, Role.OPERATOR))]
    for rid, credentials in enumerate(shown):
        client = bench.asking(credentials)
        client.ask(rid)
        bench.until(lambda client=client, rid=rid: accepted(client, rid))  # type: ignore[misc]
    assert bench.asked == {0: Role.OPERATOR, 1: Role.CLIENT, 2: Role.OPERATOR}
    assert bench.doors.rejected_connections == 0


def test_the_status_is_told_to_the_admitted_only(bench: Bench, folder: KeyFolder) -> None:
    bench.doors.publish(STATUS)
    friend = bench.subscribed(admitted(bench, folder, "friend", Role.CLIENT))
    stranger = bench.subscribed(Credentials(KeyPair.generate(), own(bench).server))
    silent = bench.subscribed(None)
    bench.until(lambda: friend.receive() == STATUS_TOPIC + encode(STATUS))
    bench.until(lambda: ConnectionRefusal.KEY in stranger.told and ConnectionRefusal.MECHANISM in silent.told)
    assert bench.doors.rejected_connections == 1
    assert stranger.receive() is silent.receive() is None


def test_without_keys_everybody_on_this_machine_is_an_operator(stack: ExitStack) -> None:
    bench = Bench(stack, None)
    assert bench.doors.keys is None
    client = bench.asking(None)
    client.ask(1)
    bench.until(lambda: accepted(client, 1))
    assert bench.asked == {1: Role.OPERATOR}
    assert not bench.look()


def test_the_workers_own_socket_takes_no_keys(bench: Bench, runtime_folder: Path) -> None:
    client = bench.connect(zmq.DEALER, bench.doors.open_local(runtime_folder), None)
    client.ask(1)
    bench.until(lambda: accepted(client, 1))
    assert bench.asked == {1: Role.OPERATOR}


@pytest.mark.parametrize("port", ["status_port", "control_port"])
def test_a_port_that_is_taken_is_named_and_nothing_stays_open(bench: Bench, port: str) -> None:
    free, taken = free_ports(), getattr(bench.config, port)
    config = replace(Config(status_port=free[0], control_port=free[1]), **{port: taken})
    with zmq.Context() as context, pytest.raises(UsageError, match=str(taken)):
        Listeners(context, config, listen=lambda *_: None, ignore=lambda _: None, on_requests=lambda: None)


# Revoking.


def test_after_a_revocation_the_same_ports_are_open_to_everybody_else(bench: Bench, folder: KeyFolder) -> None:
    revoked = bench.asking(admitted(bench, folder, "revoked", Role.OPERATOR))
    friend_shows = admitted(bench, folder, "friend", Role.CLIENT)
    friend, watching = bench.asking(friend_shows), bench.subscribed(friend_shows)
    for rid, client in enumerate((revoked, friend)):
        client.ask(rid)
        bench.until(lambda client=client, rid=rid: accepted(client, rid))  # type: ignore[misc]
    bench.until(lambda: watching.told == [Handshake.UP])
    assert not bench.look()

    folder.revoke("revoked")
    assert bench.look()
    bench.doors.publish(STATUS)
    bench.until(lambda: ConnectionRefusal.KEY in revoked.told)
    assert revoked.told[:2] == [Handshake.UP, Handshake.DOWN]
    assert bench.doors.rejected_connections == 1
    revoked.ask(10)
    # Those who stay come back by themselves.
    bench.until(lambda: friend.told.count(Handshake.UP) == watching.told.count(Handshake.UP) == 2)
    friend.ask(11)
    bench.until(lambda: accepted(friend, 11))
    bench.until(lambda: watching.receive() == STATUS_TOPIC + encode(STATUS))
    assert set(bench.asked) == {0, 1, 11}
    assert not bench.look()


def test_an_operator_who_becomes_a_client_is_one_from_then_on(bench: Bench, folder: KeyFolder) -> None:
    shown = admitted(bench, folder, "boss", Role.OPERATOR)
    boss = bench.asking(shown)
    boss.ask(1)
    bench.until(lambda: accepted(boss, 1))
    folder.admit(f"boss {shown.own.public.hex()}", Role.CLIENT)
    assert bench.look()
    bench.until(lambda: boss.told.count(Handshake.UP) == 2)
    boss.ask(2)
    bench.until(lambda: accepted(boss, 2))
    assert bench.asked == {1: Role.OPERATOR, 2: Role.CLIENT}


def test_an_answer_that_comes_after_the_door_was_closed_is_lost_and_does_no_harm(
    bench: Bench, folder: KeyFolder
) -> None:
    admitted(bench, folder, "revoked", Role.CLIENT)
    client = bench.asking(own(bench))
    client.ask(1)
    bench.until(lambda: accepted(client, 1))
    folder.revoke("revoked")
    assert bench.look()
    bench.routes[1].send(Accepted(rid=1))
    bench.until(lambda: client.told.count(Handshake.UP) == 2)
    assert client.receive() is None


def test_keys_are_looked_at_now_and_then_only(bench: Bench, folder: KeyFolder) -> None:
    admitted(bench, folder, "revoked", Role.CLIENT)
    folder.revoke("revoked")
    assert not bench.doors.look(bench.now + LOOK - 0.01)
    assert bench.doors.look(bench.now + LOOK)


def test_what_was_counted_stays_counted_when_doors_are_closed_and_opened(bench: Bench, folder: KeyFolder) -> None:
    client = bench.asking(admitted(bench, folder, "client", Role.CLIENT))
    for malformed_messages in ([b"garbage"], [b""], [b"one", b"two"]):
        client.socket.send_multipart(malformed_messages)
    bench.until(lambda: bench.doors.malformed_messages == 3)
    stranger = bench.asking(Credentials(KeyPair.generate(), own(bench).server))
    bench.until(lambda: stranger.told)
    assert (bench.doors.malformed_messages, bench.doors.rejected_connections) == (3, 1)
    folder.revoke("client")
    assert bench.look()
    assert bench.doors.malformed_messages == 3
    bench.until(lambda: bench.doors.rejected_connections == 2)


def test_a_publisher_with_too_many_foreign_subscriptions_is_replaced(stack: ExitStack) -> None:
    """And not for those to what it tells, however many: subscribers come and go."""
    bench = Bench(stack, None)
    honest = bench.subscribed(None)
    bench.until(lambda: Handshake.UP in honest.told)
    for _ in range(MAX_FOREIGN // len(STATUS_TOPIC) + 1):
        honest.socket.unsubscribe(STATUS_TOPIC)
        honest.socket.subscribe(STATUS_TOPIC)
    stranger = bench.connect(zmq.SUB, bench.config.status.url, None)
    stranger.socket.subscribe(b"x" * (MAX_FOREIGN // 32))
    bench.until(lambda: Handshake.UP in stranger.told)
    assert not bench.look()
    for number in range(33):
        stranger.socket.subscribe(b"%2d" % number * (MAX_FOREIGN // 64))
    bench.until(bench.look)
    bench.until(lambda: Handshake.DOWN in honest.told and honest.told[-1] is Handshake.UP)


def test_doors_that_could_not_be_opened_again_can_be_closed(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the doorkeeper stays open, and ending the context waits for it for ever."""

    def taken(*_: object, **__: object) -> Publisher:
        raise zmq.ZMQError(zmq.EADDRINUSE)

    folder.admit(f"revoked {KeyPair.generate().public.hex()}", Role.CLIENT)
    ports, poller = free_ports(), zmq.Poller()
    config = Config(status_port=ports[3], control_port=ports[4], keys=folder.path)
    with zmq.Context() as context, ExitStack() as stack:
        doors = Listeners(
            context,
            config,
            listen=lambda source, _: poller.register(source),
            ignore=poller.unregister,
            on_requests=lambda: None,
        )
        stack.callback(doors._zap.close)
        folder.revoke("revoked")
        monkeypatch.setattr("msd.broker.network.listeners.Publisher", taken)
        with pytest.raises(UsageError, match=str(config.status_port)):
            doors.look(1000.0)
        doors.close()


# One socket.


def test_a_publisher_and_a_control_listen_on_the_port_of_the_one_before() -> None:
    status, control = (Config(status_port=port).status for port in free_ports()[:2])
    with zmq.Context() as context:
        for _ in range(5):
            doors = Publisher(context, status, patience=PATIENCE), Control(context, control.url, patience=PATIENCE)
            assert [door.socket.getsockopt_string(zmq.LAST_ENDPOINT) for door in doors] == [status.url, control.url]
            for door in doors:
                door.close()


def test_what_is_sent_to_nobody_is_lost() -> None:
    with zmq.Context() as context:
        control = Control(context, "tcp://127.0.0.1:*")
        control.send(b"nobody", Accepted(rid=1))
        control.close()
        control.send(b"nobody", Accepted(rid=1))
