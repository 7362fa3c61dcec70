"""Decides when operators' toggles are answered: a pure core.

A toggle is answered once its worker is in the wanted state, or after a timeout. Does not change the worker's state:
see ``broker/supervision/supervisor.py``. Takes ``now`` (seconds, monotonic); uses no socket.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

from msd.broker.supervision.supervisor import Supervisor
from msd.wire.protocol.messages import Toggled

#: Seconds after which a toggle is answered although its worker has not reached the wanted state.
TOGGLE_TIMEOUT_S = 3.0
#: Maximum number of pending toggles; further toggles are answered immediately, with the worker's current state.
MAX_PENDING = 1024


PeerT = TypeVar("PeerT")


class _Toggle(Generic[PeerT], Struct, frozen=True):
    peer: PeerT
    rid: int
    number: int
    deadline: float


class PendingToggles(Generic[PeerT]):
    """The toggles that have not been answered yet."""

    def __init__(self) -> None:
        self._pending: list[_Toggle[PeerT]] = []

    def add(self, peer: PeerT, rid: int, number: int, now: float) -> None:
        """Adds a toggle of worker ``number`` that ``peer`` (opaque here) requested with the id ``rid``."""
        deadline = now if len(self._pending) >= MAX_PENDING else now + TOGGLE_TIMEOUT_S
        self._pending.append(_Toggle(peer, rid, number, deadline))

    def pop_replies(self, supervisor: Supervisor, now: float) -> list[tuple[PeerT, Toggled]]:
        """Removes the toggles that are due, and returns their peers and replies. During a shutdown all are due."""
        replies, pending = [], []
        for toggle in self._pending:
            worker = supervisor.workers[toggle.number]
            reached = worker.state.value == worker.wanted.value
            if reached or supervisor.quitting or now >= toggle.deadline:
                reply = Toggled(rid=toggle.rid, number=toggle.number, state=worker.state, reached=reached)
                replies.append((toggle.peer, reply))
            else:
                pending.append(toggle)
        self._pending = pending
        return replies

    def next_deadline(self) -> float | None:
        """Time at which the next toggle times out; None if none is pending."""
        return min((toggle.deadline for toggle in self._pending), default=None)
