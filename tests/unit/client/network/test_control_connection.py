"""The control connection: it is opened once, waits only for the reply to a request, drops what cannot be
sent, and yields the answers to announcements."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import zmq

from msd.client.network.control_connection import MAX_UNSENT, ControlConnection
from msd.client.network_events import AnnounceAnswered, KeysAdmitted
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import Accepted, Admitted, Announce, Done, Holders, Rejected

#: No process listens on this port.
CLOSED_PORT = Endpoint("127.0.0.1", 1)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context
        context.destroy(0)


@pytest.fixture
def broker(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    broker = context.socket(zmq.ROUTER)
    broker.rcvtimeo = 10_000
    broker.bind("tcp://127.0.0.1:*")
    return broker


def endpoint_of(broker: zmq.Socket[bytes]) -> Endpoint:
    return Endpoint.parse(broker.getsockopt_string(zmq.LAST_ENDPOINT))


def test_all_messages_use_one_connection_in_order(
    context: zmq.Context[zmq.Socket[bytes]], broker: zmq.Socket[bytes]
) -> None:
    with closing(ControlConnection(context, zmq.Poller(), None)) as connection:
        for rid in range(5):
            connection.send(endpoint_of(broker), Done(rid=rid, session=1))
        received = [broker.recv_multipart() for _ in range(5)]
    assert [message for _, message in received] == [encode(Done(rid=rid, session=1)) for rid in range(5)]
    assert len({ident for ident, _ in received}) == 1


def test_a_request_is_answered_by_the_reply_with_its_rid(
    context: zmq.Context[zmq.Socket[bytes]], broker: zmq.Socket[bytes]
) -> None:
    def answer() -> None:
        ident, _ = broker.recv_multipart()
        for reply in (b"garbage", encode(Rejected(rid=3, message="")), encode(Accepted(rid=7))):
            broker.send_multipart([ident, reply])

    thread = threading.Thread(target=answer)
    thread.start()
    with closing(ControlConnection(context, zmq.Poller(), None)) as connection:
        assert connection.request(endpoint_of(broker), Done(rid=7, session=1), 10.0)
        thread.join()
        assert not connection.request(endpoint_of(broker), Done(rid=8, session=1), 0.01)


def test_another_address_is_another_connection(
    context: zmq.Context[zmq.Socket[bytes]], broker: zmq.Socket[bytes]
) -> None:
    with closing(ControlConnection(context, zmq.Poller(), None)) as connection:
        connection.send(CLOSED_PORT, Done(rid=1, session=1))
        connection.send(endpoint_of(broker), Done(rid=2, session=1))
        assert broker.recv_multipart()[1] == encode(Done(rid=2, session=1))


def test_messages_that_cannot_be_sent_are_dropped(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with closing(ControlConnection(context, zmq.Poller(), None)) as connection:
        for rid in range(MAX_UNSENT * 3):
            connection.send(CLOSED_PORT, Done(rid=rid, session=1))


def test_the_answers_to_announcements_are_read_and_all_others_are_taken(
    context: zmq.Context[zmq.Socket[bytes]], broker: zmq.Socket[bytes]
) -> None:
    poller = zmq.Poller()
    holders, admitted = Holders(rid=2, holders=[], seconds=3.0), Admitted(digest=bytes(32), keys=[])
    with closing(ControlConnection(context, poller, None)) as connection:
        connection.send(endpoint_of(broker), Announce(rid=2, plan=bytes(32), units=0))
        ident, _ = broker.recv_multipart()
        for reply in (b"garbage", encode(Accepted(rid=1)), encode(holders), encode(admitted)):
            broker.send_multipart([ident, reply])
        read: list[AnnounceAnswered | KeysAdmitted] = []
        while len(read) < 2:
            assert dict(poller.poll(10_000)) == {connection.source: zmq.POLLIN}
            read += connection.read()
        assert read == [AnnounceAnswered(holders), KeysAdmitted(admitted)]
    assert connection.source is None
    assert not poller.sockets
