"""Which clients still need the servers: the pure core of ``--until-done``.

Workers report the sessions that are open with them, but forget them all when they go to sleep or
crash, while their clients wait for one to wake up. So a session counts as open until its client
said ``done``, or until nobody has reported it for so long that the client must be gone: ``GONE_AFTER``
seconds in which at least one worker was awake and the client could have come back. (``bye`` is
said to workers, so a client that gives up also counts for these 30 s.)

A client that has not reached a worker yet is unknown here. Takes ``now`` (seconds, monotonic).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

#: Seconds, with a worker awake, after which a session that nobody reports counts as gone. Clients
#: look for the workers more often than that.
GONE_AFTER = 30.0
#: Seconds from a client's ``done`` until it is known who else is being served: two heartbeats.
SETTLE = 0.5
#: UntilDone remembered of each kind: what 64 heartbeats can report. The ones reported longest ago go first.
MOST = 65536


class UntilDone:
    """The sessions of all clients. Call ``pass_time`` often: it is what lets them age."""

    def __init__(self) -> None:
        #: The sessions that are not done, each with ``_awake_for`` as it was when last reported; the
        #: one reported longest ago first.
        self._open: OrderedDict[int, float] = OrderedDict()
        #: Those that are done, likewise: workers may go on reporting them for a while.
        self._done: OrderedDict[int, float] = OrderedDict()
        #: Seconds in which at least one worker was awake.
        self._awake_for = 0.0
        self._looked_at: float | None = None
        self._done_at: float | None = None

    def reported(self, sessions: Iterable[int]) -> None:
        """A worker's heartbeat named these sessions."""
        for session in sessions:
            self._renew(self._done if session in self._done else self._open, session)

    def done(self, session: int, now: float) -> None:
        """A client has everything."""
        self._open.pop(session, None)
        self._renew(self._done, session)
        self._done_at = now

    def pass_time(self, now: float, *, awake: bool) -> None:
        """It is ``now``; ``awake`` says whether at least one worker is."""
        if awake and self._looked_at is not None:
            self._awake_for += max(0.0, now - self._looked_at)
        self._looked_at = now
        for known in (self._open, self._done):
            while known and next(iter(known.values())) <= self._awake_for - GONE_AFTER:
                known.popitem(last=False)

    def stalled(self, seconds: float) -> None:
        """The broker itself did not look for so long: no reason to call anybody gone."""
        if self._looked_at is not None:
            self._looked_at += seconds

    def may_end(self, now: float) -> bool:
        """True once a client is done and no other one is being served."""
        deadline = self.next_deadline()
        return deadline is not None and now >= deadline

    def next_deadline(self) -> float | None:
        """When ``may_end`` will become true, or became so; None while it depends on clients."""
        return None if self._done_at is None or self._open else self._done_at + SETTLE

    def check_invariants(self) -> None:
        assert not self._open.keys() & self._done.keys()
        for known in (self._open, self._done):
            assert len(known) <= MOST
            assert list(known.values()) == sorted(known.values())

    def _renew(self, known: OrderedDict[int, float], session: int) -> None:
        known[session] = self._awake_for
        known.move_to_end(session)
        if len(known) > MOST:
            known.popitem(last=False)
