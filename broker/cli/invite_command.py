"""``msd invite``: makes a link whose holder may download one file or folder without a key of their own.

Runs on the servers' machine, because it admits the key of the invitation. Asks no server: the download finds out
whether the file is shared.
"""

from __future__ import annotations

import math
import os
import secrets
import sys
import time

from msd.broker.network.own_addresses import hosts_for_others
from msd.wire.config.links import SEED_SIZE, Link, key_pair
from msd.wire.config.settings import DEFAULT_PORTS, Config
from msd.wire.config.toml_file import parse_duration
from msd.wire.errors import NotAllowedError, UsageError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint
from msd.wire.security.keys import SERVER, Role
from msd.wire.support.units import format_date

#: The word for an invitation that does not expire.
UNLIMITED = "unlimited"


def run(config: Config, name: str, time_text: str, server5: str | None) -> None:
    """Prints a link for ``name`` on standard output, and what to know about it on standard error. ``server5`` is the
    address in the link, by default that of ``config`` or, for a wildcard, of this machine. Raises ``MsdError``.
    """
    try:
        seconds = math.inf if time_text == UNLIMITED else parse_duration(time_text)
    except ValueError as allowed:
        raise UsageError(f"--for {time_text}: must be {allowed}, or {UNLIMITED}") from None
    endpoint = _parse(server5) if server5 is not None else _for_others(config.status)
    if not config.uses_keys and endpoint.is_loopback:
        print(Link(endpoint, name).text, flush=True)
        print(
            f"this link is for this machine only: without keys, only it can reach servers at {endpoint.host};"
            " if msd serve has -a HOST, give it here, too",
            file=sys.stderr,
        )
        return
    folder = config.key_folder
    server = folder.load(SERVER)
    if server is None:
        hint = "run msd keys init, or run msd invite on the machine of the servers"
        raise NotAllowedError(f"no server key in {folder.path}: {hint}")
    seed, key_name = os.urandom(SEED_SIZE), f"invite-{secrets.token_hex(3)}"
    expires = time.time() + seconds
    folder.admit(f"{key_name} {key_pair(seed).public.hex()}", Role.CLIENT, expires=expires, scope=name)
    print(Link(endpoint, name, server.public, seed).text, flush=True)
    what = f"the folder {name}" if name.endswith("/") else f"the file {name}" if name else "everything"
    until = "until it is revoked" if seconds == math.inf else f"until {format_date(expires)}"
    print(
        f"the holder of this link may download {what} {until}: msd download LINK\n"
        f"to end that: msd keys revoke {key_name}",
        file=sys.stderr,
    )


def _parse(server5: str) -> Endpoint:
    try:
        return Endpoint.parse(server5, DEFAULT_PORTS[4])
    except UsageError as error:
        raise UsageError(f"--server5 {error}") from None


def _for_others(status: Endpoint) -> Endpoint:
    """Returns the address of server 5 for other machines, as far as it is known."""
    hosts = hosts_for_others(status.host) if status.host in ANY_HOSTS else ()
    return Endpoint(hosts[0], status.port) if hosts else status
