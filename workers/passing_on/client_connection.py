"""The connection of a worker to the download that has started it, over two pipes.

To this worker, the download takes the place of a broker: it accepts the ``join``, says which keys are admitted, and
gets the heartbeats. It also says which units it has verified. Does not decide when to join or what to send: see
``workers/serving/worker_life.py``.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.child_messages import UnitsHeld
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import Heartbeat, Join, Joined, Message, WorkerMessage
from msd.wire.protocol.states import WantedState

#: The bytes read at once.
READ_SIZE = 1 << 16
_LENGTH = struct.Struct("!I")


class ClientConnection:
    """The download that has started this process: it writes to ``reader`` and reads from ``writer``.

    ``on_held`` is called with units that it has verified, ``on_end`` when it has ended.
    """

    def __init__(
        self, reader: int, writer: int, on_held: Callable[[list[int]], None], on_end: Callable[[], None]
    ) -> None:
        self._reader, self._writer = reader, writer
        self._on_held = on_held
        self._on_end = on_end
        self._received = b""
        #: The answer to ``join``.
        self._joined: list[Joined] = []
        self._on_readable: Callable[[], None] = lambda: None

    def start(self, poll_loop: PollLoop, on_readable: Callable[[], None]) -> None:
        self._on_readable = on_readable
        os.set_blocking(self._writer, False)
        poll_loop.register(self._reader, self._read)

    def send(self, message: Message) -> bool:
        match message:
            case Join(rid=rid):
                self._joined.append(Joined(rid=rid, number=1, wanted=WantedState.AWAKE, edition=0))
            case Heartbeat():
                frame = encode(message)
                # The next heartbeat has the same figures: one that does not fit is dropped. Less than PIPE_BUF is
                # written as a whole or not at all.
                with suppress(OSError):
                    os.write(self._writer, _LENGTH.pack(len(frame)) + frame)
        return True

    def receive(self) -> Iterator[WorkerMessage]:
        while self._joined:
            yield self._joined.pop()
        while len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            end = _LENGTH.size + length
            if len(self._received) < end:
                break
            frame, self._received = self._received[_LENGTH.size : end], self._received[end:]
            message = decode(frame, WorkerMessage | UnitsHeld)
            if isinstance(message, UnitsHeld):
                self._on_held(message.units)
            else:
                yield message

    def pass_time(self, now: float) -> float:  # noqa: ARG002
        if self._joined:
            self._on_readable()
        return math.inf

    def close(self) -> None:
        """Does nothing: the process ends."""

    def _read(self) -> None:
        data = os.read(self._reader, READ_SIZE)
        if not data:
            self._on_end()
            return
        self._received += data
        self._on_readable()
