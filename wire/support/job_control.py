"""Asks whether this process may use a terminal: job control stops a background process that reads from its terminal.

Reads and writes nothing.
"""

from __future__ import annotations

import os
import termios


def is_in_background(descriptor: int) -> bool:
    """Returns True if ``descriptor`` is this process's terminal and a shell runs this process in the background.

    Reading from the terminal then stops the process (SIGTTIN).
    """
    try:
        return os.tcgetpgrp(descriptor) != os.getpgrp()
    except OSError:
        return False  # Not a terminal, or the terminal of another session: there is no job control.


def may_write(descriptor: int) -> bool:
    """Returns False if writing to ``descriptor`` would stop this process (SIGTTOU, after ``stty tostop``)."""
    try:
        return not (is_in_background(descriptor) and termios.tcgetattr(descriptor)[3] & termios.TOSTOP)
    except termios.error:
        return True  # The terminal was closed: writing fails without stopping the process.
