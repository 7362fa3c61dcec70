"""Detects stalls of a poll loop: the process was suspended, swapped out or busy.

A process that measures the silence of its peers must not count its own stalls. Pure: takes times in monotonic seconds
and reads no clock.
"""

from __future__ import annotations

#: A poll loop has stalled if it has not polled for more than this many seconds.
STALL_THRESHOLD_S = 0.25


class StallDetector:
    """Tracks a poll loop that alternates between work and waiting."""

    def __init__(self, now: float) -> None:
        self._last_poll = now

    def after_work(self, now: float) -> float:
        """Call this after work, before using ``now`` to decide whether peers are silent. Returns the stall's length in
        seconds, 0 if none.
        """
        busy = now - self._last_poll
        self._last_poll = now
        return busy if busy > STALL_THRESHOLD_S else 0.0

    def after_wait(self, began: float, until: float, now: float) -> float:
        """Call this after a wait that started at ``began`` and should have ended by ``until``. Returns the stall's
        length in seconds, 0 if none.
        """
        busy, waited = began - self._last_poll, now - began
        self._last_poll = now
        # If the wait overran, the process may have been suspended during any part of it: count all of it.
        return (busy if busy > STALL_THRESHOLD_S else 0.0) + (waited if now - until > STALL_THRESHOLD_S else 0.0)
