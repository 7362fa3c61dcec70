"""The shape that all pure cores share: events and the time in, actions out.

Has no socket, clock or file, and makes no decisions itself.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from msgspec import Struct

EventT = TypeVar("EventT")
ActionT = TypeVar("ActionT")

#: Decisions that a core remembers for the message of a failed invariant.
MAX_DECISIONS = 50


class TimePassed(Struct, frozen=True):
    """Only time has passed: a core does what is due."""


class Stalled(Struct, frozen=True):
    """The process did not run for this many seconds. A core does not count them as silence of its peers."""

    seconds: float


class Core(Generic[EventT, ActionT]):
    """Base of the pure cores. A subclass implements ``_decide``, ``_assert_invariants`` and, if time alone matters to
    it, ``next_deadline``. All times are in seconds of the monotonic clock.

    A core with large events remembers fewer decisions: ``max_decisions``.
    """

    def __init__(self, max_decisions: int = MAX_DECISIONS) -> None:
        self._decisions: deque[tuple[float, EventT, list[ActionT]]] = deque(maxlen=max_decisions)

    def handle(self, event: EventT, now: float) -> list[ActionT]:
        """Changes the state by ``event`` and returns what to do."""
        actions = self._decide(event, now)
        self._decisions.append((now, event, actions))
        return actions

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        """Returns the time at which ``TimePassed`` will have an effect; None if only another event can have one."""
        return None

    def check_invariants(self) -> None:
        """Raises ``AssertionError``, with the last decisions, if the state contradicts itself."""
        try:
            self._assert_invariants()
        except AssertionError as error:
            history = "\n".join(f"  {now:.6f} {event} -> {actions}" for now, event, actions in self._decisions)
            raise AssertionError(f"{error}\nlast decisions, oldest first:\n{history}") from error

    def _decide(self, event: EventT, now: float) -> list[ActionT]:
        raise NotImplementedError

    def _assert_invariants(self) -> None:
        pass
