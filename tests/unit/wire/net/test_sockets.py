"""What all sockets share: here how many a process may have, and a port that is not free yet."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator

import pytest
import zmq

from msd.wire.net.sockets import bind, raise_descriptor_limit


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """The limits of a process that may have more descriptors than it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = (512, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, lowered)
    yield lowered
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_process_may_have_as_many_descriptors_as_it_is_allowed(limits: tuple[int, int]) -> None:
    raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_limit_that_cannot_be_raised_stays(
    limits: tuple[int, int], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", refuse)
        raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


class Clock:
    """Moves by sleeping; ``then`` is called after so many sleeps."""

    def __init__(self, sleeps: int, then: Callable[[], object]) -> None:
        self.now = 1000.0
        self._sleeps = sleeps
        self._then = then

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._sleeps -= 1
        if not self._sleeps:
            self._then()


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as made:
        yield made


def url(listening: socket.socket) -> str:
    return f"tcp://127.0.0.1:{listening.getsockname()[1]}"


def test_a_port_that_becomes_free_in_time_is_bound(
    taken: socket.socket, router: zmq.Socket[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msd.wire.net.sockets.time", Clock(5, taken.close))
    wanted = url(taken)
    bind(router, wanted, patience=1.0)
    assert router.getsockopt_string(zmq.LAST_ENDPOINT) == wanted


@pytest.mark.parametrize("patience", [0.0, 1.0])
def test_a_port_that_stays_taken_is_given_up(
    taken: socket.socket, router: zmq.Socket[bytes], monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    clock = Clock(-1, taken.close)
    monkeypatch.setattr("msd.wire.net.sockets.time", clock)
    with pytest.raises(zmq.ZMQError) as caught:
        bind(router, url(taken), patience)
    assert caught.value.errno == zmq.EADDRINUSE
    assert patience <= clock.now - 1000.0 < patience + 0.01


def test_an_address_that_is_not_here_is_given_up_at_once(
    router: zmq.Socket[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(-1, lambda: None)
    monkeypatch.setattr("msd.wire.net.sockets.time", clock)
    with pytest.raises(zmq.ZMQError):
        bind(router, "tcp://192.0.2.1:1", patience=60.0)
    assert clock.now == 1000.0
