"""How long the broker's own process did not look at anything: stopped, swapped out, or just busy.

Whoever measures the silence of others must not count such times. A pure core: takes times (seconds,
monotonic), knows no clock.
"""

from __future__ import annotations

#: Not looking for longer than this (seconds) is a stall.
STALL = 0.25


class StallDetector:
    """Follows a poll loop."""

    def __init__(self, now: float) -> None:
        self._looked_at = now

    def after_work(self, now: float) -> float:
        """The loop has been at work and it is ``now``, the time by which it will judge others. Returns for
        how many seconds before that it did not look, 0 if all is well.
        """
        busy = now - self._looked_at
        self._looked_at = now
        return busy if busy > STALL else 0.0

    def after_wait(self, began: float, until: float, now: float) -> float:
        """The loop waited from ``began`` on, ``until`` then at the latest, and it is ``now``. Returns for
        how many seconds before ``now`` it did not look, 0 if all is well.
        """
        busy, waited = began - self._looked_at, now - began
        self._looked_at = now
        # Of a wait that lasted too long nobody knows which part this process slept through.
        return (busy if busy > STALL else 0.0) + (waited if now - until > STALL else 0.0)
