"""Runs the console of ``msd serve`` as a child process on the same terminal.

Starts and stops the process, reports its exit code, and restores the terminal if the console could not. Does not
decide what the exit means: see ``broker/terminal/local_console.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Sequence

from msd.wire.net.endpoints import Endpoint
from msd.wire.support.output import has_cursor_movement

#: Seconds that the console has after SIGTERM to restore the terminal and exit before it is killed.
STOP_TIMEOUT_S = 2.0
#: Escape sequence that undoes the settings of a killed console: turns off the key protocol and reports of the mouse, of
#: focus, paste and size; turns on line wrapping and the cursor; returns to the main screen.
RESET_SEQUENCE = (
    "\x1b[<u\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l\x1b[?1004l\x1b[?2004l\x1b[?2048l"
    "\x1b[?7h\x1b[?25h\x1b[?1049l\r"
)


class ConsoleProcess:
    """A running console process. Raises ``OSError`` if it cannot be started."""

    def __init__(self, command: Sequence[str]) -> None:
        self._settings = termios.tcgetattr(0)
        # End of file on this pipe tells the console that this process has ended, even if it was killed.
        reader, self._pipe = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen([*command, "--supervisor", str(reader)], pass_fds=[reader])
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(reader)

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """Returns the exit code (negative: the signal that killed the process), or None while the process runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Terminates the process and waits until it has ended."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> str:
        """Restores the terminal's settings after the process has ended. Returns an escape sequence to write to the
        terminal; it is empty if the console itself has restored everything.
        """
        os.close(self._pipe)
        # Ignore SIGTTOU, or changing the settings from the background would stop this process.
        old_handler = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            if termios.tcgetattr(0) == self._settings:
                return ""
            termios.tcsetattr(0, termios.TCSANOW, self._settings)
        except termios.error:
            return ""  # The terminal was closed.
        finally:
            signal.signal(signal.SIGTTOU, old_handler)
        return RESET_SEQUENCE


def can_show_console() -> bool:
    """Returns True if a console can be shown: standard input and output are a terminal with cursor movement, and this
    process runs in its foreground.
    """
    if not has_cursor_movement():
        return False
    try:
        return os.isatty(0) and os.isatty(1) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def console_command(config: str | None, host: str | None, invited: str | None, server5: Endpoint) -> list[str]:
    """Returns the command line of a console for the servers that these flags of ``msd serve`` describe. ``invited`` is
    the name for which the console offers a link, None for none.
    """
    command = [sys.executable, "-P", "-m", "msd", "console", "--server5", str(server5)]
    if config is not None:
        command += ["-c", config]
    if host is not None:
        command += ["-a", host]
    if invited is not None:
        command += ["--invite", invited]
    return command
