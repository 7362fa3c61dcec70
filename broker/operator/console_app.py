"""The operator's full-screen console: a Textual application.

Turns key presses into orders and the events of its ``Feed`` into lines. The contents are kept by
``broker/status/history.py`` and formatted by ``broker/views/console_lines.py``. Opens no sockets. Redraws on a timer,
so a high rate of incoming events does not cause more redraws.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList, Static

from msd.broker.operator import dialogs
from msd.broker.operator.dialogs import Help, LinkShown, Question
from msd.broker.operator.status_feed import Feed, OrderFailed, Server5Lost, StatusFeed
from msd.broker.status.history import History
from msd.broker.status.worker_names import known_workers, worker_label
from msd.broker.views import console_lines
from msd.broker.views.status_table import suggested_command
from msd.wire.config.invitations import Invitation
from msd.wire.config.servers import Servers
from msd.wire.errors import MsdError
from msd.wire.net.own_addresses import hosts_for_others
from msd.wire.protocol.messages import Status, StatusReport
from msd.wire.support.job_control import is_in_background

#: Minimum seconds between two redraws.
REDRAW_INTERVAL_S = 0.1
#: Seconds between two checks whether the shell has moved the console to the foreground.
FOREGROUND_CHECK_INTERVAL_S = 0.1
#: Signals that end the console after it has restored the terminal.
EXIT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Exit code of a console whose ``msd serve`` has ended.
EXIT_SERVERS_GONE = 1


class ConsoleApp(App[int]):
    """The console of the servers that ``feed`` is connected to. The application's result is the exit code. If
    ``owns_servers`` is true, the servers shut down when the console ends. ``invite`` makes the link for a client; None
    if this console offers none.
    """

    TITLE = "msd"
    ENABLE_COMMAND_PALETTE = False
    INLINE_PADDING = 0
    CSS = """
    Screen { overflow: hidden; }
    Static { width: 100%; text-wrap: nowrap; text-overflow: clip; }
    #title, #keys { height: 1; background: $primary-background; text-style: bold; }
    #alarm { height: 1; background: $error; color: $text; text-style: bold; text-overflow: ellipsis; display: none; }
    #heading, .label { height: 1; text-style: underline; color: $text-muted; }
    #workers { height: auto; max-height: 50%; border: none; padding: 0; background: $background;
               scrollbar-size-vertical: 1; text-wrap: nowrap; text-overflow: clip; }
    #workers > .option-list--option { padding: 0; }
    #selected { height: auto; max-height: 5; }
    #events { height: 1fr; scrollbar-size-vertical: 1; }
    #command { height: auto; max-height: 30%; }
    """
    CSS += dialogs.CSS
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"toggle_worker({number})", show=False) for number in range(1, 10)),
        Binding("q,ctrl+q", "quit", "Quit"),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False, priority=True),
        Binding("y", "show_link", show=False),
        Binding("question_mark,h,f1", "show_help", show=False),
        Binding("pageup", "scroll_events(-1)", show=False, priority=True),
        Binding("pagedown", "scroll_events(1)", show=False, priority=True),
    ]

    def __init__(
        self,
        feed: Feed,
        servers: Servers,
        *,
        owns_servers: bool = False,
        invite: Callable[[], Invitation] | None = None,
    ) -> None:
        super().__init__()
        self.animation_level = "none"
        self.history = History()
        #: Number of redraws so far.
        self.draw_count = 0
        self._feed = feed
        self._servers = servers
        self._owns_servers = owns_servers
        self._invite = invite
        self._needs_redraw = True
        #: True while the shell has the terminal.
        self._left_terminal = False
        #: The numbers of the workers in the rows on the screen.
        self._numbers: list[int] = []
        #: The widths used by the last redraw.
        self._widths: tuple[int, ...] = ()
        #: The content of each widget, to skip updates that change nothing.
        self._contents: dict[str, object] = {}
        #: Called once the console controls the terminal.
        self.on_start: Callable[[], None] = lambda: None

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="alarm", markup=False)
        yield Static(id="heading", markup=False)
        yield OptionList(id="workers", markup=False)
        yield Static("Selected worker", classes="label")
        yield Static(id="selected", markup=False)
        yield Static("Events, newest first", classes="label")
        with VerticalScroll(id="events", can_focus=False):
            yield Static(id="lines", markup=False)
        yield Static(id="suggestion", classes="label", markup=False)
        yield Static(id="command", markup=False)
        yield Static(id="keys", markup=False)

    def on_mount(self) -> None:
        self.on_start()

    def on_ready(self) -> None:
        self.set_interval(REDRAW_INTERVAL_S, self._tick)

    def on_option_list_option_highlighted(self) -> None:
        self._needs_redraw = True

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._toggle(self._numbers[event.option_index])

    # Keys.

    def action_toggle_worker(self, number: int) -> None:
        if self.history.status is None:
            return
        numbers = [worker.number for worker in self.history.status.workers]
        if number in numbers:
            self._toggle(number)
        else:
            text = f"there is no worker {number}: {known_workers(numbers)}"
            self.history.add(text, time.time(), is_failure=True)
            self._needs_redraw = True

    def action_interrupt(self) -> None:
        self.exit(128 + signal.SIGINT)

    def action_suspend_process(self) -> None:
        self._leave_terminal(stop=True)

    async def action_quit(self) -> None:
        clients = self.history.status.clients if self.history.status else 0
        if not self._owns_servers or not clients or self.history.lost_at is not None:
            self.exit(0)
            return

        def on_answer(confirmed: bool | None) -> None:
            if confirmed:
                self.exit(0)

        # A worker cannot tell a client that was killed from one that is quiet.
        served = f"{clients:,} client{' was' if clients == 1 else 's were'} served in the last 30 s."
        self.push_screen(Question(f"{served} Stop the servers anyway?"), on_answer)

    def action_show_help(self) -> None:
        self.push_screen(Help(owns_servers=self._owns_servers, has_link=self._invite is not None))

    def action_show_link(self) -> None:
        if self._invite is None:
            return
        try:
            invitation = self._invite()
        except MsdError as error:
            self.history.add(f"no link for a client: {error}", time.time(), is_failure=True)
            self._needs_redraw = True
            return
        self.copy_to_clipboard(invitation.link.text)
        self.push_screen(LinkShown(invitation, self.size.width))

    def action_scroll_events(self, pages: int) -> None:
        events = self.screen_stack[0].query_one("#events", VerticalScroll)
        events.scroll_relative(y=pages * max(1, events.size.height - 1), animate=False)

    # Job control.

    def handle_job_control(self) -> None:
        """Replaces Textual's handlers, whose console would stay stopped after ``fg`` if the shell takes the job of
        ``msd serve`` for a running one.
        """
        loop = asyncio.get_running_loop()
        # A signal from another program has stopped ``msd serve``, too, and the shell may already continue both.
        loop.add_signal_handler(signal.SIGTSTP, lambda: self._leave_terminal(stop=not self._owns_servers))
        loop.add_signal_handler(signal.SIGCONT, lambda: self._leave_terminal(stop=False))

    def _leave_terminal(self, *, stop: bool) -> None:
        if not self._left_terminal:
            self._left_terminal = True
            self.run_worker(self._return_in_foreground(stop=stop))

    async def _return_in_foreground(self, *, stop: bool) -> None:
        """Leaves the terminal to the shell until the job is in the foreground. With ``stop``, stops the job first."""
        # Restoring the settings from the background would stop this process.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        with self.suspend():
            if stop:
                # SIGTSTP, not SIGSTOP: the kernel ignores SIGTSTP if no shell could continue the job.
                signal.signal(signal.SIGTSTP, signal.SIG_DFL)
                os.killpg(0, signal.SIGTSTP)
                self.handle_job_control()
            # Wait before the first check, too: the shell takes the terminal a moment after ``msd serve`` has stopped,
            # and the handler of the SIGCONT that continued this process must find that the terminal is left.
            await asyncio.sleep(FOREGROUND_CHECK_INTERVAL_S)
            while is_in_background(0):
                await asyncio.sleep(FOREGROUND_CHECK_INTERVAL_S)
        self._left_terminal = False
        self._needs_redraw = True

    def _toggle(self, number: int) -> None:
        status = self.history.status
        for worker in status.workers if status is not None else ():
            if worker.number == number:
                self._feed.toggle(number)
                self.history.add(f"you toggled worker {worker_label(number, worker.name)}", time.time())
                self._needs_redraw = True

    # Events and drawing.

    def _tick(self) -> None:
        now = time.time()
        for event in self._feed.poll():
            self._needs_redraw = True
            match event:
                case Status():
                    self.history.on_status(event, now)
                case StatusReport():
                    self.history.on_report(event, now)
                case Server5Lost(reason, refused):
                    self.history.on_lost(reason, now, refused=refused)
                case OrderFailed(text):
                    self.history.add(text, now, is_failure=True)
        if self._left_terminal:
            return
        # While the application exits, its screen or widgets may already be gone.
        if not self.screen_stack or not self.screen_stack[0].query("#title"):
            return
        # Compare every width: after a resize the widgets change size one after another, and a widget becomes narrower
        # when its scroll bar appears.
        widths = (self.size.width, self._width_of("#workers"), self._width_of("#events"))
        if self._needs_redraw or widths != self._widths:
            self._needs_redraw, self._widths = False, widths
            with self.batch_update():
                self._draw(now, *widths)

    def _width_of(self, selector: str) -> int:
        """Returns a widget's current width in columns."""
        return self._widget(selector).scrollable_content_region.width or self.size.width

    def _draw(self, now: float, width: int, row_width: int, event_width: int) -> None:
        self.draw_count += 1
        history = self.history
        self._update("title", console_lines.title(history, str(self._servers.status), width))
        alarm = console_lines.alarm(history)
        self._widget("#alarm").display = bool(alarm)
        self._update("alarm", alarm)
        self._draw_workers(now, row_width)
        events = Content("\n").join(
            Content.styled(
                "\n".join(console_lines.event_lines(event, event_width)), "$text-error" if event.is_failure else ""
            )
            for event in history.events
        )
        self._update("lines", events)
        if history.status is not None:
            hosts = hosts_for_others("::" if self._servers.status.is_ipv6 else "*")
            suggested = suggested_command(self._servers, history.status, hosts)
            self._update("suggestion", suggested.title)
            self._update("command", console_lines.wrap_command(suggested.command, width))
        self._update(
            "keys", console_lines.keys(width, owns_servers=self._owns_servers, has_link=self._invite is not None)
        )

    def _draw_workers(self, now: float, width: int) -> None:
        rows = self.history.rows(now)
        workers = self.screen_stack[0].query_one(OptionList)
        widths = console_lines.columns(rows, width)
        self._update("heading", console_lines.heading(widths))
        top = max((rate for row in rows for rate in row.rates), default=0.0)
        current = self.history.lost_at is None
        # A worker that joins may shift the rows: the selected worker stays selected.
        numbers = [row.worker.number for row in rows]
        index = workers.highlighted
        if are_others := numbers != self._numbers:
            selected = self._numbers[index] if index is not None else 0
            index = numbers.index(selected) if selected in numbers else 0 if rows else None
            self._numbers = numbers
        lines = [
            Content.styled(
                console_lines.worker_line(row, widths, top, selected=position == index, current=current),
                "$text-success" if row.is_alive and current else "$text-warning" if current else "$text-muted",
            )
            for position, row in enumerate(rows)
        ]
        if are_others:
            workers.clear_options()
            workers.add_options(lines)
            workers.highlighted = index
        elif self._contents.get("workers") != lines:
            for position, line in enumerate(lines):
                workers.replace_option_prompt_at_index(position, line)
        self._contents["workers"] = lines
        details = [] if index is None else console_lines.details(rows[index], width, current=current)
        self._update("selected", "\n".join(details))

    def _update(self, name: str, content: str | Content) -> None:
        """Updates a widget if its content has changed."""
        if self._contents.get(name) != content:
            self._contents[name] = content
            self.screen_stack[0].query_one(f"#{name}", Static).update(content)

    def _widget(self, selector: str) -> Widget:
        return self.screen_stack[0].query_one(selector)

    def _print_error_renderables(self) -> None:
        """Prints no traceback: ``run`` raises the exception instead."""


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
        code = app.run(mouse=False)
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
    app.handle_job_control()
    if supervisor is None:
        return

    def on_servers_gone() -> None:
        loop.remove_reader(supervisor)
        # The shell has taken the terminal back: ignore SIGTTOU, or restoring the settings would stop this process.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        app.exit(EXIT_SERVERS_GONE)

    loop.add_reader(supervisor, on_servers_gone)
