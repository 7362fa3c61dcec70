"""The sockets of a client: when requests leave, and what becomes of a word to server 5 that cannot."""

from __future__ import annotations

from contextlib import closing
from typing import Any, NoReturn

import pytest
import zmq

from client.transport import REQUESTS_TOGETHER, Transport
from wire.codec import encode
from wire.config import Config, servers
from wire.endpoints import Endpoint
from wire.messages import Get

NOBODY = Endpoint("127.0.0.1", 1)


def test_a_word_to_server_5_that_cannot_leave_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> NoReturn:
        raise zmq.Again

    with closing(Transport(servers(Config(), host="127.0.0.1", ports=None, server5=None), session=1)) as transport:
        assert not transport.tell_done(NOBODY, patience=0.01)
        with monkeypatch.context() as patched:
            patched.setattr(zmq.Socket, "send", full)
            assert not transport.tell_done(NOBODY, patience=0.01)
            transport.complain(NOBODY, 1, b"x" * 32, 0)


def test_requests_leave_together_before_anybody_polls() -> None:
    """One less than go together stays; with the next all of them are sent, in their order."""
    requests = [Get(rid=rid, id=bytes(32), index=rid) for rid in range(REQUESTS_TOGETHER)]
    with zmq.Context() as context, context.socket(zmq.ROUTER) as worker:
        worker.linger = 0
        worker.rcvtimeo = 10_000
        worker.bind("tcp://127.0.0.1:*")
        endpoint = Endpoint.parse(worker.getsockopt_string(zmq.LAST_ENDPOINT))
        with closing(Transport(servers(Config(), host="127.0.0.1", ports=None, server5=None), session=1)) as transport:
            transport.open(1, endpoint)
            for request in requests[:-1]:
                transport.request(1, request)
            assert not worker.poll(100)
            transport.request(1, requests[-1])
            assert [worker.recv_multipart()[1] for _ in requests] == [*map(encode, requests)]
