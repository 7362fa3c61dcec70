"""The broker's sockets, with real clients: who is admitted, and what happens when keys are revoked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import zmq
from msgspec.structs import replace

from msd.broker.network.control_socket import Route
from msd.broker.network.listeners import KEY_CHECK_INTERVAL_S, Listeners
from msd.broker.network.publisher import MAX_UNKNOWN_TOPIC_BYTES
from msd.wire.config.settings import Config
from msd.wire.errors import UsageError
from msd.wire.net.monitor import ConnectionEvent, Monitor
from msd.wire.net.poll_loop import PollLoop
from msd.wire.net.sockets import tune
from msd.wire.protocol.codec import STATUS_TOPIC, encode
from msd.wire.protocol.messages import PROTOCOL_VERSION, Accepted, Admitted, Status, StatusRequest
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials, KeyFolder, KeyPair, Role, key_hash
from tests.processes import free_ports

TIMEOUT = 10.0
STATUS = Status(version=PROTOCOL_VERSION, epoch=1, seq=1, interval=2.0, control="", catalogue=b"", files=0, workers=[])


@dataclass
class Client:
    """A socket connected to the listeners, and the events of its monitor."""

    socket: zmq.Socket[bytes]
    monitor: Monitor
    events: list[ConnectionEvent | ConnectionRefusal] = field(default_factory=list)

    def request(self, rid: int) -> None:
        # A client whose key was refused cannot send; without NOBLOCK, ``send`` would block indefinitely.
        with suppress(zmq.Again):
            self.socket.send(encode(StatusRequest(rid=rid)), zmq.NOBLOCK)

    def receive(self) -> bytes | None:
        return self.socket.recv() if self.socket.poll(0) else None


class Harness:
    """Listeners on free ports, and their clients. Every request is accepted; sockets are polled only in ``until``."""

    def __init__(self, stack: ExitStack, folder: KeyFolder | None) -> None:
        self._stack = stack
        self._poll_loop = PollLoop()
        self._clients: list[Client] = []
        self.now = 1000.0
        #: The senders' roles and routes, by request id.
        self.roles: dict[int, Role] = {}
        self.routes: dict[int, Route] = {}
        ports = free_ports()
        self.config = Config(status_port=ports[3], control_port=ports[4], keys=folder.path if folder else None)
        self.context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        #: The names or addresses of the subscribers that were disconnected.
        self.disconnected: list[str] = []
        #: How often keys were revoked, and the lists of admitted keys so far.
        self.revocations = 0
        self.admitted: list[Admitted] = []
        self.listeners = Listeners(
            self.context,
            self.config,
            self._poll_loop,
            on_requests=self._read,
            on_misuse=self.disconnected.append,
            on_admitted=lambda: self.admitted.append(self.listeners.admitted()),
            on_revoked=self._on_revoked,
        )
        stack.callback(self.listeners.close)

    def _on_revoked(self) -> None:
        self.revocations += 1

    def connect(self, kind: int, url: str, credentials: Credentials | None) -> Client:
        socket = self._stack.enter_context(self.context.socket(kind))
        tune(socket, credentials=credentials)
        socket.linger = 0
        socket.reconnect_ivl = 5
        if kind == zmq.SUB:
            socket.subscribe(STATUS_TOPIC)
        client = Client(socket, Monitor(socket, encrypted=credentials is not None))
        self._stack.callback(client.monitor.close)
        socket.connect(url)
        self._clients.append(client)
        return client

    def connect_control(self, credentials: Credentials | None) -> Client:
        return self.connect(zmq.DEALER, self.config.control.url, credentials)

    def subscribe(self, credentials: Credentials | None) -> Client:
        return self.connect(zmq.SUB, self.config.status.url, credentials)

    def check_keys(self) -> None:
        self.now += KEY_CHECK_INTERVAL_S
        self.listeners.check_keys(self.now)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, (self.roles, [client.events for client in self._clients])
            self._poll_loop.wait([time.monotonic() + 0.005])
            self._poll_loop.dispatch()
            for client in self._clients:
                client.events += client.monitor.read()

    def _read(self) -> None:
        for route, sender, request in self.listeners.requests():
            assert isinstance(request, StatusRequest)
            self.roles[request.rid], self.routes[request.rid] = sender.role, route
            route.send(Accepted(rid=request.rid))


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    """A key folder with the servers' own key pair."""
    folder = KeyFolder(tmp_path / "keys")
    folder.init()
    return folder


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def harness(stack: ExitStack, folder: KeyFolder) -> Harness:
    return Harness(stack, folder)


def admitted(harness: Harness, folder: KeyFolder, name: str, role: Role) -> Credentials:
    """Admits a new key with this role and returns credentials that contain the key."""
    assert harness.listeners.keys is not None
    pair = KeyPair.generate()
    folder.admit(f"{name} {pair.public.hex()}", role)
    harness.check_keys()
    return Credentials(pair, harness.listeners.keys.public)


def own(harness: Harness) -> Credentials:
    assert harness.listeners.keys is not None
    return Credentials(harness.listeners.keys, harness.listeners.keys.public)


def accepted(client: Client, rid: int) -> bool:
    return client.receive() == encode(Accepted(rid=rid))


# Admission.


def test_requests_have_the_roles_in_which_their_senders_were_admitted(harness: Harness, folder: KeyFolder) -> None:
    senders = [
        own(harness),
        *(admitted(harness, folder, role, role) for role in (Role.CLIENT, Role.OPERATOR, Role.WORKER)),
    ]
    for rid, credentials in enumerate(senders):
        client = harness.connect_control(credentials)
        client.request(rid)
        harness.until(lambda client=client, rid=rid: accepted(client, rid))  # type: ignore[misc]
    assert harness.roles == {0: Role.OPERATOR, 1: Role.CLIENT, 2: Role.OPERATOR, 3: Role.WORKER}
    assert harness.listeners.rejected_connections == 0


def test_the_status_is_sent_to_admitted_clients_only(harness: Harness, folder: KeyFolder) -> None:
    harness.listeners.publish(STATUS)
    known = harness.subscribe(admitted(harness, folder, "known", Role.CLIENT))
    unknown = harness.subscribe(Credentials(KeyPair.generate(), own(harness).server))
    keyless = harness.subscribe(None)
    harness.until(lambda: known.receive() == STATUS_TOPIC + encode(STATUS))
    harness.until(lambda: ConnectionRefusal.KEY in unknown.events and ConnectionRefusal.MECHANISM in keyless.events)
    assert harness.listeners.rejected_connections == 1
    assert unknown.receive() is keyless.receive() is None


def test_without_keys_every_peer_may_do_everything(stack: ExitStack) -> None:
    harness = Harness(stack, None)
    assert harness.listeners.keys is None
    client = harness.connect_control(None)
    client.request(1)
    harness.until(lambda: accepted(client, 1))
    assert harness.roles == {1: Role.ANYONE}


def test_the_local_control_socket_requires_no_keys_and_serves_workers(harness: Harness, runtime_folder: Path) -> None:
    client = harness.connect(zmq.DEALER, harness.listeners.open_local_control(runtime_folder), None)
    client.request(1)
    harness.until(lambda: accepted(client, 1))
    assert harness.roles == {1: Role.WORKER}


def test_a_removed_local_control_socket_is_opened_again_beside_the_old_connections(
    harness: Harness, runtime_folder: Path
) -> None:
    endpoint = harness.listeners.open_local_control(runtime_folder)
    old = harness.connect(zmq.DEALER, endpoint, None)
    old.request(1)
    harness.until(lambda: accepted(old, 1))
    assert harness.listeners.restore_local_control() is None
    Path(endpoint.removeprefix("ipc://")).unlink()
    restored = harness.listeners.restore_local_control()
    assert restored is not None
    assert harness.listeners.restore_local_control() is None
    new = harness.connect(zmq.DEALER, restored, None)
    for client in (new, old):
        client.request(2)
        harness.until(partial(accepted, client, 2))


@pytest.mark.parametrize("port", ["status_port", "control_port"])
def test_the_error_names_the_port_in_use_and_no_socket_stays_open(harness: Harness, port: str) -> None:
    free, in_use = free_ports(), getattr(harness.config, port)
    config = replace(Config(status_port=free[0], control_port=free[1]), **{port: in_use})
    with zmq.Context() as context, pytest.raises(UsageError, match=str(in_use)):
        Listeners(
            context,
            config,
            PollLoop(),
            on_requests=lambda: None,
            on_misuse=lambda name: None,
            on_admitted=lambda: None,
            on_revoked=lambda: None,
        )


def test_the_list_of_admitted_keys_is_renewed_before_a_client_with_a_new_key_is_connected(
    harness: Harness, folder: KeyFolder
) -> None:
    """No check of the keys is due: the client itself is the occasion."""
    harness.listeners.publish(STATUS)
    pair = KeyPair.generate()
    folder.admit(f"new {pair.public.hex()}", Role.CLIENT)
    client = harness.subscribe(Credentials(pair, own(harness).server))
    harness.until(client.receive)
    assert [key_hash(pair.public) in [key.hash for key in admitted.keys] for admitted in harness.admitted] == [True]


def test_the_list_of_admitted_keys_is_renewed_by_a_check_only_if_keys_have_changed(
    harness: Harness, folder: KeyFolder
) -> None:
    admitted(harness, folder, "laptop", Role.CLIENT)
    admitted(harness, folder, "attic", Role.WORKER)
    harness.check_keys()
    assert len(harness.admitted) == 1, "a key for workers is none that workers admit"
    folder.revoke("laptop")
    harness.check_keys()
    assert [len(message.keys) for message in harness.admitted] == [2, 1]


def test_a_receiver_with_an_invitation_learns_nothing_of_what_others_are_invited_for(
    harness: Harness, folder: KeyFolder
) -> None:
    scopes = {"all": "", "films": "films/", "one": "films/one", "other": "films/other", "letters": "letters/"}
    keys = {name: KeyPair.generate().public for name in scopes}
    for name, scope in scopes.items():
        folder.admit(f"{name} {keys[name].hex()}", Role.CLIENT, scope=scope)
    harness.check_keys()

    def scopes_told(name: str) -> list[str]:
        admitted = harness.listeners.admitted_for(keys[name])
        return sorted(key.scope for key in admitted.keys if key.role == Role.CLIENT)

    assert scopes_told("all") == sorted(scopes.values())
    assert scopes_told("films") == ["", "films/", "films/one", "films/other"]
    assert scopes_told("one") == ["", "films/", "films/one"]
    assert scopes_told("letters") == ["", "letters/"]
    folder.revoke("films")
    harness.check_keys()
    assert scopes_told("one") == ["", "films/one"]


# Revoked keys.


def test_only_the_connections_of_a_revoked_key_are_closed(harness: Harness, folder: KeyFolder) -> None:
    harness.listeners.publish(STATUS)
    clients = []
    for name in ("revoked", "admitted"):
        credentials = admitted(harness, folder, name, Role.OPERATOR)
        clients.append((harness.connect_control(credentials), harness.subscribe(credentials)))
    for rid, (requester, subscriber) in enumerate(clients):
        requester.request(rid)
        harness.until(lambda client=requester, rid=rid: accepted(client, rid))  # type: ignore[misc]
        harness.until(subscriber.receive)

    folder.revoke("revoked")
    harness.check_keys()
    harness.until(lambda: all(ConnectionRefusal.KEY in client.events for client in clients[0]))
    assert all(client.events[:2] == [ConnectionEvent.OPENED, ConnectionEvent.CLOSED] for client in clients[0])
    clients[0][0].request(10)
    harness.routes[0].send(Accepted(rid=10))
    harness.listeners.publish(STATUS)
    harness.until(clients[1][1].receive)
    clients[1][0].request(11)
    harness.until(lambda: accepted(clients[1][0], 11))
    assert [client.events for client in clients[1]] == [[ConnectionEvent.OPENED]] * 2
    assert [client.receive() for client in clients[0]] == [None, None]
    assert set(harness.roles) == {0, 1, 11}


def test_a_connection_without_messages_is_closed_at_its_first_message(harness: Harness, folder: KeyFolder) -> None:
    client = harness.connect_control(admitted(harness, folder, "revoked", Role.OPERATOR))
    harness.until(lambda: client.events)
    folder.revoke("revoked")
    harness.check_keys()
    client.request(1)
    harness.until(lambda: ConnectionEvent.CLOSED in client.events)
    assert harness.roles == {}


def test_a_reduced_role_applies_at_once_on_the_same_connection(harness: Harness, folder: KeyFolder) -> None:
    credentials = admitted(harness, folder, "operator", Role.OPERATOR)
    operator = harness.connect_control(credentials)
    operator.request(1)
    harness.until(lambda: accepted(operator, 1))
    folder.admit(f"operator {credentials.own.public.hex()}", Role.CLIENT)
    harness.check_keys()
    operator.request(2)
    harness.until(lambda: accepted(operator, 2))
    assert harness.roles == {1: Role.OPERATOR, 2: Role.CLIENT}
    assert operator.events == [ConnectionEvent.OPENED]


def test_keys_are_checked_at_intervals(harness: Harness, folder: KeyFolder) -> None:
    client = harness.connect_control(admitted(harness, folder, "revoked", Role.CLIENT))
    folder.revoke("revoked")
    harness.listeners.check_keys(harness.now + KEY_CHECK_INTERVAL_S - 0.01)
    client.request(1)
    harness.until(lambda: accepted(client, 1))
    harness.listeners.check_keys(harness.now + KEY_CHECK_INTERVAL_S)
    harness.until(lambda: ConnectionRefusal.KEY in client.events)


def test_malformed_messages_are_counted(harness: Harness, folder: KeyFolder) -> None:
    client = harness.connect_control(admitted(harness, folder, "client", Role.CLIENT))
    for malformed in ([b"garbage"], [b""], [b"one", b"two"]):
        client.socket.send_multipart(malformed)
    harness.until(lambda: harness.listeners.malformed_messages == 3)


# Misuse of the status socket.


def test_a_subscriber_of_many_unknown_topics_is_disconnected_and_its_key_banned(
    harness: Harness, folder: KeyFolder
) -> None:
    harness.listeners.publish(STATUS)
    honest = harness.subscribe(admitted(harness, folder, "honest", Role.CLIENT))
    hostile = harness.subscribe(admitted(harness, folder, "mallory", Role.CLIENT))
    harness.until(honest.receive)
    for number in range(33):
        hostile.socket.subscribe(b"%2d" % number * (MAX_UNKNOWN_TOPIC_BYTES // 64))
    harness.until(lambda: ConnectionRefusal.KEY in hostile.events)
    assert harness.disconnected == ["mallory"]
    assert harness.listeners.rejected_connections == 2
    harness.listeners.publish(STATUS)
    harness.until(honest.receive)
    assert honest.events == [ConnectionEvent.OPENED]
