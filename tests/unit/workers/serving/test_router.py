"""The worker's ROUTER socket over real connections: requests, replies, completed sends and disconnected clients."""

from __future__ import annotations

import os
import resource
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import zmq

from msd.wire.errors import ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import Bye, DataReply, Message, Refusal
from msd.wire.protocol.states import RefusalReason
from msd.workers.serving.router import MAX_UNSENT_BYTES, ClientKey, Router
from msd.workers.serving.send_completions import SendCompletions

MIB = 1 << 20
TIMEOUT_MS = 10_000
HEAD = b"head"
REFUSAL = Refusal(rid=5, epoch=7, reason=RefusalReason.BUSY)


class Bench:
    """A router on a free port, and the clients that it has reported as disconnected."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.send_completions: SendCompletions[tuple[ClientKey, int]] = SendCompletions()
        stack.callback(self.send_completions.close)
        self.context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self.disconnected: list[ClientKey] = []
        self.router = self.make_router(Endpoint("127.0.0.1", 0))
        self.router.open()

    def make_router(self, endpoint: Endpoint) -> Router:
        router = Router(self.context, endpoint, self.send_completions, on_disconnected=self.disconnected.append)
        self.stack.callback(router.close)
        return router

    def connect(self, *, rcvhwm: int = 1000) -> tuple[zmq.Socket[bytes], ClientKey]:
        """Connects a client and receives its first request. Returns the client's socket and the client's key."""
        assert self.router.socket is not None
        dealer = self.stack.enter_context(self.context.socket(zmq.DEALER))
        dealer.linger = 0
        dealer.rcvhwm = rcvhwm
        dealer.connect(self.router.socket.getsockopt_string(zmq.LAST_ENDPOINT))
        dealer.send(encode(Bye(session=1)))
        client, frame = self.receive()
        assert frame.bytes == encode(Bye(session=1))
        return dealer, client

    def receive(self) -> tuple[ClientKey, zmq.Frame]:
        assert self.router.socket is not None
        assert self.router.socket.poll(TIMEOUT_MS)
        received = self.router.receive()
        assert received is not None
        return received

    def send_until_disconnected(self, client: ClientKey, reply: Message) -> None:
        """Sends ``reply`` until the router reports a disconnected client."""
        assert self.router.socket is not None
        for _ in range(TIMEOUT_MS // 10):
            self.router.send(client, reply)
            if self.disconnected:
                return
            self.router.socket.poll(10)
        pytest.fail("the router reported no disconnected client")

    def collect(self) -> list[tuple[ClientKey, int]]:
        """Waits until a send has completed; returns the tags of all completed sends."""
        assert self.router.socket is not None
        for _ in range(TIMEOUT_MS // 10):
            # ZeroMQ releases the replies to a disconnected client only during a call to one of its functions.
            self.router.socket.poll(0)
            if self.send_completions.socket.poll(10):
                return self.send_completions.collect()
        pytest.fail("no send completed")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


def test_a_closed_router_has_no_socket_and_sends_nothing(bench: Bench) -> None:
    _, client = bench.connect()
    bench.router.close()
    assert bench.router.socket is None
    bench.router.send(client, REFUSAL)
    assert not bench.router.send_large(client, HEAD, bytes(MIB), len(HEAD) + len(bytes(MIB)))
    assert bench.disconnected == []
    bench.router.close()


def test_opening_a_busy_port_fails(bench: Bench) -> None:
    assert bench.router.socket is not None
    endpoint = Endpoint.parse(bench.router.socket.getsockopt_string(zmq.LAST_ENDPOINT))
    other = bench.make_router(endpoint)
    with pytest.raises(OSError, match="in use"):
        other.open()
    assert other.socket is None


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("*", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("::", ["::1", "127.0.0.1"]),
    ],
)
def test_listens_on_one_address_or_on_all(bench: Bench, host: str, addresses: list[str]) -> None:
    router = bench.make_router(Endpoint(host, 0))
    router.open()
    assert router.socket is not None
    port = Endpoint.parse(router.socket.getsockopt_string(zmq.LAST_ENDPOINT)).port
    for address in addresses:
        socket.create_connection((address, port), timeout=TIMEOUT_MS / 1000).close()


def test_the_kernel_buffers_little_for_a_peer_that_does_not_read(bench: Bench) -> None:
    bench.connect()
    assert bench.router.socket is not None
    port = Endpoint.parse(bench.router.socket.getsockopt_string(zmq.LAST_ENDPOINT)).port
    option = (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    assert [connection.getsockopt(*option) for connection in accepted(port)] == [MAX_UNSENT_BYTES]


def accepted(port: int) -> Iterator[socket.socket]:
    """Yields the connections that this process has accepted on ``port``."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                with socket.socket(fileno=os.dup(fd)) as connection:
                    if (
                        connection.family == socket.AF_INET
                        and connection.getsockname()[1] == port
                        and connection.getpeername()
                    ):
                        yield connection


@pytest.mark.parametrize("spare", range(4))
def test_without_free_descriptors_the_router_stays_closed_and_can_open_later(bench: Bench, spare: int) -> None:
    """Pytest turns ResourceWarnings into errors, so the test fails if a failed attempt leaves a socket open."""
    bench.router.close()
    original = _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    occupied = [os.dup(0) for _ in range(highest)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(occupied) + 1 + spare, hard_limit))
    try:
        with suppress(OSError, zmq.ZMQError):
            bench.router.open()
            bench.router.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, original)
        for fd in occupied:
            os.close(fd)
    bench.router.open()
    bench.connect()


def test_receive_returns_none_if_no_message_has_arrived(bench: Bench) -> None:
    assert not bench.router.is_readable
    assert bench.router.receive() is None


@pytest.mark.parametrize("frames", [2, 3, 50])
def test_a_request_of_several_frames_is_malformed(bench: Bench, frames: int) -> None:
    dealer, _ = bench.connect()
    dealer.send_multipart([b"x"] * frames)
    with pytest.raises(ProtocolError):
        bench.receive()
    assert bench.router.receive() is None


def test_a_small_reply_arrives(bench: Bench) -> None:
    dealer, client = bench.connect()
    bench.router.send(client, REFUSAL)
    assert dealer.poll(TIMEOUT_MS)
    assert decode(dealer.recv(), DataReply) == REFUSAL
    assert not bench.send_completions


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * MIB])
def test_a_large_reply_arrives_and_completes(bench: Bench, payload: bytes) -> None:
    dealer, client = bench.connect()
    assert bench.router.send_large(client, HEAD, payload, len(HEAD) + len(payload))
    assert bench.send_completions
    assert dealer.poll(TIMEOUT_MS)
    assert dealer.recv_multipart() == ([HEAD, payload] if payload else [HEAD])
    assert bench.collect() == [(client, len(HEAD) + len(payload))]
    assert not bench.send_completions
    assert bench.send_completions.collect() == []


def test_unread_replies_do_not_complete(bench: Bench) -> None:
    _, client = bench.connect(rcvhwm=1)
    for _ in range(64):  # more than a connection can buffer
        assert bench.router.send_large(client, HEAD, bytes(MIB), len(HEAD) + len(bytes(MIB)))
    completed = 0
    while bench.send_completions.socket.poll(200):
        completed += len(bench.send_completions.collect())
    assert 0 < completed < 64
    assert bench.send_completions


def test_a_dropped_reply_is_not_reported_as_completed(bench: Bench) -> None:
    dealer, client = bench.connect()
    unknown = client[0], b"unknown"
    assert not bench.router.send_large(unknown, HEAD, bytes(MIB), len(HEAD) + len(bytes(MIB)))
    assert bench.router.send_large(client, HEAD, b"x", len(HEAD) + len(b"x"))
    assert dealer.poll(TIMEOUT_MS)
    completed = []
    while bench.send_completions:
        completed += bench.collect()
    assert completed == [(client, len(HEAD) + 1)]
    assert bench.disconnected == [unknown]


def test_a_disconnected_client_is_reported_and_its_replies_complete(bench: Bench) -> None:
    dealer, client = bench.connect(rcvhwm=1)
    for _ in range(64):
        assert bench.router.send_large(client, HEAD, bytes(MIB), len(HEAD) + len(bytes(MIB)))
    dealer.close(0)
    bench.send_until_disconnected(client, REFUSAL)
    assert bench.disconnected == [client]
    assert not bench.router.send_large(client, HEAD, b"x", len(HEAD) + len(b"x"))
    completed: list[tuple[ClientKey, int]] = []
    while bench.send_completions:
        completed += bench.collect()
    assert completed == [(client, len(HEAD) + MIB)] * 64


def test_a_client_of_a_closed_socket_is_not_confused_with_a_client_of_the_next(bench: Bench) -> None:
    """The routing ids of both clients may be equal, because ZeroMQ reuses routing ids."""
    _, former = bench.connect()
    bench.router.close()
    bench.router.open()
    dealer, client = bench.connect()
    assert former != client
    bench.router.send((former[0], client[1]), REFUSAL)
    bench.router.send(client, Refusal(rid=6, epoch=7, reason=RefusalReason.BUSY))
    assert dealer.poll(TIMEOUT_MS)
    assert decode(dealer.recv(), DataReply).rid == 6
    assert bench.disconnected == []
