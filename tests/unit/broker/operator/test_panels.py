"""Each panel describes its selected row in full."""

from __future__ import annotations

from msd.broker.operator.panels import (
    LEAST_ROWS,
    ClientsView,
    EventsView,
    FilesView,
    Known,
    RateView,
    RowsView,
    WorkersView,
    command_panel,
    details_panel,
)
from msd.broker.status.history import History
from msd.broker.views.columns import text_width
from msd.broker.views.panel_layout import Wish
from msd.broker.views.status_table import SuggestedCommand
from tests.console_screens import BROKEN, NOW, REASON, report


def known(workers: int = 64, clients: int = 3) -> Known:
    history = History()
    history.on_report(report(workers, clients), NOW)
    return Known(history, NOW)


def details(view: RowsView, what: Known, key: object) -> str:
    view.set_text(view.contents(what, 100))
    view._chosen = key
    return " ".join(view.details(what))


def test_a_worker_is_described_with_its_events() -> None:
    text = details(WorkersView(), known(), BROKEN)
    assert text.startswith(f"Worker {BROKEN}: Failed: {REASON} It does not serve")
    assert text.count(" ! worker 3 ") == 3, "with the others, five events"
    assert "worker 2 was put to sleep" not in text


def test_a_host_is_described_and_is_no_worker() -> None:
    view = WorkersView()
    text = details(view, known(), ("host", "192.0.2.14"))
    assert text.startswith("192.0.2.14: 7 of 8 workers alive, 7.7 MiB/s, slow: ")
    assert view.number is None


def test_clients_files_and_events_are_described() -> None:
    what = known()
    assert details(ClientsView(), what, 3).startswith("Client anna@laptop-3 at 198.51.100.3")
    assert "1 client at 19.0 MiB/s: ben@attic-1" in details(FilesView(), what, "photos/")
    event = what.history.events[1]
    assert details(EventsView(), what, (event.seq, event.time, event.text)).endswith(
        "worker 2 was put to sleep by the operator anna"
    )


def test_without_a_row_there_are_no_details() -> None:
    what = Known(History(), NOW)
    for view in (WorkersView(), ClientsView(), FilesView(), EventsView()):
        assert details(view, what, None) == ""
    assert "waiting for server 5" in WorkersView().contents(what, 80).lines[0].text


def test_the_graph_needs_little_room_as_long_as_nothing_was_sent() -> None:
    assert RateView.wish(Known(History(), NOW), is_wide=True) == Wish(1, 1)
    assert RateView.wish(known(), is_wide=True).most > RateView.wish(known(), is_wide=False).most > LEAST_ROWS
    assert RateView.contents(known(), 80, 5).height == 5


def test_rows_are_sorted_in_one_way_after_another() -> None:
    view = ClientsView()
    orders = []
    for _ in range(5):
        orders.append(view.order)
        view.sort()
    assert orders == [*ClientsView.orders, ClientsView.orders[0]]


def test_the_command_and_the_details_are_wrapped_to_their_panels() -> None:
    suggested = SuggestedCommand("Command for a client", f"msd download NAME --server-key {'f' * 64}")
    text = command_panel(suggested, 80, has_link=True)
    assert [len(line.text) <= 80 for line in text.lines] == [True, True]
    assert text.titles[0] == "Command for a client with a key (y copies a link for a client without one)"
    assert max(len(line.text) for line in details_panel(["word " * 40], 30).lines) <= 30


def test_every_panel_fits_whatever_its_width() -> None:
    what = known(64, 300)
    for view in (WorkersView(), ClientsView(), FilesView(), EventsView()):
        for width in (*range(38, 82), 118, 158, 238):
            text = view.contents(what, width)
            assert max(text_width(line.text) for line in text.lines) <= width, (view, width)
            assert text_width(text.heading) <= width
            assert all(text_width(text.title(room)) <= room for room in (width - 6, 20))
    for words in ("nothing", "x" * 99):
        for view in (WorkersView(), ClientsView(), FilesView(), EventsView()):
            view.words = words
            text = view.contents(what, 38)
            assert max(text_width(line.text) for line in text.lines) <= 38
            assert text_width(text.title(32)) <= 32
