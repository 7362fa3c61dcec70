"""Reserves the workers' TCP ports while they sleep or restart, and explains why a port cannot be bound."""

from __future__ import annotations

import errno
import os
import socket

from msd.wire.errors import UsageError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint


class PortInUseError(UsageError):
    """Another program uses ``port``."""

    def __init__(self, message: str, port: int) -> None:
        super().__init__(message)
        self.port = port


def hold_port(endpoint: Endpoint, purpose: str) -> socket.socket:
    """Reserves a worker's port by binding it without listening. Closing the returned socket releases the port.

    A port in use is thus reported before any worker is started. While the worker sleeps or restarts, no other program
    can take the port, and a client that keeps connecting to it cannot connect to itself (TCP self-connect, which
    happens after a few thousand attempts). The worker can bind the same port, because both sockets set SO_REUSEADDR.
    Raises ``UsageError``.
    """
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("" if endpoint.host in ANY_HOSTS else endpoint.host, endpoint.port))
    except OSError as error:
        holder.close()
        raise listen_error(endpoint, purpose, error.errno or 0) from None
    return holder


def listen_error(endpoint: Endpoint, purpose: str, code: int) -> UsageError:
    """Returns the error for a port that cannot be bound. ``purpose`` names its use; ``code`` is the ``errno``."""
    match code:
        case errno.EADDRINUSE:
            problem = f"port {endpoint.port} ({purpose}) is in use"
            return PortInUseError(f"{problem}: stop the program that uses it, or choose another port", endpoint.port)
        case errno.EADDRNOTAVAIL | errno.ENODEV:
            return UsageError(f"{endpoint.host} is not an address of this machine: check -a")
        case errno.EACCES:
            return UsageError(f"port {endpoint.port} ({purpose}) requires root: choose a port above 1023")
        case _:
            return UsageError(f"port {endpoint.port} ({purpose}) cannot be used: {os.strerror(code)}")
