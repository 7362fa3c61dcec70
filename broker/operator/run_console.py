"""Runs the console on this terminal: signals, standard error, and the pipe to ``msd serve``.

Shows nothing itself: see ``broker/operator/console_app.py``.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from msd.broker.operator.console_app import ConsoleApp
from msd.broker.operator.status_feed import StatusFeed
from msd.wire.config.invitations import Invitation
from msd.wire.config.servers import Servers
from msd.wire.errors import MsdError

#: Signals that end the console after it has restored the terminal.
EXIT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Exit code of a console whose ``msd serve`` has ended.
EXIT_SERVERS_GONE = 1


def run(servers: Servers, supervisor: int | None = None, invite: Callable[[], Invitation] | None = None) -> int:
    """Shows the console of ``servers`` until the operator leaves it; returns the exit code. ``supervisor`` is the
    descriptor of a pipe held open by the ``msd serve`` that started this console; end of file means that ``msd serve``
    has ended. ``invite`` makes the link for a client, if this console offers one.
    """
    # Block signals until the console has taken over the terminal and can restore it.
    signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_SIGNALS)
    # Textual prefers these variables to the terminal's size: with inherited values it would ignore every resize.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    # Textual draws on standard error, which may be redirected to a file.
    stderr = os.dup(2)
    os.dup2(1, 2)
    feed = StatusFeed(servers)
    try:
        app = ConsoleApp(feed, servers, owns_servers=supervisor is not None, invite=invite)
        app.on_start = lambda: _install_exit_handlers(app, supervisor)
        code = app.run()
    finally:
        feed.close()
        os.dup2(stderr, 2)
    if app._exception is not None:
        raise app._exception
    if code == EXIT_SERVERS_GONE:
        raise MsdError("msd serve and its workers ended unexpectedly: start msd serve again")
    return app.return_code or 0 if code is None else code


def _install_exit_handlers(app: ConsoleApp, supervisor: int | None) -> None:
    """Ends the console on a signal, or when ``msd serve`` ends."""
    loop = asyncio.get_running_loop()
    for number in EXIT_SIGNALS:
        loop.add_signal_handler(number, app.exit, 128 + number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_SIGNALS)
    app.terminal.handle_signals()
    if supervisor is None:
        return

    def on_servers_gone() -> None:
        loop.remove_reader(supervisor)
        # The shell has taken the terminal back: ignore SIGTTOU, or restoring the settings would stop this process.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        app.exit(EXIT_SERVERS_GONE)

    loop.add_reader(supervisor, on_servers_gone)
