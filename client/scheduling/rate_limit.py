"""Limits how many bytes are requested a second, so that a download stays below ``--max-rate``. Pure.

Pacing the requests, and not the reading of replies, leaves no data in sockets: a worker is never slow because of the
limit, and what has been requested arrives at full speed.
"""

from __future__ import annotations

#: Seconds of the rate that may be requested at once, in addition to one request: makes up for late wake-ups.
BURST_S = 0.1


class RateLimit:
    """A bucket of tokens, one for each byte. ``rate`` is in bytes per second.

    A request may be sent while the number of tokens is not negative, and takes a token for each of its bytes.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._capacity = rate * BURST_S
        #: The tokens at the time ``_at``.
        self._tokens = 0.0
        self._at = 0.0

    @property
    def next_at(self) -> float:
        """The time from which the next request may be sent."""
        return self._at + max(0.0, -self._tokens) / self.rate

    def count_request(self, length: int, now: float) -> None:
        """Takes tokens for a request of ``length`` bytes sent at ``now``, which must not be before ``next_at``."""
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self.rate) - length
        self._at = now

    def refund(self, length: int) -> None:
        """Returns the tokens of requests for ``length`` bytes that will not be answered with data."""
        self._tokens = min(self._capacity, self._tokens + length)
