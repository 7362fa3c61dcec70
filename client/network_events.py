"""What happens on a client's connections, and which workers are banned. Plain values.

The transport emits the events. The connection policy, the resolver, the scheduler and their loops handle them. The
scheduler returns ``Ban`` and ``Unban``, which the connection policy handles. Contains no decisions.
"""

from __future__ import annotations

import enum
from typing import Protocol

from msgspec import Struct

from msd.wire.net.contacts import Probed
from msd.wire.protocol.messages import Correlated, DataReply, Status, Welcome
from msd.wire.protocol.states import ConnectionRefusal


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


NetworkEvent = SnapshotReceived | StatusRefused | ConnectionOpened | ConnectionClosed | ReplyReceived | Probed
