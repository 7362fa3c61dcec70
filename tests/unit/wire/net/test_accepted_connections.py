"""Accepted connections, with real sockets: which one delivered a message, and closing only that one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
import zmq

from msd.wire.net.accepted_connections import AcceptedConnections, Connection
from msd.wire.net.sockets import receive
from msd.wire.security.zap import ZapHandler

TIMEOUT_MS = 10_000


class Bench:
    """A ROUTER socket without keys, on IPv4 and IPv6, and the peers that connect to it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        zap = stack.enter_context(closing(ZapHandler(self._context, None, None)))
        self._router = stack.enter_context(self._context.socket(zmq.ROUTER))
        self._router.linger = 0
        self._router.ipv6 = 1
        self._router.bind("tcp://[::]:*")
        self.connections: AcceptedConnections[object] = AcceptedConnections(zap)

    def connect(self) -> zmq.Socket[bytes]:
        peer = self._stack.enter_context(self._context.socket(zmq.DEALER))
        peer.linger = 0
        peer.reconnect_ivl = -1
        peer.connect(self._router.getsockopt_string(zmq.LAST_ENDPOINT).replace("[::]", "127.0.0.1"))
        return peer

    def receive(self, tag: object = None) -> Connection[object]:
        """Receives a message and returns its sender. If no ``tag`` is given, the tag is the routing id."""
        assert self._router.poll(TIMEOUT_MS)
        frames = receive(self._router)
        assert frames is not None
        connection = self.connections.sender(frames[1], tag or frames[0].bytes)
        assert connection is not None
        return connection

    def reply(self, connection: Connection[object]) -> None:
        assert isinstance(connection.tag, bytes)
        self._router.send_multipart([connection.tag, b"reply"])


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


def test_only_the_closed_connection_ends(bench: Bench) -> None:
    peers = [bench.connect() for _ in range(3)]
    connections = []
    for peer in peers:
        peer.send(b"hello")
        connections.append(bench.receive())
    monitor = peers[1].get_monitor_socket(zmq.EVENT_DISCONNECTED)
    assert connections[1].close()
    assert monitor.poll(TIMEOUT_MS)
    monitor.close(0)
    assert not connections[1].close()
    for peer, connection in ((peers[0], connections[0]), (peers[2], connections[2])):
        bench.reply(connection)
        assert peer.poll(TIMEOUT_MS)
        peer.send(b"again")
        assert bench.receive() is connection


def test_an_ipv4_address_is_known_as_such_by_a_socket_that_listens_on_ipv6(bench: Bench) -> None:
    bench.connect().send(b"hello")
    assert bench.receive().host == "127.0.0.1"


def test_a_message_is_received_even_if_its_connection_is_closed(bench: Bench) -> None:
    peer = bench.connect()
    peer.send(b"first")
    known = bench.receive()
    peer.send(b"last")
    assert bench._router.poll(TIMEOUT_MS)
    with socket.socket(fileno=os.dup(known.descriptor)) as tcp:
        tcp.shutdown(socket.SHUT_RDWR)
    assert bench.receive() is known


def test_a_descriptor_that_is_no_connection_is_left_alone(bench: Bench) -> None:
    with open(os.devnull, "rb") as file:
        for descriptor in (file.fileno(), -1, 1 << 20):
            assert not Connection(descriptor, ("127.0.0.1", 1), "127.0.0.1", b"", None).close()


def test_another_connection_with_the_same_descriptor_stays_open(bench: Bench) -> None:
    peer = bench.connect()
    peer.send(b"hello")
    now = bench.receive()
    before = Connection(now.descriptor, ("127.0.0.1", 1), "127.0.0.1", b"", None)
    assert not before.close()
    bench.reply(now)
    assert peer.poll(TIMEOUT_MS)


def test_a_connection_that_cannot_have_sent_the_unwanted_messages_stays_open(bench: Bench) -> None:
    """Messages of an earlier connection with the same descriptor were counted against this one."""
    peer = bench.connect()
    peer.send(bytes(500))
    innocent = bench.receive()
    innocent.unwanted_bytes = 2000
    assert not innocent.close()
    bench.reply(innocent)
    assert peer.poll(TIMEOUT_MS)
    other = bench.connect()
    other.send(bytes(2000))
    sender = bench.receive()
    sender.unwanted_bytes = 2000
    assert sender.close()


def test_another_tag_is_another_connection(bench: Bench) -> None:
    peer = bench.connect()
    for _ in range(3):
        peer.send(b"hello")
    first = bench.receive("first")
    assert bench.receive("first") is first
    assert bench.receive("second") is not first
