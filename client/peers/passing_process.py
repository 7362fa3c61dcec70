"""The worker process that passes on what this download has verified: starts it, tells it what there is, and ends it.

The process is one of ``workers/passing_on``; both sides meet at its pipes only. Does not decide what is passed on.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from msd.wire.errors import MsdError, ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.child_messages import PassedFile, PassOnSettings, UnitsHeld
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import MAX_ENTRIES, Admitted, Heartbeat, Message
from msd.wire.sharing.child_process import workers_command

#: Seconds that the process has to send what it has begun to send, before it is killed.
END_TIMEOUT_S = 2.0
_LENGTH = struct.Struct("!I")


class PassingProcess:
    """A process that serves ``files``, those of ``plan``, at ``listen``, with at most ``rate`` bytes a second (0: no
    limit).

    ``secret`` is the secret of its own key, empty without keys. Call ``close()``. Raises ``MsdError`` if it cannot be
    started.
    """

    def __init__(self, plan: bytes, listen: Endpoint, secret: bytes, rate: int, files: Sequence[PassedFile]) -> None:
        settings = PassOnSettings(os.getpid(), plan, listen.bind_url, secret, rate, [*files])
        try:
            self._process = subprocess.Popen(
                workers_command("pass-on"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=[file.fd for file in files],
                bufsize=0,
            )
        except OSError as error:
            raise MsdError(f"cannot start the process that passes on: {error.strerror}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        #: What is not written yet, and what is read of an incomplete heartbeat.
        self._unsent = bytearray()
        self._received = b""
        #: The last heartbeat of the process.
        self.heartbeat: Heartbeat | None = None
        self._write(msgspec.msgpack.encode(settings))

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """The descriptor that is readable when ``read()`` has something to read."""
        return self._output

    def hold(self, units: Iterable[int]) -> None:
        """These units of the plan are verified."""
        numbers = [*units]
        for first in range(0, len(numbers), MAX_ENTRIES):
            self._send(UnitsHeld(units=numbers[first : first + MAX_ENTRIES]))

    def admit(self, admitted: Admitted) -> None:
        """These keys are admitted, and no others."""
        self._send(admitted)

    def flush(self) -> bool:
        """Writes what the process takes now. Returns True if nothing is left."""
        with suppress(BlockingIOError, BrokenPipeError):  # ``read`` reports a process that has ended.
            while self._unsent:
                del self._unsent[: os.write(self._input, self._unsent)]
        return not self._unsent

    def read(self) -> None:
        """Reads heartbeats. Raises ``MsdError``, with the reason, if the process has ended."""
        with suppress(BlockingIOError):
            data = os.read(self._output, 1 << 16)
            if not data:
                raise MsdError(f"the process that passes on has ended: {self._reason()}")
            self._received += data
        while len(self._received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                break
            with suppress(ProtocolError):
                self.heartbeat = decode(self._received[_LENGTH.size : end], Heartbeat)
            self._received = self._received[end:]

    def close(self) -> None:
        """Ends the process in order, or kills it if that takes too long."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _send(self, message: Message) -> None:
        self._write(encode(message))

    def _write(self, frame: bytes) -> None:
        self._unsent += _LENGTH.pack(len(frame)) + frame
        self.flush()

    def _reason(self) -> str:
        """Why the process has ended: the last line of its log."""
        code = self._process.wait()
        assert self._process.stderr is not None
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"code {code}"
