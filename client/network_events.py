"""What happens on a client's connections, and which workers are banned. Plain values.

The transport emits the events. The connection policy, the resolver, the scheduler and their loops handle them. The
scheduler returns ``Ban`` and ``Unban``, which the connection policy handles. Contains no decisions.
"""

from __future__ import annotations

import enum
from typing import Protocol

from msgspec import Struct

from msd.wire.net.contacts import Probed
from msd.wire.protocol.messages import Admitted, Correlated, DataReply, Holders, Status, Welcome
from msd.wire.protocol.states import ConnectionRefusal

#: The number of the first peer: above those of all workers.
FIRST_PEER = 2000


class Payload(Protocol):
    """The frame that contains a reply's data: a received ``zmq.Frame``."""

    @property
    def buffer(self) -> memoryview:
        """A view of the data in the received frame; nothing is copied."""
        ...

    @property
    def bytes(self) -> bytes:
        """A copy of the data."""
        ...


class SnapshotReceived(Struct, frozen=True):
    """Server 5 published its state."""

    status: Status


class StatusRefused(Struct, frozen=True):
    """Server 5 refused the subscription, or its snapshots are of another ``version`` of the protocol."""

    refusal: ConnectionRefusal
    version: int | None = None


class ConnectionOpened(Struct, frozen=True):
    """The worker answered ``hello`` with ``welcome`` after ``round_trip`` seconds."""

    worker: int
    welcome: Welcome
    round_trip: float


class ConnectionClosed(Struct, frozen=True):
    """The connection was closed and its outstanding requests are lost, or an attempt to connect failed.

    ``refusal`` is the reason for a failed attempt, if it is known. ``version`` is the worker's version of the protocol,
    if that is the reason. ``is_renewed`` is True if another connection to the worker is being opened already.
    """

    worker: int
    refusal: ConnectionRefusal | None = None
    version: int | None = None
    is_renewed: bool = False


class ReplyReceived(Struct, frozen=True):
    """The worker replied to ``request``. ``payload`` is the second frame of the reply, if there is one."""

    worker: int
    request: Correlated
    reply: DataReply
    payload: Payload | None


class BanReason(enum.StrEnum):
    """Why a worker is banned from this download."""

    CORRUPT = "corrupt"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    BAD_REQUEST = "bad-request"
    OTHER = "other"


class Ban(Struct, frozen=True):
    """Close the worker's connection and open no other one until ``Unban``; its outstanding requests are dropped."""

    worker: int
    reason: BanReason


class Unban(Struct, frozen=True):
    """Lift the worker's ban: connections to the worker are allowed again."""

    worker: int


class AnnounceAnswered(Struct, frozen=True):
    """Server 5 has answered an announcement of this receiver."""

    answer: Holders


class KeysAdmitted(Struct, frozen=True):
    """Server 5 has sent the keys that may get units from this receiver."""

    admitted: Admitted


ConnectionEvent = ConnectionOpened | ConnectionClosed | ReplyReceived
NetworkEvent = SnapshotReceived | StatusRefused | ConnectionEvent | AnnounceAnswered | KeysAdmitted | Probed


def sender_name(number: int) -> str:
    """Returns what a worker or a peer is called in events: its number, or "peer 1"."""
    return f"peer {number - FIRST_PEER + 1}" if is_peer(number) else str(number)


def is_peer(number: int) -> bool:
    """True if this is the number of another receiver that passes on what it has, and not that of a worker."""
    return number >= FIRST_PEER
