"""``msd invite``: makes a link whose holder may download one file or folder without a key of their own.

Runs on the servers' machine, because it admits the key of the invitation. Asks the servers whether the name is shared,
and makes the link also if they do not answer, unless it were one to a loopback address: that may be a wrong one.
"""

from __future__ import annotations

import math
import sys
import time

from msd.client.operations.list_files import shared_name
from msd.client.plan.selection import EVERYTHING, normalized
from msd.wire.config.invitations import address_for_others, invite
from msd.wire.config.links import Link
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import DEFAULT_PORTS, Config
from msd.wire.config.toml_file import parse_duration
from msd.wire.errors import NoAnswerError, NotAllowedError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.support.presentable_names import presentable

#: The word for an invitation that does not expire.
UNLIMITED = "unlimited"
#: Seconds that the servers have to say whether the name is shared.
ANSWER_TIMEOUT_S = 2.0


def run(config: Config, name: str, time_text: str, server5: str | None) -> None:
    """Prints a link for ``name`` on standard output, and what to know about it on standard error. ``server5`` is the
    address in the link, by default that of ``config`` or, for a wildcard, of this machine. Raises ``MsdError``.
    """
    try:
        seconds = math.inf if time_text == UNLIMITED else parse_duration(time_text)
    except ValueError as allowed:
        raise UsageError(f"--for {time_text}: must be {allowed}, or {UNLIMITED}") from None
    endpoint = _parse(server5) if server5 is not None else address_for_others(config.status)
    name, note = _shared_name(config, normalized(name))
    if note and endpoint.is_loopback:
        raise NoAnswerError(
            f"no servers answer at {config.status}, and a link to {endpoint.host} would be for this machine only:"
            " start msd serve, or give its address with -a HOST or --server5 HOST"
        )
    if not config.uses_keys and endpoint.is_loopback:
        print(Link(endpoint, name).text, flush=True)
        print(
            f"this link is for this machine only: without keys, only it can reach servers at {endpoint.host};"
            " if msd serve has -a HOST, give it here, too",
            file=sys.stderr,
        )
    else:
        now = time.time()
        invitation = invite(config.key_folder, endpoint, name, expires=now + seconds, now=now)
        print(invitation.link.text, flush=True)
        print(f"{invitation.terms}: msd download LINK\n{invitation.end}", file=sys.stderr)
    if note:
        print(note, file=sys.stderr)


def _shared_name(config: Config, name: str) -> tuple[str, str]:
    """Returns the name in the link, with ``/`` at the end of a folder, and what the operator has to know of it. Raises
    ``MsdError`` if it is not shared.
    """
    if name == EVERYTHING:
        return "", ""
    try:
        return shared_name(locate_servers(config), name, ANSWER_TIMEOUT_S), ""
    except (NoAnswerError, NotAllowedError):
        kind = "a folder" if name.endswith("/") else "a file: the name of a folder ends with /"
        return name, f"the servers do not answer here: the link is for {presentable(name)} as {kind}"


def _parse(server5: str) -> Endpoint:
    try:
        return Endpoint.parse(server5, DEFAULT_PORTS[4])
    except UsageError as error:
        raise UsageError(f"--server5 {error}") from None
