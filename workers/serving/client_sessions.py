"""Tracks the sessions of a worker's clients: opened by ``hello``, closed by ``bye`` or by timeout.

A timeout is needed because a ROUTER socket does not report disconnected clients. Does not read the clock: the
caller passes ``now``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

from msd.wire.protocol.messages import ServedSession

#: A connection's session is closed when the connection has sent nothing for this long (seconds).
SESSION_TIMEOUT_S = 30.0
#: Maximum number of served sessions that wait to be reported: enough for eight seconds without a broker. A session
#: beyond that is recorded with one of its next replies.
MAX_UNREPORTED = 16384

K = TypeVar("K")


class ClientSessions(Generic[K]):
    """The session of each connection, and when the connection last sent a request."""

    def __init__(self) -> None:
        self._open: dict[K, tuple[ServedSession, float]] = {}
        #: The connections among these whose client passes on what it receives.
        self._receivers: set[K] = set()
        #: The connections among these to which digests or segments were sent.
        self._served: set[K] = set()
        #: Sessions that have begun to be served, oldest first, until they are reported.
        self._unreported: dict[ServedSession, None] = {}

    def open(self, key: K, session: int, now: float, public_key: bytes = b"", *, passes_on: bool = False) -> None:
        """Handles a ``hello``. A client with session 0 is not counted. ``public_key`` is empty without keys."""
        self.close(key)
        if session:
            self._open[key] = (ServedSession(session, public_key), now)
            if passes_on:
                self._receivers.add(key)

    def passes_on(self, key: K) -> bool:
        """True if the client passes on what it receives."""
        return key in self._receivers

    def touch(self, key: K, now: float) -> None:
        """Handles any other request; opens no session."""
        if key in self._open:
            self._open[key] = (self._open[key][0], now)

    def on_served(self, key: K) -> None:
        """Digests or a segment were sent to the client, or the description of an empty file."""
        if key in self._open and key not in self._served and len(self._unreported) < MAX_UNREPORTED:
            self._served.add(key)
            self._unreported[self._open[key][0]] = None

    def unreported(self, count: int) -> list[ServedSession]:
        """Returns up to ``count`` sessions that have begun to be served, even if they are closed by now."""
        return list(islice(self._unreported, count))

    def on_reported(self, sessions: Iterable[ServedSession]) -> None:
        for session in sessions:
            del self._unreported[session]

    def close(self, key: K) -> None:
        self._open.pop(key, None)
        self._served.discard(key)
        self._receivers.discard(key)

    def clear(self) -> None:
        self._open.clear()
        self._served.clear()
        self._receivers.clear()

    def current(self, now: float) -> list[int]:
        """Closes sessions that timed out; returns the sessions that are open at ``now``, sorted, without duplicates."""
        for key, (_, last_request) in list(self._open.items()):
            if now - last_request > SESSION_TIMEOUT_S:
                self.close(key)
        return sorted({opened.session for opened, _ in self._open.values()})
