"""Decides which clients still need the servers: the pure core of ``--until-done``.

Workers report their open sessions, but forget all of them when they go to sleep or crash, while the clients wait
for a worker to wake up. So a session stays open until its client sends ``done``, or until no worker has reported it
for ``SESSION_TIMEOUT_S`` seconds during which at least one worker was awake and the client could have reconnected.
(Clients send ``bye`` to workers only, so a client that gives up also counts as being served for these 30 s.)

A client that has not reached a worker yet is unknown to this module. Takes ``now`` (seconds, monotonic).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct

from msd.wire.support.core import Core, Stalled, TimePassed

#: A session that no worker reports is dropped after this many seconds during which a worker was awake. Clients try to
#: reconnect more often than that.
SESSION_TIMEOUT_S = 30.0
#: Seconds from a client's ``done`` until all workers have reported their other sessions: two heartbeats.
SETTLE_TIME_S = 0.5
#: Maximum number of open sessions, and of done sessions: as many as 64 heartbeats can report. The session whose last
#: report is oldest is dropped first.
MAX_SESSIONS = 65536


class SessionsReported(Struct, frozen=True):
    """A worker's heartbeat lists these open sessions."""

    sessions: Sequence[int]


class ClientDone(Struct, frozen=True):
    """The client of this session has finished its download."""

    session: int


class AwakeChanged(Struct, frozen=True):
    """From now on, at least one worker is awake, or none is. May repeat the current value."""

    is_any_awake: bool


UntilDoneEvent = SessionsReported | ClientDone | AwakeChanged | Stalled | TimePassed


class End(Struct, frozen=True):
    """A client is done, and no other client is being served: shut the servers down."""


class UntilDone(Core[UntilDoneEvent, End]):
    """The sessions of all clients. Pass ``TimePassed`` often: it drops old sessions."""

    def __init__(self) -> None:
        super().__init__()
        #: Sessions that are not done, in the order of their last reports, each with the value of ``_awake_for`` at that
        #: time.
        self._open: OrderedDict[int, float] = OrderedDict()
        #: The same for sessions that are done: workers may report them for a while longer.
        self._done: OrderedDict[int, float] = OrderedDict()
        self._is_any_awake = False
        #: Total seconds during which at least one worker was awake, until ``_updated_at``.
        self._awake_for = 0.0
        self._updated_at: float | None = None
        self._done_at: float | None = None

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        """Returns the time at which ``End`` is due; None if it depends on further events."""
        return None if self._done_at is None or self._open else self._done_at + SETTLE_TIME_S

    def _decide(self, event: UntilDoneEvent, now: float) -> list[End]:
        match event:
            case SessionsReported(sessions):
                for session in sessions:
                    self._refresh(self._done if session in self._done else self._open, session)
            case ClientDone(session):
                self._open.pop(session, None)
                self._refresh(self._done, session)
                self._done_at = now
            case AwakeChanged(is_any_awake):
                self._count_time(now)
                self._is_any_awake = is_any_awake
            case Stalled(seconds):
                # A stall of the broker does not count towards ``SESSION_TIMEOUT_S``.
                if self._updated_at is not None:
                    self._updated_at += seconds
            case TimePassed():
                self._count_time(now)
                for known in (self._open, self._done):
                    while known and next(iter(known.values())) <= self._awake_for - SESSION_TIMEOUT_S:
                        known.popitem(last=False)
                deadline = self.next_deadline(now)
                return [End()] if deadline is not None and now >= deadline else []
        return []

    def _assert_invariants(self) -> None:
        assert not self._open.keys() & self._done.keys()
        for sessions in (self._open, self._done):
            assert len(sessions) <= MAX_SESSIONS
            assert list(sessions.values()) == sorted(sessions.values())

    def _count_time(self, now: float) -> None:
        if self._is_any_awake and self._updated_at is not None:
            self._awake_for += max(0.0, now - self._updated_at)
        self._updated_at = now

    def _refresh(self, sessions: OrderedDict[int, float], session: int) -> None:
        sessions[session] = self._awake_for
        sessions.move_to_end(session)
        if len(sessions) > MAX_SESSIONS:
            sessions.popitem(last=False)
