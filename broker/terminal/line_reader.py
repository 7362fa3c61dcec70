"""Reads lines from a descriptor without blocking, for a poll loop. Reads a terminal in the foreground only.

Does not interpret them: see ``broker/terminal/typed_commands.py``.
"""

from __future__ import annotations

import os
import signal

from msd.wire.support.job_control import is_in_background

#: Maximum bytes kept of an unfinished line; earlier bytes are dropped.
MAX_LINE = 4096


class LineReader:
    """Reads the lines of ``descriptor``. Call ``read()`` when it is readable."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unfinished = b""

    def fileno(self) -> int:
        return self._descriptor

    @property
    def may_read(self) -> bool:
        """False while this process is in the background of the terminal: the input belongs to another process."""
        return not is_in_background(self._descriptor)

    def read(self) -> list[str] | None:
        """Returns the lines completed since the last call, None at the end of the input."""
        # If the shell moves this process to the background now, the read fails instead of stopping the process.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTIN})
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:
            if not self.may_read:
                return []
            data = b""
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if not data:
            return None
        *lines, unfinished = (self._unfinished + data).split(b"\n")
        self._unfinished = unfinished[-MAX_LINE:]
        return [line.decode("utf-8", "replace") for line in lines]
