"""The TCP proxy of ``tests/network_fault_proxy.py`` injects the faults that its attributes configure."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.network_fault_proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of an echo server that serves one connection at a time."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    while data := connection.recv(1 << 16):
                        connection.sendall(data)
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def exchange(client: socket.socket, data: bytes) -> bytes:
    """Sends ``data`` and returns the echoed bytes, fewer than sent if the connection is closed."""
    client.sendall(data)
    received = b""
    while len(received) < len(data) and (more := client.recv(1 << 16)):
        received += more
    return received


def test_without_faults_all_bytes_pass(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        assert exchange(client, bytes(range(256)) * 100) == bytes(range(256)) * 100


def test_a_delay_applies_in_both_directions(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        proxy.delay = 0.05
        began = time.monotonic()
        assert exchange(client, b"x") == b"x"
        assert time.monotonic() - began >= 0.1


def test_the_rate_limits_bytes_from_the_target(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        proxy.rate = 1e6
        began = time.monotonic()
        assert len(exchange(client, bytes(300_000))) == 300_000
        assert time.monotonic() - began >= 0.15


def test_a_bit_of_every_nth_byte_is_flipped(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        proxy.flip_every = 1000
        received = exchange(client, bytes(10_000))
        assert [position for position, byte in enumerate(received) if byte] == list(range(999, 10_000, 1000))


def test_a_stall_forwards_nothing_and_keeps_the_connection_open(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        proxy.stalled = True
        client.sendall(b"x")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.stalled = False
        client.settimeout(5)
        assert client.recv(1) == b"x"


def test_a_reset_reaches_the_client_as_a_tcp_reset(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        assert exchange(client, b"x") == b"x"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_cut_or_refused_connection_is_closed(echo: int) -> None:
    with Proxy(echo) as proxy:
        proxy.cut_after = 1000
        with connect(proxy) as client:
            assert exchange(client, bytes(500)) == bytes(500)
            assert exchange(client, bytes(600)) == b""
        proxy.refusing = True
        with connect(proxy) as client:
            assert client.recv(1) == b""
