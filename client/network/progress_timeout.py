"""Decides when a client without progress reports the reason, and when it gives up. Pure."""

from __future__ import annotations

from msd.client.events import Waiting
from msd.wire.errors import NoAnswerError

#: Seconds without progress after which the reason is reported.
WAITING_NOTICE_S = 1.0


class ProgressTimeout:
    """Measures the time without progress. ``timeout`` is in seconds; with None it never gives up."""

    def __init__(self, timeout: float | None, now: float) -> None:
        self._timeout = timeout
        self._last_progress = now
        #: The reason that was last reported since the last progress.
        self._last_reason: str | None = None

    def reset(self, now: float) -> None:
        """Records progress."""
        self._last_progress = now
        self._last_reason = None

    def extend(self, seconds: float) -> None:
        """Extends the timeout by ``seconds`` during which this process did not run."""
        self._last_progress += seconds

    def check(self, now: float, reason: str) -> Waiting | None:
        """Returns the event to emit if there is no progress because of ``reason``; each reason is reported once.

        Raises ``NoAnswerError`` when the timeout has expired.
        """
        # Compute exactly as ``next_deadline`` does, to avoid float rounding.
        if self._timeout is not None and now >= self._last_progress + self._timeout:
            raise NoAnswerError(f"gave up after {self._timeout:g} s without progress: {reason}")
        if now < self._last_progress + WAITING_NOTICE_S or reason == self._last_reason:
            return None
        self._last_reason = reason
        return Waiting(reason, now - self._last_progress)

    def next_deadline(self) -> float:
        """When ``check`` may next return an event or raise."""
        notice = self._last_progress + WAITING_NOTICE_S if self._last_reason is None else float("inf")
        return min(notice, self._last_progress + self._timeout if self._timeout is not None else float("inf"))
