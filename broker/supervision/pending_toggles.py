"""Operators' toggles that wait for their workers: a pure core.

A toggle is answered when its worker is what is wanted of it, or when that takes too long. What a
toggle does to the worker is decided in ``broker/supervision/supervisor.py``. Takes ``now`` (seconds,
monotonic); knows no socket.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

from msd.broker.supervision.supervisor import Supervisor
from msd.wire.protocol.messages import Toggled

#: Seconds a toggle waits for the worker to get there before it is answered all the same.
PATIENCE = 3.0
#: PendingToggles that may wait at once; any more are answered as things are.
MOST = 1024


K = TypeVar("K")


class _Toggle(Generic[K], Struct, frozen=True):
    peer: K
    rid: int
    number: int
    answer_by: float


class PendingToggles(Generic[K]):
    """The toggles that are not answered yet."""

    def __init__(self) -> None:
        self._waiting: list[_Toggle[K]] = []

    def add(self, peer: K, rid: int, number: int, now: float) -> None:
        """``peer`` (opaque here) toggled worker ``number`` and awaits the answer to ``rid``."""
        answer_by = now if len(self._waiting) >= MOST else now + PATIENCE
        self._waiting.append(_Toggle(peer, rid, number, answer_by))

    def answers(self, supervisor: Supervisor, now: float) -> list[tuple[K, Toggled]]:
        """The answers that are due, each with whom it is for. When everything ends, all are."""
        due, waiting = [], []
        for toggle in self._waiting:
            worker = supervisor.workers[toggle.number]
            reached = worker.state.value == worker.wanted.value
            if reached or supervisor.quitting or now >= toggle.answer_by:
                answer = Toggled(rid=toggle.rid, number=toggle.number, state=worker.state, reached=reached)
                due.append((toggle.peer, answer))
            else:
                waiting.append(toggle)
        self._waiting = waiting
        return due

    def next_deadline(self) -> float | None:
        """When an answer will be due by time alone."""
        return min((toggle.answer_by for toggle in self._waiting), default=None)
