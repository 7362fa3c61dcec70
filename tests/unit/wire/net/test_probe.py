"""Probes of real sockets on loopback, and what the first bytes from a peer mean."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
import zmq

from msd.wire.net.contacts import Probed
from msd.wire.net.diagnosis import Outcome
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.probe import MAX_QUOTED, SIGNATURE, VERSION, Prober, interpret
from msd.wire.security.keys import KeyPair
from tests.processes import wait_for

HERE = Endpoint("127.0.0.1", 9000)


@pytest.fixture
def prober() -> Iterator[Prober]:
    with closing(Prober()) as prober:
        yield prober


def listener(stack: ExitStack) -> tuple[socket.socket, Endpoint]:
    """A listening socket with room for one connection."""
    listening = stack.enter_context(socket.socket())
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    return listening, Endpoint("127.0.0.1", listening.getsockname()[1])


def result(prober: Prober, endpoint: Endpoint) -> Probed:
    (probed,) = [*prober.start(endpoint)] or wait_for("the result", prober.read)
    return probed


@pytest.mark.parametrize(
    ("received", "is_closed", "outcome", "detail"),
    [
        (b"", True, Outcome.CLOSED, ""),
        (SIGNATURE, True, Outcome.NO_REPLY, ""),
        (b"\xff" + bytes(8) + b"\x7f\x01" + bytes(53), False, Outcome.NO_REPLY, ""),
        (b"\xff" + bytes(9), False, Outcome.NOT_MSD, ""),
        (b"\xff\x00", True, Outcome.NOT_MSD, ""),
        (b"SSH-2.0-OpenSSH_9.2\r\nmore", False, Outcome.NOT_MSD, "SSH-2.0-OpenSSH_9.2"),
        (b"\x15\x03\x01", False, Outcome.NOT_MSD, ""),
        (b"\x1b[2Jx\xff\x00" + b"y" * 999, False, Outcome.NOT_MSD, "[2Jx" + "y" * (MAX_QUOTED - 4)),
    ],
)
def test_the_first_bytes_tell_the_protocol(received: bytes, is_closed: bool, outcome: Outcome, detail: str) -> None:
    assert interpret(HERE, received, is_closed=is_closed) == Probed(HERE, outcome, detail)


@pytest.mark.parametrize("received", [b"", SIGNATURE[:9], SIGNATURE, (SIGNATURE + VERSION).ljust(63, b"\0")])
def test_too_few_bytes_tell_nothing(received: bytes) -> None:
    assert interpret(HERE, received, is_closed=False) is None


def test_a_port_without_a_listener_refuses(prober: Prober) -> None:
    with ExitStack() as stack:
        _, endpoint = listener(stack)
    assert result(prober, endpoint) == Probed(endpoint, Outcome.REFUSED)


def test_an_address_without_a_route_is_unreachable(prober: Prober) -> None:
    endpoint = Endpoint("255.255.255.255", 9)
    probed = result(prober, endpoint)
    assert (probed.outcome, probed.detail) == (Outcome.UNREACHABLE, "network is unreachable")


def test_a_scope_that_is_no_interface_makes_an_address_unreachable(prober: Prober) -> None:
    (probed,) = prober.start(Endpoint("fe80::1%nosuch", 9))
    assert (probed.outcome, probed.detail) == (Outcome.UNREACHABLE, "cannot assign requested address")


def test_without_descriptors_the_error_is_named(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("socket.socket", fail)
    assert result(prober, HERE) == Probed(HERE, Outcome.UNREACHABLE, "too many open files")


@pytest.mark.parametrize("mechanism", ["NULL", "CURVE"])
def test_a_zeromq_socket_and_its_security_mechanism_are_recognised(prober: Prober, mechanism: str) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        if mechanism == "CURVE":
            router.curve_server = True
            router.curve_secretkey = KeyPair.generate().secret
        endpoint = Endpoint("127.0.0.1", router.bind_to_random_port("tcp://127.0.0.1"))
        assert result(prober, endpoint) == Probed(endpoint, Outcome.NO_REPLY, mechanism=mechanism)


def test_a_zeromq_socket_that_sends_only_the_first_bytes_is_recognised_at_the_end(prober: Prober) -> None:
    with ExitStack() as stack:
        listening, endpoint = listener(stack)
        assert [*prober.start(endpoint)] == []
        accepted, _ = listening.accept()
        accepted.settimeout(10)
        with accepted:
            assert wait_for("the signature", lambda: prober.read() or accepted.recv(99))
            accepted.send(SIGNATURE)
            select.select([prober.fd], [], [], 10)
            assert prober.read() == []
            assert prober.stop() == [Probed(endpoint, Outcome.NO_REPLY)]


def test_a_peer_that_closes_the_connection_is_recognised(prober: Prober) -> None:
    with ExitStack() as stack:
        listening, endpoint = listener(stack)
        assert [*prober.start(endpoint)] == []
        listening.accept()[0].close()
        assert wait_for("the result", prober.read) == [Probed(endpoint, Outcome.CLOSED)]


def test_a_silent_peer_has_no_result_before_the_end(prober: Prober) -> None:
    with ExitStack() as stack:
        listening, endpoint = listener(stack)
        assert [*prober.start(endpoint)] == []
        accepted, _ = listening.accept()
        accepted.settimeout(10)
        with accepted:
            assert wait_for("the signature", lambda: prober.read() or accepted.recv(99)) == SIGNATURE + VERSION
            assert prober.stop() == [Probed(endpoint, Outcome.SILENT)]
            assert accepted.recv(99) == b"", "the probe is still connected"
    assert prober.stop() == []


def test_a_dropped_connection_has_no_result_before_the_end(prober: Prober) -> None:
    with ExitStack() as stack:
        _, endpoint = listener(stack)
        # Connections beyond the backlog are dropped, as by a firewall.
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((endpoint.host, endpoint.port))
        assert [*prober.start(endpoint)] == []
        assert prober.read() == []
        assert prober.stop() == [Probed(endpoint, Outcome.NO_ANSWER)]
