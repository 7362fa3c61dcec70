"""Where the broker and the operator at its own terminal meet: the plain console, or the one of
``broker/operator/console_app.py`` in a process of its own in its place.

Prints the table, reads lines, starts the console's process and decides what its end means. Orders are
carried out by ``broker/server.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msd.broker.terminal.console_process import ConsoleProcess
from msd.broker.terminal.line_reader import LineReader
from msd.broker.terminal.output_thread import OutputThread
from msd.broker.views.plain import QuitLine, ToggleLine, WrongLine, parse, ready_line, table
from msd.wire.config.settings import Config
from msd.wire.protocol.messages import Status
from msd.wire.protocol.states import WorkerState

#: How a console ends in order: left with q, with Ctrl-C.
LEFT, INTERRUPTED = 0, 130


class LocalConsole:
    """One operator's place. ``listen`` and ``ignore`` are told of standard input; ``toggle`` and ``end``
    are what the operator may do. ``console`` is the command of a console to be shown, if any.
    """

    def __init__(
        self,
        config: Config,
        screen: OutputThread,
        console: Sequence[str] | None,
        *,
        listen: Callable[[int, Callable[[], None]], None],
        ignore: Callable[[int], None],
        toggle: Callable[[int], None],
        end: Callable[[int], None],
    ) -> None:
        self._config = config
        self._screen = screen
        self._console = console
        self._listen = listen
        self._ignore = ignore
        self._toggle = toggle
        self._end = end
        self._process: ConsoleProcess | None = None
        self._lines = LineReader(0)
        self._is_reading = False
        self._ready_said = False
        self._table = ""
        self._read_on()

    def show(self, status: Status, key: bytes | None) -> None:
        """Shows the status; says once when all are awake, and what a client has to be told. ``key`` is
        the servers', if they take keys.
        """
        if not self._ready_said and all(worker.state is WorkerState.AWAKE for worker in status.workers):
            self._ready_said = True
            self._screen.announce(ready_line(self._config, status.files, key))
        # While all goes well at the start nobody needs to see each step.
        starting = all(worker.state in (WorkerState.STARTING, WorkerState.AWAKE) for worker in status.workers)
        if starting and not self._ready_said:
            return
        if self._console is not None:
            self._open(self._console)
            self._console = None
        self._table = table(status)
        self._screen.show(self._table)

    def look(self) -> None:
        """A process has ended; it may have been the console."""
        if self._process is not None and (code := self._process.ended()) is not None:
            self._closed()
            if code in (LEFT, INTERRUPTED):
                self._end(code)
            else:
                how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
                self._screen.note(f"the console {how}: the servers go on, with the plain one")
                self._screen.show(self._table)

    def close(self) -> None:
        """Ends the console; what is printed from now on is seen."""
        self._console = None
        if self._process is not None:
            self._process.stop()
            self._closed()

    def _open(self, command: Sequence[str]) -> None:
        try:
            self._process = ConsoleProcess(command)
        except OSError as error:
            self._screen.note(f"the console cannot be started: {error.strerror}")
            return
        self._screen.hold()
        # All keys are the console's.
        self._ignore_input()

    def _closed(self) -> None:
        assert self._process is not None
        restore = self._process.close()
        self._process = None
        self._screen.release(restore)
        self._read_on()

    def _read_on(self) -> None:
        self._is_reading = True
        self._listen(self._lines.fileno(), self._read)

    def _ignore_input(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._ignore(self._lines.fileno())

    def _read(self) -> None:
        lines = self._lines.read()
        if lines is None:
            # The end of the input is no order: a server started in the background has none.
            self._ignore_input()
            return
        for line in lines:
            match parse(line, len(self._config.workers)):
                case ToggleLine(number):
                    self._toggle(number)
                case QuitLine():
                    self._end(0)
                case WrongLine(message):
                    self._screen.say(message)
