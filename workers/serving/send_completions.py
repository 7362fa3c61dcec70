"""Zero-copy sends, and notification when ZeroMQ has released the buffer.

Replaces pyzmq's collector (``zmq/utils/garbage.py``), which keeps each buffer until ZeroMQ releases it and waits for
the release in a thread. That thread takes the GIL from the serving thread once per reply; without that thread the
workers need 10 % less processor time. Here the serving thread itself polls for releases. If a version of pyzmq lacks
the private interface that this module needs, pyzmq's collector keeps the buffers, which is slower but has the same
results.

Knows neither clients nor the fair queue: see ``workers/serving/router.py``.
"""

from __future__ import annotations

import struct
import sys
import threading
import weakref
from typing import Generic, TypeVar

import zmq

T = TypeVar("T")

#: The module globals in which ``zmq.Frame`` looks up its collector as ``_gc``; pyzmq offers no other way to replace the
#: collector.
_PYZMQ = vars(sys.modules[zmq.backend.Frame.__module__])
_URL = "inproc://send-completions"
#: The message that ``zmq.Frame`` sends when ZeroMQ releases a frame: the number returned by ``store``.
_NUMBER = struct.Struct("N")
_NOBLOCK = int(zmq.NOBLOCK)


class SendCompletions(Generic[T]):
    """Creates zero-copy frames, each with a tag, and reports the tags of the frames that ZeroMQ has released.

    Not thread-safe: use it only in the thread that sends the frames. Call ``close()`` after terminating the contexts
    of the sending sockets.
    """

    def __init__(self) -> None:
        # Both sockets are inproc, so the context needs no I/O thread.
        self._context = zmq.Context(io_threads=0)
        #: Readable once ZeroMQ has released a frame.
        self.socket = self._context.socket(zmq.PULL)
        # The interface that ``zmq.Frame`` expects of a collector: these two attributes (it creates the mutex itself)
        # and ``store``.
        self._push_socket = self._context.socket(zmq.PUSH)
        self._push_mutex = None
        #: Held while Python code uses ``_push_socket``: pyzmq's collector reports releases in its own thread.
        self._lock = threading.Lock()
        # No high-water mark: the thread that releases a frame must never block.
        self.socket.rcvhwm = self._push_socket.sndhwm = 0
        self.socket.bind(_URL)
        self._push_socket.connect(_URL)
        #: Each buffer that ZeroMQ may still read, with its tag (None if its release is not reported), by number.
        self._in_flight: dict[int, tuple[object, T | None]] = {}
        self._last_number = 0
        #: The tag that ``store`` gives to the next frame.
        self._tag: T | None = None
        self._replaces_collector = self._can_replace_collector()

    def __bool__(self) -> bool:
        """True while frames are in flight, that is, not yet released."""
        return bool(self._in_flight)

    def frame(self, data: bytes, tag: T) -> zmq.Frame:
        """Returns a frame that refers to ``data`` without copying it, to be sent once. ``collect`` returns ``tag``
        once neither the caller nor ZeroMQ uses the frame any more.
        """
        self._tag = tag
        if self._replaces_collector:
            return self._frame_with_own_collector(data)
        # The view is deleted once neither the frame nor pyzmq's collector refers to it.
        view = memoryview(data)
        number = self._last_number + 1
        self.store(weakref.ref(view, lambda _: self._on_released(number)), None)
        return zmq.Frame(view, copy=False)

    def _frame_with_own_collector(self, data: bytes) -> zmq.Frame:
        pyzmq_collector, _PYZMQ["_gc"] = _PYZMQ["_gc"], self
        try:
            return zmq.Frame(data, copy=False)
        finally:
            _PYZMQ["_gc"] = pyzmq_collector

    def _can_replace_collector(self) -> bool:
        """Tries to replace pyzmq's collector for a frame that is dropped at once. Returns True if the frame is reported
        as released.
        """
        try:
            self._frame_with_own_collector(b"probe")
            self.collect()
        except Exception:  # A private interface may change in any way.
            return False
        return self._last_number == 1 and not self._in_flight

    def store(self, data: object, _: object) -> int:
        """Called by ``zmq.Frame``: keeps the buffer alive and returns its number."""
        self._last_number += 1
        self._in_flight[self._last_number] = data, self._tag
        return self._last_number

    def _on_released(self, number: int) -> None:
        with self._lock:
            if not self._push_socket.closed:
                self._push_socket.send(_NUMBER.pack(number))

    def cancel_last(self) -> None:
        """Call this if the last frame was not sent, so that its release is not reported."""
        data, _ = self._in_flight[self._last_number]
        self._in_flight[self._last_number] = data, None

    def collect(self) -> list[T]:
        """Returns the tags of the frames released since the last call. Never blocks."""
        tags = []
        try:
            while self._in_flight:
                _, tag = self._in_flight.pop(*_NUMBER.unpack(self.socket.recv(_NOBLOCK)))
                if tag is not None:
                    tags.append(tag)
        except zmq.Again:
            pass  # No further releases yet.
        return tags

    def close(self) -> None:
        with self._lock:
            self._context.destroy(0)
