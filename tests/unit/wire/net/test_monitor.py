"""Monitors: the events of real connections that are opened, closed or refused."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from msd.wire.net import monitor
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import REFUSAL_TIMEOUT_S, ConnectionEvent, Monitor
from msd.wire.net.sockets import tune
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials, KeyFolder, KeyPair, Role
from tests.unit.zap_server import TIMEOUT, zap_server

SERVER, LAPTOP, UNKNOWN = (KeyPair.from_secret(bytes([n]) * 32) for n in range(1, 4))
CREDENTIALS = Credentials(LAPTOP, SERVER.public)


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    """A key folder in which LAPTOP is admitted."""
    keys = KeyFolder(tmp_path / "keys")
    keys.admit(f"laptop {LAPTOP.public.hex()}", Role.CLIENT)
    return keys


# Servers that complete the handshake.


@pytest.mark.parametrize("own", [None, SERVER], ids=["plain", "curve"])
def test_a_connection_is_opened_and_closed(folder: KeyFolder, own: KeyPair | None) -> None:
    with zap_server(own, folder.path if own else None) as server:
        client = server.connect(CREDENTIALS if own else None)
        server.wait_until(lambda: client.events)
        assert client.monitor.is_connected
        server.socket.close(0)
        server.wait_until(lambda: len(client.events) > 1)
        assert client.events == [ConnectionEvent.OPENED, ConnectionEvent.CLOSED]
        assert not client.monitor.is_connected


@pytest.mark.parametrize(
    ("credentials", "refusal"),
    [
        (Credentials(UNKNOWN, SERVER.public), ConnectionRefusal.KEY),
        (Credentials(LAPTOP, UNKNOWN.public), ConnectionRefusal.HANDSHAKE),
    ],
    ids=["another client's key", "another server's key"],
)
def test_a_refusal_is_reported_with_its_reason_before_the_close(
    folder: KeyFolder, credentials: Credentials, refusal: ConnectionRefusal
) -> None:
    with zap_server(SERVER, folder.path) as server:
        client = server.connect(credentials)
        server.wait_until(lambda: ConnectionEvent.CLOSED in client.events)
        assert client.events[:2] == [refusal, ConnectionEvent.CLOSED]
        assert ConnectionEvent.OPENED not in client.events
        assert not client.monitor.is_connected
        assert server.received == []


@pytest.mark.parametrize(
    ("own", "credentials"), [(SERVER, None), (None, CREDENTIALS)], ids=["client without key", "server without key"]
)
def test_a_mechanism_mismatch_is_reported_after_some_attempts(
    folder: KeyFolder, own: KeyPair | None, credentials: Credentials | None
) -> None:
    """Both sides detect the mismatch. If the server detects it first, the client sees only a closed connection."""
    with zap_server(own, folder.path if own else None) as server:
        client = server.connect(credentials, reconnect_ms=5)
        server.wait_until(
            lambda: ConnectionRefusal.MECHANISM in client.events and client.events[-1] is ConnectionEvent.CLOSED
        )
        assert client.refusals[-1] is ConnectionRefusal.MECHANISM
        assert set(client.refusals[:-1]) <= ({ConnectionRefusal.HANDSHAKE} if credentials else set())
        assert ConnectionEvent.OPENED not in client.events
        assert server.received == []


def test_a_server_with_another_key_refuses_every_attempt(folder: KeyFolder) -> None:
    with zap_server(SERVER, folder.path) as server:
        client = server.connect(Credentials(LAPTOP, UNKNOWN.public), reconnect_ms=1)
        server.wait_until(lambda: len(client.refusals) >= 3)
        assert set(client.refusals) == {ConnectionRefusal.HANDSHAKE}


# Servers that close the connection during the handshake, as a crashing server does.


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replaces the clock of the module ``monitor``."""
    fake_clock = Clock()
    monkeypatch.setattr(monitor, "time", fake_clock)
    return fake_clock


class MonitoredSocket:
    """A socket that tries to connect to ``port`` once, and its monitor."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], port: int, *, encrypted: bool) -> None:
        self.socket = context.socket(zmq.DEALER)
        tune(self.socket, credentials=CREDENTIALS if encrypted else None)
        self.socket.linger = 0
        self.socket.reconnect_ivl = -1
        self.monitor = Monitor(self.socket, encrypted=encrypted)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def read(self) -> list[ConnectionEvent | ConnectionRefusal]:
        """Waits until the monitor is readable and returns its events. The list may be empty."""
        assert self.monitor.socket.poll(int(TIMEOUT * 1000))
        return [*self.monitor.read()]

    def close(self) -> None:
        self.monitor.close()
        self.socket.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening TCP socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(TIMEOUT)
        yield listening


def events_of_closed_handshake(
    listener: socket.socket, clock: Clock, *, encrypted: bool, delay: float
) -> list[ConnectionEvent | ConnectionRefusal]:
    """The events of a client whose server closes the connection ``delay`` seconds after accepting it."""
    port = listener.getsockname()[1]
    with zmq.Context() as context, closing(MonitoredSocket(context, port, encrypted=encrypted)) as client:
        accepted, _ = listener.accept()
        with accepted:
            assert client.read() == []
            clock.now += delay
        events: list[ConnectionEvent | ConnectionRefusal] = []
        deadline = time.monotonic() + TIMEOUT
        while ConnectionEvent.CLOSED not in events:
            assert time.monotonic() < deadline
            events += client.read()
        return events[: events.index(ConnectionEvent.CLOSED) + 1]


@pytest.mark.parametrize(
    ("encrypted", "delay", "events"),
    [
        (True, REFUSAL_TIMEOUT_S - 0.01, [ConnectionRefusal.HANDSHAKE, ConnectionEvent.CLOSED]),
        (True, REFUSAL_TIMEOUT_S, [ConnectionEvent.CLOSED]),
        (True, 5.0, [ConnectionEvent.CLOSED]),
        (False, 0.0, [ConnectionEvent.CLOSED]),
        (False, 5.0, [ConnectionEvent.CLOSED]),
    ],
)
def test_only_a_prompt_close_of_an_encrypted_handshake_is_a_refusal(
    listener: socket.socket,
    clock: Clock,
    encrypted: bool,
    delay: float,
    events: list[ConnectionEvent | ConnectionRefusal],
) -> None:
    assert events_of_closed_handshake(listener, clock, encrypted=encrypted, delay=delay) == events


def test_a_closed_port_causes_no_event(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with zmq.Context() as context, closing(MonitoredSocket(context, port, encrypted=True)) as client:
        assert client.read() == []


# Hosts with several addresses.

HOSTS = ("::1", "127.0.0.1")


class Several:
    """A DEALER that connects to all of ``HOSTS``, and its events."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], port: int, *, encrypted: bool = False) -> None:
        self.socket = context.socket(zmq.DEALER)
        tune(self.socket, credentials=CREDENTIALS if encrypted else None)
        self.socket.linger = 0
        self.socket.reconnect_ivl = 20
        self.monitor = Monitor(self.socket, encrypted=encrypted)
        self.monitor.connect(Endpoint(HOSTS[0], port, HOSTS[1:], "files"))

    def wait_for(self, last: ConnectionEvent) -> list[ConnectionEvent | ConnectionRefusal]:
        """Returns the events up to ``last``."""
        events: list[ConnectionEvent | ConnectionRefusal] = []
        while last not in events:
            assert self.monitor.socket.poll(int(TIMEOUT * 1000))
            events += self.monitor.read()
        return events

    def close(self) -> None:
        self.monitor.close()
        self.socket.close()


def bind(context: zmq.Context[zmq.Socket[bytes]], host: str, port: int | str = "*") -> zmq.Socket[bytes]:
    router = context.socket(zmq.ROUTER)
    router.linger = 0
    router.ipv6 = ":" in host
    router.bind(f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")
    return router


def port_of(router: zmq.Socket[bytes]) -> int:
    return Endpoint.parse(router.getsockopt_string(zmq.LAST_ENDPOINT)).port


@pytest.mark.parametrize("host", HOSTS)
def test_the_address_that_answers_is_kept(host: str) -> None:
    with zmq.Context() as context, bind(context, host) as router, closing(Several(context, port_of(router))) as client:
        assert client.wait_for(ConnectionEvent.OPENED) == [ConnectionEvent.OPENED]
        assert client.monitor.endpoint == Endpoint(host, port_of(router))
        for _ in range(4):
            client.socket.send(b"all to one server")
            assert router.poll(int(TIMEOUT * 1000))
            router.recv_multipart()
        router.close()
        assert client.wait_for(ConnectionEvent.CLOSED) == [ConnectionEvent.CLOSED]


def test_of_two_addresses_that_answer_one_is_kept() -> None:
    with (
        zmq.Context() as context,
        bind(context, HOSTS[0]) as first,
        bind(context, HOSTS[1], port_of(first)) as second,
        closing(Several(context, port_of(first))) as client,
    ):
        client.wait_for(ConnectionEvent.OPENED)
        kept, other = (first, second) if client.monitor.endpoint.host == HOSTS[0] else (second, first)
        for _ in range(4):
            client.socket.send(b"all to one server")
            assert kept.poll(int(TIMEOUT * 1000))
            kept.recv_multipart()
        assert not other.poll(0)
        assert [*client.monitor.read()] == []


def test_the_failure_of_one_address_is_reported_only_if_no_other_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "FAILURE_DELAY_S", 0.1)
    with (
        zmq.Context() as context,
        socket.create_server(("127.0.0.1", 0)) as listening,
        closing(Several(context, listening.getsockname()[1], encrypted=True)) as client,
    ):
        listening.accept()[0].close()
        events = client.wait_for(ConnectionEvent.CLOSED)
    assert events == [ConnectionRefusal.HANDSHAKE, ConnectionEvent.CLOSED]
