"""``msd invite``: makes a link whose holder may download one file or folder without a key of their own.

Runs on the servers' machine, because it admits the key of the invitation. Asks no server: the download finds out
whether the file is shared.
"""

from __future__ import annotations

import math
import sys
import time

from msd.wire.config.invitations import address_for_others, invite
from msd.wire.config.links import Link
from msd.wire.config.settings import DEFAULT_PORTS, Config
from msd.wire.config.toml_file import parse_duration
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint

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
    endpoint = _parse(server5) if server5 is not None else address_for_others(config.status)
    if not config.uses_keys and endpoint.is_loopback:
        print(Link(endpoint, name).text, flush=True)
        print(
            f"this link is for this machine only: without keys, only it can reach servers at {endpoint.host};"
            " if msd serve has -a HOST, give it here, too",
            file=sys.stderr,
        )
        return
    now = time.time()
    invitation = invite(config.key_folder, endpoint, name, expires=now + seconds, now=now)
    print(invitation.link.text, flush=True)
    print(f"{invitation.terms}: msd download LINK\n{invitation.end}", file=sys.stderr)


def _parse(server5: str) -> Endpoint:
    try:
        return Endpoint.parse(server5, DEFAULT_PORTS[4])
    except UsageError as error:
        raise UsageError(f"--server5 {error}") from None
