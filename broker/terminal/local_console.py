"""The broker's own terminal: the plain console, or a child process that runs ``broker/operator/console_app.py``.

Prints the status table, reads lines, starts the console process and handles its exit. Does not carry out orders: see
``broker/server.py``.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence

from msd.broker.terminal.console_process import ConsoleProcess
from msd.broker.terminal.line_reader import LineReader
from msd.broker.terminal.output_thread import OutputThread
from msd.broker.terminal.typed_commands import InvalidLine, QuitLine, ToggleLine, parse_line
from msd.broker.views.status_table import address_line, ready_line, status_table
from msd.wire.config.invitations import address_for_others, offered_name, standing_invitation
from msd.wire.config.settings import Config
from msd.wire.errors import MsdError
from msd.wire.net.own_addresses import hosts_for_others
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.messages import Status
from msd.wire.protocol.states import WorkerState

#: Exit codes of a console that the operator ended with q or with Ctrl-C.
EXIT_QUIT, EXIT_INTERRUPTED = 0, 130


class LocalConsole:
    """The console on the broker's terminal. ``poll_loop`` polls standard input; ``toggle`` and ``shut_down`` carry out
    the operator's orders. ``console`` is the command line of the console process, None for the plain console.
    """

    def __init__(
        self,
        config: Config,
        output: OutputThread,
        console: Sequence[str] | None,
        poll_loop: PollLoop,
        *,
        toggle: Callable[[int], None],
        shut_down: Callable[[int, str], None],
    ) -> None:
        self._config = config
        self._output = output
        self._console_command = console
        self._poll_loop = poll_loop
        self._toggle = toggle
        self._shut_down = shut_down
        self._process: ConsoleProcess | None = None
        self._line_reader = LineReader(0)
        self._is_reading = False
        #: False once the input has ended: then no question can be answered.
        self._has_input = True
        #: True while input waits until this process is in the foreground again.
        self._awaits_foreground = False
        self._is_ready_announced = False
        self._last_table = ""
        #: The numbers of the workers.
        self._numbers: list[int] = []
        self._resume_input()

    def show(self, status: Status, key: bytes | None) -> None:
        """Shows the status. Once all workers that the broker has started are awake, prints the ready line with the
        command for a client. ``key`` is the servers' public key, None if they use no keys.
        """
        self._numbers = [worker.number for worker in status.workers]
        own = [worker for worker in status.workers if not worker.host]
        if not self._is_ready_announced and all(worker.state is WorkerState.AWAKE for worker in own):
            self._is_ready_announced = True
            hosts = hosts_for_others(self._config.host)
            self._output.announce(ready_line(self._config, status.files, key, hosts))
            if line := address_line(self._config, hosts):
                self._output.announce(line)
            self._announce_invitation(hosts)
        # While the workers start without failures, do not print a table for every change.
        is_starting = all(worker.state in (WorkerState.STARTING, WorkerState.AWAKE) for worker in own)
        if is_starting and not self._is_ready_announced:
            return
        if self._console_command is not None and self._line_reader.may_read:
            self._start_console(self._console_command)
            self._console_command = None
        # In the background the terminal's input belongs to another process.
        self._last_table = status_table(status, asks=self._has_input and self._line_reader.may_read)
        self._output.show_table(self._last_table)

    def _announce_invitation(self, hosts: Sequence[str]) -> None:
        """Prints a link with a key on a terminal. It is a secret, which a file or a journal would keep."""
        name = offered_name(self._config)
        if name is None or not hosts or not self._output.is_terminal:
            return
        server5 = address_for_others(self._config.status)
        try:
            invitation = standing_invitation(self._config.key_folder, server5, name, now=time.time())
        except MsdError as error:
            self._output.note(f"no link for a client: {error}")
            return
        self._output.announce(
            f"{invitation.terms} ({invitation.end}):\nmsd download {shlex.quote(invitation.link.text)}"
        )

    def show_event(self, text: str, *, is_failure: bool) -> None:
        """Shows an event where no tables are printed. Workers that start without failures are no events."""
        if self._is_ready_announced or is_failure:
            self._output.print_event(text)

    @property
    def pids(self) -> list[int]:
        """The console process, if it has not been reaped yet."""
        return [self._process.pid] if self._process is not None else []

    def on_child_exit(self) -> None:
        """Handles the exit of a child process if it was the console process."""
        if self._process is not None and (code := self._process.exit_code()) is not None:
            self._take_terminal_back()
            if code in (EXIT_QUIT, EXIT_INTERRUPTED):
                self._shut_down(code, "by q" if code == EXIT_QUIT else "by Ctrl-C")
            else:
                cause = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
                self._output.note(f"the console {cause}: the servers keep running with the plain console")
                self._output.show_table(self._last_table)

    def close(self) -> None:
        """Stops the console process; later output appears on the terminal."""
        self._console_command = None
        if self._process is not None:
            self._process.stop()
            self._take_terminal_back()

    def _start_console(self, command: Sequence[str]) -> None:
        try:
            self._process = ConsoleProcess(command)
        except OSError as error:
            self._output.note(f"cannot start the console ({error.strerror}): using the plain console")
            return
        self._output.suspend()
        # The console process reads all keys.
        self._pause_input()
        self._awaits_foreground = False

    def _take_terminal_back(self) -> None:
        assert self._process is not None
        reset_sequence = self._process.close()
        self._process = None
        self._output.resume(reset_sequence)
        self._resume_input()

    def _resume_input(self) -> None:
        self._is_reading, self._awaits_foreground = True, False
        self._poll_loop.register(self._line_reader.fileno(), self._read)

    def _pause_input(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._poll_loop.unregister(self._line_reader.fileno())

    def check_foreground(self) -> None:
        """Reads input again if this process has returned to the foreground of the terminal. Call this regularly: no
        signal announces the return of a process that was not stopped.
        """
        if self._awaits_foreground and self._line_reader.may_read:
            self._resume_input()

    def _read(self) -> None:
        if not self._line_reader.may_read:
            # Do not poll the terminal either: it stays readable until the foreground process reads its input.
            self._pause_input()
            self._awaits_foreground = True
            return
        lines = self._line_reader.read()
        if lines is None:
            # End of file is not an order to quit: a server started in the background has no input.
            self._pause_input()
            self._has_input = False
            return
        for line in lines:
            match parse_line(line, self._numbers):
                case ToggleLine(number):
                    self._toggle(number)
                case QuitLine():
                    self._shut_down(0, "by -1")
                case InvalidLine(message):
                    self._output.print_line(message)
