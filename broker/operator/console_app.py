"""The operator's console on a terminal: a Textual application.

FairQueue keys into orders, and what its ``Source`` hears into lines. What is shown is decided in
``broker/status/history.py`` and ``broker/views/table.py``; talks to nobody itself. Draws from a timer, so that
nothing that comes, however fast, has it drawn more often.
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
from msd.broker.operator.dialogs import Help, Question
from msd.broker.operator.status_feed import Lost, Note, Source, StatusFeed
from msd.broker.status.history import History
from msd.broker.views import table
from msd.broker.views.plain import client_line
from msd.wire.config.settings import Servers
from msd.wire.errors import MsdError
from msd.wire.protocol.messages import Status, StatusReport

#: Seconds between two redraws, at least.
REDRAW = 0.1
#: SignalDescriptor that end the console, and in order: the terminal is put back as it was.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: The exit code of a console whose servers are gone.
ORPHANED = 1


class ConsoleApp(App[int]):
    """The console of the servers that ``source`` follows; its result is the exit code. ``owns`` says that
    the servers end with it.
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
    #marked { height: auto; max-height: 5; }
    #events { height: 1fr; scrollbar-size-vertical: 1; }
    #client { height: auto; max-height: 30%; }
    """
    CSS += dialogs.CSS
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"toggle_worker({number})", show=False) for number in range(1, 10)),
        Binding("q,ctrl+q", "quit", "Quit"),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
        Binding("question_mark,h,f1", "explain", show=False),
        Binding("pageup", "scroll_events(-1)", show=False, priority=True),
        Binding("pagedown", "scroll_events(1)", show=False, priority=True),
    ]

    def __init__(self, source: Source, servers: Servers, *, owns: bool = False) -> None:
        super().__init__()
        self.animation_level = "none"
        self.history = History()
        #: How often it has drawn.
        self.draws = 0
        self._source = source
        self._servers = servers
        self._owns = owns
        self._is_stale = True
        self._recalls = False
        #: The widths that the last drawing was made for.
        self._widths: tuple[int, ...] = ()
        self._shown: dict[str, object] = {}
        #: Called once the terminal is the console's.
        self.on_start: Callable[[], None] = lambda: None

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="alarm", markup=False)
        yield Static(id="heading", markup=False)
        yield OptionList(id="workers", markup=False)
        yield Static("The marked worker", classes="label")
        yield Static(id="marked", markup=False)
        yield Static("Events, the newest first", classes="label")
        with VerticalScroll(id="events", can_focus=False):
            yield Static(id="lines", markup=False)
        yield Static("For a client", classes="label")
        yield Static(id="client", markup=False)
        yield Static(id="keys", markup=False)

    def on_mount(self) -> None:
        self.on_start()

    def on_ready(self) -> None:
        self.set_interval(REDRAW, self._turn)

    def on_option_list_option_highlighted(self) -> None:
        self._is_stale = True

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._toggle(event.option_index)

    # Keys.

    def action_toggle_worker(self, number: int) -> None:
        numbers = [worker.number for worker in self.history.status.workers] if self.history.status else []
        if number in numbers:
            self._toggle(numbers.index(number))

    def action_interrupt(self) -> None:
        self.exit(128 + signal.SIGINT)

    async def action_quit(self) -> None:
        clients = self.history.clients
        if not self._owns or not clients or self.history.lost_at is not None:
            self.exit(0)
            return

        def answered(sure: bool | None) -> None:
            if sure:
                self.exit(0)

        whom = f"{clients:,} client{' is' if clients == 1 else 's are'} being served."
        self.push_screen(Question(f"{whom} End the servers all the same?"), answered)

    def action_explain(self) -> None:
        self.push_screen(Help(owns=self._owns))

    def action_scroll_events(self, pages: int) -> None:
        events = self.screen_stack[0].query_one("#events", VerticalScroll)
        events.scroll_relative(y=pages * max(1, events.size.height - 1), animate=False)

    def _toggle(self, index: int) -> None:
        status = self.history.status
        if status is not None and index < len(status.workers):
            number = status.workers[index].number
            self._source.toggle(number)
            self.history.note(f"you toggle worker {number}", time.time())
            self._is_stale = True

    # What comes, and how it is shown.

    def _turn(self) -> None:
        now = time.time()
        for heard in self._source.heard():
            self._is_stale = True
            match heard:
                case Status():
                    self.history.snapshot(heard, now)
                case StatusReport(status=status):
                    self.history.snapshot(status, now)
                    if not self._recalls:
                        self._recalls = True
                        self.history.recall(heard)
                case Lost(why, refused):
                    self.history.lost(why, now, refused=refused)
                case Note(text):
                    self.history.note(text, now, bad=True)
        # While it ends there is no screen any more, or nothing on it.
        if not self.screen_stack or not self.screen_stack[0].query("#title"):
            return
        # Each is looked at, for the parts follow a terminal's new size one after another, and a scroll bar that
        # comes takes some of the room.
        widths = (self.size.width, self._room("#workers"), self._room("#events"))
        if self._is_stale or widths != self._widths:
            self._is_stale, self._widths = False, widths
            with self.batch_update():
                self._draw(now, *widths)

    def _room(self, selector: str) -> int:
        """The columns that a part has by now."""
        return self._base(selector).scrollable_content_region.width or self.size.width

    def _draw(self, now: float, width: int, row_width: int, event_width: int) -> None:
        self.draws += 1
        history = self.history
        title = f"msd · {self._servers.status} · {table.summary(history)}"
        self._update("title", table.clip(title, width))
        alarm = table.alarm(history)
        self._base("#alarm").display = bool(alarm)
        self._update("alarm", alarm)
        self._draw_workers(now, row_width)
        events = Content("\n").join(
            Content.styled("\n".join(table.event_lines(event, event_width)), "$text-error" if event.bad else "")
            for event in history.events
        )
        self._update("lines", events)
        if history.status is not None:
            self._update("client", table.pasted(client_line(self._servers, history.status), width))
        leave = "q end the servers" if self._owns else "q leave"
        self._update("keys", f"1…9 shut down/wake up   ↑ ↓ Enter the marked one   {leave}   ? help")

    def _draw_workers(self, now: float, width: int) -> None:
        rows = self.history.rows(now)
        workers = self.screen_stack[0].query_one(OptionList)
        self._update("heading", table.heading(width))
        top = max((rate for row in rows for rate in row.rates), default=0.0)
        known = self.history.lost_at is None
        lines = [
            Content.styled(
                table.line(row, width, top, selected=index == workers.highlighted, known=known),
                "$text-success" if row.is_alive and known else "$text-warning" if known else "$text-muted",
            )
            for index, row in enumerate(rows)
        ]
        if workers.option_count != len(lines):
            workers.clear_options()
            workers.add_options(lines)
            workers.highlighted = 0 if lines else None
        elif self._shown.get("workers") != lines:
            for index, line in enumerate(lines):
                workers.replace_option_prompt_at_index(index, line)
        self._shown["workers"] = lines
        marked = workers.highlighted
        told = table.details(rows[marked], width, known=known) if marked is not None and marked < len(rows) else []
        self._update("marked", "\n".join(told))

    def _update(self, name: str, content: str | Content) -> None:
        """Has a line show this, if it does not already."""
        if self._shown.get(name) != content:
            self._shown[name] = content
            self.screen_stack[0].query_one(f"#{name}", Static).update(content)

    def _base(self, selector: str) -> Widget:
        return self.screen_stack[0].query_one(selector)

    def _print_error_renderables(self) -> None:
        """Textual would print a traceback; ``run`` raises what was the matter instead."""


def run(servers: Servers, supervisor: int | None = None) -> int:
    """Shows the console of ``servers`` until it is left; the exit code. ``supervisor`` is a pipe from
    ``msd serve``, whose console this then is: its end means that the servers are gone.
    """
    # Until the terminal is the console's and there is somebody to put it back, they wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    # The terminal's size as it was when somebody set them; Textual would believe them for ever.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    # Textual draws on standard error, which may be a file.
    error = os.dup(2)
    os.dup2(1, 2)
    feed = StatusFeed(servers)
    try:
        app = ConsoleApp(feed, servers, owns=supervisor is not None)
        app.on_start = lambda: _watch(app, supervisor)
        code = app.run(mouse=False)
    finally:
        feed.close()
        os.dup2(error, 2)
    if app._exception is not None:
        raise app._exception
    if code == ORPHANED:
        raise MsdError("msd serve is gone, and its workers with it: start it again")
    return app.return_code or 0 if code is None else code


def _watch(app: ConsoleApp, supervisor: int | None) -> None:
    """Has signals, and the end of the supervisor, end the console."""
    loop = asyncio.get_running_loop()
    for number in ENDING:
        loop.add_signal_handler(number, app.exit, 128 + number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    if supervisor is None:
        return

    def orphaned() -> None:
        loop.remove_reader(supervisor)
        # The terminal is the shell's again; whoever puts it back all the same must not be stopped for that.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        app.exit(ORPHANED)

    loop.add_reader(supervisor, orphaned)
