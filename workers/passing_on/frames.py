"""Reads the frames of a download from the Unix socket on standard input, and the descriptors that come with them.

Does not decode frames: ``workers/passing_on/client_connection.py`` does.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Iterator

#: The bytes and the descriptors that are read at once.
READ_SIZE, MAX_DESCRIPTORS = 1 << 18, 8
LENGTH = struct.Struct("!I")


class FrameReader:
    """The frames on the Unix socket of descriptor ``fd``, each after its length. ``close()`` closes it."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._received = bytearray()
        #: The descriptors that have arrived and were not taken yet, in this order.
        self._descriptors: deque[int] = deque()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
        for fd in self._descriptors:
            os.close(fd)

    def read(self) -> bool:
        """Waits for data and reads it. Returns False if the download has ended."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, READ_SIZE, MAX_DESCRIPTORS)
        except ConnectionError:
            return False
        self._received += data
        self._descriptors.extend(descriptors)
        return bool(data)

    def frames(self) -> Iterator[bytes]:
        """Yields the frames that are complete."""
        while len(self._received) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            frame = bytes(self._received[LENGTH.size : end])
            del self._received[:end]
            yield frame

    def take_descriptors(self, count: int) -> list[int]:
        """Returns the descriptors of the frame that was yielded last; fewer if this process may open no more files."""
        return [self._descriptors.popleft() for _ in range(min(count, len(self._descriptors)))]
