"""A panel shows the part of its rows with the selected one, and says which part that is."""

from __future__ import annotations

import asyncio

from textual.app import App, ComposeResult
from textual.pilot import Pilot

from msd.broker.operator import panel
from msd.broker.operator.panel import PanelView
from msd.broker.views.panel_layout import Place
from msd.broker.views.panel_text import Line, PanelText


def rows(count: int, *, lines: int = 1) -> PanelText:
    """Rows of so many lines each."""
    texts = [
        Line(row if number == 0 else None, f" row {row}" if number == 0 else "   more")
        for row in range(count)
        for number in range(lines)
    ]
    return PanelText(["Rows"], texts, " Name")


def selected(app: PanelApp) -> object:
    return app.view.selected


class PanelApp(App[None]):
    CSS = panel.CSS

    def __init__(self) -> None:
        super().__init__()
        self.view = PanelView()

    def compose(self) -> ComposeResult:
        yield self.view

    @property
    def lines(self) -> list[str]:
        return [strip.text.rstrip() for strip in self.screen._compositor.render_strips()]


def test_a_panel_scrolls_with_the_keys_and_the_mouse() -> None:
    app = PanelApp()

    async def show(pilot: Pilot[None], text: PanelText, height: int, *, framed: bool = False) -> None:
        app.view.set_text(text)
        app.view.show(Place(0, 0, 30, height), framed=framed)
        await pilot.pause()

    async def run() -> None:
        async with app.run_test(size=(40, 12)) as pilot:
            await show(pilot, rows(9), 6)
            app.view.focus()
            await pilot.pause()
            assert app.lines[:6] == [
                f"{'━Rows, rows 1 to 4 of 9':━<30}",
                " Name",
                "›row 0",
                " row 1",
                " row 2",
                " row 3",
            ]
            await pilot.press("pagedown", "j")
            assert app.lines[2:6] == [" row 1", " row 2", " row 3", "›row 4"]
            await pilot.press("up")
            assert app.lines[2:6] == [" row 1", " row 2", "›row 3", " row 4"], "it scrolls only if it has to"
            await pilot.press("end")
            assert (app.lines[0].strip("━"), app.lines[5]) == ("Rows, rows 6 to 9 of 9", "›row 8")
            await pilot.click(offset=(3, 2))
            assert selected(app) == 5
            await pilot.click(offset=(3, 1))
            assert selected(app) == 5, "the heading is no row"
            await pilot.press("home")
            assert selected(app) == 0
            # The first row stays selected as long as the operator selects no other one.
            await show(pilot, PanelText(["Rows"], [Line("new", " new"), *rows(9).lines]), 6)
            assert selected(app) == "new"
            # All lines of a row are visible with it.
            await show(pilot, rows(9, lines=2), 6)
            await pilot.press("down", "down")
            assert app.lines[2:6] == [" row 1", "   more", "›row 2", "   more"]
            # A row that disappears is not selected any more.
            await show(pilot, rows(2), 6, framed=True)
            assert selected(app) == 0
            assert app.lines[:5] == [
                "┏━ Rows " + "━" * 21 + "┓",
                "┃ Name" + " " * 23 + "┃",
                "┃›row 0" + " " * 22 + "┃",
                "┃ row 1" + " " * 22 + "┃",
                "┃" + " " * 28 + "┃",
            ]
            app.view.hide()
            await pilot.pause()
            assert "row" not in "".join(app.lines)

    asyncio.run(run())


def test_a_panel_without_rows_ignores_the_keys() -> None:
    app = PanelApp()

    async def run() -> None:
        async with app.run_test(size=(40, 12)) as pilot:
            app.view.set_text(PanelText(["[b]Title[/b]"], [Line(None, " [/] nothing")]))
            app.view.show(Place(0, 0, 30, 6), framed=False)
            app.view.focus()
            await pilot.press("down", "pageup", "home", "end")
            assert app.view.selected is None
            assert app.lines[:2] == ["━[b]Title[/b]" + "━" * 17, " [/] nothing"]

    asyncio.run(run())


class KeepingView(PanelView):
    keeps_row = True


def test_a_panel_that_keeps_its_row_selects_no_row_that_becomes_the_first() -> None:
    view = KeepingView()

    def show(*keys: int) -> object:
        view.set_text(PanelText(["Rows"], [Line(key, f" row {key}") for key in keys]))
        return view.selected

    assert show() is None
    assert [show(3, 1, 2), show(1, 2, 3), show(2, 3, 1)] == [3, 3, 3]
    assert [show(1, 2), show(2, 1)] == [1, 1], "if the row disappears, the first one is selected, and kept"
    view.action_move_to_end(True)
    assert view.selected == 2
    view.action_move(1)
    assert [view.selected, show(2), show(1, 2)] == [1, 2, 1], "the operator has selected row 1: it may return"


def test_a_key_means_the_row_that_the_screen_shows() -> None:
    app = PanelApp()

    async def run() -> None:
        async with app.run_test(size=(40, 12)) as pilot:
            view = app.view
            assert view.shown is None
            view.set_text(rows(3))
            view.show(Place(0, 0, 30, 6), framed=False)
            await pilot.pause()
            view.action_move(2)
            assert view.shown == 2, "the operator knows of this move before the screen shows it"
            view.set_text(rows(2))
            assert view.selected == 0
            assert view.shown == 2
            view.show(Place(0, 0, 30, 6), framed=False)
            await pilot.pause()
            assert view.shown == 0
            view.hide()
            assert view.shown is None
            view.show(Place(0, 0, 30, 6), framed=False)
            await pilot.pause()
            assert view.shown == 0

    asyncio.run(run())
