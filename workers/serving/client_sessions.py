"""The clients a worker serves: opened by ``hello``, closed by ``bye`` or by age.

ZeroMQ does not say when a client disconnects, so one that was not heard for a while counts as gone.
"""

from __future__ import annotations

from typing import Generic, TypeVar

#: Seconds after which a client that said nothing counts as gone.
SILENT_AFTER = 30.0

K = TypeVar("K")


class ClientSessions(Generic[K]):
    """Which session each connection belongs to, and when it was last heard."""

    def __init__(self) -> None:
        self._open: dict[K, tuple[int, float]] = {}

    def open(self, key: K, session: int, now: float) -> None:
        """A client said ``hello``; with session 0 it asks not to be counted."""
        if session:
            self._open[key] = (session, now)

    def heard(self, key: K, now: float) -> None:
        if key in self._open:
            self._open[key] = (self._open[key][0], now)

    def end(self, key: K) -> None:
        self._open.pop(key, None)

    def clear(self) -> None:
        self._open.clear()

    def current(self, now: float) -> list[int]:
        """The sessions open at ``now``, each once; forgets those not heard for ``SILENT_AFTER``."""
        for key, (_, heard) in list(self._open.items()):
            if now - heard > SILENT_AFTER:
                del self._open[key]
        return sorted({session for session, _ in self._open.values()})
