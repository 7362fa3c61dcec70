"""What the kernel knows about connections, with real sockets on loopback."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from msd.wire.net.tcp_state import bytes_received, opened, seconds_since_packet


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as near:
        far, _ = listening.accept()
        with far:
            yield near, far


def test_bytes_are_counted_when_they_arrive(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    with opened(near.fileno()) as tcp:
        assert tcp is not None
        before = bytes_received(tcp)
        far.sendall(b"12345")
        assert near.recv(5, socket.MSG_WAITALL | socket.MSG_PEEK) == b"12345"
        assert bytes_received(tcp) == before + 5


def test_a_connection_is_silent_until_a_packet_arrives(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    began = time.monotonic()
    while seconds_since_packet(near.fileno()) < 0.05:
        assert time.monotonic() < began + 10
    sent_at = time.monotonic()
    far.sendall(b"x")
    assert near.recv(1) == b"x"
    # The kernel counts in ticks of up to 10 ms.
    assert seconds_since_packet(near.fileno()) <= time.monotonic() - sent_at + 0.01


def test_an_acknowledgement_is_a_packet(pair: tuple[socket.socket, socket.socket]) -> None:
    """The process at the far end reads nothing: only its kernel answers."""
    near, _ = pair
    began = time.monotonic()
    while seconds_since_packet(near.fileno()) < 0.05:
        assert time.monotonic() < began + 10
    near.sendall(b"x")
    while seconds_since_packet(near.fileno()) >= 0.05:
        assert time.monotonic() < began + 10


def test_a_descriptor_that_is_no_connection_is_not_silent() -> None:
    with open(os.devnull, "rb") as file:
        assert seconds_since_packet(file.fileno()) == 0.0
    assert seconds_since_packet(-1) == 0.0
    with socket.socket() as unconnected:
        assert seconds_since_packet(unconnected.fileno()) >= 0.0
