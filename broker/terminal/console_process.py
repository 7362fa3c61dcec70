"""The console of ``msd serve`` as a process of its own, on the same terminal.

Starts and ends it, says how it ended, and puts the terminal back as it was if that one could not. What
its end means is decided in ``broker/terminal/local_console.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Sequence

#: Seconds it has to put the terminal back when it is told to end.
PATIENCE = 2.0
#: Leaves what a console that was killed had switched on: the keys' protocol, reports of focus, pastes and
#: sizes; the lines wrap, the cursor is seen, the screen is the ordinary one.
RESTORE = "\x1b[<u\x1b[?1004l\x1b[?2004l\x1b[?2048l\x1b[?7h\x1b[?25h\x1b[?1049l\r"


class ConsoleProcess:
    """The console's process; it starts at once. Raises ``OSError`` where it cannot."""

    def __init__(self, command: Sequence[str]) -> None:
        self._settings = termios.tcgetattr(0)
        # Its end is how the console learns that this process is gone, however that happened.
        reader, self._pipe = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen([*command, "--supervisor", str(reader)], pass_fds=[reader])
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(reader)

    def ended(self) -> int | None:
        """The exit code, below 0 for a signal; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ends it, if it has not ended."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> str:
        """Once it has ended: puts the terminal's settings back, and returns what has to be written to it."""
        os.close(self._pipe)
        # A terminal that is somebody else's by now does not stop this process.
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            if termios.tcgetattr(0) == self._settings:
                return ""
            termios.tcsetattr(0, termios.TCSANOW, self._settings)
        except termios.error:
            return ""  # It was closed.
        finally:
            signal.signal(signal.SIGTTOU, before)
        return RESTORE


def is_terminal() -> bool:
    """True if a console can be shown: on a terminal that can more than print, and that is not lent to
    another command.
    """
    if os.environ.get("TERM", "dumb") in ("", "dumb"):
        return False
    try:
        return os.isatty(0) and os.isatty(1) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def console_command(config: str | None, host: str | None, ports: Sequence[int] | None) -> list[str]:
    """The command that shows the console of the servers that these flags describe."""
    command = [sys.executable, "-P", "-m", "msd", "console"]
    if config is not None:
        command += ["-c", config]
    if host is not None:
        command += ["-a", host]
    if ports is not None:
        command += ["-p", *map(str, ports)]
    return command
