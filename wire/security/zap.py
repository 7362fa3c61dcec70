"""The ZAP handler: decides which connections to a process's server sockets are admitted, and in which role.

ZeroMQ asks the handler over ZAP (RFC 27) during each handshake. The handler is needed even if no keys are used and it
admits everyone: without a ZAP handler, libzmq accepts unauthenticated ZMTP 1 peers and treats random bytes as messages.
A connection is checked only once, during its handshake, so the caller must close the socket to revoke a key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import zmq

from msd.wire.errors import MsdError
from msd.wire.security.keys import KeyFolder, KeyPair, Role

#: Maximum number of requests that one call to ``handle`` answers, so that a flood cannot block the poll loop.
MAX_REQUESTS_PER_CALL = 64

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_DOMAIN = b"msd"
#: Roles that may connect.
_CONNECTING_ROLES = (Role.CLIENT, Role.OPERATOR)


def role_of(frame: zmq.Frame) -> Role:
    """Returns the role in which the connection that delivered ``frame`` was admitted. If the frame carries no role,
    returns ``Role.WORKER``, which may not send any request.
    """
    try:
        return Role(str(frame.get("User-Id")))
    except (zmq.ZMQError, ValueError):
        return Role.WORKER


def admitted_role(mechanism: bytes, key: bytes, own: KeyPair | None, roles: Mapping[bytes, Role]) -> Role | None:
    """Returns the role in which a connection is admitted, None if it is rejected. ``own`` is the servers' key pair,
    None if they use no keys. A peer that has the servers' own pair is the operator of this machine.
    """
    if own is None:
        return Role.OPERATOR if mechanism == b"NULL" else None
    if mechanism != b"CURVE":
        return None
    role = Role.OPERATOR if key == own.public else roles.get(key)
    return role if role in _CONNECTING_ROLES else None


class ZapHandler:
    """Admits connections to the sockets of ``context`` that were passed to ``protect``. ``own`` and ``folder`` are None
    if no keys are used. Call ``close()`` after closing those sockets.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], own: KeyPair | None, folder: Path | None) -> None:
        self.rejected_connections = 0
        self._own = own
        self._keys = KeyFolder(folder) if folder is not None else None
        self._roles: dict[bytes, Role] = {}
        #: The fingerprint of the folder of admitted keys when it was last read.
        self._fingerprint: object = None
        self.reload()
        #: Call ``handle`` when this socket is readable.
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(_ZAP_ENDPOINT)

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """Makes ZeroMQ ask this handler about each connection to ``socket``. Call this before the socket is bound."""
        socket.zap_domain = _DOMAIN
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
                _, request, _, _, _, mechanism, *credentials = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            role = admitted_role(mechanism, credentials[0] if credentials else b"", self._own, self._roles)
            self.rejected_connections += role is None
            # Status 400 rather than 300, which ZeroMQ does not report to the connecting side.
            status = (b"200", b"OK") if role else (b"400", b"not admitted")
            self.socket.send_multipart([b"1.0", request, *status, (role or "").encode(), b""])

    def reload(self) -> bool:
        """Reloads the admitted keys if they changed. Returns True if a key was revoked or lost rights."""
        if self._keys is None:
            return False
        fingerprint = _fingerprint(self._keys.admitted_path)
        if fingerprint == self._fingerprint:
            return False
        self._fingerprint = fingerprint
        try:
            roles = {admitted.key: admitted.role for admitted in self._keys.admitted_keys()}
        except MsdError:
            roles = {}  # Other users may have written these keys: admit none of them.
        before, self._roles = self._roles, roles
        return any(_rank(roles.get(key)) < _rank(role) for key, role in before.items())

    def close(self) -> None:
        """Closes the socket. From then on ZeroMQ rejects all new connections."""
        self.socket.close(0)


def _rank(role: Role | None) -> int:
    """Returns a number that is higher for a role with more rights."""
    return (None, Role.WORKER, Role.CLIENT, Role.OPERATOR).index(role)


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
