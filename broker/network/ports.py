"""TCP ports of the servers: held for a worker that sleeps or restarts, and the errors of those that cannot be bound."""

from __future__ import annotations

import errno
import os
import socket

from msd.wire.errors import UsageError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint


def hold_port(endpoint: Endpoint, what: str) -> socket.socket:
    """Binds a worker's port, without listening, for as long as the broker lives.

    A busy port is found before anything is started. While the worker sleeps or restarts, nothing
    else can take its port, and a client that keeps trying to connect cannot meet itself there
    (TCP self-connect, after a few thousand tries). The worker binds beside it, for both sockets
    have SO_REUSEADDR. Raises ``UsageError``.
    """
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("" if endpoint.host in ANY_HOSTS else endpoint.host, endpoint.port))
    except OSError as error:
        holder.close()
        raise cannot_listen(endpoint, what, error.errno or 0) from None
    return holder


def cannot_listen(endpoint: Endpoint, what: str, code: int) -> UsageError:
    """The error for a port (``what`` it is for) that cannot be bound, by its ``errno``."""
    match code:
        case errno.EADDRINUSE:
            return UsageError(
                f"port {endpoint.port} ({what}) is in use: end what listens there, or choose another port"
            )
        case errno.EADDRNOTAVAIL | errno.ENODEV:
            return UsageError(f"{endpoint.host} is not an address of this machine: check -a")
        case errno.EACCES:
            return UsageError(f"port {endpoint.port} ({what}) needs root: choose one above 1023")
        case _:
            return UsageError(f"port {endpoint.port} ({what}) cannot be used: {os.strerror(code)}")
