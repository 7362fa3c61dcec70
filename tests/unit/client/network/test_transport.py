"""The sockets of a client: when requests leave, and what becomes of a word to server 5 that cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, NoReturn

import pytest
import zmq

from msd.client.network.transport import Transport, in_turn
from msd.wire.config.settings import Config, locate_servers
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import Get

NOBODY = Endpoint("127.0.0.1", 1)


def test_a_word_to_server_5_that_cannot_leave_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> NoReturn:
        raise zmq.Again

    with closing(
        Transport(locate_servers(Config(), host="127.0.0.1", ports=None, server5=None), session=1)
    ) as transport:
        assert not transport.tell_done(NOBODY, patience=0.01)
        with monkeypatch.context() as patched:
            patched.setattr(zmq.Socket, "send", full)
            assert not transport.tell_done(NOBODY, patience=0.01)
            transport.complain(NOBODY, 1, b"x" * 32, 0)


def test_a_request_leaves_before_anybody_polls() -> None:
    request = Get(rid=7, id=bytes(32), index=3)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as worker:
        worker.linger = 0
        worker.rcvtimeo = 10_000
        worker.bind("tcp://127.0.0.1:*")
        endpoint = Endpoint.parse(worker.getsockopt_string(zmq.LAST_ENDPOINT))
        with closing(
            Transport(locate_servers(Config(), host="127.0.0.1", ports=None, server5=None), session=1)
        ) as transport:
            transport.open(1, endpoint)
            transport.request(1, request)
            assert worker.recv_multipart()[1] == encode(request)


def test_a_transport_reads_one_reply_of_each_connection_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(
        Transport(locate_servers(Config(), host="127.0.0.1", ports=None, server5=None), session=1)
    ) as transport:
        for worker in (1, 2):
            transport.open(worker, NOBODY)
        ready = [(link.dealer, zmq.POLLIN) for link in transport._links.values()]
        monkeypatch.setattr(transport._poller, "poll", lambda timeout: ready)
        monkeypatch.setattr(transport, "_read_link", lambda worker, link: iter([(worker, 1), (worker, 2)]))
        transport.wait(0.0)
        read: list[object] = [*transport.read()]
        assert read == [(1, 1), (2, 1), (1, 2), (2, 2)]


def test_connections_take_turns_and_none_is_read_ahead() -> None:
    read: list[str] = []

    def source(name: str, length: int) -> Iterator[str]:
        for number in range(length):
            read.append(f"{name}{number}")
            yield f"{name}{number}"

    taken: list[str] = []
    for item in in_turn([source("a", 3), source("b", 0), source("c", 1), source("d", 2)]):
        taken.append(item)
        assert read == taken
    assert taken == ["a0", "c0", "d0", "a1", "d1", "a2"]
