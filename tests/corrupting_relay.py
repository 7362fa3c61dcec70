"""A relay that forwards messages between a client and a worker, and corrupts or delays replies.

``tests/network_fault_proxy.py`` injects faults below the protocol level: in connections and byte streams.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import zmq

from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import DataReply, DataRequest, Get, Segment


class Relay:
    """Forwards messages between one client at ``port`` and the worker at ``target``. A context manager.

    ``corrupt_every=n`` flips a bit in the first whole segment and in every nth after it; ``corrupted`` counts the
    corrupted segments. Replies that contain a part of a segment are not corrupted. No reply is forwarded until ``hold``
    seconds after the first request. ``requests`` lists the client's requests.
    """

    def __init__(self, port: int, target: int, *, corrupt_every: int = 0, hold: float = 0.0) -> None:
        self.requests: list[DataRequest] = []
        self.corrupted = 0
        self._segments = 0
        #: The ids of the requests for whole segments.
        self._whole: set[int] = set()
        self._corrupt_every = corrupt_every
        self._hold = hold
        self._stop = threading.Event()
        self._context = zmq.Context()
        self._frontend = self._context.socket(zmq.ROUTER)
        self._backend = self._context.socket(zmq.DEALER)
        self._frontend.bind(f"tcp://127.0.0.1:{port}")
        self._backend.connect(f"tcp://127.0.0.1:{target}")
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._context.destroy(0)

    def _run(self) -> None:
        client, release_at = b"", 0.0
        while not self._stop.is_set():
            if self._frontend.poll(5):
                client, *frames = self._frontend.recv_multipart()
                release_at = release_at or time.monotonic() + self._hold
                request = decode(frames[0], DataRequest)
                self.requests.append(request)
                if isinstance(request, Get) and request.length is None:
                    self._whole.add(request.rid)
                self._backend.send_multipart(frames)
            while time.monotonic() >= release_at and self._backend.poll(0):
                self._frontend.send_multipart([client, *self._maybe_corrupt(self._backend.recv_multipart())])

    def _maybe_corrupt(self, frames: list[bytes]) -> list[bytes]:
        reply = decode(frames[0], DataReply)
        if not isinstance(reply, Segment) or reply.rid not in self._whole or not self._corrupt_every:
            return frames
        self._segments += 1
        if (self._segments - 1) % self._corrupt_every:
            return frames
        self.corrupted += 1
        payload = bytearray(frames[1])
        payload[self._segments % len(payload)] ^= 1
        return [encode(reply), bytes(payload)]
