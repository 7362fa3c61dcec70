"""Decides which clients still need the servers: the pure core of ``--until-done``.

Workers report their open sessions, but forget all of them when they go to sleep or crash, while the clients wait
for a worker to wake up. So a session stays open until its client sends ``done``, or until no worker has reported it
for ``SESSION_TIMEOUT_S`` seconds during which at least one worker was awake and the client could have reconnected.
(Clients send ``bye`` to workers only, so a client that gives up also counts as served for these 30 s.)

A client that has not reached a worker yet is unknown here. Takes ``now`` (seconds, monotonic).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

#: Seconds, with a worker awake, after which a session that no worker reports is dropped. Clients try to reconnect
#: more often than that.
SESSION_TIMEOUT_S = 30.0
#: Seconds from a client's ``done`` until all workers have reported their other sessions: two heartbeats.
SETTLE_TIME_S = 0.5
#: Maximum number of open sessions, and of done sessions: as many as 64 heartbeats can report. The session whose last
#: report is oldest is dropped first.
MAX_SESSIONS = 65536


class UntilDone:
    """The sessions of all clients. Call ``pass_time`` often: it drops old sessions."""

    def __init__(self) -> None:
        #: Sessions that are not done, in the order of their last reports, each with the value of ``_awake_for`` at that
        #: time.
        self._open: OrderedDict[int, float] = OrderedDict()
        #: Likewise, sessions that are done: workers may report them for a while longer.
        self._done: OrderedDict[int, float] = OrderedDict()
        #: Total seconds during which at least one worker was awake.
        self._awake_for = 0.0
        self._updated_at: float | None = None
        self._done_at: float | None = None

    def on_sessions(self, sessions: Iterable[int]) -> None:
        """Records the open sessions that a worker's heartbeat lists."""
        for session in sessions:
            self._refresh(self._done if session in self._done else self._open, session)

    def on_done(self, session: int, now: float) -> None:
        """Records that the client of ``session`` has finished its download."""
        self._open.pop(session, None)
        self._refresh(self._done, session)
        self._done_at = now

    def pass_time(self, now: float, *, awake: bool) -> None:
        """Drops sessions that no worker reports any more. ``awake``: at least one worker is awake."""
        if awake and self._updated_at is not None:
            self._awake_for += max(0.0, now - self._updated_at)
        self._updated_at = now
        for sessions in (self._open, self._done):
            while sessions and next(iter(sessions.values())) <= self._awake_for - SESSION_TIMEOUT_S:
                sessions.popitem(last=False)

    def on_stall(self, seconds: float) -> None:
        """Excludes a stall of the broker's event loop from the time that counts towards ``SESSION_TIMEOUT_S``."""
        if self._updated_at is not None:
            self._updated_at += seconds

    def may_end(self, now: float) -> bool:
        """True once a client is done and no other client is being served."""
        deadline = self.next_deadline()
        return deadline is not None and now >= deadline

    def next_deadline(self) -> float | None:
        """Time from which ``may_end`` is true; None if that depends on clients."""
        return None if self._done_at is None or self._open else self._done_at + SETTLE_TIME_S

    def check_invariants(self) -> None:
        assert not self._open.keys() & self._done.keys()
        for sessions in (self._open, self._done):
            assert len(sessions) <= MAX_SESSIONS
            assert list(sessions.values()) == sorted(sessions.values())

    def _refresh(self, sessions: OrderedDict[int, float], session: int) -> None:
        sessions[session] = self._awake_for
        sessions.move_to_end(session)
        if len(sessions) > MAX_SESSIONS:
            sessions.popitem(last=False)
