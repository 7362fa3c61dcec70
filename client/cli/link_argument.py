"""The link in place of a NAME: in an argument, on standard input (``-``), or in the environment (``MSD_LINK``).

A link may be a secret, and other users of the machine can read arguments. Reads no other part of the command line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msd.wire.config.cli_flags import ServerFlags
from msd.wire.errors import NotAllowedError, UsageError

if TYPE_CHECKING:
    from msd.wire.config.servers import Servers
    from msd.wire.config.settings import Config

#: ``msd.wire.config.links.SCHEME``; most downloads have no link, and need not import that module.
SCHEME = "msd://"
VARIABLE = "MSD_LINK"


def find_link(names: Sequence[str], flags: ServerFlags, environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns the link that the command names, None if it names none. Raises ``UsageError``."""
    given = [name for name in names if name.startswith(SCHEME)]
    has_place = any((flags.host, flags.ports, flags.server5, flags.server_key))
    link: str | None = None
    if given:
        link = given[0]
        if len(names) > 1:
            raise UsageError("a link stands alone: it says what is downloaded; give no other NAME")
    elif tuple(names) == ("-",):
        link = sys.stdin.readline(1 << 16).strip()
    elif not names and not has_place:
        link = environment.get(VARIABLE)
    if link is not None and has_place:
        raise UsageError("a link says where the servers are: leave out -a, -p, --server5 and --server-key")
    return link


def follow(link: str, flags: ServerFlags) -> tuple[Config, Servers, str]:
    """Returns the configuration, the servers of a link, and the name in it (``.`` for everything). Raises
    ``MsdError``.
    """
    from msd.wire.config.links import Link
    from msd.wire.config.servers import linked_servers
    from msd.wire.config.settings import load

    parsed = Link.parse(link)
    settings = load(flags.config)
    return settings, linked_servers(settings, parsed), parsed.name or "."


def find_servers(names: Sequence[str], flags: ServerFlags) -> tuple[Servers, list[str]]:
    """Returns the servers, and the names that are listed or compared: those of a link, or as the flags say. Raises
    ``MsdError``.
    """
    if (link := find_link(names, flags, {})) is None:
        return flags.find(), [*names]
    _, servers, name = follow(link, flags)
    return servers, [name]


@contextlib.contextmanager
def link_refusals(names: Sequence[str]) -> Iterator[None]:
    """A block whose ``NotAllowedError`` speaks of the link, if ``names`` are one (or ``-``)."""
    try:
        yield
    except NotAllowedError as error:
        is_link = tuple(names) == ("-",) or any(name.startswith(SCHEME) for name in names)
        raise (link_error(error) if is_link else error) from None


def link_error(error: NotAllowedError) -> NotAllowedError:
    """Returns the error for a link whose key the servers do not admit. Other errors remain as they are."""
    for found, refuses in (("does not admit this key", "refuses"), ("do not admit this key", "refuse")):
        place, is_found, _ = str(error).partition(found)
        if is_found:
            return NotAllowedError(f"{place}{refuses} this link: it has expired or was revoked; ask for another one")
    return error
