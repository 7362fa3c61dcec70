"""Reads lines from a descriptor without blocking, for a poll loop.

Does not interpret them: see ``broker/terminal/typed_commands.py``.
"""

from __future__ import annotations

import os

#: Maximum bytes kept of an unfinished line; earlier bytes are dropped.
MAX_LINE = 4096


class LineReader:
    """Reads the lines of ``descriptor``. Call ``read()`` when it is readable."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unfinished = b""

    def fileno(self) -> int:
        return self._descriptor

    def read(self) -> list[str] | None:
        """Returns the lines completed since the last call, None at the end of the input."""
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:
            data = b""
        if not data:
            return None
        *lines, unfinished = (self._unfinished + data).split(b"\n")
        self._unfinished = unfinished[-MAX_LINE:]
        return [line.decode("utf-8", "replace") for line in lines]
