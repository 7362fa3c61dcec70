"""The admitted keys as the broker sends them to workers on other machines and to receivers: hashes and roles. Pure.

Does not read the keys: see ``wire/security/zap.py``.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable

from msd.wire.protocol.messages import Admitted, AdmittedHash
from msd.wire.security.keys import AdmittedKey, Role, key_hash
from msd.wire.security.zap import DATA_ROLES


def admitted_message(keys: Iterable[AdmittedKey], server: bytes, now: float, scope: str = "") -> Admitted:
    """Returns the message with those of ``keys`` that may connect to a worker, and with the broker's own key
    ``server``, which is an operator. ``now`` is in seconds since 1970.

    The hosts' clocks may differ: the message says for how long a key remains admitted. Its digest depends on the keys
    only, not on the time.

    A receiver that was invited for ``scope`` serves nothing else, and must not learn the names in other invitations:
    the message has only the keys that may have something of ``scope``; with an empty one, all keys.
    """
    connecting = [key for key in keys if key.role in DATA_ROLES and key.expires > now and _is_shared(key.scope, scope)]
    entries = sorted((key_hash(key.key), key.role.value, key.expires, key.scope) for key in connecting)
    entries.append((key_hash(server), Role.OPERATOR.value, math.inf, ""))
    digest = hashlib.sha256()
    for hash, role, expires, scope in entries:
        digest.update(hash + role.encode() + struct.pack(">d", expires) + scope.encode() + b"\0")
    return Admitted(
        digest=digest.digest(),
        keys=[
            AdmittedHash(hash=hash, role=role, seconds=None if expires == math.inf else expires - now, scope=scope)
            for hash, role, expires, scope in entries
        ],
    )


def _is_shared(scope: str, other: str) -> bool:
    """True if some file may be in both scopes."""
    inner, outer = sorted([scope, other], key=len, reverse=True)
    return not outer or inner == outer or (outer.endswith("/") and inner.startswith(outer))
