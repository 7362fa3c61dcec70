"""Tracks the sessions of a worker's clients: opened by ``hello``, closed by ``bye`` or by timeout.

A timeout is needed because a ROUTER socket does not report disconnected clients. Does not read the clock: the
caller passes ``now``.
"""

from __future__ import annotations

from typing import Generic, TypeVar

#: A connection's session is closed when the connection has sent nothing for this long (seconds).
SESSION_TIMEOUT_S = 30.0

K = TypeVar("K")


class ClientSessions(Generic[K]):
    """The session of each connection, and when the connection last sent a request."""

    def __init__(self) -> None:
        self._open: dict[K, tuple[int, float]] = {}

    def open(self, key: K, session: int, now: float) -> None:
        """Handles a ``hello``. A client with session 0 is not counted."""
        if session:
            self._open[key] = (session, now)

    def touch(self, key: K, now: float) -> None:
        """Handles any other request; opens no session."""
        if key in self._open:
            self._open[key] = (self._open[key][0], now)

    def close(self, key: K) -> None:
        self._open.pop(key, None)

    def clear(self) -> None:
        self._open.clear()

    def current(self, now: float) -> list[int]:
        """Closes sessions that timed out; returns the sessions that are open at ``now``, sorted, without duplicates."""
        for key, (_, last_request) in list(self._open.items()):
            if now - last_request > SESSION_TIMEOUT_S:
                del self._open[key]
        return sorted({session for session, _ in self._open.values()})
