"""The sockets of a client: what becomes of a word to server 5 that cannot leave."""

from __future__ import annotations

from contextlib import closing
from typing import Any, NoReturn

import pytest
import zmq

from client.transport import Transport
from wire.config import Config, servers
from wire.endpoints import Endpoint

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
