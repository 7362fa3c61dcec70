"""The ZAP handler: decides which connections to a process's server sockets are admitted, and in which role.

ZeroMQ asks the handler over ZAP (RFC 27) during each handshake. The handler is needed even if no keys are used and it
admits everyone: without a ZAP handler, libzmq accepts unauthenticated ZMTP 1 peers and treats random bytes as messages.
ZeroMQ asks only once for each connection, so the caller must check the key of each message: it may have been revoked
since. Does not close connections: see ``wire/net/accepted_connections.py``.

A process of the servers' own machine reads the admitted keys from the servers' folder. A worker on another machine has
only their hashes, which the broker sends.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import zmq
from msgspec import Struct

from msd.wire.errors import MsdError
from msd.wire.protocol.states import ACCEPTED, NOT_ADMITTED, OTHER_ROLE
from msd.wire.security.keys import KEY_ROLES, SERVER, AdmittedKey, KeyFolder, KeyPair, Role, key_hash

#: Seconds for which a key that misused a socket is rejected.
BAN_S = 60.0
#: Seconds between two looks at the folder for keys that are not admitted.
EARLY_RELOAD_INTERVAL_S = 0.05
#: Maximum number of requests that one call to ``handle`` answers, so that a flood cannot block the poll loop.
MAX_REQUESTS_PER_CALL = 64

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
#: The roles that may connect to a worker.
DATA_ROLES = frozenset({Role.CLIENT, Role.OPERATOR})


class Admission(Struct, frozen=True):
    """The role of an admitted key, and the name under which it is admitted if that is known. ``until`` is when it
    expires, in monotonic seconds. ``scope`` is the only file or folder that it may have, empty for everything.
    """

    role: Role
    name: str = ""
    until: float = math.inf
    scope: str = ""


def admitted_role(
    mechanism: bytes,
    key: bytes,
    own: KeyPair | None,
    admissions: Mapping[bytes, Admission],
    roles: AbstractSet[Role],
    now: float,
) -> Role | None:
    """Returns the role in which a connection is admitted, None if it is rejected. ``own`` is the key pair of this
    process, None if it uses no keys; ``admissions`` are by the hash of the key; only ``roles`` may connect. A peer that
    has this process's own pair is the operator of this machine.
    """
    if own is None:
        return Role.ANYONE if mechanism == b"NULL" else None
    if mechanism != b"CURVE":
        return None
    if key == own.public:
        return Role.OPERATOR
    admission = admissions.get(key_hash(key))
    return admission.role if admission is not None and admission.role in roles and now < admission.until else None


class ZapHandler:
    """Admits connections to the sockets of ``context`` that were passed to ``protect``, if they have one of ``roles``.
    ``own`` is None if no keys are used; ``folder`` is None, too, if the caller passes the hashes of the admitted keys
    to ``admit``. Call ``close()`` after closing those sockets.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        own: KeyPair | None,
        folder: Path | None = None,
        roles: AbstractSet[Role] = DATA_ROLES,
    ) -> None:
        self.rejected_connections = 0
        self._own = own
        self._keys = KeyFolder(folder) if folder is not None else None
        self._roles = roles
        #: The roles that may connect to a socket, by its domain: the name by which ZeroMQ tells the sockets apart.
        self._domains: dict[bytes, AbstractSet[Role]] = {}
        #: The admitted keys of the folder.
        self.admitted_keys: list[AdmittedKey] = []
        #: By the hash of the key.
        self._admissions: Mapping[bytes, Admission] = {}
        #: When the next of them expires.
        self._next_expiry = math.inf
        #: When the folder may be read again for an unknown key, and whether that has revoked keys: the next call of
        #: ``reload`` reports it.
        self._next_early_reload = 0.0
        self._has_revoked = False
        #: Until when (monotonic) each banned key is rejected. Only admitted keys can be banned.
        self._banned_until: dict[bytes, float] = {}
        #: The fingerprint of the folder of admitted keys when it was last read.
        self._fingerprint: object = None
        self.reload()
        #: Call ``handle`` when this socket is readable.
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(_ZAP_ENDPOINT)

    @property
    def uses_keys(self) -> bool:
        return self._own is not None

    def protect(self, socket: zmq.Socket[bytes], roles: AbstractSet[Role] | None = None) -> None:
        """Makes ZeroMQ ask this handler about each connection to ``socket``. Call this before the socket is bound.
        Only peers with one of ``roles`` are admitted, by default those of the handler.
        """
        domain = b"msd-%d" % len(self._domains)
        self._domains[domain] = self._roles if roles is None else roles
        socket.zap_domain = domain
        # Otherwise ZeroMQ would admit everyone after this handler is closed.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        if self._own is not None:
            socket.curve_secretkey = self._own.secret
            socket.curve_publickey = self._own.public
            socket.curve_server = True

    def handle(self) -> None:
        """Answers ZeroMQ's waiting requests."""
        for _ in range(MAX_REQUESTS_PER_CALL):
            try:
                _, request, domain, _, _, mechanism, *credentials = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            key = credentials[0] if credentials else b""
            role = self._role(mechanism, key, self._domains[domain])
            if role is None and self._reload_soon():
                role = self._role(mechanism, key, self._domains[domain])
            is_accepted = role is not None and self._banned_until.get(key, 0.0) <= time.monotonic()
            self.rejected_connections += not is_accepted
            has_other_role = role is None and self._role(mechanism, key, KEY_ROLES) is not None
            status = ACCEPTED if is_accepted else OTHER_ROLE if has_other_role else NOT_ADMITTED
            user = key.hex().encode() if is_accepted else b""
            self.socket.send_multipart([b"1.0", request, b"%d" % status, b"", user, b""])

    def key_of(self, frame: zmq.Frame) -> bytes:
        """Returns the public key of the connection that delivered ``frame``; empty if no keys are used."""
        # Without keys the property is missing, or the peer itself has set it.
        return bytes.fromhex(str(frame.get("User-Id"))) if self._own is not None else b""

    def role_of(self, key: bytes) -> Role | None:
        """Returns the role that the peer with this key has now, None if the key is revoked or has expired. ``key`` is
        empty, and every peer may do everything, if no keys are used.
        """
        return self._role(b"CURVE" if self._own is not None else b"NULL", key, self._roles)

    def _role(self, mechanism: bytes, key: bytes, roles: AbstractSet[Role]) -> Role | None:
        return admitted_role(mechanism, key, self._own, self._admissions, roles, time.monotonic())

    def name_of(self, key: bytes) -> str:
        """Returns the name under which a key is admitted; empty if it is not admitted, or if there is no key."""
        if not key:
            return ""
        if self._own is not None and key == self._own.public:
            return SERVER
        admission = self._admissions.get(key_hash(key))
        return admission.name if admission is not None else ""

    def scope_of(self, key: bytes) -> str:
        """Returns the only file or folder that the peer with this key may have; empty for everything."""
        admission = self._admissions.get(key_hash(key))
        return admission.scope if admission is not None else ""

    def ban(self, key: bytes) -> None:
        """Rejects new connections with this key for ``BAN_S`` seconds. Has no effect if no keys are used."""
        if self._own is not None:
            self._banned_until[key] = time.monotonic() + BAN_S

    def _reload_soon(self) -> bool:
        """Reloads the admitted keys for a key that is not admitted: it may have been admitted a moment ago. Returns
        False if that was tried just now, so that unknown keys do not make this process read the folder all the time.
        """
        now = time.monotonic()
        if self._keys is None or now < self._next_early_reload:
            return False
        self._next_early_reload = now + EARLY_RELOAD_INTERVAL_S
        self._has_revoked = self.reload()
        return True

    def reload(self) -> bool:
        """Reloads the admitted keys of the folder if they changed. Returns True if a key was revoked, or has expired
        since the last call.
        """
        now = time.monotonic()
        has_revoked, self._has_revoked = self._has_revoked or now >= self._next_expiry, False
        if now >= self._next_expiry:
            self._next_expiry = self._first_expiry(now)
        if self._keys is None:
            return has_revoked
        fingerprint = _fingerprint(self._keys.admitted_path)
        if fingerprint == self._fingerprint:
            return has_revoked
        self._fingerprint = fingerprint
        try:
            self.admitted_keys = self._keys.admitted_keys()
        except MsdError:
            self.admitted_keys = []  # Other users may have written these keys: admit none of them.
        to_monotonic = time.monotonic() - time.time()
        return (
            self.admit(
                {
                    key_hash(k.key): Admission(k.role, k.name, k.expires + to_monotonic, k.scope)
                    for k in self.admitted_keys
                }
            )
            or has_revoked
        )

    def admit(self, admissions: Mapping[bytes, Admission]) -> bool:
        """Admits the keys with these hashes, and no others. Returns True if a key that could connect no longer can."""
        before, self._admissions = self._admissions, admissions
        self._next_expiry = self._first_expiry(time.monotonic())
        return any(
            (after := admissions.get(hash)) is None or after.role not in self._roles
            for hash, admission in before.items()
            if admission.role in self._roles
        )

    def _first_expiry(self, now: float) -> float:
        return min((a.until for a in self._admissions.values() if a.until > now), default=math.inf)

    def close(self) -> None:
        """Closes the socket. From then on ZeroMQ rejects all new connections."""
        self.socket.close(0)


def _fingerprint(folder: Path) -> object:
    """Returns a value that changes whenever a file in ``folder`` or the folder's mode changes, None if the folder
    cannot be read.
    """
    try:
        mode = folder.stat().st_mode
        with os.scandir(folder) as entries:
            stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:
        return None
    return mode, sorted((name, status.st_ino, status.st_mtime_ns, status.st_size) for name, status in stats)
