"""Limits how many units are requested a second, so that a download stays below ``--max-rate``. Pure.

Pacing the requests, and not the reading of replies, leaves no data in sockets: a worker is never slow because of the
limit, and what has been requested arrives at full speed.
"""

from __future__ import annotations

#: Seconds of the rate that may be requested at once, in addition to one unit: makes up for late wake-ups.
BURST_S = 0.1


class RateLimit:
    """A token bucket. ``rate`` is in units per second; each request takes a token."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._capacity = 1 + rate * BURST_S
        #: The tokens at the time ``_at``; it falls below 0 only by rounding.
        self._tokens = 1.0
        self._at = 0.0

    @property
    def next_at(self) -> float:
        """The time from which a unit may be requested."""
        return self._at + max(0.0, 1 - self._tokens) / self.rate

    def count_request(self, now: float) -> None:
        """Takes a token for a request sent at ``now``, which must not be before ``next_at``."""
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self.rate) - 1
        self._at = now

    def refund(self, requests: int) -> None:
        """Returns the tokens of requests that will not be answered with data."""
        self._tokens = min(self._capacity, self._tokens + requests)
