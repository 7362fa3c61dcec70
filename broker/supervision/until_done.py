"""Decides which clients still need the servers: the pure core of ``--until-done``.

Workers report their open sessions, but forget all of them when they go to sleep or crash, while the clients wait
for a worker to wake up. So a session stays open until its client sends ``done``, or until no worker has reported it
for ``SESSION_TIMEOUT_S`` seconds during which at least one worker was awake and the client could have reconnected.
(Clients send ``bye`` to workers only, so a client that gives up also counts as being served for these 30 s.)

A client's ``done`` counts only if a worker has served that client. With keys, it must come from the key with which the
session was opened. It may arrive a moment before the heartbeat that reports the session as served.

A client that has not reached a worker yet is unknown to this module. Takes ``now`` (seconds, monotonic).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

from msgspec import Struct

from msd.wire.protocol.messages import ServedSession
from msd.wire.support.core import Core, Stalled, TimePassed

#: A session that no worker reports is dropped after this many seconds during which a worker was awake. Clients try to
#: reconnect more often than that.
SESSION_TIMEOUT_S = 30.0
#: Seconds from a client's ``done`` until all workers have reported their other sessions: two heartbeats.
SETTLE_TIME_S = 0.5
#: Seconds for which a ``done`` waits for the heartbeat that reports its session as served.
CLAIM_TIMEOUT_S = 3.0
#: Maximum number of open sessions, and of done sessions: as many as 64 heartbeats can report. The session whose last
#: report is oldest is dropped first.
MAX_SESSIONS = 65536


SessionT = TypeVar("SessionT", int, ServedSession)


class SessionsReported(Struct, frozen=True):
    """A worker's heartbeat lists these open sessions."""

    sessions: Sequence[int]


class SessionsServed(Struct, frozen=True):
    """A worker has begun to serve these sessions."""

    sessions: Sequence[ServedSession]


class ClientDone(Struct, frozen=True):
    """A client says that it has finished its download in this session. The key is that of the client."""

    session: ServedSession


class AwakeChanged(Struct, frozen=True):
    """From now on, at least one worker is awake, or none is. May repeat the current value."""

    is_any_awake: bool


UntilDoneEvent = SessionsReported | SessionsServed | ClientDone | AwakeChanged | Stalled | TimePassed


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
        #: Sessions that a worker has served, in the order in which they were reported, with that time.
        self._served: OrderedDict[ServedSession, float] = OrderedDict()
        #: Sessions that are said to be done, but were not reported as served yet, with the time of ``done``.
        self._claims: OrderedDict[ServedSession, float] = OrderedDict()
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
            case SessionsServed(served_sessions):
                for served in served_sessions:
                    self._add(self._served, served, now)
                    if served in self._claims:
                        self._on_done(served.session, now)
            case ClientDone(claimed) if claimed in self._served:
                self._on_done(claimed.session, now)
            case ClientDone(claimed):
                self._add(self._claims, claimed, now)
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
                while self._claims and next(iter(self._claims.values())) <= now - CLAIM_TIMEOUT_S:
                    self._claims.popitem(last=False)
                deadline = self.next_deadline(now)
                return [End()] if deadline is not None and now >= deadline else []
        return []

    def _assert_invariants(self) -> None:
        assert not self._open.keys() & self._done.keys()
        assert max(len(self._open), len(self._done), len(self._served), len(self._claims)) <= MAX_SESSIONS
        for sessions in (self._open, self._done):
            assert list(sessions.values()) == sorted(sessions.values())

    def _count_time(self, now: float) -> None:
        if self._is_any_awake and self._updated_at is not None:
            self._awake_for += max(0.0, now - self._updated_at)
        self._updated_at = now

    def _on_done(self, session: int, now: float) -> None:
        self._open.pop(session, None)
        self._refresh(self._done, session)
        self._done_at = now

    def _refresh(self, sessions: OrderedDict[int, float], session: int) -> None:
        self._add(sessions, session, self._awake_for)

    def _add(self, sessions: OrderedDict[SessionT, float], session: SessionT, value: float) -> None:
        sessions[session] = value
        sessions.move_to_end(session)
        if len(sessions) > MAX_SESSIONS:
            sessions.popitem(last=False)
