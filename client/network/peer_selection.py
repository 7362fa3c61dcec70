"""Decides to which receivers of the same plan a download connects.

A *peer* is a receiver that passes on what it has, and that server 5 has named. At most ``MAX_PEERS`` are connected.
Peers that do not answer, or have had nothing useful for some time, are exchanged for others. Which units they are asked
for is decided by ``client/scheduling/scheduler.py``. Pure: no sockets, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import cycle

from msgspec import Struct

from msd.client.network_events import FIRST_PEER, Ban, ConnectionClosed, ConnectionOpened
from msd.wire.protocol.messages import MAX_HOLDERS, Holder
from msd.wire.support.core import Core, TimePassed

#: The number of the last peer: small enough for the unit table.
LAST_PEER = 60_000
MAX_PEERS = 16
#: Seconds after which a peer that has not answered is given up, and for which it is then left alone. The latter is also
#: the time for a peer that was exchanged.
DIAL_TIMEOUT_S, REST_S = 1.0, 30.0
#: Seconds between two exchanges of useless peers, and how many are exchanged at once.
REVIEW_S, MAX_EXCHANGED = 1.0, 8
#: Seconds after which an announcement without an answer is sent again.
ANSWER_TIMEOUT_S = 3.0
#: The maximum number of peers that are remembered because they are left alone, or are banned.
MAX_REMEMBERED = 1024


class HoldersReceived(Struct, frozen=True):
    """Server 5 has answered an announcement, and asks for the next one after ``seconds``."""

    holders: tuple[Holder, ...]
    seconds: float


class PeersUseless(Struct, frozen=True):
    """The scheduler has had no use for these peers for some time."""

    peers: tuple[int, ...]


class SendAnnounce(Struct, frozen=True):
    """Announce the download to server 5. ``silent`` are peers that did not answer since the last announcement."""

    silent: tuple[Holder, ...]


class OpenPeer(Struct, frozen=True):
    """Connect to a peer. ``ConnectionOpened`` or ``ConnectionClosed`` may follow."""

    peer: int
    holder: Holder


class ClosePeer(Struct, frozen=True):
    """Close the connection to the peer, or give up the attempt. Nothing follows."""

    peer: int


Event = HoldersReceived | PeersUseless | ConnectionOpened | ConnectionClosed | Ban | TimePassed
Action = SendAnnounce | OpenPeer | ClosePeer


class _Peer(Struct):
    holder: Holder
    #: When the attempt to connect is given up; None once the connection is open.
    deadline: float | None


class PeerSelection(Core[Event, Action]):
    """The peers of a download. The first ``TimePassed`` begins."""

    def __init__(self) -> None:
        super().__init__()
        self._peers: dict[int, _Peer] = {}
        #: The holders of the last answer to which no connection was opened yet.
        self._spare: list[Holder] = []
        #: The peers that are left alone, each until a time, possibly infinity.
        self._resting: OrderedDict[Holder, float] = OrderedDict()
        self._silent: list[Holder] = []
        self._numbers = cycle(range(FIRST_PEER, LAST_PEER + 1))
        self._announce_at = self._reviewed_at = 0.0

    @property
    def peers(self) -> list[int]:
        """The numbers of the peers that are connected, or that an attempt is made to connect to."""
        return [*self._peers]

    def holder_of(self, peer: int) -> Holder | None:
        """Returns which receiver the peer is, None if it is none any more."""
        known = self._peers.get(peer)
        return None if known is None else known.holder

    def next_deadline(self, now: float) -> float | None:
        deadlines = [peer.deadline for peer in self._peers.values() if peer.deadline is not None]
        reviews = [max(self._reviewed_at + REVIEW_S, now)] if self._spare else []
        return min([*deadlines, *reviews, self._announce_at])

    def _decide(self, event: Event, now: float) -> list[Action]:
        actions: list[Action] = []
        match event:
            case HoldersReceived(holders, seconds):
                connected = {peer.holder for peer in self._peers.values()}
                named = dict.fromkeys(holders)
                self._spare = [h for h in named if h not in connected and self._resting.get(h, 0.0) <= now]
                self._announce_at = now + seconds
            case PeersUseless(peers):
                self._reviewed_at = now
                # Better a useless peer than none: it may be useful again.
                for number in peers[: min(MAX_EXCHANGED, len(self._spare))]:
                    if number in self._peers:
                        actions.append(self._close(number, now + REST_S))
            case ConnectionOpened(number) if number in self._peers:
                self._peers[number].deadline = None
            case ConnectionClosed(number) if number in self._peers:
                peer = self._peers.pop(number)
                if peer.deadline is not None:
                    self._silent.append(peer.holder)
                self._rest(peer.holder, now + REST_S)
            case Ban(number) if number in self._peers:
                actions.append(self._close(number, float("inf")))
        for number in [n for n, peer in self._peers.items() if peer.deadline is not None and peer.deadline <= now]:
            self._silent.append(self._peers[number].holder)
            actions.append(self._close(number, now + REST_S))
        while self._spare and len(self._peers) < MAX_PEERS:
            actions.append(self._open(self._spare.pop(), now))
        if now >= self._announce_at:
            actions.append(SendAnnounce(tuple(self._silent[-MAX_HOLDERS:])))
            self._silent.clear()
            self._announce_at = now + ANSWER_TIMEOUT_S
        return actions

    def _assert_invariants(self) -> None:
        holders = [peer.holder for peer in self._peers.values()]
        assert len(holders) == len({*holders}) <= MAX_PEERS
        assert all(FIRST_PEER <= number <= LAST_PEER for number in self._peers)
        assert len(self._resting) <= MAX_REMEMBERED
        assert not (self._spare and len(holders) < MAX_PEERS)

    def _open(self, holder: Holder, now: float) -> OpenPeer:
        number = next(number for number in self._numbers if number not in self._peers)
        self._peers[number] = _Peer(holder, now + DIAL_TIMEOUT_S)
        return OpenPeer(number, holder)

    def _close(self, number: int, until: float) -> ClosePeer:
        self._rest(self._peers.pop(number).holder, until)
        return ClosePeer(number)

    def _rest(self, holder: Holder, until: float) -> None:
        self._resting[holder] = until
        self._resting.move_to_end(holder)
        if len(self._resting) > MAX_REMEMBERED:
            self._resting.popitem(last=False)
