"""The receivers of the same plan: announces this download to server 5, and connects to those that it names.

A task that runs beside the transfer, which gets units from the peers as from workers. Carries out what
``client/network/peer_selection.py`` decides, and tells the process that passes on which units are verified.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from msd.client.network import peer_selection
from msd.client.network.peer_selection import HoldersReceived, PeerSelection, PeersUseless
from msd.client.network.session import Session, Task
from msd.client.network_events import (
    AnnounceAnswered,
    Ban,
    BanReason,
    ConnectionClosed,
    ConnectionOpened,
    KeysAdmitted,
    NetworkEvent,
    is_peer,
)
from msd.client.peers.passing_process import PassingProcess
from msd.wire.errors import MsdError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import MAX_HOLDERS, Announce, Holder, new_rid
from msd.wire.protocol.states import ReportedState
from msd.wire.support.core import Stalled, TimePassed

#: Seconds between two looks for peers that have nothing useful.
REVIEW_INTERVAL_S = 1.0
#: Seconds until more is written to the process if it has not taken everything.
FLUSH_INTERVAL_S = 0.01
#: Stands for the digest of the admitted keys before they are known.
UNKNOWN_KEYS = bytes(32)


class Passing(Struct, frozen=True):
    """What this download passes on: the process, its port, and its public key, empty without keys."""

    process: PassingProcess
    port: int
    key: bytes


class Peers(Task):
    """The peers of a download of ``plan``. ``passing`` is what it passes on itself.

    ``useless_peers`` returns the peers that the scheduler has no use for at a time, ``on_removed`` is called with each
    peer whose connection was closed by this task. ``on_warning`` is called once if the process that passes on has
    ended. Call ``close()`` when done.
    """

    takes_peers = True

    def __init__(
        self,
        session: Session,
        plan: bytes,
        passing: Passing | None,
        *,
        useless_peers: Callable[[float], list[int]],
        on_removed: Callable[[int], None],
        on_warning: Callable[[str], None],
    ) -> None:
        self._session = session
        self._pool = session.pool
        self._plan = plan
        self._passing = passing
        self._useless_peers = useless_peers
        self._on_removed = on_removed
        self._on_warning = on_warning
        self._selection = PeerSelection()
        self._corrupt: list[Holder] = []
        self._bans: list[Ban] = []
        #: The units that are verified and not announced to the process yet, and the number of all.
        self._verified: list[int] = []
        self._units = 0
        #: The digest of the admitted keys that the process was told.
        self._admitted = UNKNOWN_KEYS if passing is not None and passing.key else b""
        #: True once the process listens, and admits those whom the broker admits.
        self._is_holder = False
        self._next_review = 0.0
        #: Bytes that peers have got from this download, once it passes nothing on any more.
        self.sent_bytes = 0
        if passing is not None:
            self._pool.transport.watch(passing.process.fileno())
        self._pool.peers = self
        session.start(self)

    def close(self) -> None:
        """Stops passing on, and closes the connections to all peers."""
        self.is_done = True
        self._pool.peers = None
        self._end_passing()
        for peer in self._selection.peers:
            self._pool.transport.close_connection(peer)
            self._forget(peer)

    def receive(self, name: str, first_unit: int, digests: bytes, descriptors: Sequence[int]) -> None:
        """A file is received by segments: see ``PassingProcess.receive``."""
        if self._passing is not None:
            self._passing.process.receive(name, first_unit, digests, descriptors)

    def add_verified(self, unit: int) -> None:
        """A unit is verified, and written."""
        self._verified.append(unit)
        self._units += 1

    def on_ban(self, ban: Ban) -> None:
        """A peer is not to be used any more. Takes effect in ``pass_time``: the scheduler still handles an event."""
        holder = self._selection.holder_of(ban.worker)
        if holder is not None and ban.reason is BanReason.CORRUPT:
            self._corrupt.append(holder)
        self._bans.append(ban)

    def address_of(self, peer: int) -> str:
        """Returns the address of a peer as text; empty if it is none any more."""
        holder = self._selection.holder_of(peer)
        return "" if holder is None else str(self._endpoint_of(holder))

    def handle(self, event: NetworkEvent | Stalled) -> None:
        match event:
            case AnnounceAnswered(answer):
                self._handle(HoldersReceived(tuple(answer.holders), answer.seconds))
            case KeysAdmitted(admitted) if self._passing is not None:
                self._admitted = admitted.digest
                self._passing.process.admit(admitted)
            case ConnectionOpened() | ConnectionClosed() if is_peer(event.worker):
                self._handle(event)
                if isinstance(event, ConnectionClosed):
                    self._forget(event.worker)

    def pass_time(self) -> float:
        now = time.monotonic()
        has_told_all = self._tell_process()
        while self._bans:
            self._handle(self._bans.pop())
        if now >= self._next_review:
            self._next_review = now + REVIEW_INTERVAL_S
            if useless := self._useless_peers(now):
                self._handle(PeersUseless(tuple(useless)))
        self._handle(TimePassed())
        deadline = self._selection.next_deadline(now)
        flush_at = math.inf if has_told_all else now + FLUSH_INTERVAL_S
        return min(self._next_review, flush_at, math.inf if deadline is None else deadline)

    def _tell_process(self) -> bool:
        """Tells the process what is verified. Returns False if it has not taken everything yet."""
        if self._passing is None:
            return True
        process = self._passing.process
        try:
            process.read()
        except MsdError as error:
            self._on_warning(f"{error}: this download passes nothing on any more")
            self._end_passing()
            return True
        if self._verified:
            process.hold(self._verified)
            self._verified = []
        has_told_all = process.flush()
        if not self._is_holder and self._is_serving(process):
            # Others should learn of this receiver soon.
            self._is_holder = True
            self._announce(())
        return has_told_all

    def _end_passing(self) -> None:
        if self._passing is not None:
            self._pool.transport.unwatch(self._passing.process.fileno())
            process = self._passing.process
            process.close()
            if process.heartbeat is not None:
                self.sent_bytes = process.heartbeat.load.bytes_sent
            self._passing = None

    def _forget(self, peer: int) -> None:
        """The connection to the peer is closed, and its number may be given to another one."""
        self._pool.places.pop(peer, None)
        self._session.forget(peer)
        self._on_removed(peer)

    def _handle(self, event: peer_selection.Event) -> None:
        for action in self._selection.handle(event, time.monotonic()):
            match action:
                case peer_selection.SendAnnounce(silent):
                    self._announce(silent)
                case peer_selection.OpenPeer(peer, holder):
                    try:
                        endpoint = self._endpoint_of(holder)
                    except UsageError:
                        continue
                    key = f", key {holder.key.hex()[:16]}" if holder.key else ""
                    self._pool.places[peer] = f"{endpoint}{key}"
                    self._pool.transport.open_connection(peer, endpoint, holder.key)
                case peer_selection.ClosePeer(peer):
                    self._pool.transport.close_connection(peer)
                    self._forget(peer)

    def _endpoint_of(self, holder: Holder) -> Endpoint:
        """Returns where a holder is. The host of server 5 stands for a wildcard. Raises ``UsageError``."""
        return Endpoint.parse(holder.endpoint).replace_wildcard(self._pool.transport.server5.host)

    def _announce(self, silent: tuple[Holder, ...]) -> None:
        control = self._pool.control
        if control is None:
            return  # Server 5 is away. The next announcement may find it.
        corrupt, self._corrupt = self._corrupt[:MAX_HOLDERS], self._corrupt[MAX_HOLDERS:]
        self._pool.transport.announce(
            control,
            Announce(
                rid=new_rid(),
                plan=self._plan,
                units=self._units,
                endpoint=f"tcp://*:{self._passing.port}" if self._passing is not None and self._is_holder else "",
                key=self._passing.key if self._passing is not None and self._is_holder else b"",
                silent=[*silent],
                corrupt=corrupt,
                admitted=self._admitted if self._passing is not None else b"",
            ),
        )

    def _is_serving(self, process: PassingProcess) -> bool:
        """True if the process listens, and admits those whom the broker admits."""
        heartbeat = process.heartbeat
        if heartbeat is None or heartbeat.state is not ReportedState.AWAKE:
            return False
        return self._admitted != UNKNOWN_KEYS and heartbeat.admitted == self._admitted
