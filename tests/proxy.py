"""A TCP proxy that makes a network bad: rate, delay, stall, refusal, reset, cut, flipped bits.

One thread, one proxied port. The faults are plain attributes that may be changed at any time, from
any thread; they hold for what passes from then on.
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

#: Bytes read at once.
CHUNK = 64 << 10
#: Bytes that may be under way in each direction of a connection: what a long fat link holds.
PIPE = 64 << 20
#: Seconds between two looks at the clock and at the faults.
TICK = 0.002


class Proxy:
    """Passes ``127.0.0.1:port`` on to ``127.0.0.1:target`` while its ``with`` block lasts.

    Faults of what comes from the target: ``rate`` in bytes a second (0: no limit), ``flip_every``
    (the lowest bit of one byte in so many; 0: none), ``cut_after`` (bytes after which a connection
    is closed; None: never). Of both directions: ``delay`` in seconds, ``stalled`` (nothing passes,
    nothing is closed). ``refusing`` closes new connections at once.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.rate = 0.0
        self.delay = 0.0
        self.flip_every = 0
        self.cut_after: int | None = None
        self.stalled = False
        self.refusing = False
        self._free_at = 0.0
        self._spoiled = 0
        self._resets = 0
        self._pipes: list[_Pipe] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def reset(self) -> None:
        """Resets all connections (RST)."""
        self._resets += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        resets = 0
        while not self._ended.is_set():
            if self._resets != resets:
                resets = self._resets
                self._close(self._pipes, reset=True)
            now = time.monotonic()
            readers: list[socket.socket] = [self._listener]
            writers: list[socket.socket] = []
            if not self.stalled:
                readers += [pipe.source for pipe in self._pipes if pipe.has_room and self._may_read(pipe, now)]
                writers += [pipe.target for pipe in self._pipes if pipe.is_due(now)]
            readable, writable, _ = select.select(readers, writers, [], TICK)
            if self._listener in readable:
                self._accept()
            for pipe in [*self._pipes]:
                try:
                    if pipe.source in readable:
                        self._read(pipe)
                    if pipe.target in writable:
                        pipe.write()
                except OSError:
                    pipe.ended = True
                    pipe.under_way.clear()
            self._close([pipe for pipe in self._pipes if pipe.ended and not pipe.under_way])
        self._close(self._pipes, reset=True)
        self._listener.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        if self.refusing:
            near.close()
            return
        try:
            far = socket.create_connection(("127.0.0.1", self.target), timeout=1)
        except OSError:
            near.close()
            return
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pipes += [_Pipe(near, far, from_target=False), _Pipe(far, near, from_target=True)]

    def _may_read(self, pipe: _Pipe, now: float) -> bool:
        return not (pipe.from_target and self.rate and now < self._free_at)

    def _read(self, pipe: _Pipe) -> None:
        data = pipe.source.recv(CHUNK)
        now = time.monotonic()
        if pipe.from_target:
            pipe.count += len(data)
            data = self._spoil(data)
            if self.rate:
                # A tick late is made up for; longer pauses are not.
                self._free_at = max(self._free_at, now - 5 * TICK) + len(data) / self.rate
            if self.cut_after is not None and pipe.count > self.cut_after:
                data = b""
        if data:
            pipe.under_way.append((now + self.delay, data))
            pipe.size += len(data)
        else:
            pipe.ended = True

    def _spoil(self, data: bytes) -> bytes:
        if not self.flip_every:
            return data
        spoiled = bytearray(data)
        for position in range(self.flip_every - 1 - self._spoiled % self.flip_every, len(data), self.flip_every):
            spoiled[position] ^= 1
        self._spoiled += len(data)
        return bytes(spoiled)

    def _close(self, pipes: list[_Pipe], *, reset: bool = False) -> None:
        """Closes the connections of these pipes, both directions."""
        for end in {end for pipe in pipes for end in (pipe.source, pipe.target)}:
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
        self._pipes = [pipe for pipe in self._pipes if pipe.source.fileno() >= 0]


class _Pipe:
    """One direction of a connection, and what is under way in it with its time of arrival."""

    def __init__(self, source: socket.socket, target: socket.socket, *, from_target: bool) -> None:
        self.source = source
        self.target = target
        self.from_target = from_target
        self.under_way: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.count = 0
        self.ended = False

    @property
    def has_room(self) -> bool:
        return self.size < PIPE and not self.ended

    def is_due(self, now: float) -> bool:
        return bool(self.under_way) and self.under_way[0][0] <= now

    def write(self) -> None:
        """Writes what has arrived by now."""
        arrival, data = self.under_way.popleft()
        sent = self.target.send(data)
        self.size -= sent
        if sent < len(data):
            self.under_way.appendleft((arrival, data[sent:]))
