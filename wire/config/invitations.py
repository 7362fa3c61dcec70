"""Invitations: links whose holder may download a file, a folder or everything, without a key of their own.

The seed in a link is derived from the servers' secret key and from the name under which the key of the link is
admitted. So no further secret is stored, and the link can be made again as long as that key is admitted. That name is
random: after a key was revoked, its link never works again. Does not decide who sees a link.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from msd.wire.config.links import SEED_SIZE, Link, key_pair
from msd.wire.config.settings import Config
from msd.wire.errors import NotAllowedError, UsageError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint
from msd.wire.net.own_addresses import hosts_for_others
from msd.wire.security.keys import SERVER, AdmittedKey, KeyFolder, KeyPair, Role
from msd.wire.support.presentable_names import is_presentable, presentable
from msd.wire.support.units import format_date

#: Names of admitted keys begin with these words: those of ``msd invite``, and those that ``msd serve`` makes itself.
BY_COMMAND, BY_SERVE = "invite-", "serve-"
#: Seconds for which an invitation is valid unless the operator says otherwise.
DEFAULT_DURATION_S = 86_400.0
#: ``msd serve`` shows the link of an earlier start if it remains valid for at least this many seconds. So restarts do
#: not admit further keys, and each link that is shown is valid for half a day.
MIN_REMAINING_S = DEFAULT_DURATION_S / 2
#: Seconds after which expired invitations are removed. Until then ``msd keys list`` says why a link does not work.
EXPIRED_KEPT_S = 7 * 86_400.0


class Invitation(Struct, frozen=True):
    """A link, the name under which its key is admitted, and when it expires (seconds since 1970)."""

    link: Link
    key_name: str
    expires: float

    @property
    def terms(self) -> str:
        """What the holder of the link may do, and until when."""
        name = presentable(self.link.name)
        what = f"the folder {name}" if name.endswith("/") else f"the file {name}" if name else "everything"
        until = "until it is revoked" if self.expires == math.inf else f"until {format_date(self.expires)}"
        return f"the holder of this link may download {what} {until}"

    @property
    def end(self) -> str:
        """How the operator ends it earlier."""
        return f"to end that: msd keys revoke {self.key_name}"


def invite(
    folder: KeyFolder, server5: Endpoint, name: str, *, expires: float, now: float, prefix: str = BY_COMMAND
) -> Invitation:
    """Admits a new key for the file or folder ``name`` (empty for everything). ``server5`` is the address in the link.
    Raises ``MsdError``.
    """
    server = _server_pair(folder)
    for admitted in folder.admitted_keys():
        if admitted.name.startswith((BY_COMMAND, BY_SERVE)) and admitted.expires < now - EXPIRED_KEPT_S:
            with suppress(UsageError):  # Another invitation may remove it at the same time.
                folder.revoke(admitted.name)
    key_name = f"{prefix}{secrets.token_hex(4)}"
    seed = _seed(server, key_name)
    folder.admit(f"{key_name} {key_pair(seed).public.hex()}", Role.CLIENT, expires=expires, scope=name)
    return Invitation(Link(server5, name, server.public, seed), key_name, expires)


def standing_invitation(folder: KeyFolder, server5: Endpoint, name: str, *, now: float) -> Invitation:
    """Returns the invitation for ``name`` that ``msd serve`` shows: that of an earlier start, or a new one. Raises
    ``MsdError``.
    """
    server = _server_pair(folder)
    for admitted in folder.admitted_keys():
        seed = _seed(server, admitted.name)
        if _is_standing(admitted, name, now) and admitted.key == key_pair(seed).public:
            return Invitation(Link(server5, name, server.public, seed), admitted.name, admitted.expires)
    return invite(folder, server5, name, expires=now + DEFAULT_DURATION_S, now=now, prefix=BY_SERVE)


def offered_name(config: Config) -> str | None:
    """Returns the name for which ``msd serve`` shows an invitation: that of the only shared file, empty for everything.
    None if it shows none, because there are no keys, or because only this machine reaches the servers.
    """
    if not config.uses_keys or config.status.is_loopback:
        return None
    path = config.paths[0] if len(config.paths) == 1 else None
    if not isinstance(path, Path) or not os.path.isfile(path):
        return ""
    name = os.path.basename(os.path.abspath(path))
    return name if is_presentable(name) else ""


def address_for_others(status: Endpoint) -> Endpoint:
    """Returns the address of server 5 for other machines, as far as it is known."""
    hosts = hosts_for_others(status.host) if status.host in ANY_HOSTS else ()
    return Endpoint(hosts[0], status.port) if hosts else status


def _is_standing(admitted: AdmittedKey, name: str, now: float) -> bool:
    is_offered = admitted.name.startswith(BY_SERVE) and (admitted.role, admitted.scope) == (Role.CLIENT, name)
    return is_offered and now + MIN_REMAINING_S <= admitted.expires < math.inf


def _server_pair(folder: KeyFolder) -> KeyPair:
    server = folder.load(SERVER)
    if server is None:
        hint = "run msd keys init, or run msd invite on the machine of the servers"
        raise NotAllowedError(f"no server key in {folder.path}: {hint}")
    return server


def _seed(server: KeyPair, key_name: str) -> bytes:
    return hashlib.blake2s(key_name.encode(), key=server.secret, person=b"msd seed", digest_size=SEED_SIZE).digest()
