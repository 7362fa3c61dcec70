"""The control socket: roles, malformed messages, floods, and replies to peers that have disconnected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import msgpack
import pytest
import zmq

from msd.broker.network.control_socket import READS_PER_TURN, ControlSocket, Route, Sender
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    Accepted,
    ControlReply,
    ControlRequest,
    Rejected,
    StatusRequest,
)
from msd.wire.security.keys import Role
from msd.wire.security.zap import ZapHandler
from tests.processes import free_ports

#: Milliseconds that a message may take to arrive.
TIMEOUT_MS = 10_000
Request = tuple[Route, Sender, ControlRequest]


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context


@pytest.fixture
def control(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[ControlSocket]:
    with closing(ControlSocket(context, "inproc://control")) as control:
        yield control


@pytest.fixture
def peer(context: zmq.Context[zmq.Socket[bytes]], control: ControlSocket) -> Iterator[zmq.Socket[bytes]]:
    with context.socket(zmq.DEALER) as peer:
        peer.linger = 0
        peer.connect("inproc://control")
        yield peer


def requests(control: ControlSocket, count: int) -> list[Request]:
    """Waits for ``count`` requests and returns them."""
    received: list[Request] = []
    while len(received) < count:
        assert control.socket.poll(TIMEOUT_MS)
        received += control.requests()
    return received


def test_a_reply_is_sent_to_the_sender_of_the_request(control: ControlSocket, peer: zmq.Socket[bytes]) -> None:
    peer.send(encode(StatusRequest(rid=5)))
    ((route, _, request),) = requests(control, 1)
    assert request == StatusRequest(rid=5)
    route.send(Accepted(rid=5))
    assert peer.poll(TIMEOUT_MS)
    assert peer.recv() == encode(Accepted(rid=5))


def test_a_peer_of_an_unprotected_socket_is_a_worker(control: ControlSocket, peer: zmq.Socket[bytes]) -> None:
    peer.send(encode(StatusRequest(rid=1)))
    assert requests(control, 1)[0][1] == Sender(Role.WORKER)


def test_a_peer_of_a_protected_socket_has_a_role_and_an_address(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    endpoint = Endpoint("127.0.0.1", free_ports()[4])
    with (
        closing(ZapHandler(context, None, None)) as zap,
        closing(ControlSocket(context, endpoint, zap)) as control,
        context.socket(zmq.DEALER) as peer,
    ):
        peer.connect(endpoint.url)
        peer.send(encode(StatusRequest(rid=1)))
        assert zap.socket.poll(TIMEOUT_MS)
        zap.handle()
        assert requests(control, 1)[0][1] == Sender(Role.ANYONE, b"", "127.0.0.1", "127.0.0.1")


def test_malformed_messages_are_counted_and_skipped(control: ControlSocket, peer: zmq.Socket[bytes]) -> None:
    for frames in ([b""], [b"garbage"], [encode(StatusRequest(rid=1)), b""], [encode(Accepted(rid=1))]):
        peer.send_multipart(frames)
    peer.send(encode(StatusRequest(rid=2)))
    assert [request for _, _, request in requests(control, 1)] == [StatusRequest(rid=2)]
    assert control.malformed_messages == 4


def test_a_malformed_request_with_a_readable_rid_is_rejected(control: ControlSocket, peer: zmq.Socket[bytes]) -> None:
    malformed = [
        ({"type": "toggle", "rid": 7, "number": "1"}, "number"),
        ({"type": "toggle", "rid": 7, "number": 1, "want": "up"}, "want"),
        ({"type": "frobnicate", "rid": 7}, "type"),
        ({"type": "\x1b[2J", "rid": 7}, "type"),
    ]
    for header, _ in malformed:
        peer.send(bytes(msgpack.packb(header)))
    peer.send(encode(StatusRequest(rid=2)))
    requests(control, 1)
    assert control.malformed_messages == len(malformed)
    for _, key in malformed:
        assert peer.poll(TIMEOUT_MS)
        reply = decode(peer.recv(), ControlReply)
        assert isinstance(reply, Rejected)
        assert (reply.rid, reply.denied) == (7, False)
        assert f"`$.{key}`" in reply.message


def test_a_request_of_another_version_is_rejected_with_both_versions(
    control: ControlSocket, peer: zmq.Socket[bytes]
) -> None:
    peer.send(encode(StatusRequest(rid=7, version=PROTOCOL_VERSION + 1)))
    peer.send(encode(StatusRequest(rid=8)))
    requests(control, 1)
    assert peer.poll(TIMEOUT_MS)
    reply = decode(peer.recv(), ControlReply)
    assert isinstance(reply, Rejected)
    assert (reply.rid, reply.versions) == (7, [PROTOCOL_VERSION])
    assert f"version {PROTOCOL_VERSION}, not {PROTOCOL_VERSION + 1}" in reply.message


def test_a_flood_is_read_in_parts(control: ControlSocket, peer: zmq.Socket[bytes]) -> None:
    for rid in range(READS_PER_TURN + 10):
        peer.send(encode(StatusRequest(rid=rid)))
    assert control.socket.poll(TIMEOUT_MS)
    assert len([*control.requests()]) == READS_PER_TURN
    assert [request.rid for _, _, request in requests(control, 10) if isinstance(request, StatusRequest)] == [
        *range(READS_PER_TURN, READS_PER_TURN + 10)
    ]


def test_a_message_to_an_unknown_peer_or_through_a_closed_socket_is_dropped(control: ControlSocket) -> None:
    control.send(b"unknown", Accepted(rid=1))
    control.close()
    control.send(b"unknown", Accepted(rid=1))


def test_a_port_in_use_is_an_error(context: zmq.Context[zmq.Socket[bytes]], control: ControlSocket) -> None:
    with pytest.raises(zmq.ZMQError, match="in use"):
        ControlSocket(context, "inproc://control")
