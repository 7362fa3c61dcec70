"""Attempts to reach a worker: real sockets that answer, refuse, answer wrongly or not at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
import zmq

from msd.broker.network.reach import ANOTHER_ANSWERS, TIMEOUT_S, Reaching, failure_text
from msd.wire.net.diagnosis import Outcome
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import DataRequest, Hello, Welcome
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import KeyPair, Role, key_hash
from msd.wire.security.zap import Admission, ZapHandler

EPOCH = 77
BROKER, WORKER, OTHER = (KeyPair.from_secret(bytes([n]) * 32) for n in (1, 2, 3))


class Harness:
    """A broker that tries to reach workers, and a worker that answers ``hello`` with ``epoch``."""

    def __init__(self, stack: ExitStack, keys: KeyPair | None = None) -> None:
        self._stack = stack
        self._loop = PollLoop()
        self.results: list[tuple[str, str]] = []
        context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self.reaching: Reaching[str] = Reaching(context, keys, self._loop, lambda *result: self.results.append(result))
        stack.callback(self.reaching.close)

    def worker(self, own: KeyPair | None = None, admitted: KeyPair | None = None, epoch: int = EPOCH) -> Endpoint:
        """Starts a worker, which admits one key; returns its endpoint."""
        context: zmq.Context[zmq.Socket[bytes]] = self._stack.enter_context(zmq.Context())
        zap = ZapHandler(context, own)
        self._stack.callback(zap.close)
        if admitted is not None:
            zap.admit({key_hash(admitted.public): Admission(Role.OPERATOR)})
        router = self._stack.enter_context(context.socket(zmq.ROUTER))
        router.linger = 0
        zap.protect(router)
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def answer() -> None:
            ident, frame = router.recv_multipart()
            hello = decode(frame, DataRequest)
            assert isinstance(hello, Hello)
            assert hello.session == 0, "the broker counts as a client"
            welcome = Welcome(rid=hello.rid, version=2, epoch=epoch, number=5, files=1, catalogue=b"")
            router.send_multipart([ident, encode(welcome)])

        self._loop.register(zap.socket, zap.handle)
        self._loop.register(router, answer)
        return Endpoint("127.0.0.1", port)

    def reach(self, endpoint: Endpoint, key: bytes = b"") -> str:
        """Returns why the worker at ``endpoint`` is not reached."""
        self.reaching.start("attic", endpoint, key, lambda welcome: welcome.epoch == EPOCH)
        began = time.monotonic()
        while not self.results:
            deadline = self.reaching.next_deadline(0.0)
            assert deadline is not None
            self._loop.wait([deadline])
            self._loop.dispatch()
            self.reaching.pass_time(time.monotonic())
        assert time.monotonic() < began + TIMEOUT_S + 5.0, "five more seconds, because this machine may be busy"
        assert self.reaching.next_deadline(0.0) is None
        ((name, reason),) = self.results
        assert name == "attic"
        return reason


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_worker_that_answers_is_reached(stack: ExitStack) -> None:
    harness = Harness(stack)
    assert harness.reach(harness.worker()) == ""


def test_a_worker_with_its_own_key_is_reached(stack: ExitStack) -> None:
    harness = Harness(stack, BROKER)
    assert harness.reach(harness.worker(WORKER, BROKER), WORKER.public) == ""


def test_another_run_is_not_the_worker(stack: ExitStack) -> None:
    harness = Harness(stack)
    assert harness.reach(harness.worker(epoch=EPOCH + 1)) == ANOTHER_ANSWERS


def test_a_worker_with_another_key_is_not_the_worker(stack: ExitStack) -> None:
    harness = Harness(stack, BROKER)
    assert harness.reach(harness.worker(OTHER, BROKER), WORKER.public) == ANOTHER_ANSWERS


def test_a_worker_that_does_not_admit_the_broker_is_not_reached(stack: ExitStack) -> None:
    harness = Harness(stack, BROKER)
    assert "does not admit server 5" in harness.reach(harness.worker(WORKER), WORKER.public)


def test_a_closed_port_is_found_at_once(stack: ExitStack) -> None:
    with closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", closed.getsockname()[1])
        assert Harness(stack).reach(endpoint).startswith("nothing listens there")


def test_a_program_that_says_nothing_is_not_reached_in_time(stack: ExitStack) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        endpoint = Endpoint("127.0.0.1", silent.getsockname()[1])
        assert Harness(stack).reach(endpoint) == "no reply within 1 s"


def test_what_another_program_sends_is_not_quoted(stack: ExitStack) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        harness = Harness(stack)

        def greet() -> None:
            connection, _ = server.accept()
            stack.enter_context(closing(connection)).sendall(b"SSH-2.0-secret\r\n")

        harness._loop.register(server.fileno(), greet)
        assert "secret" not in harness.reach(Endpoint("127.0.0.1", server.getsockname()[1]))


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("refusal", [None, *ConnectionRefusal])
def test_every_failure_has_a_reason(refusal: ConnectionRefusal | None, outcome: Outcome) -> None:
    assert failure_text(refusal, outcome)
