"""Starts what passes on the file of a download, and what finds others that do.

``client/peers/peers.py`` runs it. Decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from msd.client.events import Event, Warned
from msd.client.network.session import Session, Task
from msd.client.network_events import NetworkEvent
from msd.client.operations.transfer import Transfer
from msd.client.peers.passing_process import PassingProcess
from msd.client.peers.peers import Passing, Peers
from msd.wire.config.settings import LOOPBACK
from msd.wire.errors import Interrupted, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.ports import HeldPort, PortInUseError, hold_port
from msd.wire.protocol.child_messages import PassedFile
from msd.wire.protocol.segments import Manifest
from msd.wire.security.keys import KeyPair
from msd.wire.support.core import Stalled
from msd.wire.support.presentable_names import presentable

#: The first port that is tried, and how many, if none is given.
FIRST_PORT, PORTS_TRIED = 24018, 1024


class PassingOptions(Struct, frozen=True):
    """How a download passes on what it has: where it listens (None: any free port), the limit of its rate in bytes a
    second (0: none), and for how many seconds it goes on after the download is complete (infinity: until it is ended).
    """

    listen: Endpoint | None = None
    max_rate: int = 0
    keep_serving: float = 0.0


def passing_options(listen: str | None, max_upload: float | None, keep_serving: float) -> PassingOptions:
    """Returns the options. ``listen`` is a port, or an address with a port. Raises ``UsageError``."""
    try:
        endpoint = None if listen is None else Endpoint.parse(f"*:{listen}" if listen.isdigit() else listen)
    except UsageError as error:
        raise UsageError(f"cannot pass on: {error}", arguments=("listen",)) from None
    return PassingOptions(endpoint, int(min(max_upload or 0, 1 << 60)), keep_serving)


def start_passing(
    session: Session,
    transfer: Transfer,
    manifest: Manifest,
    fd: int,
    options: PassingOptions,
    on_event: Callable[[Event], None],
) -> Peers:
    """Starts to pass on the part file of descriptor ``fd``. Raises ``MsdError``."""
    transfer.pass_on()
    own = KeyPair.generate() if session.pool.uses_keys else None
    listen, holder = _hold_port(options.listen, session)
    files = [passed_file(manifest, fd)]
    process = PassingProcess(manifest.id, listen, own.secret if own is not None else b"", options.max_rate, files)
    return Peers(
        session,
        manifest.id,
        Passing(process, holder, listen.port, own.public if own is not None else b""),
        useless_peers=transfer.useless_peers,
        on_removed=transfer.remove_peer,
        on_warning=lambda text: on_event(Warned(text)),
    )


def passed_file(manifest: Manifest, fd: int) -> PassedFile:
    """Returns how a file is passed on, under the name that it has at the workers: invitations are for names."""
    digests = b"".join(map(manifest.digest, range(manifest.segments)))
    return PassedFile(manifest.name, manifest.size, manifest.mtime_ns, manifest.mode, manifest.id, digests, fd)


def _hold_port(listen: Endpoint | None, session: Session) -> tuple[Endpoint, HeldPort]:
    """Returns where to listen, with the port reserved. Raises ``UsageError`` if that is not possible."""
    if listen is not None:
        try:
            return listen, hold_port(listen, "passing on")
        except UsageError as error:
            raise UsageError(str(error), arguments=("listen",)) from None
    server5 = session.pool.transport.server5
    host = LOOPBACK if server5.is_loopback else "::" if server5.is_ipv6 else "*"
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        with suppress(PortInUseError):
            return Endpoint(host, port), hold_port(Endpoint(host, port), "passing on")
    last = FIRST_PORT + PORTS_TRIED - 1
    raise UsageError(f"the ports {FIRST_PORT} to {last} are in use: give another one", arguments=("listen",))


def keep_serving(session: Session, name: str, seconds: float) -> None:
    """Passes on the complete file ``name`` for this number of seconds. Raises ``Interrupted``, which says so."""
    # Nothing is received any more: that is neither the servers' fault nor a reason to give up.
    session.pool.local_reason = f"{presentable(name)} is complete and is passed on"
    try:
        session.run(Wait(seconds))
    except Interrupted as error:
        message = f"interrupted while passing on: {presentable(name)} is complete"
        raise Interrupted(message, error.exit_code - 128) from None


class Wait(Task):
    """Lets the other tasks go on for this number of seconds."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def handle(self, event: NetworkEvent | Stalled) -> None:
        pass

    def pass_time(self) -> float:
        self.is_done = time.monotonic() >= self._until
        return self._until
