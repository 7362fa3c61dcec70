"""The process that indexes the shared files: starts it, reads its lines, and kills it.

Does not decide when: see ``wire/sharing/indexer_supervisor.py``.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import msgspec

from msd.wire.errors import MsdError
from msd.wire.protocol.child_messages import IndexLine, RescanRequest
from msd.wire.protocol.messages import SuspectSegment
from msd.wire.sharing.child_process import close_streams, exit_reason, workers_command


class IndexerProcess:
    """The process that indexes the shared files. Call ``read_lines`` when ``fileno()`` is readable."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "index.log"
        self._partial_line = b""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                workers_command("index", str(folder / "catalogue")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def read_lines(self) -> list[IndexLine]:
        """The lines printed since the last call. Raises ``MsdError``, with the exit code and reason, if the process
        has exited.
        """
        data = os.read(self.fileno(), 65536)
        if not data:
            code = self._process.wait()
            error = MsdError(exit_reason(code, self._log))
            error.exit_code = max(code, 1)
            raise error
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        return [msgspec.json.decode(line, type=IndexLine) for line in lines]

    def request_rescan(self, suspect: SuspectSegment | None) -> None:
        """Asks the process to check the files for changes now, and to compare the data of ``suspect``."""
        assert self._process.stdin is not None
        # A full pipe already contains enough requests. ``read_lines`` reports a process that has exited.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._process.stdin.fileno(), msgspec.json.encode(RescanRequest(suspect)) + b"\n")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        close_streams(self._process)
