"""Appends a line to the access log for each download that has ended.

A thread writes, so that a disk that is full or does not answer never holds up the broker: lines are dropped then. Does
not decide when a download has ended: see ``broker/status/downloads.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import threading
from datetime import datetime
from pathlib import Path

from msd.broker.status.downloads import DownloadEnded
from msd.wire.errors import UsageError
from msd.wire.protocol.states import DownloadState

#: The number of lines that wait while nothing can be written; further ones are dropped.
MAX_QUEUED = 1024
#: The mode of a new file: it says who downloads what.
MODE = 0o640
#: Seconds that the last lines may take.
CLOSE_TIMEOUT_S = 0.5


class AccessLog:
    """The log at ``path``. Raises ``UsageError`` if it cannot be opened. Call ``close()`` when done."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = _open(path)
        except OSError as error:
            raise UsageError(f"access_log {path}: {error.strerror}: name a file that can be written") from None
        self._queue: queue.Queue[bytes | None] = queue.Queue(MAX_QUEUED)
        #: True if the last line in the file may be incomplete.
        self._is_torn = False
        #: Why the last line could not be written; empty if it was.
        self._problem = ""
        self._reported = ""
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Appends a line soon. Does not wait."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(line.encode() + b"\n")

    def new_problem(self) -> str:
        """Returns why lines cannot be written, once for each reason, or an empty string."""
        problem, before, self._reported = self._problem, self._reported, self._problem
        return f"access log {self._path}: {problem}" if problem not in ("", before) else ""

    def close(self) -> None:
        """Waits half a second at most until the last lines are written."""
        if self._queue.full():
            # The disk does not answer: drop what waits for it.
            with contextlib.suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
        self._queue.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            os.close(self._descriptor)

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._reopen_if_moved()
                data = b"\n" + line if self._is_torn else line
                self._is_torn = True
                while data:
                    data = data[os.write(self._descriptor, data) :]
                self._is_torn, self._problem = False, ""
            except OSError as error:
                self._problem = error.strerror or str(error)

    def _reopen_if_moved(self) -> None:
        """Opens the file at the path if another program has moved or removed the one that is open."""
        try:
            is_same = os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            is_same = False
        if not is_same:
            descriptor = _open(self._path)
            os.close(self._descriptor)
            self._descriptor, self._is_torn = descriptor, False


def _open(path: Path) -> int:
    # Otherwise a FIFO would block until a program reads it.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    descriptor = os.open(path, flags, MODE)
    os.set_blocking(descriptor, True)
    return descriptor


def access_line(ended: DownloadEnded, time: float) -> str:
    """Returns the line for a download that ended at ``time``, in seconds since 1970."""
    download = ended.download
    end = "silent" if ended.is_silent else download.state.value
    fields = {
        "client": download.client,
        "host": download.host,
        "what": download.selection,
        "end": end,
        **({"exit_code": download.exit_code} if end == DownloadState.BROKEN else {}),
        "bytes": download.bytes,
        "received": download.received,
        "seconds": f"{download.seconds:.1f}",
        "files": download.files,
        "workers": download.workers,
        "peers": download.peers,
        "peer_bytes": download.peer_bytes,
    }
    timestamp = datetime.fromtimestamp(time).astimezone().isoformat(timespec="seconds")
    return " ".join([timestamp, *(f"{key}={_value(value)}" for key, value in fields.items())])


def _value(value: object) -> str:
    """Returns a value, in quotes if it could be mistaken for several."""
    text = str(value)
    return text if re.fullmatch(r"[^\s\"=\\]+", text) else json.dumps(text, ensure_ascii=False)
