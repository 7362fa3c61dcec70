"""Reserves the workers' TCP ports while they sleep or restart, and explains why a port cannot be bound."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.port_users import PortUse, PortUser, find_users


class PortInUseError(UsageError):
    """Another program uses ``port``. If ``frees_itself``, only closed connections do, for a minute at most."""

    def __init__(self, message: str, port: int, *, frees_itself: bool) -> None:
        super().__init__(message)
        self.port = port
        self.frees_itself = frees_itself


#: The Unix sockets of this network namespace. A name without a file starts with ``@``.
_UNIX_SOCKETS = Path("/proc/self/net/unix")


class HeldPort:
    """A port that ``hold_port`` has reserved. ``close()`` releases it."""

    def __init__(self, *sockets: socket.socket) -> None:
        self._sockets = sockets

    def close(self) -> None:
        for holder in self._sockets:
            holder.close()


def hold_port(endpoint: Endpoint, purpose: str) -> HeldPort:
    """Reserves a worker's port by binding it without listening.

    A port in use is thus reported before any worker is started. While the worker sleeps or restarts, no other program
    can take the port, and a client that keeps connecting to it cannot connect to itself (TCP self-connect, which
    happens after a few thousand attempts). The worker can bind the same port, because both sockets set SO_REUSEADDR.
    For the same reason, others that reserve ports in this way could; a Unix socket without a file keeps them from it.
    Raises ``UsageError``.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind(f"\0{_lock_name(endpoint)}")
    except OSError as error:
        lock.close()
        raise listen_error(endpoint, purpose, error.errno or 0) from None
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    try:
        holder = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        lock.close()
        raise listen_error(endpoint, purpose, error.errno or 0) from None
    try:
        if endpoint.is_ipv6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(endpoint.socket_address)
    except OSError as error:
        holder.close()
        lock.close()
        raise listen_error(endpoint, purpose, error.errno or 0) from None
    return HeldPort(lock, holder)


def check_address(endpoint: Endpoint) -> None:
    """Raises ``UsageError`` if this machine does not have the address of ``endpoint``. Uses none of its ports."""
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as bound:
            bound.bind(endpoint.at_port(0).socket_address)
    except OSError as error:
        raise listen_error(endpoint, "server 5", error.errno or 0) from None


def is_held(endpoint: Endpoint) -> bool:
    """True if a process of this machine has reserved ``endpoint``, or its port on all addresses."""
    names = {_lock_name(held) for held in (endpoint, Endpoint("*", endpoint.port))}
    # Not by reserving it: that would disturb a worker that starts at this moment.
    sockets = _UNIX_SOCKETS.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.rpartition("@")[2] in names for line in sockets)


def _lock_name(endpoint: Endpoint) -> str:
    return f"msd-port-{endpoint}"


def listen_error(endpoint: Endpoint, purpose: str, code: int) -> UsageError:
    """Returns the error for a port that cannot be bound. ``purpose`` names its use; ``code`` is the ``errno``."""
    match code:
        case errno.EADDRINUSE:
            users = find_users(endpoint.port)
            message = f"port {endpoint.port} ({purpose}) is in use{explain_use(users)}"
            frees_itself = bool(users) and all(user.use is PortUse.CLOSED for user in users)
            return PortInUseError(message, endpoint.port, frees_itself=frees_itself)
        case errno.EADDRNOTAVAIL | errno.ENODEV | socket.EAI_NONAME:  # EAI_NONAME: no such interface in the scope
            return UsageError(f"{endpoint.host} is not an address of this machine: give one of its addresses")
        case errno.EAFNOSUPPORT:
            return UsageError(f"{endpoint.host}: this machine has no IPv6: give an IPv4 address")
        case errno.EACCES:
            return UsageError(f"port {endpoint.port} ({purpose}) requires root: choose a port above 1023")
        case _:
            return UsageError(f"port {endpoint.port} ({purpose}) cannot be used: {os.strerror(code)}")


def explain_use(users: Sequence[PortUser]) -> str:
    """Returns the end of the message about a port in use: by what, and what to do. ``users`` may be empty."""
    if (listening := _first(users, PortUse.LISTENING)) is not None and listening.program:
        return f" by {listening.program}: stop that program, or choose another port"
    if listening is None and (connected := _first(users, PortUse.CONNECTION)) is not None:
        program = connected.program or "another program"
        return (
            f" as the local port of a connection from {program} to {connected.peer}: wait until it is closed, or choose"
            " another port; net.ipv4.ip_local_reserved_ports keeps ports free"
        )
    if listening is None and _first(users, PortUse.CLOSED) is not None:
        return " by a closed connection: try again in a minute, or choose another port"
    return ": stop the program that uses it, or choose another port"


def _first(users: Sequence[PortUser], use: PortUse) -> PortUser | None:
    """Returns the first user with this use, one with a known program if there is any."""
    return max((user for user in users if user.use is use), key=lambda user: bool(user.program), default=None)
