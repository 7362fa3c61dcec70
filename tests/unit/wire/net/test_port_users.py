"""Which sockets occupy a port: real sockets of this process on loopback."""

from __future__ import annotations

import os
import socket
from contextlib import closing

from msd.wire.net.port_users import PortUse, PortUser, find_users


def program() -> str:
    with open("/proc/self/comm", encoding="utf-8") as file:
        return f"{file.read().strip()} (pid {os.getpid()})"


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def test_a_listening_socket_is_found_with_its_program() -> None:
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        with socket.create_server((host, 0), family=family) as listening:
            assert PortUser(PortUse.LISTENING, program=program()) in find_users(port_of(listening))


def test_a_connection_is_found_with_its_peer() -> None:
    for host, family, text in (("127.0.0.1", socket.AF_INET, "127.0.0.1"), ("::1", socket.AF_INET6, "[::1]")):
        with (
            socket.create_server((host, 0), family=family) as listening,
            socket.create_connection((host, port_of(listening))) as client,
        ):
            peer = f"{text}:{port_of(listening)}"
            assert PortUser(PortUse.CONNECTION, peer, program()) in find_users(port_of(client))


def test_the_peer_of_an_ipv4_connection_to_an_ipv6_socket_is_an_ipv4_address() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening,
        socket.create_connection(("127.0.0.1", port_of(listening))) as client,
    ):
        accepted, _ = listening.accept()
        with accepted:
            peers = {user.peer for user in find_users(port_of(listening)) if user.use is PortUse.CONNECTION}
            assert peers == {f"127.0.0.1:{port_of(client)}"}


def test_a_closed_connection_occupies_its_port_without_a_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(("127.0.0.1", port_of(listening)))
        port = port_of(client)
        with closing(listening.accept()[0]) as accepted:
            client.close()
            assert accepted.recv(1) == b""
        users = find_users(port)
    assert set(map(str, users)) == {str(PortUser(PortUse.CLOSED))}


def test_nothing_listens_on_a_free_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = port_of(listening)
    assert PortUse.LISTENING not in [user.use for user in find_users(port)]
