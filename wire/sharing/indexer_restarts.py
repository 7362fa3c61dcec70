"""Decides when the indexer is restarted, and which of its exits are worth a note: a pure core.

Does not start it: see ``wire/sharing/indexer_supervisor.py``.
"""

from __future__ import annotations

from msgspec import Struct

from msd.wire.support.backoff import backoff
from msd.wire.support.core import Core, TimePassed

#: Seconds before the indexer is restarted: the first delay, which doubles with every exit, and the maximum. A run of
#: ``MAX_BACKOFF_S`` seconds resets the delay.
MIN_BACKOFF_S, MAX_BACKOFF_S = 2.0, 60.0


class IndexerExited(Struct, frozen=True):
    """The indexer exited, or could not be started."""

    reason: str


class RestartIndexer(Struct, frozen=True):
    """Start the indexer again. The caller reports a failed start as ``IndexerExited``."""


class ShowNote(Struct, frozen=True):
    """Show this note. An exit for the same reason as the previous exit produces no note."""

    text: str


class IndexerRestarts(Core[IndexerExited | TimePassed, RestartIndexer | ShowNote]):
    """The exits of an indexer that was started at ``now``."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self._started_at = now
        self._exits = 0
        self._last_reason = ""
        #: None if, and only if, the indexer is running.
        self._restart_at: float | None = None

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        return self._restart_at

    def _decide(self, event: IndexerExited | TimePassed, now: float) -> list[RestartIndexer | ShowNote]:
        match event:
            case IndexerExited(reason):
                if now - self._started_at >= MAX_BACKOFF_S:
                    self._exits, self._last_reason = 0, ""
                self._exits += 1
                delay = backoff(self._exits, MIN_BACKOFF_S, MAX_BACKOFF_S)
                self._restart_at = now + delay
                is_new_reason, self._last_reason = reason != self._last_reason, reason
                return [ShowNote(f"indexer exited ({reason}): restarting in {delay:g} s")] if is_new_reason else []
            case TimePassed():
                if self._restart_at is None or now < self._restart_at:
                    return []
                self._started_at, self._restart_at = now, None
                return [RestartIndexer()]

    def _assert_invariants(self) -> None:
        assert self._restart_at is None or self._exits, self._restart_at
