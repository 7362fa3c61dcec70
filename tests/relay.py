"""A relay between a client and a worker that misbehaves as a test wants: it knows the protocol.

For what happens to connections and bytes below the protocol see ``tests/proxy.py``.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import zmq

from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import DataReply, DataRequest, Segment


class Relay:
    """Passes messages on between ``port`` and the worker at ``target``, for one client.

    ``lie_each``: a bit of the first segment, and of each so many, is flipped. ``hold`` keeps
    the answers of the first so many seconds back until these have passed. ``segments`` counts what
    was asked for.
    """

    def __init__(self, port: int, target: int, *, lie_each: int = 0, hold: float = 0.0) -> None:
        self.requests: list[DataRequest] = []
        self.lies = 0
        self._sent = 0
        self._lie_each = lie_each
        self._hold = hold
        self._ended = threading.Event()
        self._context = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._back = self._context.socket(zmq.DEALER)
        self._front.bind(f"tcp://127.0.0.1:{port}")
        self._back.connect(f"tcp://127.0.0.1:{target}")
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._context.destroy(0)

    def _run(self) -> None:
        client, answer_from = b"", 0.0
        while not self._ended.is_set():
            if self._front.poll(5):
                client, *frames = self._front.recv_multipart()
                answer_from = answer_from or time.monotonic() + self._hold
                self.requests.append(decode(frames[0], DataRequest))
                self._back.send_multipart(frames)
            while time.monotonic() >= answer_from and self._back.poll(0):
                self._front.send_multipart([client, *self._spoilt(self._back.recv_multipart())])

    def _spoilt(self, frames: list[bytes]) -> list[bytes]:
        reply = decode(frames[0], DataReply)
        if not isinstance(reply, Segment) or not self._lie_each:
            return frames
        self._sent += 1
        if (self._sent - 1) % self._lie_each:
            return frames
        self.lies += 1
        payload = bytearray(frames[1])
        payload[self._sent % len(payload)] ^= 1
        return [encode(reply), bytes(payload)]
