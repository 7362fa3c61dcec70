"""The connection of a worker to a broker elsewhere: real sockets that come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import zmq

from msd.wire.net.contacts import Refused
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import ControlRequest, JoinOrder, StatusRequest, WorkerMessage
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials, KeyPair
from msd.wire.security.zap import ZapHandler
from msd.workers.serving import remote_broker
from msd.workers.serving.remote_broker import CONTROL, RemoteBroker
from tests.processes import TIMEOUT, free_ports

OWN, SERVER = KeyPair.from_secret(b"\1" * 32), KeyPair.from_secret(b"\2" * 32)
REQUEST = StatusRequest(rid=1)


class Harness:
    """A connection, and a broker's control socket that can be opened and closed."""

    def __init__(self, stack: ExitStack, credentials: Credentials | None = None) -> None:
        self._stack = stack
        self.port = free_ports()[0]
        self.loop = PollLoop()
        self.shown: list[str] = []
        self.received: list[WorkerMessage] = []
        context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self.broker = RemoteBroker(context, Endpoint("127.0.0.1", self.port), credentials, self.shown.append)
        self.broker.start(self.loop, lambda: self.received.extend(self.broker.receive()))
        stack.callback(self.broker.close)
        self.router: zmq.Socket[bytes] | None = None

    def open(self, own: KeyPair | None = None) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = self._stack.enter_context(zmq.Context())
        self.zap = ZapHandler(self.context, own)
        self._stack.callback(self.zap.close)
        self.router = self._stack.enter_context(self.context.socket(zmq.ROUTER))
        self.router.linger = 0
        self.zap.protect(self.router)
        self.router.bind(f"tcp://127.0.0.1:{self.port}")

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, (self.shown, self.received)
            due = self.broker.pass_time(time.monotonic())
            self.loop.wait([min(due, time.monotonic() + 0.02)])
            self.loop.dispatch()
            if self.router is not None:
                self.zap.handle()

    def answer(self) -> bool:
        """True once the broker has received a request, which it answers."""
        assert self.router is not None
        if not self.broker.send(REQUEST) or not self.router.poll(20):
            return False
        ident, frame = self.router.recv_multipart()
        assert decode(frame, ControlRequest) == REQUEST
        for reply in (b"garbage", encode(JoinOrder())):
            self.router.send_multipart([ident, reply])
        return True


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    monkeypatch.setattr(remote_broker, "EXPLAIN_AFTER_S", 0.5)
    with ExitStack() as stack:
        yield stack


def test_messages_are_exchanged_and_garbage_is_ignored(stack: ExitStack) -> None:
    harness = Harness(stack)
    harness.open()
    harness.until(harness.answer)
    harness.until(lambda: harness.received)
    assert harness.received == [JoinOrder()]
    assert harness.shown == []


def test_nothing_is_queued_while_the_broker_is_away_and_the_reason_is_shown_once(stack: ExitStack) -> None:
    harness = Harness(stack)
    assert not harness.broker.send(REQUEST)
    harness.until(lambda: harness.shown)
    assert "refuses the connection" in harness.shown[0]
    harness.open()
    harness.until(harness.answer)
    harness.until(lambda: harness.received)
    assert harness.shown[1:] == [f"server 5 at 127.0.0.1:{harness.port} answers again"]


def test_a_broker_that_was_started_again_is_found(stack: ExitStack) -> None:
    harness = Harness(stack)
    for _ in range(2):
        harness.open()
        harness.until(harness.answer)
        harness.until(lambda: harness.received)
        harness.received.clear()
        assert harness.router is not None
        harness.router.close(0)
        harness.zap.close()
        harness.context.term()
        harness.router = None
        harness.until(lambda: not harness.broker.send(REQUEST))


def test_a_key_that_is_not_admitted_is_named_and_tried_again(stack: ExitStack) -> None:
    harness = Harness(stack, Credentials(OWN, SERVER.public))
    harness.open(SERVER)
    harness.until(lambda: harness.shown)
    assert "key" in harness.shown[0]
    harness.until(lambda: harness.zap.rejected_connections >= 2)


def test_a_broker_that_requires_a_key_says_with_which_flag_to_give_it(stack: ExitStack) -> None:
    harness = Harness(stack)
    harness.open(SERVER)
    # ZeroMQ reports the reason only if the connecting side is the first one to notice it.
    refused = Refused(CONTROL, Endpoint("127.0.0.1", harness.port), ConnectionRefusal.MECHANISM)
    harness.broker._probes.handle(refused)
    harness.until(lambda: [text for text in harness.shown if "requires a key" in text])
    (shown,) = [text for text in harness.shown if "requires a key" in text]
    assert shown.endswith(" (--server-key, -c); trying again")


def test_a_broker_with_another_key_is_named(stack: ExitStack) -> None:
    harness = Harness(stack, Credentials(OWN, OWN.public))
    harness.open(SERVER)
    harness.until(lambda: any("does not have this server key" in text for text in harness.shown))
