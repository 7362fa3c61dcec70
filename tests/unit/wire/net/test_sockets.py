"""Socket options, binding, receiving long messages, and the descriptor limit."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
import zmq

from msd.wire.net.monitor import ConnectionEvent, Monitor
from msd.wire.net.sockets import (
    HANDSHAKE_TIMEOUT_MS,
    MAX_FRAMES,
    bind,
    limit_frames,
    raise_descriptor_limit,
    receive,
    tune,
)
from msd.wire.security.keys import Credentials, KeyPair

#: Milliseconds that a message or an event may take to arrive.
TIMEOUT_MS = 10_000


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """Lowers the soft descriptor limit during the test; yields the lowered soft limit and the hard limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = (512, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, lowered)
    yield lowered
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised_to_the_hard_limit(limits: tuple[int, int]) -> None:
    raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_limit_that_cannot_be_raised_is_kept(
    limits: tuple[int, int], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", refuse)
        raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on a port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router_socket:
        yield router_socket


def url(listener: socket.socket) -> str:
    return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def test_a_socket_that_cannot_be_bound_is_closed(listener: socket.socket, router: zmq.Socket[bytes]) -> None:
    with pytest.raises(zmq.ZMQError) as caught:
        bind(router, url(listener))
    assert caught.value.errno == zmq.EADDRINUSE
    assert router.closed


def test_tune_sets_the_options_of_all_sockets(router: zmq.Socket[bytes]) -> None:
    tune(router)
    assert router.handshake_ivl == HANDSHAKE_TIMEOUT_MS
    assert router.tcp_keepalive == 1
    assert router.ipv6 == 0
    assert router.mechanism == zmq.NULL


def test_tune_with_credentials_uses_curve(router: zmq.Socket[bytes]) -> None:
    own, server = KeyPair.generate(), KeyPair.generate()
    tune(router, ipv6=True, credentials=Credentials(own, server.public))
    assert router.ipv6 == 1
    assert router.mechanism == zmq.CURVE


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "curve"])
def test_a_frame_may_have_the_size_of_the_limit_but_no_byte_more(encrypted: bool) -> None:
    own, server = KeyPair.generate(), KeyPair.generate()
    with zmq.Context() as context, context.socket(zmq.PULL) as receiver, context.socket(zmq.PUSH) as sender:
        sender.linger = 0
        tune(receiver)
        if encrypted:
            receiver.curve_publickey, receiver.curve_secretkey = server.public, server.secret
            receiver.curve_server = True
        tune(sender, credentials=Credentials(own, server.public) if encrypted else None)
        limit_frames(receiver, 1024)
        receiver.bind("tcp://127.0.0.1:*")
        with closing(Monitor(sender, encrypted=encrypted)) as monitor:
            sender.connect(receiver.getsockopt_string(zmq.LAST_ENDPOINT))
            sender.send(bytes(1024))
            assert receiver.poll(TIMEOUT_MS)
            assert len(receiver.recv()) == 1024
            assert [*monitor.read()] == [ConnectionEvent.OPENED]
            sender.send(bytes(1025))
            assert monitor.socket.poll(TIMEOUT_MS)
            assert next(monitor.read()) is ConnectionEvent.CLOSED
            assert not receiver.poll(0)


@pytest.fixture
def pair() -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """Two connected sockets."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as first, context.socket(zmq.PAIR) as second:
        first.bind("inproc://pair")
        second.connect("inproc://pair")
        yield first, second


def test_receive_returns_none_without_a_message(pair: tuple[zmq.Socket[bytes], zmq.Socket[bytes]]) -> None:
    assert receive(pair[0]) is None


@pytest.mark.parametrize("count", [1, MAX_FRAMES, MAX_FRAMES + 1, 1000])
def test_receive_drops_the_frames_of_a_too_long_message(
    pair: tuple[zmq.Socket[bytes], zmq.Socket[bytes]], count: int
) -> None:
    sender, receiver = pair
    sender.send_multipart([bytes([number % 256]) for number in range(count)])
    sender.send(b"next")
    frames = receive(receiver)
    assert frames is not None
    expected = [bytes([number]) for number in range(count)] if count <= MAX_FRAMES else []
    assert [frame.bytes for frame in frames] == expected
    following = receive(receiver)
    assert following is not None
    assert [frame.bytes for frame in following] == [b"next"]
