"""The worker process that passes on what this download has verified: starts it, tells it what there is, and ends it.

The process is one of ``workers/passing_on``; both sides meet at its standard streams only. Does not decide what is
passed on.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice

import msgspec

from msd.wire.errors import MsdError, ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.child_messages import FileReceived, FilesListed, PassOnSettings, UnitsHeld
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import Admitted, Entry, Heartbeat, Message
from msd.wire.sharing.child_process import workers_command

#: Seconds that the process has to send what it has begun to send, before it is killed.
END_TIMEOUT_S = 2.0
#: The number of files that are described at once.
LISTED_AT_ONCE = 1024
#: The number of frames above which a process is taken to hang: then no descriptors are kept open for it.
MAX_WAITING_FRAMES = 256
_LENGTH = struct.Struct("!I")


class PassingProcess:
    """A process that serves ``files``, which are those of ``plan`` without empty ones, at ``listen``, with at most
    ``rate`` bytes a second (0: no limit).

    ``secret`` is the secret of its own key, empty without keys. ``folder`` is a descriptor of the folder in which the
    files have their names; without it, those are served that are received by segments. Call ``close()``. Raises
    ``MsdError`` if the process cannot be started.
    """

    def __init__(
        self,
        plan: bytes,
        listen: Endpoint,
        secret: bytes,
        rate: int,
        files: Iterable[Entry],
        *,
        folder: int | None = None,
    ) -> None:
        settings = PassOnSettings(os.getpid(), plan, listen.bind_url, secret, rate, folder)
        self._input, child_input = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                workers_command("pass-on"),
                stdin=child_input.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=[] if folder is None else [folder],
                bufsize=0,
            )
        except OSError as error:
            self._input.close()
            raise MsdError(f"cannot start the process that passes on: {error.strerror}") from None
        finally:
            child_input.close()
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        self._input.setblocking(False)
        os.set_blocking(self._output, False)
        #: The files that are not described yet.
        self._files = iter(files)
        self._are_listed = False
        #: The frames that follow, each with descriptors, which belong to this object.
        self._frames: deque[tuple[bytes, list[int]]] = deque()
        #: What is not written yet of a frame, with its descriptors; and what is read of an incomplete heartbeat.
        self._unsent = memoryview(_framed(msgspec.msgpack.encode(settings)))
        self._descriptors: list[int] = []
        self._received = b""
        #: The last heartbeat of the process.
        self.heartbeat: Heartbeat | None = None
        self.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """The descriptor that is readable when ``read()`` has something to read."""
        return self._output

    def receive(self, name: str, first_unit: int, digests: bytes, descriptors: Sequence[int]) -> None:
        """A file is received by segments, the units from ``first_unit`` on with these digests. Each of the descriptors,
        which remain the caller's, may have any of them.
        """
        own: list[int] = []
        if len(self._frames) < MAX_WAITING_FRAMES:
            # This process may have too many open files: the path remains.
            with suppress(OSError):
                own.extend(map(os.dup, descriptors))
        self._send(FileReceived(name=name, first_unit=first_unit, digests=digests, descriptors=len(own)), own)

    def hold(self, units: Iterable[int]) -> None:
        """These units of the plan are verified."""
        self._send(UnitsHeld(units=[*units]))

    def admit(self, admitted: Admitted) -> None:
        """These keys are admitted, and no others."""
        self._send(admitted)

    def flush(self) -> bool:
        """Writes what the process takes now. Returns True if nothing is left."""
        with suppress(BlockingIOError, ConnectionError):  # ``read`` reports a process that has ended.
            while self._unsent or self._take_frame():
                if self._descriptors:
                    sent = socket.send_fds(self._input, [self._unsent], self._descriptors)
                    self._close_descriptors()
                else:
                    sent = self._input.send(self._unsent)
                self._unsent = self._unsent[sent:]
            return True
        return False

    def read(self) -> None:
        """Reads heartbeats. Raises ``MsdError``, with the reason, if the process has ended."""
        if not self._read():
            raise MsdError(f"the process that passes on has ended: {self._reason()}")

    def close(self) -> None:
        """Ends the process in order, or kills it if that takes too long. Its last heartbeat has the final figures."""
        if self._process.returncode is None:
            # Otherwise the pipe may have no room for the last heartbeat.
            self._read()
        self._input.close()
        if self._process.returncode is None:
            self._wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._close_descriptors()
        while self._frames:
            self._descriptors = self._frames.popleft()[1]
            self._close_descriptors()

    def _wait(self) -> None:
        """Reads heartbeats until the process has ended, and kills it if that takes too long."""
        deadline = time.monotonic() + END_TIMEOUT_S
        poller = select.poll()
        poller.register(self._output, select.POLLIN)
        has_ended = False
        while not has_ended and (left := deadline - time.monotonic()) > 0:
            has_ended = bool(poller.poll(1000 * left)) and not self._read()
        if not has_ended:
            self._process.kill()
        self._process.wait()

    def _read(self) -> bool:
        """Reads the heartbeats that have arrived. Returns False if the process has ended."""
        with suppress(BlockingIOError):
            data = os.read(self._output, 1 << 16)
            if not data:
                return False
            self._received += data
        while len(self._received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                break
            with suppress(ProtocolError):
                self.heartbeat = decode(self._received[_LENGTH.size : end], Heartbeat)
            self._received = self._received[end:]
        return True

    def _send(self, message: Message, descriptors: list[int] | None = None) -> None:
        self._frames.append((encode(message), descriptors or []))
        self.flush()

    def _take_frame(self) -> bool:
        """Takes the next frame to be written. Returns False if there is none."""
        if not self._are_listed:
            entries = [*islice(self._files, LISTED_AT_ONCE)]
            self._are_listed = len(entries) < LISTED_AT_ONCE
            frame = encode(FilesListed(entries=entries, more=not self._are_listed))
        elif self._frames:
            frame, self._descriptors = self._frames.popleft()
        else:
            return False
        self._unsent = memoryview(_framed(frame))
        return True

    def _close_descriptors(self) -> None:
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors = []

    def _reason(self) -> str:
        """Why the process has ended: the last line of its log."""
        code = self._process.wait()
        assert self._process.stderr is not None
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"code {code}"


def _framed(frame: bytes) -> bytes:
    return _LENGTH.pack(len(frame)) + frame
