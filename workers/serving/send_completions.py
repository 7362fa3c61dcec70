"""Zero-copy sends, and notification when ZeroMQ has released the buffer.

Replaces pyzmq's collector (``zmq/utils/garbage.py``), which keeps each buffer until ZeroMQ releases it and waits for
the release in a thread. That thread takes the GIL from the serving thread once per reply, which costs a third of a
worker's own CPU time. Here the serving thread itself polls for releases.

Knows neither clients nor the fair queue: see ``workers/serving/router.py``.
"""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

import zmq
from zmq.backend.cython import _zmq

T = TypeVar("T")

#: The module globals in which ``zmq.Frame`` looks up its collector; pyzmq has no other way to replace it.
_PYZMQ = vars(_zmq)
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
        # No high-water mark: the thread that releases a frame must never block.
        self.socket.rcvhwm = self._push_socket.sndhwm = 0
        self.socket.bind(_URL)
        self._push_socket.connect(_URL)
        #: By number: each buffer that ZeroMQ may still read, and its tag (None if its release is not reported).
        self._in_flight: dict[int, tuple[bytes, T | None]] = {}
        self._last_number = 0
        #: The tag that ``store`` gives to the next frame.
        self._tag: T | None = None

    def __bool__(self) -> bool:
        """True while frames are in flight, that is, not yet released."""
        return bool(self._in_flight)

    def frame(self, data: bytes, tag: T) -> zmq.Frame:
        """Returns a frame that refers to ``data`` without copying it, to be sent once. ``collect`` returns ``tag``
        once neither the caller nor ZeroMQ uses the frame any more.
        """
        self._tag = tag
        pyzmq_collector, _PYZMQ["_gc"] = _PYZMQ["_gc"], self
        try:
            return zmq.Frame(data, copy=False)
        finally:
            _PYZMQ["_gc"] = pyzmq_collector

    def store(self, data: bytes, _: object) -> int:
        """Called by ``zmq.Frame``: keeps the buffer alive and returns its number."""
        self._last_number += 1
        self._in_flight[self._last_number] = data, self._tag
        return self._last_number

    def cancel_last(self) -> None:
        """Call it if the last frame was not sent: its release will not be reported."""
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
        self._context.destroy(0)
