"""tests/proxy.py: what the chaos tests stand on does what it says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """A port that echoes one connection after another."""
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


def exchange(end: socket.socket, data: bytes) -> bytes:
    """What comes back for ``data``, as far as it does."""
    end.sendall(data)
    received = b""
    while len(received) < len(data) and (more := end.recv(1 << 16)):
        received += more
    return received


def test_a_good_network_passes_everything(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as end:
        assert exchange(end, bytes(range(256)) * 100) == bytes(range(256)) * 100


def test_delay_holds_in_both_directions(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as end:
        proxy.delay = 0.05
        began = time.monotonic()
        assert exchange(end, b"x") == b"x"
        assert time.monotonic() - began >= 0.1


def test_rate_limits_what_comes_back(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as end:
        proxy.rate = 1e6
        began = time.monotonic()
        assert len(exchange(end, bytes(300_000))) == 300_000
        assert time.monotonic() - began >= 0.15


def test_one_bit_in_so_many_bytes_is_flipped(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as end:
        proxy.flip_every = 1000
        received = exchange(end, bytes(10_000))
        assert [position for position, byte in enumerate(received) if byte] == list(range(999, 10_000, 1000))


def test_a_stall_passes_nothing_and_closes_nothing(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as end:
        proxy.stalled = True
        end.sendall(b"x")
        end.settimeout(0.1)
        with pytest.raises(TimeoutError):
            end.recv(1)
        proxy.stalled = False
        end.settimeout(5)
        assert end.recv(1) == b"x"


def test_a_reset_is_one(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as end:
        assert exchange(end, b"x") == b"x"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            end.recv(1)


def test_a_cut_and_a_refusal_close(echo: int) -> None:
    with Proxy(echo) as proxy:
        proxy.cut_after = 1000
        with connect(proxy) as end:
            assert exchange(end, bytes(500)) == bytes(500)
            assert exchange(end, bytes(600)) == b""
        proxy.refusing = True
        with connect(proxy) as end:
            assert end.recv(1) == b""
