"""The line in which the operator types the filter of a panel. Filters nothing itself."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from msd.broker.operator import colours


class FilterLine(Input):
    """An input that replaces the line of keys while it is open."""

    STYLE = f"""
    FilterLine, FilterLine:focus {{ dock: bottom; height: 1; border: none; padding: 0; display: none;
        background: {colours.SELECTED}; color: {colours.BRIGHT}; background-tint: {colours.SELECTED} 0%; }}
    FilterLine > .input--placeholder {{ color: {colours.HEADING}; }}
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear", show=False),
        Binding("enter", "keep", show=False),
        Binding("tab,shift+tab,up,down", "keep", show=False),
    ]

    class Closed(Message):
        """The filter is as the operator wants it."""

    def __init__(self) -> None:
        super().__init__(select_on_focus=False)

    def open(self, name: str, words: str) -> None:
        """Shows the line for the panel called ``name``, which is filtered by ``words``."""
        self.placeholder = f"words that {name} must have: Enter keeps the filter, Esc removes it"
        self.value = words
        self.display = True
        self.focus()

    def close(self) -> None:
        self.display = False

    def action_clear(self) -> None:
        self.value = ""
        self.action_keep()

    def action_keep(self) -> None:
        self.close()
        self.post_message(self.Closed())
