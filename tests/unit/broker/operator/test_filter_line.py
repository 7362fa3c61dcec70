"""The filter line is there only while the operator types, and Escape removes the filter."""

from __future__ import annotations

import asyncio

from textual.app import App, ComposeResult

from msd.broker.operator.filter_line import FilterLine


class FilterApp(App[None]):
    CSS = FilterLine.STYLE

    def __init__(self) -> None:
        super().__init__()
        self.line = FilterLine()
        self.closed = 0

    def compose(self) -> ComposeResult:
        yield self.line

    def on_filter_line_closed(self) -> None:
        self.closed += 1


def test_enter_keeps_the_words_and_escape_removes_them() -> None:
    app = FilterApp()

    async def run() -> None:
        async with app.run_test(size=(60, 4)) as pilot:
            assert not app.line.display
            for key, words in (("enter", "one t"), ("tab", "one t"), ("escape", "")):
                app.line.open("events", "one")
                await pilot.press("space", "t")
                assert app.line.value == "one t"
                await pilot.press(key)
                assert (app.line.value, app.line.display) == (words, False)
            assert app.closed == 3

    asyncio.run(run())
