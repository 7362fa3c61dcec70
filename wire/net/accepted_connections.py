"""The TCP connections that a bound socket has accepted: to whom each belongs, and how to close a single one.

ZeroMQ closes a bound socket only with all its connections. But each message names the descriptor of its connection
(``ZMQ_SRCFD``), which belongs to this process. When the connection of that descriptor is shut down, ZeroMQ treats it
like any lost connection. Does not decide which connections are closed.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Generic, TypeVar

import zmq
from msgspec import Struct

from msd.wire.net.tcp_state import bytes_received, opened
from msd.wire.security.zap import ZapHandler

T = TypeVar("T")

#: SO_LINGER with a timeout of 0: data that was not transmitted yet is dropped when the connection is closed.
_ABORT = struct.pack("ii", 1, 0)


class Connection(Struct, Generic[T]):
    """An accepted connection. ``key`` is the peer's public key, empty if the servers use no keys; ``host`` is its IP
    address. ``tag`` is the caller's name for the connection.
    """

    descriptor: int
    #: The peer's address and port; None if the connection was closed before its message was read.
    peer: object
    host: str
    key: bytes
    tag: T
    #: Bytes of unwanted messages, counted by the caller.
    unwanted_bytes: int = 0
    is_closed: bool = False

    def close(self) -> bool:
        """Closes the connection and drops what was not transmitted yet. Returns False if it is already closed."""
        if self.is_closed or self.peer is None:
            return False
        self.is_closed = True
        with opened(self.descriptor) as tcp:
            # ZeroMQ may have closed this connection and accepted another one with the same descriptor. The other one
            # may even have been taken for the sender of these messages, but it cannot have received as many bytes.
            if tcp is None or tcp.getpeername() != self.peer or bytes_received(tcp) < self.unwanted_bytes:
                return False
            # The peer may reset the connection at the same moment.
            with suppress(OSError):
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                tcp.shutdown(socket.SHUT_RDWR)
                # Otherwise ZeroMQ would still read what the kernel has received: up to several megabytes.
                while tcp.recv(1 << 20, socket.MSG_DONTWAIT):
                    pass
            return True
        return False


class AcceptedConnections(Generic[T]):
    """The connections of a bound socket, as far as they have sent messages. ``zap`` knows which keys are revoked."""

    def __init__(self, zap: ZapHandler) -> None:
        self._zap = zap
        #: The last connection of each descriptor; it may have been closed since.
        self._connections: dict[int, Connection[T]] = {}

    def sender(self, frame: zmq.Frame, tag: T) -> Connection[T] | None:
        """Returns the connection that delivered ``frame``, even if the peer has closed it since. If its key is revoked,
        closes it and returns None. A ``tag`` other than None identifies the connection.
        """
        descriptor = int(frame.get(zmq.SRCFD))
        connection = self._connections.get(descriptor)
        if connection is None or tag is None or connection.tag != tag:
            connection = self._find(frame, descriptor, tag)
        if self._zap.role_of(connection.key) is None:
            connection.close()
            return None
        return connection

    def close_revoked(self) -> list[T]:
        """Closes the connections whose key is revoked, and returns their tags."""
        revoked = [connection for connection in self._connections.values() if self._zap.role_of(connection.key) is None]
        return [connection.tag for connection in revoked if connection.close()]

    def clear(self) -> None:
        """Forgets all connections: the bound socket was closed."""
        self._connections.clear()

    def _find(self, frame: zmq.Frame, descriptor: int, tag: T) -> Connection[T]:
        peer = None
        with opened(descriptor) as tcp:
            peer = tcp.getpeername() if tcp is not None else None
        host = str(frame.get("Peer-Address"))
        if "." in host:
            # A socket that listens on IPv6, too, sees IPv4 addresses as ::ffff:192.0.2.1.
            host = host.removeprefix("::ffff:")
        found = Connection(descriptor, peer, host, self._zap.key_of(frame), tag)
        if peer is None:
            return found
        known = self._connections.get(descriptor)
        if known is not None and (known.peer, known.key, known.tag) == (peer, found.key, tag):
            return known
        self._connections[descriptor] = found
        return found
