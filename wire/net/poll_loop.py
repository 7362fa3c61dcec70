"""Polls sockets and descriptors, calls their handlers, and notices when the process stalls.

Makes no decisions: the handlers and the caller decide how to react to a readable source or a stall.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

import zmq

from msd.wire.support.stall_detector import StallDetector

Source = zmq.Socket[bytes] | int


class PollLoop:
    """The sources of one process and their handlers. The caller repeats ``wait()`` and ``dispatch()``."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._handlers: dict[Source, Callable[[], None]] = {}
        self._readable: list[Source] = []
        #: When the last ``wait()`` or ``dispatch()`` ended. A stall after that time is included in the result of the
        #: next call.
        self.now = time.monotonic()
        self._stall_detector = StallDetector(self.now)

    def register(self, source: Source, handler: Callable[[], None]) -> None:
        """Calls ``handler`` in ``dispatch()`` whenever ``source`` is readable."""
        self._poller.register(source, zmq.POLLIN)
        self._handlers[source] = handler

    def unregister(self, source: Source) -> None:
        """Removes a source. Call this before closing the source."""
        self._poller.unregister(source)
        del self._handlers[source]

    def wait(self, deadlines: Iterable[float | None]) -> float:
        """Waits until a source is readable or the earliest of ``deadlines`` (monotonic seconds) passes. At least one
        deadline must not be None. Returns how long this process stalled, in seconds, 0 if it did not stall.
        """
        began = time.monotonic()
        deadline = max(began, min(deadline for deadline in deadlines if deadline is not None))
        self._readable = [source for source, _ in self._poller.poll(math.ceil((deadline - began) * 1000))]
        self.now = time.monotonic()
        return self._stall_detector.after_wait(began, deadline, self.now)

    def dispatch(self) -> float:
        """Calls the handlers of the readable sources. Returns how long this process stalled since ``wait()`` ended, in
        seconds, 0 if it did not stall.
        """
        for source in self._readable:
            # An earlier handler may have unregistered the source.
            if (handler := self._handlers.get(source)) is not None:
                handler()
        self.now = time.monotonic()
        return self._stall_detector.after_work(self.now)
