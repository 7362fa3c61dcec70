"""Commands of the project on a terminal of their own, for tests: keys in, bytes out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tests.system import MSD, TIMEOUT, wait_for

#: What a shell does: leads the session, runs the command in the foreground, takes the terminal back
#: after it, and stays. Writes the command's process and its exit code to the first descriptor, until the
#: second one is closed. With "leads" the session is the command's own and the terminal stays with it, as where
#: sshd or tmux starts it.
_SHELL = """
import os, signal, sys
told, until, leads = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "leads"
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
os.write(told, b"%d\\n" % command)
_, status = os.waitpid(command, 0)
if not leads:
    os.tcsetpgrp(0, os.getpgrp())
os.write(told, b"%d\\n" % os.waitstatus_to_exitcode(status))
os.read(until, 1)
"""


class Terminal:
    """A command on a pseudo-terminal of 80 × 24, which a shell has, or the command itself, if it ``leads``; ended
    with the ``with`` block at the latest.
    """

    def __init__(self, *arguments: str, env: dict[str, str] | None = None, leads: bool = False) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(80, 24)
        self.settings = self.settings_now
        #: What was written, and when it was read.
        self.read: list[tuple[float, bytes]] = []
        told, tell = os.pipe()
        until, self._until = os.pipe()
        shell = [sys.executable, "-S", "-E", "-c", _SHELL]
        self._shell = subprocess.Popen(
            [*shell, str(tell), str(until), "leads" if leads else "follows", *MSD, *arguments],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            pass_fds=[tell, until],
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
        )
        os.close(tell)
        os.close(until)
        self._told = os.fdopen(told)
        self.pid = int(self._told.readline())
        self._code: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    @property
    def text(self) -> str:
        """All that was written, the escape sequences with it."""
        return b"".join(data for _, data in [*self.read]).decode("utf-8", "replace")

    @property
    def settings_now(self) -> list[Any]:
        """How the terminal is set, as by ``stty``."""
        return termios.tcgetattr(self._slave)

    def press(self, keys: str) -> int:
        """Types; how much was written before that, for ``sees``."""
        mark = len(self.text)
        os.write(self._master, keys.encode())
        return mark

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def sees(self, text: str, mark: int = 0) -> None:
        """Waits until this is written, after the first ``mark`` characters."""
        self.until(repr(text), lambda: text in self.text[mark:])

    def until(self, what: str, probe: Callable[[], bool]) -> None:
        """Waits for this; fails with the end of what was written."""
        try:
            wait_for(what, probe)
        except AssertionError as error:
            raise AssertionError(f"{error}; there is {self.text[-3000:]!r}") from None

    def wait(self, timeout: float = TIMEOUT) -> int:
        """The exit code, once all that was written has been read."""
        if self._code is None:
            assert select.select([self._told], [], [], timeout)[0], f"still running: {self.text[-3000:]!r}"
            self._code = int(self._told.readline())
        wait_for("all that was written", lambda: not select.select([self._master], [], [], 0.02)[0])
        return self._code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._code is None:
                self._end(signal.SIGTERM)
                with contextlib.suppress(AssertionError):
                    self.wait(5)
            if self._code is None:
                self._end(signal.SIGKILL)
                self.wait()
        finally:
            self._stop.set()
            self._thread.join()
            os.close(self._until)
            if self._code is None:
                self._shell.kill()
            self._shell.wait(TIMEOUT)
            self._told.close()
            os.close(self._slave)
            os.close(self._master)

    def _end(self, number: int) -> None:
        """Signals the command, if it has not ended."""
        # Once the shell has told its code, its number may be another process's.
        if not select.select([self._told], [], [], 0)[0]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _follow(self) -> None:
        while not self._stop.is_set():
            if select.select([self._master], [], [], 0.02)[0]:
                self.read.append((time.monotonic(), os.read(self._master, 65536)))
