"""The operator's full-screen console: a Textual application.

Turns keys into orders, and the events of its ``Feed`` into the contents of its panels. The contents are kept by
``broker/status/history.py`` and become text in ``broker/views``. Opens no sockets. Redraws on a timer, so a high rate
of incoming events does not cause more redraws.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Hashable, Sequence
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.theme import Theme
from textual.widget import Widget
from textual.widgets import Input, Static

from msd.broker.operator import colours, dialogs
from msd.broker.operator.dialogs import CommandShown, Details, Help, LinkShown, Question
from msd.broker.operator.filter_line import FilterLine
from msd.broker.operator.panel import CSS as PANEL_CSS
from msd.broker.operator.panel import PanelView
from msd.broker.operator.panels import (
    ClientsView,
    EventsView,
    FilesView,
    Known,
    RateView,
    RowsView,
    TextView,
    WorkersView,
    command_panel,
    details_panel,
)
from msd.broker.operator.status_feed import Feed, OrderFailed, Server5Lost
from msd.broker.operator.terminal_sharing import TerminalSharing
from msd.broker.status.history import History
from msd.broker.status.worker_names import known_workers, worker_label
from msd.broker.views import headline
from msd.broker.views.client_rows import recent_use
from msd.broker.views.panel_layout import WIDE, Panel, Screen, Wish, arrange
from msd.broker.views.status_table import SuggestedCommand, suggested_command
from msd.wire.config.invitations import Invitation
from msd.wire.config.servers import Servers
from msd.wire.errors import MsdError
from msd.wire.net.own_addresses import hosts_for_others
from msd.wire.protocol.messages import Status, StatusReport

#: Minimum seconds between two redraws because of events.
REDRAW_INTERVAL_S = 0.1
#: Lines of the title, the keys, and the alarm.
BAR_LINES = 2
#: Seconds after which the addresses of this machine are read again: they change when it joins another network.
HOSTS_S = 10.0


class ConsoleApp(App[int]):
    """The console of the servers that ``feed`` is connected to. The application's result is the exit code. If
    ``owns_servers`` is true, the servers shut down when the console ends. ``invite`` makes the link for a client; None
    if this console offers none. ``clock`` returns seconds since 1970.
    """

    TITLE = "msd"
    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    INLINE_PADDING = 0
    CSS = f"""
    Screen {{ overflow: hidden; background: {colours.BACKGROUND}; color: {colours.TEXT}; }}
    Static {{ width: 100%; text-wrap: nowrap; text-overflow: clip; }}
    #title, #keys {{ height: 1; background: {colours.BAR}; color: {colours.BRIGHT}; text-style: bold; }}
    #alarm {{ height: 1; background: {colours.ALARM}; color: {colours.BRIGHT}; text-style: bold; display: none; }}
    #panels {{ height: 1fr; }}
    """
    CSS += PANEL_CSS + dialogs.CSS + FilterLine.STYLE
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"toggle_worker({number})", show=False) for number in range(1, 10)),
        Binding("t", "toggle_selected", show=False),
        Binding("enter", "show_details", show=False),
        Binding("slash", "filter", show=False),
        Binding("s", "sort", show=False),
        Binding("l", "only_failures", show=False),
        Binding("w", "only_worker", show=False),
        Binding("q,ctrl+q", "quit", "Quit"),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False, priority=True),
        Binding("y", "copy_link", show=False),
        Binding("question_mark,h,f1", "show_help", show=False),
    ]

    def __init__(
        self,
        feed: Feed,
        servers: Servers,
        *,
        owns_servers: bool = False,
        invite: Callable[[], Invitation] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.animation_level = "none"
        self.register_theme(Theme("msd", primary=colours.FOCUSED_FRAME, background=colours.BACKGROUND, dark=True))
        self.theme = "msd"
        self.history = History()
        #: Number of redraws so far.
        self.draw_count = 0
        self.terminal = TerminalSharing(self, owns_servers=owns_servers, on_return=self._request_redraw)
        self._feed = feed
        self._servers = servers
        self._owns_servers = owns_servers
        self._invite = invite
        self._clock = clock
        self._needs_redraw = True
        #: The addresses at which other machines may reach this one, and when they were read; None before that.
        self._hosts: Sequence[str] = ()
        self._hosts_read_at: float | None = None
        #: The size of the screen at the last redraw.
        self._drawn_size = (0, 0)
        self._workers_view = WorkersView()
        self._events_view = EventsView()
        self._row_views: dict[Panel, RowsView] = {
            view.panel: view for view in (self._workers_view, ClientsView(), FilesView(), self._events_view)
        }
        self._rate_view, self._details_view, self._command_view = RateView(), TextView(), TextView()
        self._views: dict[Panel, PanelView] = {
            **self._row_views,
            Panel.RATE: self._rate_view,
            Panel.DETAILS: self._details_view,
            Panel.COMMAND: self._command_view,
        }
        self._filter_line = FilterLine()
        #: See ``_focused_view``.
        self._last_focused_view: RowsView = self._workers_view
        #: The panel and the key of the row that the dialog with details is about.
        self._detailed: tuple[RowsView, Hashable] = self._workers_view, None
        #: Called once the console controls the terminal.
        self.on_start: Callable[[], None] = lambda: None

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="alarm", markup=False)
        yield Container(*self._views.values(), id="panels")
        yield Static(id="keys", markup=False)
        yield self._filter_line

    def on_mount(self) -> None:
        self._workers_view.focus()
        self.on_start()

    def on_ready(self) -> None:
        self.set_interval(REDRAW_INTERVAL_S, self._tick)

    def on_panel_view_moved(self) -> None:
        self._draw()

    def on_descendant_focus(self) -> None:
        if isinstance(self.focused, RowsView):
            if self._filter_line.display:  # A click has taken the focus from it.
                self._filter_line.close()
            self._draw()

    @property
    def _focused_view(self) -> RowsView:
        """The panel that has the focus, or had it before the filter. The event of the focus comes too late: the next
        key may already be waiting.
        """
        if self.screen_stack and isinstance(focused := self.screen_stack[0].focused, RowsView):
            self._last_focused_view = focused
        return self._last_focused_view

    # Keys.

    def action_toggle_worker(self, number: int) -> None:
        if self.history.status is None:
            return
        numbers = [worker.number for worker in self.history.status.workers]
        if number in numbers:
            self._toggle(number)
        else:
            self._report_failure(f"there is no worker {number}: {known_workers(numbers)}")

    def action_toggle_selected(self) -> None:
        # The worker that the operator saw as selected, also if it is not listed any more.
        if isinstance(shown := self._workers_view.shown, int):
            self.action_toggle_worker(shown)
        else:
            self._report_failure("t toggles one worker: select its row first")

    def action_show_details(self) -> None:
        view = self._focused_view
        if paragraphs := view.details(self._known):
            self._detailed = view, view.selected
            self.push_screen(Details(paragraphs, *self.size))

    def action_filter(self) -> None:
        self._filter_line.open(self._focused_view.panel, self._focused_view.words)
        self._draw()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._focused_view.words = event.value
        self._draw()

    def on_filter_line_closed(self) -> None:
        self._focused_view.focus()

    def action_sort(self) -> None:
        self._focused_view.sort()
        self._draw()

    def action_only_failures(self) -> None:
        self._events_view.failures = not self._events_view.failures
        self._draw()

    def action_only_worker(self) -> None:
        self._events_view.worker = self._workers_view.number if self._events_view.worker is None else None
        self._draw()

    def action_interrupt(self) -> None:
        self.exit(128 + signal.SIGINT)

    def action_suspend_process(self) -> None:
        self.terminal.leave(stop=True)

    async def action_quit(self) -> None:
        use = recent_use(self.history)
        if not self._owns_servers or not use or self.history.lost_at is not None:
            self.exit(0)
            return

        def on_answer(confirmed: bool | None) -> None:
            if confirmed:
                self.exit(0)

        self.push_screen(Question(f"{use} Stop the servers anyway?"), on_answer)

    def action_show_help(self) -> None:
        link = "link for a client" if self._invite is not None else "command for a client"
        self.push_screen(Help(owns_servers=self._owns_servers, link=link))

    def action_copy_link(self) -> None:
        if self._invite is None:
            if (suggested := self._suggested) is not None:
                self.copy_to_clipboard(suggested.command)
                self.push_screen(CommandShown(suggested, self.size.width))
            return
        try:
            invitation = self._invite()
        except MsdError as error:
            self._report_failure(f"no link for a client: {error}")
            return
        self.copy_to_clipboard(invitation.link.text)
        self.push_screen(LinkShown(invitation, self.size.width))

    def _toggle(self, number: int) -> None:
        status = self.history.status
        for worker in status.workers if status is not None else ():
            if worker.number == number:
                self._feed.toggle(number)
                text = f"you toggled worker {worker_label(number, worker.name)}"
                self.history.add(text, self._clock(), worker=number)
                self._request_redraw()

    def _report_failure(self, text: str) -> None:
        self.history.add(text, self._clock(), is_failure=True)
        self._request_redraw()

    # Events and drawing.

    def _request_redraw(self) -> None:
        self._needs_redraw = True

    def _tick(self) -> None:
        now = self._clock()
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
        if self._needs_redraw or self.size != self._drawn_size:
            self._draw()

    @property
    def _known(self) -> Known:
        return Known(self.history, self._clock())

    @property
    def _suggested(self) -> SuggestedCommand | None:
        status = self.history.status
        if status is None:
            return None
        now = self._clock()
        if self._hosts_read_at is None or not 0 <= now - self._hosts_read_at < HOSTS_S:
            self._hosts = hosts_for_others("::" if self._servers.status.is_ipv6 else "*")
            self._hosts_read_at = now
        return suggested_command(self._servers, status, self._hosts)

    def _draw(self) -> None:
        # While the application exits, its screen or widgets may already be gone.
        if self.terminal.is_left or not self.screen_stack or not self.screen_stack[0].query("#title"):
            return
        self._needs_redraw, self._drawn_size = False, self.size
        self.draw_count += 1
        with self.batch_update():
            self._draw_bars()
            self._draw_panels()
            self._draw_details()

    def _draw_bars(self) -> None:
        width = self.size.width
        alarm = headline.alarm(self.history, width)
        self._widget("#alarm").display = bool(alarm)
        self._update("#alarm", alarm)
        self._update("#title", headline.title(self.history, str(self._servers.status), width))
        if self._widget("#keys").display == self._filter_line.display:
            self._widget("#keys").display = not self._filter_line.display
        special = self._focused_view.keys
        self._update(
            "#keys", headline.keys(width, special, owns_servers=self._owns_servers, has_link=self._invite is not None)
        )

    def _draw_panels(self) -> None:
        known, size = self._known, self.size
        screen = Screen(size.width, max(0, size.height - BAR_LINES - (self.history.lost_at is not None)))
        wishes = {Panel.RATE: self._rate_view.wish(known, is_wide=size.width >= WIDE)}
        for panel, view in self._row_views.items():
            text = view.contents(known, screen.inner_width(panel))
            wishes[panel] = view.wish(text)
            view.set_text(text)
        # The rows of the focused panel must be known: one of them is described.
        details = details_panel(self._focused_view.details(known), screen.inner_width(Panel.DETAILS))
        command = command_panel(self._suggested, screen.inner_width(Panel.COMMAND), has_link=self._invite is not None)
        for panel, text in ((Panel.DETAILS, details), (Panel.COMMAND, command)):
            wishes[panel] = Wish(text.height, text.height)
            self._views[panel].set_text(text)
        places = arrange(screen, wishes, self._focused_view.panel)
        if Panel.RATE in places:
            height = screen.inner_height(places[Panel.RATE])
            self._rate_view.set_text(self._rate_view.contents(known, screen.inner_width(Panel.RATE), height))
        for panel, shown in self._views.items():
            if panel in places:
                shown.show(places[panel], framed=screen.is_framed)
            else:
                shown.hide()

    def _draw_details(self) -> None:
        """Updates the dialog with details. If its row has gone, the dialog shows what was known last."""
        view, key = self._detailed
        if isinstance(dialog := self.screen, Details) and view.selected == key:
            dialog.update(view.details(self._known), *self.size)

    def _update(self, selector: str, text: str) -> None:
        """Updates a line if it has changed."""
        line = self.screen_stack[0].query_one(selector, Static)
        if line.content != text:
            line.update(text)

    def _widget(self, selector: str) -> Widget:
        return self.screen_stack[0].query_one(selector)

    def _print_error_renderables(self) -> None:
        """Prints no traceback: ``run_console`` raises the exception instead."""
