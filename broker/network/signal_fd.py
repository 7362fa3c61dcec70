"""Signals as something to poll: a descriptor that is readable once one has come.

Says what has come; decides nothing about it.
"""

from __future__ import annotations

import signal
import socket
from types import FrameType


class SignalDescriptor:
    """Catches these signals until ``close()``, which puts back what was before. Main thread only."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._handlers = {number: signal.signal(number, _noted) for number in numbers}
        self._descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        return self._reader.fileno()

    def read(self) -> bytes:
        """The numbers of the signals since the last call. Call it when the descriptor is readable."""
        return self._reader.recv(4096)

    def close(self) -> None:
        signal.set_wakeup_fd(self._descriptor)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()


def _noted(number: int, frame: FrameType | None) -> None:
    """Python writes the number to the descriptor; nothing else is to be done."""
