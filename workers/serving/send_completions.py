"""What ZeroMQ has let go of: replies that are sent from where they lie, and when they have left.

Stands in for pyzmq's collector (``zmq/utils/garbage.py``), which keeps what ZeroMQ sends, and has a thread that
waits for its end. That thread takes the interpreter from the one that serves, once for each reply: a third of a
worker's own work. Here nobody waits: what has left is read when there is time for it, and can be polled for.
Knows nothing of clients and turns: see ``workers/serving/router.py``.
"""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

import zmq
from zmq.backend.cython import _zmq

N = TypeVar("N")

#: Where ``zmq.Frame`` looks for its collector: there is no other way to give it one.
_PYZMQ = vars(_zmq)
_URL = "inproc://departures"
#: What ``zmq.Frame`` has sent when ZeroMQ lets go of a frame: the number that ``store`` gave it.
_NUMBER = struct.Struct("N")
_NOBLOCK = int(zmq.NOBLOCK)


class SendCompletions(Generic[N]):
    """The frames inside ZeroMQ, each with a note of whose it is. For the one thread that makes them. ``close()`` it
    after the contexts of those who send them.
    """

    def __init__(self) -> None:
        # Its sockets are within this process: that takes no thread of ZeroMQ's.
        self._context = zmq.Context(io_threads=0)
        #: What to poll for departures.
        self.socket = self._context.socket(zmq.PULL)
        # ``zmq.Frame`` asks a collector for these two, makes the mutex itself, and calls ``store``.
        self._push_socket = self._context.socket(zmq.PUSH)
        self._push_mutex = None
        # Without bounds: whoever lets go of a frame must never wait for us.
        self.socket.rcvhwm = self._push_socket.sndhwm = 0
        self.socket.bind(_URL)
        self._push_socket.connect(_URL)
        #: What was given to ZeroMQ, kept for as long as it may read it, and the note; None where nobody cares.
        self._inside: dict[int, tuple[bytes, N | None]] = {}
        self._last = 0
        self._note: N | None = None

    def __bool__(self) -> bool:
        """True while ZeroMQ holds frames, as far as is known."""
        return bool(self._inside)

    def frame(self, data: bytes, note: N) -> zmq.Frame:
        """A frame that is ``data`` and no copy of it, to be sent once; ``collect`` tells the note when it has left."""
        self._note = note
        usual, _PYZMQ["_gc"] = _PYZMQ["_gc"], self
        try:
            return zmq.Frame(data, copy=False)
        finally:
            _PYZMQ["_gc"] = usual

    def store(self, data: bytes, _: object) -> int:
        """Called by ``zmq.Frame``: keeps what it is made of, and gives it a number."""
        self._last += 1
        self._inside[self._last] = data, self._note
        return self._last

    def disregard(self) -> None:
        """The last frame is not sent: its departure means nothing."""
        data, _ = self._inside[self._last]
        self._inside[self._last] = data, None

    def collect(self) -> list[N]:
        """The notes of what has left since the last call."""
        notes = []
        try:
            while self._inside:
                _, note = self._inside.pop(*_NUMBER.unpack(self.socket.recv(_NOBLOCK)))
                if note is not None:
                    notes.append(note)
        except zmq.Again:
            pass  # That was all.
        return notes

    def close(self) -> None:
        self._context.destroy(0)
