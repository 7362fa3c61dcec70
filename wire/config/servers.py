"""Locates the servers for a client or an operator: from the configuration, the flags and server 5's address.

Connects to nothing; ``Servers.resolved`` looks up host names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from msd.wire.config.argument_types import check_types, optional
from msd.wire.config.settings import DEFAULT_PORTS, LOOPBACK, Config, load
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.name_lookup import Addresses, look_up
from msd.wire.security.keys import Credentials, parse_key, select_credentials

if TYPE_CHECKING:
    from msd.wire.config.links import Link

#: The arguments of ``Servers.find()``.
_FIND_TYPES = {
    "host": optional(str, takes="a host name or an IP address"),
    "ports": optional(list, tuple, takes="a list of port numbers"),
    "server5": optional(str, takes="HOST or HOST:PORT"),
    "server_key": optional(str, takes="the key that msd serve prints"),
    "config": optional(str, Path, takes="the path of a configuration file"),
}


class Servers(Struct, frozen=True):
    """The endpoints of the servers, as a client or an operator uses them.

    ``workers`` maps worker numbers (from 1) to endpoints. ``pinned`` is True if the ports were given explicitly: the
    endpoints in server 5's snapshots are then ignored, so that proxies and address translation work. ``guessed`` is
    True if neither the configuration nor a flag gives the workers: they are at the default ports, unless server 5 lists
    others.
    ``credentials`` is None if the servers use no keys. ``client_name`` is how the client calls itself; empty if it does
    not.
    """

    status: Endpoint
    workers: Mapping[int, Endpoint]
    pinned: bool
    credentials: Credentials | None = None
    guessed: bool = False
    client_name: str = ""

    @property
    def names(self) -> set[str]:
        """The host names of the endpoints."""
        endpoints = (self.status, *self.workers.values())
        return {name for endpoint in endpoints if (name := endpoint.name_to_look_up) is not None}

    def with_addresses(self, addresses: Addresses) -> Servers:
        """Returns these servers with the addresses of their host names."""
        workers = {number: endpoint.with_addresses(addresses) for number, endpoint in self.workers.items()}
        return replace(self, status=self.status.with_addresses(addresses), workers=workers)

    def resolved(
        self, timeout: float | None = None, on_waiting: Callable[[str, float], None] = lambda reason, seconds: None
    ) -> Servers:
        """Returns these servers with numeric addresses: see ``look_up``, which also describes the arguments."""
        names = self.names
        return self.with_addresses(look_up(names, timeout, on_waiting)) if names else self

    @classmethod
    def find(
        cls,
        host: str | None = None,
        *,
        ports: Sequence[int] | None = None,
        server5: str | None = None,
        server_key: str | None = None,
        config: str | Path | None = None,
    ) -> Servers:
        """Locates the servers as the commands do.

        ``config`` is a configuration file, by default ``./config.toml`` if it exists. ``host`` and ``ports`` (of
        the workers, then of server 5) override it. ``server5`` is the ``HOST`` or ``HOST:PORT`` of server 5, which
        lists the workers. ``server_key`` is the public key that ``msd serve`` prints if the servers use keys.

        Raises ``UsageError`` for invalid values, ``NotAllowedError`` if a key is missing.
        """
        check_types(locals(), _FIND_TYPES)
        if ports is not None and not all(type(port) is int for port in ports):
            raise UsageError(f"ports {ports!r}: must be {_FIND_TYPES['ports'][1]}")
        if ports is not None and len(ports) < 2:
            raise UsageError("too few ports: give the port of each worker and of server 5")
        return locate_servers(
            load(config),
            host=host,
            ports=tuple(ports) if ports is not None else None,
            server5=server5,
            server_key=server_key,
        )


def locate_servers(
    config: Config,
    *,
    host: str | None = None,
    ports: tuple[int, ...] | None = None,
    server5: str | None = None,
    server_key: str | None = None,
) -> Servers:
    """Returns the servers that ``config`` and the flags specify. Raises ``MsdError``."""
    config = config.with_flags(host=host, ports=ports).checked()
    key = config.server_key
    if server_key is not None:
        try:
            key = parse_key(server_key)
        except ValueError as allowed:
            # Do not quote it: it may be a secret key.
            raise UsageError(
                f"server_key must be {allowed}, as printed by msd serve", arguments=("server_key",)
            ) from None
    status = _parse_server5(server5) if server5 is not None else config.status
    is_own = server5 is not None and not config.security and _is_own(status)
    needs_credentials = key is not None or config.uses_keys or is_own
    credentials = select_credentials(config.key_folder, key, config.key) if needs_credentials else None
    endpoints = [worker.endpoint for worker in config.workers] if server5 is None or ports is not None else []
    status, *endpoints = [endpoint.replace_wildcard(LOOPBACK) for endpoint in (status, *endpoints)]
    workers = dict(enumerate(endpoints, 1))
    return Servers(
        status,
        workers,
        ports is not None,
        credentials,
        guessed=bool(workers) and config.has_default_ports,
        client_name=config.name,
    )


def linked_servers(config: Config, link: Link) -> Servers:
    """Returns the servers that ``link`` names. ``config`` has the folder of the keys, for a link that is no invitation.
    Raises ``MsdError``.
    """
    credentials = None
    if link.server_key is not None:
        own = link.key_pair
        if own is not None:
            credentials = Credentials(own, link.server_key)
        else:
            credentials = select_credentials(config.key_folder, link.server_key, config.key)
    return Servers(link.server5, {}, pinned=False, credentials=credentials, client_name=config.name)


def _is_own(endpoint: Endpoint) -> bool:
    """True if this is an address of this machine that others can reach: its servers use keys, unless configured."""
    if endpoint.is_loopback or endpoint.name_to_look_up is not None:
        return False
    from msd.wire.net.own_addresses import own_addresses  # Not needed without --server5.

    with contextlib.suppress(OSError):
        return endpoint.host in map(str, own_addresses())
    return False


def _parse_server5(text: str) -> Endpoint:
    try:
        return Endpoint.parse(text, DEFAULT_PORTS[4])
    except UsageError as error:
        raise UsageError(f"server5 {error}", arguments=("server5",)) from None
