"""A TCP proxy that injects network faults: rate limit, delay, stall, refusal, reset, cut, bit flips.

It runs in one thread and forwards one port. The faults are plain attributes that any thread may change at any
time; a change applies to the bytes read from then on. The proxy does not know the msd protocol.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from types import TracebackType
from typing import Self

#: Maximum number of bytes per read.
CHUNK = 64 << 10
#: Maximum number of bytes in transit per direction of a connection: the bandwidth-delay product of a long fat network.
MAX_IN_TRANSIT = 64 << 20
#: Poll timeout in seconds: the longest time to notice that delayed data is due or that a fault was changed.
TICK = 0.002


class Proxy:
    """Forwards connections from ``port`` of the address ``near`` to the port ``target`` of ``far``. A context manager.

    Faults in the direction from the target to the client: ``rate`` in bytes/s (0: unlimited), ``flip_every``
    (flips the lowest bit of every nth byte; 0: none), ``cut_after`` (closes a connection after this many bytes;
    None: never). Faults in both directions: ``delay`` in seconds, ``stalled`` (forwards nothing, closes nothing).
    ``refusing`` closes new connections at once.
    """

    def __init__(self, target: int, *, near: str = "127.0.0.1", far: str = "127.0.0.1") -> None:
        self.target = target
        self.far = far
        self.rate = 0.0
        self.delay = 0.0
        self.flip_every = 0
        self.cut_after: int | None = None
        self.stalled = False
        self.refusing = False
        self._next_read_at = 0.0
        self._bytes_seen = 0
        self._reset_requests = 0
        self._directions: list[_Direction] = []
        self._listener = socket.create_server((near, 0))
        self.port: int = self._listener.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def reset(self) -> None:
        """Closes all connections with a TCP reset."""
        self._reset_requests += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        resets = 0
        while not self._stop.is_set():
            if self._reset_requests != resets:
                resets = self._reset_requests
                self._close(self._directions, reset=True)
            now = time.monotonic()
            readers: list[socket.socket] = [self._listener]
            writers: list[socket.socket] = []
            if not self.stalled:
                readers += [
                    direction.source
                    for direction in self._directions
                    if direction.has_room and self._may_read(direction, now)
                ]
                writers += [direction.target for direction in self._directions if direction.is_due(now)]
            readable, writable, _ = select.select(readers, writers, [], TICK)
            if self._listener in readable:
                self._accept()
            for direction in [*self._directions]:
                try:
                    if direction.source in readable:
                        self._read(direction)
                    if direction.target in writable:
                        direction.write()
                except OSError:
                    direction.ended = True
                    direction.in_transit.clear()
            self._close([direction for direction in self._directions if direction.ended and not direction.in_transit])
        self._close(self._directions, reset=True)
        self._listener.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        if self.refusing:
            near.close()
            return
        try:
            far = socket.create_connection((self.far, self.target), timeout=1)
        except OSError:
            near.close()
            return
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._directions += [_Direction(near, far, from_target=False), _Direction(far, near, from_target=True)]

    def _may_read(self, direction: _Direction, now: float) -> bool:
        return not (direction.from_target and self.rate and now < self._next_read_at)

    def _read(self, direction: _Direction) -> None:
        data = direction.source.recv(CHUNK)
        now = time.monotonic()
        if direction.from_target:
            direction.received += len(data)
            data = self._flip_bits(data)
            if self.rate:
                # Compensate for up to five ticks of lateness; a longer pause must not cause a burst.
                self._next_read_at = max(self._next_read_at, now - 5 * TICK) + len(data) / self.rate
            if self.cut_after is not None and direction.received > self.cut_after:
                data = b""
        if data:
            direction.in_transit.append((now + self.delay, data))
            direction.bytes_in_transit += len(data)
        else:
            direction.ended = True

    def _flip_bits(self, data: bytes) -> bytes:
        if not self.flip_every:
            return data
        flipped = bytearray(data)
        for position in range(self.flip_every - 1 - self._bytes_seen % self.flip_every, len(data), self.flip_every):
            flipped[position] ^= 1
        self._bytes_seen += len(data)
        return bytes(flipped)

    def _close(self, directions: list[_Direction], *, reset: bool = False) -> None:
        """Closes both sockets of each direction."""
        for end in {end for direction in directions for end in (direction.source, direction.target)}:
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
        self._directions = [direction for direction in self._directions if direction.source.fileno() >= 0]


class _Direction:
    """One direction of a connection, and the chunks in transit, each with its arrival time."""

    def __init__(self, source: socket.socket, target: socket.socket, *, from_target: bool) -> None:
        self.source = source
        self.target = target
        self.from_target = from_target
        self.in_transit: deque[tuple[float, bytes]] = deque()
        self.bytes_in_transit = 0
        self.received = 0
        self.ended = False

    @property
    def has_room(self) -> bool:
        return self.bytes_in_transit < MAX_IN_TRANSIT and not self.ended

    def is_due(self, now: float) -> bool:
        return bool(self.in_transit) and self.in_transit[0][0] <= now

    def write(self) -> None:
        """Writes the first chunk, which must be due; keeps the bytes that the target does not accept yet."""
        arrival, data = self.in_transit.popleft()
        sent = self.target.send(data)
        self.bytes_in_transit -= sent
        if sent < len(data):
            self.in_transit.appendleft((arrival, data[sent:]))
