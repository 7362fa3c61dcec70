"""Threads that read pieces, and a descriptor that is readable when some have been read.

A thread may hang in a read without an end, so no one waits for the threads when the process ends. Does not limit how
many reads run at once: see ``workers/serving/piece_reads.py``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue

from msd.wire.errors import MsdError
from msd.workers.serving.piece_reads import ReadEnded
from msd.workers.source.source import Piece, PieceOrder, ReadRefused

#: The name of the threads.
NAME = "reads"


class ReadThreads:
    """Calls ``read`` in a thread for the orders of each read, and starts as many threads as there are reads at once."""

    def __init__(self, read: Callable[[Sequence[PieceOrder]], dict[Piece, bytes | ReadRefused]]) -> None:
        self._read = read
        self._reads: SimpleQueue[Sequence[PieceOrder] | None] = SimpleQueue()
        self._results: SimpleQueue[ReadEnded | BaseException] = SimpleQueue()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        #: Held while the descriptor is used or closed: its number may be used again.
        self._lock = threading.Lock()
        self._is_closed = False
        self._threads = 0
        #: The reads whose results were not collected.
        self._pending = 0

    def fileno(self) -> int:
        """The descriptor that is readable when ``collect()`` returns results."""
        return self._event

    def start(self, orders: Sequence[PieceOrder]) -> None:
        """Begins to read pieces in one go."""
        self._pending += 1
        if self._pending > self._threads:
            try:
                threading.Thread(target=self._run, name=NAME, daemon=True).start()
            except RuntimeError as error:
                # The limit of threads is reached; those that run suffice.
                if not self._threads:
                    raise MsdError(f"cannot start a thread: {error}") from None
            else:
                self._threads += 1
        self._reads.put(orders)

    def collect(self) -> list[ReadEnded]:
        """Returns what was read since the last call. Raises the exception of a thread that failed."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._event)
        results = []
        while not self._results.empty():
            result = self._results.get()
            if isinstance(result, BaseException):
                raise result
            self._pending -= 1
            results.append(result)
        return results

    def close(self) -> None:
        """Ends the threads, except for those that hang."""
        for _ in range(self._threads):
            self._reads.put(None)
        with self._lock:
            self._is_closed = True
            os.close(self._event)

    def _run(self) -> None:
        while (orders := self._reads.get()) is not None:
            try:
                result: ReadEnded | BaseException = ReadEnded(self._read(orders))
            except BaseException as error:
                result = error
            self._results.put(result)
            with self._lock:
                if not self._is_closed:
                    os.eventfd_write(self._event, 1)
