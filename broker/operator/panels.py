"""The panels of the console: what each shows of the servers, and its keys.

The rows are made by ``broker/views``; ``broker/operator/console_app.py`` places the panels and carries out the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from msgspec import Struct

from msd.broker.operator.panel import PanelView
from msd.broker.status.history import History
from msd.broker.views import client_rows, file_rows, worker_rows
from msd.broker.views.client_rows import client_details, clients_panel
from msd.broker.views.columns import wrap
from msd.broker.views.event_rows import event_details, event_lines, events_panel
from msd.broker.views.file_rows import file_details, files_panel, requested_files
from msd.broker.views.host_rates import host_rates
from msd.broker.views.overview import wrap_command
from msd.broker.views.panel_layout import Panel, Wish
from msd.broker.views.panel_text import Line, PanelText, Tone
from msd.broker.views.rate_graph import rate_panel
from msd.broker.views.status_table import SuggestedCommand
from msd.broker.views.worker_rows import worker_details, workers_panel

#: Lines that the graph wants in a band and in a stack of a wide screen; it also gets lines that no panel wants.
GRAPH_LINES, WIDE_GRAPH_LINES = 4, 8
#: The least number of lines of a panel with a heading.
LEAST_ROWS = 2
#: Maximum number of events in the details of a worker.
DETAIL_EVENTS = 5


class Known(Struct, frozen=True):
    """What the panels show: ``history`` at the time ``now`` (seconds since 1970)."""

    history: History
    now: float

    @property
    def is_current(self) -> bool:
        return self.history.lost_at is None


class RowsView(PanelView):
    """A panel whose rows can be filtered and sorted."""

    panel: ClassVar[Panel]
    #: How the rows can be sorted; the first is how they are at first.
    orders: ClassVar[Sequence[str]] = ("",)
    #: The keys that only this panel has.
    keys: ClassVar[Sequence[str]] = ("s sort",)

    def __init__(self) -> None:
        super().__init__()
        #: Only rows that contain these words are shown.
        self.words = ""
        self._order = 0

    @property
    def order(self) -> str:
        return self.orders[self._order]

    def sort(self) -> None:
        """Sorts the rows in the next way. Selects the first one, unless the operator has selected another one."""
        self._order = (self._order + 1) % len(self.orders)
        self._kept = None

    def contents(self, known: Known, width: int) -> PanelText:
        """Returns what the panel shows on ``width`` columns."""
        raise NotImplementedError

    def details(self, known: Known) -> Sequence[str]:
        """Returns everything known about the selected row, one paragraph an entry; nothing if there is no row."""
        raise NotImplementedError

    @staticmethod
    def wish(text: PanelText) -> Wish:
        return Wish(min(text.height, LEAST_ROWS), text.height)


class WorkersView(RowsView):
    panel = Panel.WORKERS
    orders = worker_rows.ORDERS
    keys = ("t toggle row", "s sort")
    # The rates of workers decide the order of their rows, and t must not toggle the one that has just become the first.
    keeps_row = True

    @property
    def number(self) -> int | None:
        """The number of the selected worker; None if the selected row is a host, or there is none."""
        return self.selected if isinstance(self.selected, int) else None

    def contents(self, known: Known, width: int) -> PanelText:
        rows = known.history.rows(known.now)
        if known.history.status is None:
            return PanelText(["Workers"], [Line(None, " waiting for server 5", Tone.MUTED)])
        return workers_panel(rows, width, self.words, self.order, current=known.is_current)

    def details(self, known: Known) -> Sequence[str]:
        rows = known.history.rows(known.now)
        if self.number is None:
            return [host.text for host in host_rates(rows) if ("host", host.host) == self.selected]
        for row in rows:
            if row.worker.number == self.number:
                events = [event for event in known.history.events if event.worker == self.number][:DETAIL_EVENTS]
                texts = [" ".join(event_lines(event, 1000)) for event in events]
                return [*worker_details(row, current=known.is_current), *texts]
        return []


class ClientsView(RowsView):
    panel = Panel.CLIENTS
    orders = tuple(client_rows.ORDERS)

    def contents(self, known: Known, width: int) -> PanelText:
        history = known.history
        served = history.status.clients if history.status is not None else 0
        return clients_panel(
            history.downloads, width, self.words, self.order, served=served, receivers=history.receivers
        )

    def details(self, known: Known) -> Sequence[str]:
        shown = [each for each in known.history.downloads if each.number == self.selected]
        return client_details(shown[0], known.now) if shown else []


class FilesView(RowsView):
    panel = Panel.FILES
    orders = file_rows.ORDERS

    def contents(self, known: Known, width: int) -> PanelText:
        files = requested_files(known.history.requested, known.history.downloads)
        shared = known.history.status.files if known.history.status is not None else 0
        return files_panel(files, width, self.words, self.order, shared=shared)

    def details(self, known: Known) -> Sequence[str]:
        files = requested_files(known.history.requested, known.history.downloads)
        shown = [each for each in files if each.selection == self.selected]
        return file_details(shown[0], known.history.downloads) if shown else []


class EventsView(RowsView):
    panel = Panel.EVENTS
    keys = ("l failures only", "w one worker only")

    def __init__(self) -> None:
        super().__init__()
        #: True if only failures are shown.
        self.failures = False
        #: The number of the only worker whose events are shown; None for all.
        self.worker: int | None = None

    def contents(self, known: Known, width: int) -> PanelText:
        return events_panel(known.history.events, width, self.words, failures=self.failures, worker=self.worker)

    def details(self, known: Known) -> Sequence[str]:
        shown = [e for e in known.history.events if (e.seq, e.time, e.text) == self.selected]
        return event_details(shown[0]) if shown else []

    @staticmethod
    def wish(text: PanelText) -> Wish:
        return Wish(1, text.height)


class RateView(PanelView):
    """The graph of the rate of all workers."""

    def __init__(self) -> None:
        super().__init__(can_focus=False)

    @staticmethod
    def wish(known: Known, *, is_wide: bool) -> Wish:
        lines = WIDE_GRAPH_LINES if is_wide else GRAPH_LINES
        return Wish(LEAST_ROWS, lines) if any(known.history.total_rates) else Wish(1, 1)

    @staticmethod
    def contents(known: Known, width: int, height: int) -> PanelText:
        status = known.history.status
        rate = sum(worker.rate for worker in status.workers) if status is not None else 0.0
        return rate_panel(known.history.total_rates, rate, width, height)


class TextView(PanelView):
    """A panel with a text."""

    def __init__(self) -> None:
        super().__init__(can_focus=False)


def details_panel(paragraphs: Sequence[str], width: int) -> PanelText:
    """Returns the details of the selected row, for a panel."""
    lines = [line for text in paragraphs for line in wrap(text, width - 2)]
    return PanelText(["Selected row"], [Line(None, f" {line}") for line in lines])


def command_panel(suggested: SuggestedCommand | None, width: int, *, has_link: bool) -> PanelText:
    """Returns the command that the operator may pass on. With ``has_link``, ``y`` copies a link instead."""
    if suggested is None:
        return PanelText([""], [])
    # The command is of no use to a client whose key is not admitted.
    link_hints = ("with a key (y copies a link for a client without one)", "(y copies a link)")
    hints = link_hints if has_link else ("(y copies it)",)
    lines = wrap_command(suggested.command, width - 1)
    titles = [*(f"{suggested.title} {hint}" for hint in hints), suggested.title]
    return PanelText(titles, [Line(None, f" {line}") for line in lines])
