"""What becomes of a connecting socket's handshake, as its monitor tells.

Parses events; what they lead to is decided elsewhere.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from enum import Enum, auto

import zmq

from msd.wire.net.sockets import receive
from msd.wire.protocol.states import ConnectionRefusal


class Handshake(Enum):
    UP = auto()
    #: The connection is gone. While there was none yet, one more attempt has failed.
    DOWN = auto()


#: The handshake with another mechanism (zmq.h: ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH).
_MISMATCH = 0x11000002
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_WATCHED = _FAILED | zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CLOSED
#: Seconds within which a server that does not like a handshake breaks it off. One that is frozen lets it
#: run out, which says nothing.
PROMPT = 1.0


class Monitor:
    """The monitor of a socket that has not connected yet; ``encrypted`` says that it will show a key.
    Poll its own ``socket``, and always read it: one that nobody reads freezes ZeroMQ's I/O thread.
    ``close()`` it before the socket.
    """

    def __init__(self, watched: zmq.Socket[bytes], *, encrypted: bool) -> None:
        self._watched = watched
        self._encrypted = encrypted
        self._connected_at = 0.0
        self.socket = watched.get_monitor_socket(_WATCHED)
        self.is_up = False

    def read(self) -> Iterator[Handshake | ConnectionRefusal]:
        """What has happened since the last call, oldest first. A refusal is followed by ``DOWN``.

        Where ZeroMQ has several threads CONNECTED may come late; then a refusal that gives no reason is missed,
        and the next attempt's is told.
        """
        while (frames := receive(self.socket)) is not None:
            event, value = struct.unpack("=HI", frames[0].bytes)
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.is_up = True
                yield Handshake.UP
            elif event == zmq.EVENT_CONNECTED:
                self._connected_at = time.monotonic()
            elif event & _FAILED:
                if why := self._why(event, value):
                    yield why
                yield Handshake.DOWN
            elif event == zmq.EVENT_DISCONNECTED or self.is_up:
                # CLOSED alone is normal while a refused port is tried again.
                self.is_up = False
                yield Handshake.DOWN

    def close(self) -> None:
        self._watched.disable_monitor()
        # Without this, terminating the context hangs for ever.
        self.socket.close(0)

    def _why(self, event: int, value: int) -> ConnectionRefusal | None:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return ConnectionRefusal.KEY
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MISMATCH:
            return ConnectionRefusal.MECHANISM
        prompt = time.monotonic() < self._connected_at + PROMPT
        return ConnectionRefusal.HANDSHAKE if self._encrypted and prompt else None
