"""Endpoints: a host and a TCP port, parsed and checked.

ZeroMQ silently interprets ``tcp://127.0.0.1:80000`` as port 14464 and accepts invalid hosts, so this module checks
hosts and ports. ZeroMQ would also look up host names in its I/O thread, where one slow name server stalls every socket:
it gets the addresses that ``wire/net/name_lookup.py`` finds. Opens no sockets and looks up no names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from msd.wire.errors import UsageError

#: Wildcards: a socket bound to one of these accepts connections on all addresses of the machine.
ANY_HOSTS = ("*", "0.0.0.0", "::")  # noqa: S104


class Endpoint(Struct, frozen=True):
    """A host (name or address) and a TCP port.

    If a name was looked up, ``host`` is its first address, ``other_hosts`` are the others, and ``name`` is the name.
    """

    host: str
    port: int
    other_hosts: tuple[str, ...] = ()
    name: str = ""

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
            form = "HOST:PORT" if default_port is None else "HOST or HOST:PORT"
            raise UsageError(f"{text!r} is not {form}: give an address such as 10.0.0.1:39223")
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
            import socket  # Rarely needed, and slow to import.

            return socket.getaddrinfo(self.host, self.port, flags=socket.AI_NUMERICHOST)[0][4]
        return "" if self.host == "*" else self.host, self.port

    def __str__(self) -> str:
        if self.name:
            return f"{self.name}:{self.port}"
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

    @property
    def name_to_look_up(self) -> str | None:
        """The host's name, also if it was looked up before; None if the host is an address."""
        if self.host in ANY_HOSTS or (self.is_ipv6 and not self.name):
            return None
        try:
            ipaddress.IPv4Address(self.name or self.host)
        except ValueError:
            return self.name or self.host
        return None

    def with_addresses(self, addresses: Mapping[str, tuple[str, ...]]) -> Endpoint:
        """Returns this endpoint with the addresses of its host name; unchanged if they are not in ``addresses``."""
        name = self.name or self.host
        if name not in addresses:
            return self
        first, *others = addresses[name]
        return Endpoint(first, self.port, tuple(others), name)

    def at_port(self, port: int) -> Endpoint:
        """Returns this endpoint with another port."""
        return Endpoint(self.host, port, self.other_hosts, self.name)

    @property
    def addresses(self) -> tuple[Endpoint, ...]:
        """An endpoint for each address of the host."""
        return tuple(Endpoint(host, self.port) for host in (self.host, *self.other_hosts))


def check_port(port: int, where: str) -> int:
    """Returns ``port``. If it is out of range, raises ``UsageError`` with a message that starts with ``where``."""
    if not 1 <= port <= 65535:
        raise UsageError(f"{where}: {port} is not a valid port; ports range from 1 to 65535")
    return port
