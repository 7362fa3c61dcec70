"""A descriptor to poll for signals: readable once a signal has arrived.

Does not handle the signals: see ``broker/server.py``.
"""

from __future__ import annotations

import signal
import socket
from types import FrameType


class SignalDescriptor:
    """Catches the given signals until ``close()``, which restores the previous handlers. Main thread only."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        # The descriptor first: a signal that arrives in between must not be lost.
        self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._previous_handlers = {number: signal.signal(number, _ignore) for number in numbers}

    def fileno(self) -> int:
        return self._reader.fileno()

    def read(self) -> bytes:
        """The numbers of the signals received since the last call. Call it when the descriptor is readable."""
        return self._reader.recv(4096)

    def close(self) -> None:
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()


def _ignore(number: int, frame: FrameType | None) -> None:
    """Does nothing: Python itself writes the signal's number to the descriptor."""
