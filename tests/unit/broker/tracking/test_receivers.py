"""The announcements of receivers: a real receiver answers, or another program does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest
import zmq

from msd.broker.network.control_socket import Sender
from msd.broker.tracking.receivers import Receivers
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import PASSES_ON, Announce, Holder, Welcome
from msd.wire.security.keys import Role
from tests.processes import TIMEOUT

PLAN = b"p" * 32
SENDER = Sender(Role.ANYONE, name="127.0.0.1", host="127.0.0.1")


class Harness:
    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._loop = PollLoop()
        self._context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self.banned: list[tuple[str, str, int]] = []
        self.receivers = Receivers(self._context, None, self._loop, on_ban=lambda *place: self.banned.append(place))
        stack.callback(self.receivers.close)

    def receiver(self, *features: str) -> str:
        """Starts something that answers ``hello`` with these features. Returns its endpoint."""
        router = self._stack.enter_context(self._context.socket(zmq.ROUTER))
        router.linger = 0
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def answer() -> None:
            ident, _ = router.recv_multipart()
            welcome = Welcome(rid=1, version=2, epoch=7, number=1, files=1, catalogue=b"", features=[*features])
            router.send_multipart([ident, encode(welcome)])

        self._loop.register(router, answer)
        return f"tcp://*:{port}"

    def announce(self, endpoint: str = "", sender: Sender = SENDER, corrupt: Sequence[Holder] = ()) -> list[Holder]:
        request = Announce(rid=5, plan=PLAN, units=3, endpoint=endpoint, corrupt=[*corrupt])
        answer = self.receivers.announce(request, sender, time.monotonic())
        assert answer.rid == 5
        return answer.holders

    def run(self, seconds: float) -> None:
        """Lets everything happen that happens within so much time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            deadline = self.receivers.next_deadline(time.monotonic())
            self._loop.wait([until, deadline])
            self._loop.dispatch()
            self.receivers.pass_time(time.monotonic())


@pytest.fixture
def harness() -> Iterator[Harness]:
    with ExitStack() as stack:
        yield Harness(stack)


def test_a_receiver_is_named_to_others_once_it_was_reached(harness: Harness) -> None:
    endpoint = harness.receiver(PASSES_ON)
    assert harness.announce(endpoint) == []
    assert harness.receivers.count == 1
    deadline = time.monotonic() + TIMEOUT
    while not (holders := harness.announce()):
        assert time.monotonic() < deadline
        harness.run(0.05)
    assert holders == [Holder(endpoint)]
    assert harness.announce(endpoint) == [], "it is not told of itself"


def test_a_receiver_of_which_two_complain_is_named_to_the_operator(harness: Harness) -> None:
    endpoint = harness.receiver(PASSES_ON)
    harness.announce(endpoint)
    for host in ("192.0.2.7", "192.0.2.8"):
        assert harness.banned == []
        harness.announce(sender=Sender(Role.ANYONE, name=host, host=host), corrupt=[Holder(endpoint)])
    assert harness.banned == [("", "127.0.0.1", Endpoint.parse(endpoint).port)]


def test_what_is_no_receiver_is_never_named(harness: Harness) -> None:
    harness.announce(harness.receiver())
    harness.announce("tcp://*:1")
    harness.run(1.5)
    assert harness.announce() == []
    assert harness.receivers.count == 2
