"""Writes lines from a separate thread, so that a pipe or terminal that takes no more data cannot block the caller.

A terminal whose background jobs must not write (``stty tostop``) takes no data while this process is in the background.
"""

from __future__ import annotations

import errno
import os
import queue
import signal
import threading
import time

from msd.wire.support.job_control import may_write

#: Number of lines that are queued in any case while nothing can be written.
MAX_QUEUED = 256
#: Seconds between two checks whether this process may write to its terminal again.
FOREGROUND_CHECK_INTERVAL_S = 0.25


class LineWriter:
    """Writes to ``descriptor``. Only one thread may call the methods. Call ``close()`` when done.

    ``queue_size`` is the number of bytes that may be queued in more than ``MAX_QUEUED`` lines.
    """

    def __init__(self, descriptor: int, *, queue_size: int = 0) -> None:
        self._descriptor = descriptor
        self._queue_size = queue_size
        #: The bytes that were queued, and those that were taken from the queue: each is changed by one thread only.
        self._queued = self._taken = 0
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def write(self, line: bytes, *, may_drop: bool = True) -> bool:
        """Returns False if the queue is full and the line was dropped."""
        if may_drop and self._queue.qsize() >= MAX_QUEUED and self._queued - self._taken >= self._queue_size:
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="output", daemon=True)
            self._thread.start()
        self._queued += len(line)
        self._queue.put(line)
        return True

    def close(self, timeout: float | None = None) -> None:
        """Waits until all lines are written, by default for as long as it takes. Raises ``OSError`` if a line could not
        be written for another reason than a closed pipe or terminal.
        """
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout)
            self._thread = None
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        # If the shell moves this process to the background after the check, the write must not stop the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        while (data := self._queue.get()) is not None:
            self._taken += len(data)
            while not may_write(self._descriptor):
                time.sleep(FOREGROUND_CHECK_INTERVAL_S)
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO):
                    self._error = self._error or error
