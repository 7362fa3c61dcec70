"""Standard input, a line at a time, for a poll loop.

Reads only; what a line means is said by ``broker/views/plain.py``.
"""

from __future__ import annotations

import os

#: Bytes kept of a line that has not ended; more of one are dropped.
MAX_LINE = 4096


class LineReader:
    """The lines of a descriptor. Call ``read`` when it is readable."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def fileno(self) -> int:
        return self._descriptor

    def read(self) -> list[str] | None:
        """The lines that have come since the last call; None at the end of the input."""
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:
            data = b""
        if not data:
            return None
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-MAX_LINE:]
        return [line.decode("utf-8", "replace") for line in lines]
