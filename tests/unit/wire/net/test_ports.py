"""Ports reserved for workers, and the errors for ports that cannot be bound."""

from __future__ import annotations

import errno
import socket
from contextlib import closing

import pytest

from msd.wire.errors import UsageError
from msd.wire.net import ports
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.port_users import PortUse, PortUser
from msd.wire.net.ports import PortInUseError, check_address, explain_use, hold_port, is_held, listen_error
from tests.processes import free_ports

LOOPBACK = "127.0.0.1"


def listener(port: int, host: str = LOOPBACK) -> socket.socket:
    """A listening socket with SO_REUSEADDR, like a worker's."""
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except BaseException:
        listening.close()
        raise
    return listening


@pytest.fixture
def port() -> int:
    """A free port outside the kernel's ephemeral port range."""
    return free_ports()[0]


def test_a_worker_can_listen_on_a_held_port(port: int) -> None:
    with closing(hold_port(Endpoint(LOOPBACK, port), "worker 1")), closing(listener(port)):
        client = socket.create_connection((LOOPBACK, port), timeout=2)
        client.close()


def test_connections_to_a_held_port_are_refused(port: int) -> None:
    with closing(hold_port(Endpoint(LOOPBACK, port), "worker 1")), pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port), timeout=2)


def test_a_program_without_reuseaddr_cannot_bind_a_held_port(port: int) -> None:
    holder = hold_port(Endpoint(LOOPBACK, port), "worker 1")
    with closing(holder), closing(socket.socket()) as other, pytest.raises(OSError, match="in use"):
        other.bind((LOOPBACK, port))


def test_a_port_is_free_after_it_was_released(port: int) -> None:
    hold_port(Endpoint(LOOPBACK, port), "worker 1").close()
    with closing(socket.socket()) as other:
        other.bind((LOOPBACK, port))


@pytest.mark.parametrize("host", [LOOPBACK, "*", "0.0.0.0"])
def test_the_error_names_the_port_in_use(port: int, host: str) -> None:
    with closing(listener(port)), pytest.raises(UsageError, match=rf"^port {port} \(worker 3\) is in use by "):
        hold_port(Endpoint(host, port), "worker 3")


def test_a_port_can_be_held_on_all_addresses_of_both_families(port: int) -> None:
    holder = hold_port(Endpoint("::", port), "worker 1")
    with closing(holder), closing(socket.socket()) as other, pytest.raises(OSError, match="in use"):
        other.bind((LOOPBACK, port))


def test_a_port_can_be_held_on_all_addresses(port: int) -> None:
    holder = hold_port(Endpoint("*", port), "worker 1")
    with closing(holder), closing(socket.socket()) as other, pytest.raises(OSError, match="in use"):
        other.bind((LOOPBACK, port))


def test_a_held_port_cannot_be_held_twice(port: int) -> None:
    with closing(hold_port(Endpoint(LOOPBACK, port), "worker 1")), pytest.raises(PortInUseError):
        hold_port(Endpoint(LOOPBACK, port), "worker")
    hold_port(Endpoint(LOOPBACK, port), "worker").close()


def test_the_error_names_an_address_of_another_machine() -> None:
    with pytest.raises(UsageError, match=r"^192\.0\.2\.1 is not an address of this machine: give one of its"):
        hold_port(Endpoint("192.0.2.1", 22300), "worker 1")


def test_an_unknown_interface_is_not_an_address_of_this_machine() -> None:
    with pytest.raises(UsageError, match=r"^fe80::1%nosuch is not an address of this machine: give one of its"):
        hold_port(Endpoint("fe80::1%nosuch", 22300), "worker 1")


@pytest.mark.parametrize(
    ("users", "explanation"),
    [
        (
            [
                PortUser(PortUse.CONNECTION, "10.0.0.1:80", "curl (pid 7)"),
                PortUser(PortUse.LISTENING, "", "nginx (pid 8)"),
            ],
            " by nginx (pid 8): stop that program, or choose another port",
        ),
        ([PortUser(PortUse.LISTENING)], ": stop the program that uses it, or choose another port"),
        (
            [PortUser(PortUse.CLOSED), PortUser(PortUse.CONNECTION, "10.0.0.1:80", "curl (pid 7)")],
            " as the local port of a connection from curl (pid 7) to 10.0.0.1:80: wait until it is closed, or choose"
            " another port; net.ipv4.ip_local_reserved_ports keeps ports free",
        ),
        ([PortUser(PortUse.CLOSED)], " by a closed connection: try again in a minute, or choose another port"),
        ([], ": stop the program that uses it, or choose another port"),
    ],
)
def test_the_error_says_what_uses_the_port(users: list[PortUser], explanation: str) -> None:
    assert explain_use(users) == explanation


@pytest.mark.parametrize(
    ("users", "frees_itself"),
    [
        ([PortUser(PortUse.CLOSED)], True),
        ([PortUser(PortUse.CLOSED), PortUser(PortUse.CONNECTION)], False),
        ([], False),
    ],
)
def test_only_closed_connections_free_the_port_by_themselves(
    users: list[PortUser], frees_itself: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "find_users", lambda port: users)
    error = listen_error(Endpoint(LOOPBACK, 80), "server 5", errno.EADDRINUSE)
    assert isinstance(error, PortInUseError)
    assert error.frees_itself is frees_itself


def test_each_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "find_users", lambda port: [])
    endpoint = Endpoint(LOOPBACK, 80)
    messages = {
        code: str(listen_error(endpoint, "server 5", code))
        for code in (
            errno.EADDRINUSE,
            errno.EADDRNOTAVAIL,
            errno.ENODEV,
            errno.EACCES,
            errno.EAFNOSUPPORT,
        )
    }
    assert messages == {
        errno.EADDRINUSE: "port 80 (server 5) is in use: stop the program that uses it, or choose another port",
        errno.EADDRNOTAVAIL: "127.0.0.1 is not an address of this machine: give one of its addresses",
        errno.ENODEV: "127.0.0.1 is not an address of this machine: give one of its addresses",
        errno.EACCES: "port 80 (server 5) requires root: choose a port above 1023",
        errno.EAFNOSUPPORT: "127.0.0.1: this machine has no IPv6: give an IPv4 address",
    }


def test_a_held_port_is_known_to_others(port: int) -> None:
    endpoint = Endpoint(LOOPBACK, port)
    with closing(hold_port(Endpoint("*", port), "worker")):
        assert is_held(endpoint)
        assert not is_held(endpoint.at_port(port // 10))
    assert not is_held(endpoint)


def test_an_address_of_another_machine_is_refused() -> None:
    check_address(Endpoint("127.0.0.1", 21018))
    with pytest.raises(UsageError, match=r"^192\.0\.2\.1 is not an address of this machine: give one of its "):
        check_address(Endpoint("192.0.2.1", 21018))
