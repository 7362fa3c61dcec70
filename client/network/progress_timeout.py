"""Decides when a client that makes no progress reports the reason, and when it gives up. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from msd.client.events import Waiting
from msd.wire.net.diagnosis import Contact
from msd.wire.support.core import Core, Stalled

#: Seconds without progress after which the reason is reported, and for which a further reason must hold.
WAITING_NOTICE_S = 1.0


class ProgressMade(Struct, frozen=True):
    """Data arrived, or was found on the disk."""


class WaitingFor(Struct, frozen=True):
    """Time has passed; if there is no progress, ``reason`` explains why, and ``addresses`` what came back from each
    address.

    ``is_timed`` is False if the servers are not the reason: the wait then does not count towards the timeout.
    """

    reason: str
    addresses: tuple[Contact, ...] = ()
    is_timed: bool = True


class TimeoutExpired(Struct, frozen=True):
    """Give up; ``message`` says why."""

    message: str


Event = ProgressMade | WaitingFor | Stalled
Action = Waiting | TimeoutExpired


class ProgressTimeout(Core[Event, Action]):
    """Measures the time without progress. ``timeout`` is in seconds; with None the client never gives up.

    A reason is reported again only after another reason, or after progress. A reason that replaces a reported one is
    reported once it has held for a while: when servers come back, the reasons between are over in a moment.
    """

    def __init__(self, timeout: float | None, now: float) -> None:
        super().__init__()
        self._timeout = timeout
        self._last_progress = now
        #: When the time that counts towards the timeout began.
        self._timed_since = now
        self._waiting_for = WaitingFor("")
        #: The time of the first ``WaitingFor`` with the current reason.
        self._reason_since = now
        #: The last reason reported since the last progress; None if none was reported.
        self._reported_reason: str | None = None

    def next_deadline(self, now: float) -> float | None:
        return min((deadline for deadline, _ in self._deadlines(now)), default=None)

    def _decide(self, event: Event, now: float) -> list[Action]:
        match event:
            case ProgressMade():
                self._last_progress = self._timed_since = now
                self._reported_reason = None
            case Stalled(seconds):
                self._last_progress += seconds
                self._reason_since += seconds
                self._timed_since += seconds
            case WaitingFor():
                if event.reason != self._waiting_for.reason:
                    self._reason_since = now
                self._waiting_for = event
                if not event.is_timed:
                    self._timed_since = now
                for deadline, action in self._deadlines(now):
                    if now >= deadline:
                        self._reported_reason = self._waiting_for.reason
                        return [action]
        return []

    def _deadlines(self, now: float) -> Iterator[tuple[float, Action]]:
        """Yields each deadline and the action that is then due, the most important one first."""
        reason, addresses, is_timed = self._waiting_for.reason, self._waiting_for.addresses, self._waiting_for.is_timed
        if self._timeout is not None:
            message = f"gave up after {self._timeout:g} s without progress: {reason}"
            yield self._timed_since + self._timeout, TimeoutExpired(message)
        if reason != self._reported_reason:
            notice = Waiting(reason, now - self._last_progress, addresses, self._timeout if is_timed else None)
            since = self._last_progress if self._reported_reason is None else self._reason_since
            yield since + WAITING_NOTICE_S, notice
