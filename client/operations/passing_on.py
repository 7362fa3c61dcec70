"""Passes on what a download has: reserves the port, and starts what serves the files and what finds others that do.

``client/peers/peers.py`` runs it, for one plan at a time. Decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from msgspec import Struct

from msd.client.events import OnEvent, Warned
from msd.client.network.session import Session, Task
from msd.client.network_events import NetworkEvent
from msd.client.operations.transfer import Transfer
from msd.client.peers.passing_process import PassingProcess
from msd.client.peers.peers import Passing, Peers
from msd.wire.config.settings import LOOPBACK
from msd.wire.errors import Interrupted, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.ports import HeldPort, PortInUseError, hold_port
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import Manifest
from msd.wire.security.keys import KeyPair
from msd.wire.support.core import Stalled

#: The first port that is tried, and how many, if none is given.
FIRST_PORT, PORTS_TRIED = 24018, 1024
#: What a port is used for, in errors.
PURPOSE = "passing on"


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


class PassingOn:
    """What one download passes on. Reserves the port that the options name. Call ``stop()`` before the connections of
    the download are closed, and ``close()``. Raises ``UsageError``.
    """

    def __init__(self, options: PassingOptions, on_event: OnEvent) -> None:
        self._options = options
        self._on_event = on_event
        self._peers: Peers | None = None
        #: Bytes that others have got, once this is stopped.
        self.sent_bytes = 0
        self._listen: Endpoint | None = options.listen
        self._held_port: HeldPort | None = None
        if options.listen is not None:
            try:
                self._held_port = hold_port(options.listen, PURPOSE)
            except UsageError as error:
                raise UsageError(str(error), arguments=("listen",)) from None

    def close(self) -> None:
        """Releases the port."""
        if self._held_port is not None:
            self._held_port.close()

    def start(
        self,
        session: Session,
        transfer: Transfer,
        plan: bytes,
        units: int,
        files: Iterable[Entry],
        *,
        folder: int | None = None,
    ) -> None:
        """Starts to pass on ``files``, which are those of ``plan`` without empty ones: those that are received by
        segments and, with a descriptor of the ``folder`` in which they have their names, all. The plan has so many
        ``units``. Raises ``MsdError``.
        """
        self.stop()
        transfer.pass_on(plan, units)
        own = KeyPair.generate() if session.pool.uses_keys else None
        listen = self._reserve_port(session)
        secret = own.secret if own is not None else b""
        process = PassingProcess(plan, listen, secret, self._options.max_rate, files, folder=folder)
        self._peers = Peers(
            session,
            plan,
            Passing(process, listen.port, own.public if own is not None else b""),
            useless_peers=transfer.useless_peers,
            on_removed=transfer.remove_peer,
            on_warning=lambda text: self._on_event(Warned(text)),
        )

    def stop(self) -> None:
        """Stops passing on what the last ``start()`` was called for."""
        if self._peers is not None and not self._peers.is_done:
            self._peers.close()
            self.sent_bytes += self._peers.sent_bytes

    def receive(self, manifest: Manifest, first_unit: int, descriptors: Sequence[int]) -> None:
        """A file is received by segments, the units from ``first_unit`` on. The files of these descriptors may have any
        of them.
        """
        if self._peers is not None:
            self._peers.receive(manifest.name, first_unit, manifest.digests, descriptors)

    def add_verified(self, unit: int) -> None:
        """A unit of the plan is verified, and written."""
        if self._peers is not None:
            self._peers.add_verified(unit)

    def keep_serving(self, session: Session, complete: str) -> None:
        """Goes on for the time that the options say. The download is ``complete``, as this text for the user says, so a
        signal ends only this.
        """
        if self._options.keep_serving:
            # Nothing is received any more: that is neither the servers' fault nor a reason to give up.
            session.pool.local_reason = f"{complete}, and passed on to others"
            with suppress(Interrupted):
                session.run(Wait(self._options.keep_serving))

    def _reserve_port(self, session: Session) -> Endpoint:
        """Returns where to listen, with the port reserved. Raises ``UsageError`` if that is not possible."""
        if self._listen is not None:
            return self._listen
        server5 = session.pool.transport.server5
        host = LOOPBACK if server5.is_loopback else "::" if server5.is_ipv6 else "*"
        for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
            with suppress(PortInUseError):
                self._held_port = hold_port(Endpoint(host, port), PURPOSE)
                self._listen = Endpoint(host, port)
                return self._listen
        last = FIRST_PORT + PORTS_TRIED - 1
        raise UsageError(f"the ports {FIRST_PORT} to {last} are in use: give another one", arguments=("listen",))


class Wait(Task):
    """Lets the other tasks go on for this number of seconds."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def handle(self, event: NetworkEvent | Stalled) -> None:
        pass

    def pass_time(self) -> float:
        self.is_done = time.monotonic() >= self._until
        return self._until
