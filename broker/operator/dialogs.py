"""The console's dialogs: a yes/no question, the help, details of a row, and what a friend needs for a download.

They return the operator's answer; ``broker/operator/console_app.py`` acts on it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Static

from msd.broker.operator import colours
from msd.broker.views.columns import wrap
from msd.broker.views.overview import wrap_command
from msd.broker.views.status_table import SuggestedCommand
from msd.wire.config.invitations import Invitation

CLOSE = "Press any key to close."
#: Columns and lines that the box of a dialog takes.
BOX_COLUMNS, BOX_LINES = 6, 4
#: Maximum number of columns of details.
MAX_COLUMNS = 100

HELP = """\
Tab, mouse     focus the next panel; a focused panel has a thick frame
↑ ↓ or j k     select a row (›); PgUp PgDn Home End: pages and ends
Enter          all details of the selected row, such as why a worker is
               not alive
/              show only rows with these words; Esc removes the filter
s              sort the rows of this panel in another way
1 … 9, t       shut down or wake up that worker, or the selected one
l, w           events: only failures; only of the selected worker
y              {link}
q              {quit}
Ctrl-C         {interrupt}

● Alive serves, ○ does not. Alive? is the last known state. Slow workers
send less than half of what the others send, slow hosts for each worker.
Errors: corrupt segments, malformed messages and refused connections.
With Shift, the mouse selects text as usual.

Press any key to close."""


#: Style rules for the application that opens the dialogs.
CSS = f"""
ModalScreen {{ align: center middle; background: {colours.BACKGROUND} 0%; }}
.box {{ width: auto; max-width: 100%; height: auto; max-height: 100%; padding: 1 2;
        border: round {colours.FOCUSED_FRAME}; background: {colours.BACKGROUND}; color: {colours.TEXT}; }}
"""


T = TypeVar("T")


class _Dialog(ModalScreen[T]):
    """A modal screen that can be dismissed only once."""

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        """Dismisses the dialog unless it is already closed. Without this check a second key pressed in quick succession
        would also dismiss the screen underneath.
        """
        return super().dismiss(result) if self.is_current else AwaitComplete()


class Question(_Dialog[bool]):
    """A yes/no question; the dialog's result is True for yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes"),
        Binding("n,escape,q", "dismiss(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(f"{self._text}\n\ny yes   n no", classes="box", markup=False)


class _Text(_Dialog[None]):
    """Shows a text until any key is pressed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(self._text, classes="box", markup=False)

    def on_key(self, event: Key) -> None:
        event.stop()  # Do not also handle the key as a command.
        self.dismiss(None)


class Help(_Text):
    """Shows the help for keys and words. If ``owns_servers`` is true, the servers shut down when the console ends.
    ``link`` is what ``y`` copies.
    """

    def __init__(self, *, owns_servers: bool, link: str) -> None:
        leave = "leave this console; the servers keep running"
        text = HELP.format(
            link=f"copy and show the {link}, for a friend",
            quit="stop the servers; asks first if clients came lately" if owns_servers else leave,
            interrupt="stop the servers at once" if owns_servers else leave,
        )
        super().__init__(text)


class Details(_Text):
    """Shows everything known about a row, one paragraph an entry, on a screen of ``width`` columns and ``height``
    lines. If the screen is too low, the blank lines between the paragraphs are left out, and then the last paragraphs.
    """

    def __init__(self, paragraphs: Sequence[str], width: int, height: int) -> None:
        super().__init__(self._fitted(paragraphs, width, height))

    def update(self, paragraphs: Sequence[str], width: int, height: int) -> None:
        """Shows what is known now."""
        text = self._fitted(paragraphs, width, height)
        if text != self._text:
            self._text = text
            for static in self.query(Static):  # None before the dialog is composed.
                static.update(text)

    @staticmethod
    def _fitted(paragraphs: Sequence[str], width: int, height: int) -> str:
        width, height = min(width, MAX_COLUMNS), height - BOX_LINES
        text = _wrapped([*paragraphs, CLOSE], width)
        if text.count("\n") >= height:
            lines = [wrap(paragraph, width - BOX_COLUMNS) for paragraph in paragraphs]
            while len(lines) > 1 and sum(map(len, lines)) >= height:
                lines.pop()
            text = "\n".join([*(line for paragraph in lines for line in paragraph), CLOSE])
        return text


class LinkShown(_Text):
    """Shows the link of an invitation, on a screen of ``width`` columns. The caller copies it to the clipboard."""

    def __init__(self, invitation: Invitation, width: int) -> None:
        paragraphs = (
            "Link for a client, copied if the terminal allows that",
            invitation.link.text,
            f"{invitation.terms}: msd download LINK",
            invitation.end,
            CLOSE,
        )
        super().__init__(_wrapped(paragraphs, width))


class CommandShown(_Text):
    """Shows a command on a screen of ``width`` columns. The caller copies it to the clipboard."""

    def __init__(self, suggested: SuggestedCommand, width: int) -> None:
        command = "\n".join(wrap_command(suggested.command, width - BOX_COLUMNS))
        title = f"{suggested.title}, copied if the terminal allows that"
        super().__init__("\n\n".join(filter(None, (title, command, _wrapped(suggested.notes, width), CLOSE))))


def _wrapped(paragraphs: Sequence[str], width: int) -> str:
    """Returns paragraphs with blank lines between them, for a box on a screen of ``width`` columns."""
    lines = [
        "\n".join(textwrap.wrap(text, max(20, width - BOX_COLUMNS), break_on_hyphens=False)) for text in paragraphs
    ]
    return "\n\n".join(lines)
