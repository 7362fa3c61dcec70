"""Job control of the console: leaves the terminal to the shell, and returns to it.

Replaces Textual's handlers, whose console would stay stopped after ``fg`` if the shell takes the job of ``msd serve``
for a running one. Decides nothing else about the console.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

from textual.app import App

from msd.wire.support.job_control import is_in_background

#: Seconds between two checks whether the shell has moved the console to the foreground.
FOREGROUND_CHECK_INTERVAL_S = 0.1


class TerminalSharing:
    """The terminal of ``app``, shared with the shell. ``on_return`` is called when the application has it again."""

    def __init__(self, app: App[Any], *, owns_servers: bool, on_return: Callable[[], None]) -> None:
        self._app = app
        self._owns_servers = owns_servers
        self._on_return = on_return
        #: True while the shell has the terminal.
        self.is_left = False

    def handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        # A signal from another program has stopped ``msd serve``, too, and the shell may already continue both.
        loop.add_signal_handler(signal.SIGTSTP, lambda: self.leave(stop=not self._owns_servers))
        loop.add_signal_handler(signal.SIGCONT, lambda: self.leave(stop=False))

    def leave(self, *, stop: bool) -> None:
        """Leaves the terminal to the shell until the job is in the foreground. With ``stop``, stops the job first."""
        if not self.is_left:
            self.is_left = True
            self._app.run_worker(self._return_in_foreground(stop=stop))

    async def _return_in_foreground(self, *, stop: bool) -> None:
        # Restoring the settings from the background would stop this process.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        with self._app.suspend():
            if stop:
                # SIGTSTP, not SIGSTOP: the kernel ignores SIGTSTP if no shell could continue the job.
                signal.signal(signal.SIGTSTP, signal.SIG_DFL)
                os.killpg(0, signal.SIGTSTP)
                self.handle_signals()
            # Wait before the first check, too: the shell takes the terminal a moment after ``msd serve`` has stopped,
            # and the handler of the SIGCONT that continued this process must find that the terminal is left.
            await asyncio.sleep(FOREGROUND_CHECK_INTERVAL_S)
            while is_in_background(0):
                await asyncio.sleep(FOREGROUND_CHECK_INTERVAL_S)
        self.is_left = False
        self._on_return()
