"""Who may connect: the doorkeeper of a process's server sockets.

ZeroMQ asks it over ZAP (RFC 27) before a connection counts as one. Also where there are no keys and
everyone may come in: without somebody to ask, ZeroMQ takes random bytes for messages of its first
version. A socket asks for each connection anew, and never again while it lasts: so revoking a key
means closing the socket.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import zmq

from msd.wire.errors import MsdError
from msd.wire.security.keys import KeyFolder, KeyPair, Role

#: Requests answered in one turn of the loop, so that a flood cannot keep it from anything else.
READS_PER_TURN = 64

_ZAP = "inproc://zeromq.zap.01"
_DOMAIN = b"msd"
#: Roles that may connect at all.
_WELCOME = (Role.CLIENT, Role.OPERATOR)


def role_of(frame: zmq.Frame) -> Role:
    """The role in which the doorkeeper let in the connection that a frame came by; where none did,
    that of a worker, which may ask for nothing.
    """
    try:
        return Role(str(frame.get("User-Id")))
    except (zmq.ZMQError, ValueError):
        return Role.WORKER


def admitted_role(mechanism: bytes, key: bytes, own: KeyPair | None, roles: Mapping[bytes, Role]) -> Role | None:
    """The role in which a connection is let in, None if it is not. ``own`` is the servers' pair, None
    where they take no keys; who shows that very pair is the operator of this machine.
    """
    if own is None:
        return Role.OPERATOR if mechanism == b"NULL" else None
    if mechanism != b"CURVE":
        return None
    role = Role.OPERATOR if key == own.public else roles.get(key)
    return role if role in _WELCOME else None


class ZapHandler:
    """Answers for all sockets of ``context`` that are given to ``guard``. ``own`` and ``folder`` are
    None where no keys are taken. ``close()`` it after them.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], own: KeyPair | None, folder: Path | None) -> None:
        self.rejected_connections = 0
        self._own = own
        self._keys = KeyFolder(folder) if folder is not None else None
        self._roles: dict[bytes, Role] = {}
        self._seen: object = None
        self.reload()
        #: Call ``answer`` when it is readable.
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(_ZAP)

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """Has ZeroMQ ask before anybody is let in to ``socket``, which is not bound yet."""
        socket.zap_domain = _DOMAIN
        # Without it, a doorkeeper that is not there would let everyone in.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        if self._own is not None:
            socket.curve_secretkey = self._own.secret
            socket.curve_publickey = self._own.public
            socket.curve_server = True

    def handle(self) -> None:
        """Answers what ZeroMQ has asked."""
        for _ in range(READS_PER_TURN):
            try:
                _, request, _, _, _, mechanism, *shown = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            role = admitted_role(mechanism, shown[0] if shown else b"", self._own, self._roles)
            self.rejected_connections += role is None
            status = (b"200", b"OK") if role else (b"400", b"not admitted")
            # Never 300: the connecting side would not hear of that.
            self.socket.send_multipart([b"1.0", request, *status, (role or "").encode(), b""])

    def reload(self) -> bool:
        """Looks at the admitted keys; True if one of them may do less than before."""
        if self._keys is None:
            return False
        seen = _state(self._keys.admitted_path)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            roles = {admitted.key: admitted.role for admitted in self._keys.admitted()}
        except MsdError:
            roles = {}  # Keys that somebody else may have written admit nobody.
        before, self._roles = self._roles, roles
        return any(_rank(roles.get(key)) < _rank(role) for key, role in before.items())

    def close(self) -> None:
        self.socket.close(0)


def _rank(role: Role | None) -> int:
    """How much a role may do, compared with others."""
    return (None, Role.WORKER, Role.CLIENT, Role.OPERATOR).index(role)


def _state(folder: Path) -> object:
    """What tells this state of a folder from others."""
    try:
        mode = folder.stat().st_mode
        with os.scandir(folder) as entries:
            stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:
        return None
    return mode, sorted((name, status.st_ino, status.st_mtime_ns, status.st_size) for name, status in stats)
