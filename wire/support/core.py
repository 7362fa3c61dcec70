"""The interface of all pure cores: they take events and the time, and return actions.

Uses no sockets, clocks or files. Subclasses make the decisions.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from msgspec import Struct

EventT = TypeVar("EventT")
ActionT = TypeVar("ActionT")

#: Number of decisions that a core remembers, to list them if an invariant is violated.
MAX_DECISIONS = 50


class TimePassed(Struct, frozen=True):
    """Nothing has happened except that time has passed: a core does what is due."""


class Stalled(Struct, frozen=True):
    """The process did not run for this many seconds. A core does not count this time as silence of its peers."""

    seconds: float


class Core(Generic[EventT, ActionT]):
    """Base of the pure cores. A subclass implements ``_decide``, ``_assert_invariants`` and, if it has deadlines,
    ``next_deadline``. All times are in seconds of the monotonic clock.

    ``max_decisions`` is the number of decisions that a core remembers; a core with large events remembers fewer.
    """

    def __init__(self, max_decisions: int = MAX_DECISIONS) -> None:
        self._decisions: deque[tuple[float, EventT, list[ActionT]]] = deque(maxlen=max_decisions)

    def handle(self, event: EventT, now: float) -> list[ActionT]:
        """Updates the state according to ``event`` and returns the actions to take."""
        actions = self._decide(event, now)
        self._decisions.append((now, event, actions))
        return actions

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        """Returns the time at which ``TimePassed`` will have an effect, None if only other events can have one."""
        return None

    def check_invariants(self) -> None:
        """Raises ``AssertionError`` if the state violates an invariant; the message lists the last decisions."""
        try:
            self._assert_invariants()
        except AssertionError as error:
            history = "\n".join(f"  {now:.6f} {event} -> {actions}" for now, event, actions in self._decisions)
            raise AssertionError(f"{error}\nlast decisions, oldest first:\n{history}") from error

    def _decide(self, event: EventT, now: float) -> list[ActionT]:
        raise NotImplementedError

    def _assert_invariants(self) -> None:
        pass
