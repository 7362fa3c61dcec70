"""How long nothing may move before it is said why, and before it is given up. A pure core."""

from __future__ import annotations

from msd.client.events import Waiting
from msd.wire.errors import NoAnswerError

#: Seconds without progress after which the reason is told.
QUIET = 1.0


class ProgressTimeout:
    """Watches for progress. ``timeout`` is in seconds, None for never giving up."""

    def __init__(self, timeout: float | None, now: float) -> None:
        self._timeout = timeout
        self._since = now
        self._told: str | None = None

    def moved(self, now: float) -> None:
        """There was progress."""
        self._since = now
        self._told = None

    def excuse(self, seconds: float) -> None:
        """This process itself was stopped for so long."""
        self._since += seconds

    def check(self, now: float, reason: str) -> Waiting | None:
        """What to tell while nothing moves for ``reason``: each reason once.

        Raises ``NoAnswerError`` when the time is up.
        """
        # Compared as ``next_deadline`` computes them: a difference could be rounded to just below.
        if self._timeout is not None and now >= self._since + self._timeout:
            raise NoAnswerError(f"gave up after {self._timeout:g} s without progress: {reason}")
        if now < self._since + QUIET or reason == self._told:
            return None
        self._told = reason
        return Waiting(reason, now - self._since)

    def next_deadline(self) -> float:
        """When ``check`` may next have something to say."""
        quiet = self._since + QUIET if self._told is None else float("inf")
        return min(quiet, self._since + self._timeout if self._timeout is not None else float("inf"))
