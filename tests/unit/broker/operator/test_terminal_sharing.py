"""Job control needs a real terminal: ``tests/environments/test_job_control.py`` tests it with a shell."""

from __future__ import annotations

import asyncio
import signal
from typing import Any
from unittest.mock import MagicMock

from msd.broker.operator.terminal_sharing import TerminalSharing


def test_the_terminal_is_left_once_and_the_signals_say_whether_to_stop() -> None:
    app: Any = MagicMock()
    sharing = TerminalSharing(app, owns_servers=False, on_return=MagicMock())

    async def run() -> None:
        sharing.handle_signals()
        try:
            signal.raise_signal(signal.SIGCONT)
            signal.raise_signal(signal.SIGCONT)
            async with asyncio.timeout(5):
                while not sharing.is_left:
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
        finally:
            for number in (signal.SIGTSTP, signal.SIGCONT):
                asyncio.get_running_loop().remove_signal_handler(number)

    asyncio.run(run())
    (call,) = app.run_worker.call_args_list
    call.args[0].close()
