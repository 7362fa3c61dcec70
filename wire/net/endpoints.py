"""Endpoints: a host and a TCP port, parsed, checked and resolved.

ZeroMQ silently interprets ``tcp://127.0.0.1:80000`` as port 14464 and accepts invalid hosts, so this module checks
hosts and ports. It also resolves host names: ZeroMQ would resolve them in its I/O thread, where one slow name server
stalls every socket. Opens no sockets.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from msgspec import Struct

from msd.wire.errors import UsageError

#: Wildcards: a socket bound to one of these accepts connections on all addresses of the machine.
ANY_HOSTS = ("*", "0.0.0.0", "::")  # noqa: S104


class Endpoint(Struct, frozen=True):
    """A host (name or address) and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Endpoint:
        """Parses ``HOST:PORT`` or ``[IPV6]:PORT``, with or without ``tcp://``. With a ``default_port`` the port may be
        left out. Raises ``UsageError``.
        """
        address = text.removeprefix("tcp://")
        # A number alone is a port without a host.
        if default_port is not None and (":" not in address or address.endswith("]")) and not address.isdigit():
            address += f":{default_port}"
        host, colon, port = address.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit():
            raise UsageError(f"{text!r} is not HOST:PORT: give an address such as 10.0.0.1:39223")
        return cls(host.strip("[]"), check_port(int(port), text))

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach the endpoint."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_ipv6(self) -> bool:
        """True if the host is an IPv6 address."""
        return ":" in self.host

    @property
    def bind_url(self) -> str:
        """The endpoint as ``parse`` reads it; unlike ``url`` it tells the wildcard of IPv6 from that of IPv4."""
        return f"tcp://[{self.host}]:{self.port}" if self.is_ipv6 else self.url

    @property
    def url(self) -> str:
        """The endpoint in ZeroMQ's notation, with ``*`` for a wildcard."""
        if self.host in ANY_HOSTS:
            return f"tcp://*:{self.port}"
        return f"tcp://[{self.host}]:{self.port}" if self.is_ipv6 else f"tcp://{self.host}:{self.port}"

    @property
    def socket_address(self) -> tuple[Any, ...]:
        """The numeric endpoint as Python's sockets take it. Raises ``OSError`` for a link-local address whose scope is
        no interface of this machine.
        """
        if "%" in self.host:
            return socket.getaddrinfo(self.host, self.port, flags=socket.AI_NUMERICHOST)[0][4]
        return "" if self.host == "*" else self.host, self.port

    def __str__(self) -> str:
        return self.url.removeprefix("tcp://")

    def replace_wildcard(self, host: str) -> Endpoint:
        """Returns this endpoint, with ``host`` in place of a wildcard."""
        return Endpoint(host, self.port) if self.host in ANY_HOSTS else self

    def with_scope_of(self, host: str) -> Endpoint:
        """Returns this endpoint; if its host and ``host`` are link-local, with the scope of ``host``. A scope names an
        interface of one machine, so that of another machine is useless here.
        """
        _, percent, scope = host.partition("%")
        if not percent or not self.is_ipv6 or not ipaddress.IPv6Address(self.host).is_link_local:
            return self
        return Endpoint(f"{self.host.partition('%')[0]}%{scope}", self.port)

    def resolve(self) -> Endpoint:
        """Returns this endpoint with a numeric address; a wildcard stays unchanged. Raises ``UsageError`` for an
        unknown host.
        """
        if self.host in ANY_HOSTS or self.is_ipv6:  # Python would drop the scope of a link-local address.
            return self
        try:
            addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # UnicodeError: a label is empty or longer than 63 characters
            raise UsageError(f"unknown host {self.host!r}: check its name, or give an IP address") from None
        return Endpoint(str(addresses[0][4][0]), self.port)


def check_port(port: int, where: str) -> int:
    """Returns ``port``. If it is out of range, raises ``UsageError`` with a message that starts with ``where``."""
    if not 1 <= port <= 65535:
        raise UsageError(f"{where}: {port} is not a valid port; ports range from 1 to 65535")
    return port
