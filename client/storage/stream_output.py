"""Writes a file to a stream: each verified segment once all segments before it are written.

Segments that arrive early are kept in memory. The scheduler limits their number (``client/scheduling/scheduler.py``).
"""

from __future__ import annotations

from msd.client.storage.output import Output
from msd.client.storage.stream import Stream


class StreamOutput(Output):
    """The output of a file of ``size`` bytes to ``stream``, which the caller closes. ``with_sha256`` enables
    ``sha256()``.
    """

    def __init__(self, stream: Stream, size: int, *, with_sha256: bool = False) -> None:
        self.stream = stream
        self._size = size
        # Nothing can be read again, so the SHA-256 is computed while the data is written.
        self._sha256 = None
        if with_sha256:
            from msd.client.storage.sha256 import new_sha256

            self._sha256 = new_sha256()
        #: The number of segments that are written completely; segment ``position`` is the next to be written.
        self.position = 0
        self.written_bytes = 0
        #: Verified segments that are not written yet; of segment ``position``, the part that is not written yet.
        self._pending: dict[int, memoryview] = {}
        self._pending_bytes = 0

    @property
    def can_restart(self) -> bool:
        return not self.written_bytes

    @property
    def saved_progress(self) -> str:
        return f"all of that was written to {self.stream.path}; the same command starts from the beginning"

    @property
    def data_location(self) -> str:
        return f"; {self.stream.path} has received the data: discard it"

    @property
    def uncopied_bytes(self) -> int:
        return self._pending_bytes

    @property
    def waits_for_reader(self) -> bool:
        """True if the next segment is verified but the reader has not taken all of it."""
        return self.position in self._pending

    def write(self, index: int, data: memoryview) -> None:
        """Keeps the segment for ``flush``."""
        self._pending[index] = data
        self._pending_bytes += len(data)

    def flush(self) -> None:
        """Writes as much as the reader takes now. Also notices if the reader closed the stream before its end."""
        while (data := self._pending.get(self.position)) is not None:
            written = self.stream.write(data)
            if self._sha256 is not None:
                self._sha256.update(data[:written])
            self.written_bytes += written
            self._pending_bytes -= written
            if written == len(data):
                del self._pending[self.position]
                self.position += 1
            elif written:
                self._pending[self.position] = data[written:]
            else:
                return
        # A reader that knows the size may close the stream after the last byte.
        if self.written_bytes < self._size:
            self.stream.check_reader()

    def sha256(self) -> str:
        assert self._sha256 is not None, "created without with_sha256"
        return self._sha256.hexdigest()

    def close(self) -> None:
        self._pending.clear()
