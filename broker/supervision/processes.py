"""Starts, kills and reaps the worker processes of the broker.

Does not decide when: see ``broker/supervision/supervisor.py``. Every child is started as a new program, because a
process that holds ZeroMQ contexts must not be forked without an exec. ``wire/sharing/indexer_process.py`` runs the
indexer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
from collections.abc import Set
from pathlib import Path

from msgspec import Struct

from msd.wire.config.settings import Config
from msd.wire.protocol.child_messages import WorkerSettings
from msd.wire.protocol.codec import encode
from msd.wire.protocol.states import WantedState
from msd.wire.security.keys import KeyPair
from msd.wire.sharing.child_process import close_streams, exit_reason, workers_command


class ExitedProcess(Struct, frozen=True):
    """A worker's process that has exited. ``reason`` is human-readable."""

    number: int
    pid: int
    reason: str


class WorkerProcesses:
    """The processes of the workers, by number."""

    def __init__(self, config: Config, folder: Path, control: str, token: bytes, keys: KeyPair | None = None) -> None:
        self._config = config
        self._folder = folder
        #: The endpoint to which new workers connect.
        self.control = control
        self._token = token
        self._keys = keys
        #: The processes that have not ended although they were killed.
        self.abandoned: list[int] = []
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def spawn(self, number: int, wanted: WantedState, edition: int) -> int:
        """Starts worker ``number`` with an edition of the catalogue; returns its process id. Raises ``OSError``.

        Call it from the main thread: the worker dies with the *thread* that started it.
        """
        worker = self._config.workers[number - 1]
        settings = encode(
            WorkerSettings(
                name=str(number),
                number=number,
                parent=os.getpid(),
                bind=worker.endpoint.bind_url,
                control=self.control,
                token=self._token,
                catalogue=str(self._folder / "catalogue"),
                edition=edition,
                rate=worker.rate,
                wanted=wanted,
                secret=self._keys.secret if self._keys else b"",
                keys=os.path.abspath(self._config.key_folder.path) if self._keys else "",
            )
        )
        with self._log(number).open("wb") as log:
            process = subprocess.Popen(
                workers_command("serve"),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        assert process.stdin is not None
        # BrokenPipeError: the process has already exited; ``reap`` will report it.
        with contextlib.suppress(BrokenPipeError):
            os.write(process.stdin.fileno(), struct.pack("!I", len(settings)) + settings)
        self._running[number] = process
        return process.pid

    @property
    def pids(self) -> list[int]:
        """The processes that have not been reaped yet."""
        return [process.pid for process in self._running.values()]

    def kill(self, number: int) -> None:
        if number in self._running:
            self._running[number].kill()

    def abandon(self, number: int) -> ExitedProcess:
        """Forgets a process that was killed and does not end, because the kernel waits for a disk or a mount."""
        process = self._running.pop(number)
        self.abandoned.append(process.pid)
        close_streams(process)
        # It is not waited for, which Popen would complain of.
        process.returncode = -signal.SIGKILL
        return ExitedProcess(number, process.pid, "killed, but it waits for a disk or a mount")

    def reap(self) -> list[ExitedProcess]:
        """The workers that have exited since the last call."""
        exited = []
        for number, process in list(self._running.items()):
            if process.poll() is not None:
                del self._running[number]
                close_streams(process)
                reason = exit_reason(process.returncode, self._log(number))
                exited.append(ExitedProcess(number, process.pid, reason))
        return exited

    def close(self) -> None:
        """Kills the remaining workers and waits for them."""
        for process in self._running.values():
            process.kill()
            process.wait()
            close_streams(process)

    def _log(self, number: int) -> Path:
        return self._folder / f"worker-{number}.log"


def reap_orphans(own: Set[int]) -> None:
    """Reaps exited children other than ``own``. Process 1 of a container needs this: it becomes the parent of every
    process there whose parent has exited.
    """
    with contextlib.suppress(ChildProcessError):  # There are no children.
        while (exited := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and exited.si_pid not in own:
            os.waitpid(exited.si_pid, 0)
