"""The connection of a worker to the download that has started it: a Unix socket, and a pipe for the heartbeats.

To this worker, the download takes the place of a broker: it accepts the ``join``, says which keys are admitted, and
gets the heartbeats. It also says which files it receives, and which units it has verified. Does not decide when to join
or what to send: see ``workers/serving/worker_life.py``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.child_messages import FileReceived, UnitsHeld
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import Admitted, Heartbeat, Join, Joined, Message, QuitOrder, WorkerMessage
from msd.wire.protocol.states import WantedState
from msd.workers.passing_on.frames import LENGTH, FrameReader

_MESSAGES = FileReceived | UnitsHeld | Admitted | QuitOrder


class ClientConnection:
    """The download that has started this process: its frames arrive at ``reader``, and it reads from ``writer``.

    ``on_file`` is called with each file that it receives by segments and with the descriptors, ``on_held`` with the
    units that it has verified, and ``on_end`` when it has ended.
    """

    def __init__(
        self,
        reader: FrameReader,
        writer: int,
        *,
        on_file: Callable[[FileReceived, list[int]], None],
        on_held: Callable[[list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._reader, self._writer = reader, writer
        self._on_file = on_file
        self._on_held = on_held
        self._on_end = on_end
        #: The answer to ``join``.
        self._joined: list[Joined] = []
        self._on_readable: Callable[[], None] = lambda: None

    def start(self, poll_loop: PollLoop, on_readable: Callable[[], None]) -> None:
        self._on_readable = on_readable
        os.set_blocking(self._writer, False)
        poll_loop.register(self._reader.fileno(), self._read)
        # Frames that were read together with the settings.
        on_readable()

    def send(self, message: Message) -> bool:
        match message:
            case Join(rid=rid):
                self._joined.append(Joined(rid=rid, number=1, wanted=WantedState.AWAKE, edition=0))
            case Heartbeat():
                frame = encode(message)
                # The next heartbeat has the same figures: one that does not fit is dropped. Less than PIPE_BUF is
                # written as a whole or not at all.
                with suppress(OSError):
                    os.write(self._writer, LENGTH.pack(len(frame)) + frame)
        return True

    def receive(self) -> Iterator[WorkerMessage]:
        while self._joined:
            yield self._joined.pop()
        for frame in self._reader.frames():
            message = msgspec.msgpack.decode(frame, type=_MESSAGES)
            match message:
                case UnitsHeld(units):
                    self._on_held(units)
                case FileReceived():
                    self._on_file(message, self._reader.take_descriptors(message.descriptors))
                case _:
                    yield message

    def pass_time(self, now: float) -> float:  # noqa: ARG002
        if self._joined:
            self._on_readable()
        return math.inf

    def close(self) -> None:
        self._reader.close()

    def _read(self) -> None:
        if not self._reader.read():
            self._on_end()
            return
        self._on_readable()
