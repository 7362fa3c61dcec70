"""Decides when operators' toggles are answered: a pure core.

A toggle is answered once its worker is in the wanted state, or after a timeout. Does not change the worker's state:
see ``broker/supervision/supervisor.py``. Takes ``now`` (seconds, monotonic); uses no socket.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

from msd.broker.supervision.supervisor import Supervisor
from msd.wire.protocol.messages import Toggled
from msd.wire.protocol.states import WorkerState
from msd.wire.support.core import Core, TimePassed

#: Seconds after which a toggle is answered even if its worker has not reached the wanted state.
TOGGLE_TIMEOUT_S = 3.0
#: Maximum number of pending toggles; further toggles are answered immediately, with the worker's current state.
MAX_PENDING = 1024

PeerT = TypeVar("PeerT")


class ToggleRequested(Generic[PeerT], Struct, frozen=True):
    """``peer`` (opaque here) requested a toggle of worker ``number``; ``rid`` is the id of the request."""

    peer: PeerT
    rid: int
    number: int


class AnswerToggle(Generic[PeerT], Struct, frozen=True):
    """Send the reply to the peer that requested the toggle."""

    peer: PeerT
    reply: Toggled


class PendingToggles(Core[ToggleRequested[PeerT] | TimePassed, AnswerToggle[PeerT]], Generic[PeerT]):
    """The toggles that have not been answered yet. ``TimePassed`` answers the toggles that have taken effect according
    to ``supervisor``, have timed out, or concern a lost worker; during a shutdown it answers all of them. Does not
    modify ``supervisor``.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__()
        self._supervisor = supervisor
        #: Each toggle with its deadline.
        self._pending: list[tuple[ToggleRequested[PeerT], float]] = []

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        return min((deadline for _, deadline in self._pending), default=None)

    def _decide(self, event: ToggleRequested[PeerT] | TimePassed, now: float) -> list[AnswerToggle[PeerT]]:
        if not isinstance(event, TimePassed):
            self._pending.append((event, now if len(self._pending) >= MAX_PENDING else now + TOGGLE_TIMEOUT_S))
            return []
        answers, pending = [], []
        for toggle, deadline in self._pending:
            worker = self._supervisor.workers.get(toggle.number)
            # A worker that is not listed any more was lost.
            state = worker.state if worker is not None else WorkerState.LOST
            reached = worker is not None and state.value == worker.wanted.value
            if reached or state is WorkerState.LOST or self._supervisor.quitting or now >= deadline:
                reply = Toggled(rid=toggle.rid, number=toggle.number, state=state, reached=reached)
                answers.append(AnswerToggle(toggle.peer, reply))
            else:
                pending.append((toggle, deadline))
        self._pending = pending
        return answers
