"""The sockets of a client: when requests are sent and in which order replies are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NoReturn

import pytest
import zmq
from msgspec.structs import replace

from msd.client.network.transport import Transport, round_robin
from msd.client.network_events import ConnectionClosed, ConnectionOpened, NetworkEvent
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import PROTOCOL_VERSION, Bye, DataRequest, DownloadProgress, Get, Hello, Welcome
from msd.wire.protocol.states import DownloadState
from msd.wire.security.keys import Credentials, KeyPair

#: No process listens on this port.
CLOSED_PORT = Endpoint("127.0.0.1", 1)


@pytest.fixture
def transport() -> Iterator[Transport]:
    servers = locate_servers(Config(), host="127.0.0.1", ports=None, server5=None)
    with closing(Transport(servers, session=1)) as transport:
        yield transport


def test_a_message_to_server_5_that_cannot_be_sent_is_not_an_error(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def queue_full(*_: Any, **__: Any) -> NoReturn:
        raise zmq.Again

    assert not transport.report_done(CLOSED_PORT, timeout=0.01)
    with monkeypatch.context() as patched:
        patched.setattr(zmq.Socket, "send", queue_full)
        assert not transport.report_done(CLOSED_PORT, timeout=0.01)
        transport.report_corrupt(CLOSED_PORT, 1, b"x" * 32, 0)
        transport.report_progress(
            CLOSED_PORT, DownloadProgress(session=1, state=DownloadState.DONE, selection="x", bytes=0, total=0)
        )


def test_a_request_is_sent_before_the_next_poll(transport: Transport) -> None:
    request = Get(rid=7, id=bytes(32), index=3)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as worker:
        worker.linger = 0
        worker.rcvtimeo = 10_000
        worker.bind("tcp://127.0.0.1:*")
        transport.open_connection(1, Endpoint.parse(worker.getsockopt_string(zmq.LAST_ENDPOINT)))
        transport.request(1, request)
        assert worker.recv_multipart()[1] == encode(request)


def test_a_connection_that_the_client_closes_says_bye(transport: Transport) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        socket.rcvtimeo = 10_000
        socket.bind("tcp://127.0.0.1:*")
        transport.open_connection(1, Endpoint.parse(socket.getsockopt_string(zmq.LAST_ENDPOINT)))
        while not socket.poll(0):
            transport.wait(0.01)
            [*transport.read()]
        transport.close_connection(1)
        hello, bye = (decode(socket.recv_multipart()[1], DataRequest) for _ in range(2))
    assert isinstance(hello, Hello)
    assert bye == Bye(session=1)


class Worker:
    """A ROUTER socket that welcomes clients, with CURVE if it has ``keys``."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: KeyPair | None = None) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        if keys is not None:
            self.socket.curve_server = True
            self.socket.curve_secretkey = keys.secret
        self.socket.bind("tcp://127.0.0.1:*")
        self.endpoint = Endpoint.parse(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def welcome(self, epoch: int) -> None:
        """Answers the next ``hello``."""
        while True:
            assert self.socket.poll(10_000)
            ident, header = self.socket.recv_multipart()
            message = decode(header, DataRequest)
            if isinstance(message, Hello):
                reply = Welcome(
                    rid=message.rid, epoch=epoch, version=PROTOCOL_VERSION, number=1, files=1, catalogue=bytes(32)
                )
                self.socket.send_multipart([ident, encode(reply)])
                return


def test_a_worker_may_have_a_key_of_its_own() -> None:
    servers5_keys, worker_keys, own_keys = (KeyPair.generate() for _ in range(3))
    servers = locate_servers(Config(), host="127.0.0.1", ports=None, server5=None)
    servers = replace(servers, credentials=Credentials(own_keys, servers5_keys.public))
    with closing(Transport(servers, session=1)) as transport, zmq.Context() as context:
        shared, own = Worker(context, servers5_keys), Worker(context, worker_keys)
        transport.open_connection(1, shared.endpoint)
        deliver(transport, shared, epoch=1)
        transport.open_connection(2, own.endpoint, worker_keys.public)
        deliver(transport, own, epoch=2)
        transport.renew_connection(1, own.endpoint, worker_keys.public)
        closed, opened = deliver(transport, own, epoch=2)
        assert (closed, opened.worker) == (ConnectionClosed(1, is_renewed=True), 1)
        shared.socket.close(0)
        own.socket.close(0)


@pytest.fixture
def renewed(transport: Transport) -> Iterator[tuple[Worker, Worker]]:
    """Two workers: the transport is connected to the first, and a renewal leads to the second."""
    with zmq.Context() as context:
        first, second = Worker(context), Worker(context)
        transport.open_connection(1, first.endpoint)
        deliver(transport, first, epoch=1)
        transport.renew_connection(1, second.endpoint)
        yield first, second
        first.socket.close(0)
        second.socket.close(0)


def deliver(transport: Transport, worker: Worker, epoch: int) -> list[Any]:
    """Lets ``worker`` welcome the client; returns the events up to that welcome."""
    events: list[NetworkEvent] = []
    while not any(isinstance(event, ConnectionOpened) for event in events):
        transport.wait(0.01)
        events += transport.read()
        if worker.socket.poll(0):
            worker.welcome(epoch)
    return events


def test_a_renewal_replaces_the_connection_when_it_opens(transport: Transport, renewed: tuple[Worker, Worker]) -> None:
    _, second = renewed
    closed, opened = deliver(transport, second, epoch=2)
    assert closed == ConnectionClosed(1, is_renewed=True)
    assert isinstance(opened, ConnectionOpened)
    assert opened.welcome.epoch == 2
    transport.request(1, Get(rid=7, id=bytes(32), index=3))
    assert second.socket.poll(10_000)
    assert list(transport.silent_seconds()) == [1]


def test_a_renewal_takes_the_place_of_a_connection_that_is_closed(
    transport: Transport, renewed: tuple[Worker, Worker]
) -> None:
    first, second = renewed
    first.socket.close(0)
    events = deliver(transport, second, epoch=2)
    assert events[0] == ConnectionClosed(1, is_renewed=True)


def test_a_renewal_that_is_ended_leaves_the_connection_open(
    transport: Transport, renewed: tuple[Worker, Worker]
) -> None:
    first, _ = renewed
    transport.end_renewal(1)
    transport.request(1, Get(rid=7, id=bytes(32), index=3))
    assert first.socket.poll(10_000)
    assert [*transport.read()] == []


def test_a_request_without_a_connection_is_dropped(transport: Transport) -> None:
    transport.request(1, Get(rid=7, id=bytes(32), index=3))
    assert [*transport.read()] == []


def test_a_full_stream_is_polled_until_it_is_writable_or_its_reader_closes_it(transport: Transport) -> None:
    def is_ready() -> bool:
        transport.wait(0.0)
        return write in transport._readable

    read, write = os.pipe()
    os.set_blocking(write, False)
    transport.watch_output(write, is_full=False)
    assert not is_ready()
    transport.watch_output(write, is_full=True)
    assert is_ready()
    os.write(write, bytes(1 << 20))
    assert not is_ready()
    os.read(read, 1 << 16)
    assert is_ready()
    transport.watch_output(write, is_full=False)
    assert not is_ready()
    os.close(read)
    assert is_ready()
    os.close(write)


def test_one_reply_is_read_from_each_connection_in_turn(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    for worker in (1, 2):
        transport.open_connection(worker, CLOSED_PORT)
    readable = [(connection.dealer, zmq.POLLIN) for connection in transport._connections.values()]
    monkeypatch.setattr(transport._poller, "poll", lambda timeout: readable)
    monkeypatch.setattr(transport, "_read_connection", lambda worker, connection: iter([(worker, 1), (worker, 2)]))
    transport.wait(0.0)
    events: list[object] = [*transport.read()]
    assert events == [(1, 1), (2, 1), (1, 2), (2, 2)]


def test_round_robin_takes_one_item_of_each_source_and_reads_none_ahead() -> None:
    produced: list[str] = []

    def source(name: str, length: int) -> Iterator[str]:
        for number in range(length):
            produced.append(f"{name}{number}")
            yield f"{name}{number}"

    items: list[str] = []
    for item in round_robin([source("a", 3), source("b", 0), source("c", 1), source("d", 2)]):
        items.append(item)
        assert produced == items
    assert items == ["a0", "c0", "d0", "a1", "d1", "a2"]
