"""Terminals for tests: a pseudo-terminal that runs a command, and an emulated one that keeps its rows in memory."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from tests.processes import MSD, TIMEOUT, wait_for

#: Acts like an interactive shell: it is the session leader, runs the command in the foreground, takes the terminal back
#: afterwards and keeps running. It writes the command's pid and exit code to the pipe ``results``, and exits when the
#: pipe ``stop`` is closed. With "leads", the command leads its own session and keeps the terminal, as if it had been
#: started by sshd or tmux.
_SHELL = """
import os, signal, sys
results, stop, leads = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "leads"
def take_terminal():
    os.close(os.open(os.ttyname(0), os.O_RDWR))
if not leads:
    take_terminal()
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
command = os.fork()
if not command:
    if leads:
        os.setsid()
        take_terminal()
    else:
        os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.closerange(3, 256)
    os.execvp(sys.argv[4], sys.argv[4:])
os.write(results, b"%d\\n" % command)
_, status = os.waitpid(command, 0)
if not leads:
    os.tcsetpgrp(0, os.getpgrp())
os.write(results, b"%d\\n" % os.waitstatus_to_exitcode(status))
os.read(stop, 1)
"""


class Terminal:
    """A command on a pseudo-terminal of ``size``, columns and rows. The session leader is a shell or, with
    ``leads_session``, the command itself. Leaving the ``with`` block ends the command.
    """

    def __init__(
        self,
        *arguments: str,
        program: Sequence[str] = MSD,
        env: dict[str, str] | None = None,
        leads_session: bool = False,
        size: tuple[int, int] = (80, 24),
    ) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(*size)
        self.settings = self.current_settings
        #: The chunks of bytes written to the terminal, each with the time at which it was read.
        self.chunks: list[tuple[float, bytes]] = []
        results, shell_results = os.pipe()
        shell_stop, self._stop_shell = os.pipe()
        shell = [sys.executable, "-S", "-E", "-c", _SHELL]
        mode = "leads" if leads_session else "follows"
        self._shell = subprocess.Popen(
            [*shell, str(shell_results), str(shell_stop), mode, *program, *arguments],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            pass_fds=[shell_results, shell_stop],
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
        )
        os.close(shell_results)
        os.close(shell_stop)
        self._results = os.fdopen(results)
        self.pid = int(self._results.readline())
        self._exit_code: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @property
    def text(self) -> str:
        """Everything written so far, including escape sequences."""
        return b"".join(data for _, data in [*self.chunks]).decode("utf-8", "replace")

    @property
    def current_settings(self) -> list[Any]:
        """The terminal's current attributes, from ``tcgetattr``."""
        return termios.tcgetattr(self._slave)

    def press(self, keys: str) -> int:
        """Types ``keys``. Returns the previous length of ``text``, to be passed to ``expect`` as ``after``."""
        written = len(self.text)
        os.write(self._master, keys.encode())
        return written

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def expect(self, text: str, after: int = 0) -> None:
        """Waits until ``text`` appears in the output, ignoring the first ``after`` characters."""
        self.wait_until(repr(text), lambda: text in self.text[after:])

    def wait_until(self, description: str, condition: Callable[[], bool]) -> None:
        """Waits for ``condition``. On timeout, fails and shows the last 3000 characters of the output."""
        try:
            wait_for(description, condition)
        except AssertionError as error:
            raise AssertionError(f"{error}; the terminal shows {self.text[-3000:]!r}") from None

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Waits until the command has exited and all its output has been read. Returns its exit code."""
        if self._exit_code is None:
            assert select.select([self._results], [], [], timeout)[0], f"still running: {self.text[-3000:]!r}"
            self._exit_code = int(self._results.readline())
        wait_for("the rest of the output", lambda: not select.select([self._master], [], [], 0.02)[0])
        return self._exit_code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._exit_code is None:
                self._signal_if_running(signal.SIGTERM)
                with contextlib.suppress(AssertionError):
                    self.wait(5)
            if self._exit_code is None:
                self._signal_if_running(signal.SIGKILL)
                self.wait()
        finally:
            self._stop.set()
            self._thread.join()
            os.close(self._stop_shell)
            if self._exit_code is None:
                self._shell.kill()
            self._shell.wait(TIMEOUT)
            self._results.close()
            os.close(self._slave)
            os.close(self._master)

    def _signal_if_running(self, number: int) -> None:
        # Once the shell has reported the exit code, the pid may belong to another process.
        if not select.select([self._results], [], [], 0)[0]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _read(self) -> None:
        while not self._stop.is_set():
            if select.select([self._master], [], [], 0.02)[0]:
                self.chunks.append((time.monotonic(), os.read(self._master, 65536)))


OnTerminal = Callable[..., Terminal]


class EmulatedTerminal(io.StringIO):
    """An in-memory terminal with rows and a cursor. A resize wraps rows that are too wide if ``rewraps``, or else
    truncates them.
    """

    def __init__(self, width: int, *, rewraps: bool) -> None:
        super().__init__()
        self.rows = [""]
        self.row = self.column = 0
        self.wraps = True
        self.width = width
        self._rewraps = rewraps

    @property
    def shown(self) -> list[str]:
        return "\n".join(self.rows).rstrip("\n").split("\n")

    def write(self, text: str) -> int:
        for token in re.findall(r"\x1b\[\??\d*[A-Za-z]|\x1b\[[0-9;]*m|[\s\S]", text):
            self._handle(token)
        return len(text)

    def resize(self, width: int) -> None:
        rows: list[str] = []
        for number, row in enumerate(self.rows):
            pieces = [row[at : at + width] for at in range(0, len(row), width)] or [""]
            if number == self.row:
                cursor = len(rows)
            rows += pieces if self._rewraps else pieces[:1]
        # Assumes that the cursor is at the start of a line.
        self.rows, self.row, self.column, self.width = rows, cursor, 0, width

    def _handle(self, token: str) -> None:
        match token:
            case "\r":
                self.column = 0
            case "\n":
                self.row, self.column = self.row + 1, 0
                self.rows += [""] * (self.row + 1 - len(self.rows))
            case "\x1b[K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            case "\x1b[J":
                assert (self.row, self.column) != (0, 0), "clearing the whole screen: tmux would save it in its history"
                self.rows[self.row] = self.rows[self.row][: self.column]
                del self.rows[self.row + 1 :]
            case "\x1b[?7l" | "\x1b[?7h":
                self.wraps = token.endswith("h")
            case _ if token.endswith("A") and len(token) > 1:
                self.row = max(0, self.row - int(token[2:-1] or 1))
            case _ if token.endswith("m") and len(token) > 1:
                pass
            case _:
                assert len(token) == 1, token
                self._put(token)

    def _put(self, character: str) -> None:
        if self.column == self.width and self.wraps:
            self._handle("\n")
        # Without wrapping, further characters overwrite the last column.
        column = min(self.column, self.width - 1)
        row = self.rows[self.row].ljust(column)
        self.rows[self.row] = row[:column] + character + row[column + 1 :]
        self.column = column + 1
