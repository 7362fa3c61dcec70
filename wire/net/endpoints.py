"""Hosts, ports and the endpoints made of them.

ZeroMQ takes ``tcp://127.0.0.1:80000`` for port 14464 and a wrong host without a word, so both are
checked here, and names are resolved before ZeroMQ sees them: it would do so in its I/O thread,
where one slow name server stalls every socket.
"""

from __future__ import annotations

import ipaddress
import socket

from msgspec import Struct

from msd.wire.errors import UsageError

#: Binding to one of these means every address of the machine.
ANY_HOSTS = ("*", "0.0.0.0", "::")  # noqa: S104


class Endpoint(Struct, frozen=True):
    """A host (name or address) and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """``HOST:PORT``, ``[V6]:PORT``, either with ``tcp://`` before it. Raises ``UsageError``."""
        host, colon, port = text.removeprefix("tcp://").rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit():
            raise UsageError(f"{text!r} is not HOST:PORT")
        return cls(host.strip("[]"), check_port(int(port), text))

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_ipv6(self) -> bool:
        """True if the host is written as an IPv6 address."""
        return ":" in self.host

    @property
    def url(self) -> str:
        """The endpoint as ZeroMQ writes it; every address of the machine is ``*``."""
        if self.host in ANY_HOSTS:
            return f"tcp://*:{self.port}"
        return f"tcp://[{self.host}]:{self.port}" if self.is_ipv6 else f"tcp://{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.url.removeprefix("tcp://")

    def seen_from(self, host: str) -> Endpoint:
        """This endpoint with ``host`` put in the place of "every address of that machine"."""
        return Endpoint(host, self.port) if self.host in ANY_HOSTS else self

    def resolve(self) -> Endpoint:
        """The endpoint by numeric address. Raises ``UsageError`` for an unknown host."""
        if self.host in ANY_HOSTS:
            return self
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # the latter for 127.0.0..1, or a part of over 63 letters
            raise UsageError(f"unknown host {self.host!r}: check its name, or give an IP address") from None
        return Endpoint(str(found[0][4][0]), self.port)


def check_port(port: int, where: str) -> int:
    """``port``, if it is one; raises ``UsageError`` naming ``where`` it stands otherwise."""
    if not 1 <= port <= 65535:
        raise UsageError(f"{where}: {port} is not a port; ports are 1 to 65535")
    return port
