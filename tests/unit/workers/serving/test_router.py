"""The ROUTER of a worker, with real sockets: what is sent, and what is known to have left."""

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
from msd.workers.serving.router import UNSENT, Client, Router
from msd.workers.serving.send_completions import SendCompletions

MIB = 1 << 20
PATIENCE_MS = 10_000
HEAD = b"head"
REFUSAL = Refusal(rid=5, epoch=7, reason=RefusalReason.BUSY)


class Bench:
    """A router on a free port, those it found to be gone, and clients."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.departures: SendCompletions[tuple[Client, int]] = SendCompletions()
        stack.callback(self.departures.close)
        self.context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self.gone: list[Client] = []
        self.router = self.make(Endpoint("127.0.0.1", 0))
        self.router.open()

    def make(self, endpoint: Endpoint) -> Router:
        router = Router(self.context, endpoint, self.departures, gone=self.gone.append)
        self.stack.callback(router.close)
        return router

    def connect(self, *, rcvhwm: int = 1000) -> tuple[zmq.Socket[bytes], Client]:
        """A client that has said something, and its name at the router."""
        assert self.router.socket is not None
        dealer = self.stack.enter_context(self.context.socket(zmq.DEALER))
        dealer.linger = 0
        dealer.rcvhwm = rcvhwm
        dealer.connect(self.router.socket.getsockopt_string(zmq.LAST_ENDPOINT))
        dealer.send(encode(Bye(session=1)))
        client, frame = self.receive()
        assert frame.bytes == encode(Bye(session=1))
        return dealer, client

    def receive(self) -> tuple[Client, zmq.Frame]:
        assert self.router.socket is not None
        assert self.router.socket.poll(PATIENCE_MS)
        received = self.router.receive()
        assert received is not None
        return received

    def find_gone(self, client: Client, reply: Message) -> None:
        """Sends until the router has noticed that the client is gone."""
        assert self.router.socket is not None
        for _ in range(PATIENCE_MS // 10):
            self.router.send(client, reply)
            if self.gone:
                return
            self.router.socket.poll(10)
        pytest.fail("it did not notice")

    def collect(self) -> list[tuple[Client, int]]:
        """What has left, as soon as something has."""
        assert self.router.socket is not None
        for _ in range(PATIENCE_MS // 10):
            # What a client that is gone left behind ZeroMQ frees only when it is called.
            self.router.socket.poll(0)
            if self.departures.socket.poll(10):
                return self.departures.collect()
        pytest.fail("nothing leaves")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


def test_a_closed_router_has_no_socket_and_sends_nothing(bench: Bench) -> None:
    _, client = bench.connect()
    bench.router.close()
    assert bench.router.socket is None
    bench.router.send(client, REFUSAL)
    assert not bench.router.send_large(client, HEAD, bytes(MIB))
    assert bench.gone == []
    bench.router.close()


def test_a_port_that_is_taken_cannot_be_opened(bench: Bench) -> None:
    assert bench.router.socket is not None
    endpoint = Endpoint.parse(bench.router.socket.getsockopt_string(zmq.LAST_ENDPOINT))
    other = bench.make(endpoint)
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
def test_it_listens_on_an_address_or_on_all(bench: Bench, host: str, addresses: list[str]) -> None:
    router = bench.make(Endpoint(host, 0))
    router.open()
    assert router.socket is not None
    port = Endpoint.parse(router.socket.getsockopt_string(zmq.LAST_ENDPOINT)).port
    for address in addresses:
        socket.create_connection((address, port), timeout=PATIENCE_MS / 1000).close()


def test_the_kernel_keeps_little_for_a_peer_that_does_not_read(bench: Bench) -> None:
    bench.connect()
    assert bench.router.socket is not None
    port = Endpoint.parse(bench.router.socket.getsockopt_string(zmq.LAST_ENDPOINT)).port
    option = (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    assert [connection.getsockopt(*option) for connection in accepted(port)] == [UNSENT]


def accepted(port: int) -> Iterator[socket.socket]:
    """The connections that this process has accepted on a port."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                with socket.socket(fileno=os.dup(fd)) as ours:
                    if ours.family == socket.AF_INET and ours.getsockname()[1] == port and ours.getpeername():
                        yield ours


@pytest.mark.parametrize("spare", range(4))
def test_without_descriptors_it_stays_closed_and_opens_later(bench: Bench, spare: int) -> None:
    """ResourceWarnings are errors: nothing of what it tried stays open."""
    bench.router.close()
    usual = _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = max(map(int, os.listdir("/proc/self/fd")))
    taken = [os.dup(0) for _ in range(open_now)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1 + spare, most))
    try:
        with suppress(OSError, zmq.ZMQError):
            bench.router.open()
            bench.router.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
        for fd in taken:
            os.close(fd)
    bench.router.open()
    bench.connect()


def test_where_nothing_arrived_nothing_is_received(bench: Bench) -> None:
    assert bench.router.receive() is None


@pytest.mark.parametrize("frames", [2, 3, 50])
def test_a_request_of_several_frames_is_none(bench: Bench, frames: int) -> None:
    dealer, _ = bench.connect()
    dealer.send_multipart([b"x"] * frames)
    with pytest.raises(ProtocolError):
        bench.receive()
    assert bench.router.receive() is None


def test_a_small_reply_arrives(bench: Bench) -> None:
    dealer, client = bench.connect()
    bench.router.send(client, REFUSAL)
    assert dealer.poll(PATIENCE_MS)
    assert decode(dealer.recv(), DataReply) == REFUSAL
    assert not bench.departures


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * MIB])
def test_a_large_reply_arrives_and_is_known_to_have_left(bench: Bench, payload: bytes) -> None:
    dealer, client = bench.connect()
    assert bench.router.send_large(client, HEAD, payload)
    assert bench.departures
    assert dealer.poll(PATIENCE_MS)
    assert dealer.recv_multipart() == ([HEAD, payload] if payload else [HEAD])
    assert bench.collect() == [(client, len(HEAD) + len(payload))]
    assert not bench.departures
    assert bench.departures.collect() == []


def test_replies_nobody_reads_do_not_leave(bench: Bench) -> None:
    _, client = bench.connect(rcvhwm=1)
    for _ in range(64):  # more than the buffers of a connection hold
        assert bench.router.send_large(client, HEAD, bytes(MIB))
    left = 0
    while bench.departures.socket.poll(200):
        left += len(bench.departures.collect())
    assert 0 < left < 64
    assert bench.departures


def test_a_reply_that_is_dropped_does_not_count_as_left(bench: Bench) -> None:
    dealer, client = bench.connect()
    assert not bench.router.send_large((client[0], b"nobody"), HEAD, bytes(MIB))
    assert bench.router.send_large(client, HEAD, b"x")
    assert dealer.poll(PATIENCE_MS)
    left = []
    while bench.departures:
        left += bench.collect()
    assert left == [(client, len(HEAD) + 1)]
    assert bench.gone == [(client[0], b"nobody")]


def test_what_others_send_goes_past_it(bench: Bench) -> None:
    """Whatever else in this process sends without copying has the collector that pyzmq has for it."""
    with bench.context.socket(zmq.PAIR) as one, bench.context.socket(zmq.PAIR) as other:
        one.bind("inproc://others")
        other.connect("inproc://others")
        _, client = bench.connect()
        assert bench.router.send_large(client, HEAD, bytes(MIB))
        tracker = one.send(bytes(MIB), copy=False, track=True)
        assert other.recv() == bytes(MIB)
        tracker.wait(PATIENCE_MS / 1000)
    assert bench.collect() == [(client, len(HEAD) + MIB)]


def test_a_client_that_is_gone_is_reported_and_its_replies_leave(bench: Bench) -> None:
    dealer, client = bench.connect(rcvhwm=1)
    for _ in range(64):
        assert bench.router.send_large(client, HEAD, bytes(MIB))
    dealer.close(0)
    bench.find_gone(client, REFUSAL)
    assert bench.gone == [client]
    assert not bench.router.send_large(client, HEAD, b"x")
    left: list[tuple[Client, int]] = []
    while bench.departures:
        left += bench.collect()
    assert left == [(client, len(HEAD) + MIB)] * 64


def test_a_client_of_a_former_socket_is_not_taken_for_one_of_the_next(bench: Bench) -> None:
    """ZeroMQ gives the same ids again."""
    _, former = bench.connect()
    bench.router.close()
    bench.router.open()
    dealer, client = bench.connect()
    assert former != client
    bench.router.send((former[0], client[1]), REFUSAL)
    bench.router.send(client, Refusal(rid=6, epoch=7, reason=RefusalReason.BUSY))
    assert dealer.poll(PATIENCE_MS)
    assert decode(dealer.recv(), DataReply).rid == 6
    assert bench.gone == []
