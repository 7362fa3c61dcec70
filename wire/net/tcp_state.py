"""What the kernel knows about a TCP connection whose descriptor ZeroMQ owns.

ZeroMQ may close the descriptor at any time, so every function works on a duplicate. Decides nothing.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

#: ``tcpi_bytes_received`` in Linux's ``struct tcp_info``.
_BYTES_RECEIVED = struct.Struct("128xQ")
#: ``tcpi_last_data_recv`` and ``tcpi_last_ack_recv``, in milliseconds.
_LAST_RECEIVED = struct.Struct("52xII")


@contextmanager
def opened(descriptor: int) -> Iterator[socket.socket | None]:
    """Yields a duplicate of a descriptor, so that it cannot be reused meanwhile; None if it is no connected socket.
    Suppresses the ``OSError`` of a connection that is closed meanwhile.
    """
    try:
        duplicate = os.dup(descriptor)
    except OSError:
        yield None
        return
    try:
        tcp = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        yield None
        return
    with closing(tcp), suppress(OSError):
        yield tcp


def bytes_received(tcp: socket.socket) -> int:
    """Returns how many bytes have arrived on a connection."""
    info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.size)
    return int(_BYTES_RECEIVED.unpack(info)[0])


def seconds_since_packet(descriptor: int) -> float:
    """Returns how long no packet has arrived on a connection, not even an acknowledgement: the peer's kernel sends
    these also while the peer's process is stopped. 0 if it is not known.
    """
    with opened(descriptor) as tcp:
        if tcp is not None:
            info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_RECEIVED.size)
            return float(min(_LAST_RECEIVED.unpack(info))) / 1000
    return 0.0
