"""The connection of a worker to the broker that has started it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import zmq

from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import JoinOrder, StatusRequest, WorkerMessage
from msd.workers.serving.broker_connection import LocalBroker
from tests.processes import TIMEOUT

REQUEST = StatusRequest(rid=1)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_the_broker_that_started_the_process_is_found_at_its_unix_socket(
    stack: ExitStack, runtime_folder: object
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
    url = f"ipc://{runtime_folder}/control"
    router = stack.enter_context(context.socket(zmq.ROUTER))
    router.linger = 0
    router.bind(url)
    broker, loop, received = LocalBroker(context, url), PollLoop(), list[WorkerMessage]()
    stack.callback(broker.close)
    broker.start(loop, lambda: received.extend(broker.receive()))
    deadline = time.monotonic() + TIMEOUT
    while not broker.send(REQUEST):
        assert time.monotonic() < deadline
    ident, _ = router.recv_multipart()
    router.send_multipart([ident, encode(JoinOrder())])
    while not received:
        loop.wait([deadline])
        loop.dispatch()
    assert received == [JoinOrder()]
