"""The console's dialogs: a yes/no question, the help, and the link for a client.

They return the operator's answer; ``broker/operator/console_app.py`` acts on it.
"""

from __future__ import annotations

import textwrap
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Static

from msd.wire.config.invitations import Invitation

HELP = """\
1 … 9      shut that worker down, or wake it up
↑ ↓ Enter  select a worker (›), then shut it down or wake it up
PgUp PgDn  scroll the events
{link}q          {quit}
Ctrl-C     {interrupt}

● Alive    the worker answers requests
○ Dead     the worker does not answer; the reason follows
Alive?     the last known state; server 5 does not answer
Name Host  of a worker that has joined from elsewhere
Rst Cli    restarts of the worker's process; clients it serves now
Rate       bytes per second, and the rates of the last 30 seconds
Bad        corrupt segments reported / malformed messages and
           refused connections

Press any key to close."""


#: Style rules for the application that opens the dialogs.
CSS = """
ModalScreen { align: center middle; }
.box { width: auto; max-width: 100%; height: auto; max-height: 100%; padding: 1 2; border: round $primary;
       background: $surface; }
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
    """Shows the help for keys and columns. If ``owns_servers`` is true, the servers shut down when the console ends.
    With ``has_link`` the console offers a link for a client.
    """

    def __init__(self, *, owns_servers: bool, has_link: bool = False) -> None:
        leave = "leave this console; the servers keep running"
        text = HELP.format(
            link="y          copy and show a link for a client\n" if has_link else "",
            quit="stop the servers; asks first if clients were served lately" if owns_servers else leave,
            interrupt="stop the servers at once" if owns_servers else leave,
        )
        super().__init__(text)


class LinkShown(_Text):
    """Shows the link of an invitation, on a screen of ``width`` columns. The caller copies it to the clipboard."""

    def __init__(self, invitation: Invitation, width: int) -> None:
        paragraphs = (
            "Link for a client, copied if the terminal allows that",
            invitation.link.text,
            f"{invitation.terms}: msd download LINK",
            invitation.end,
            "Press any key to close.",
        )
        # The box takes six columns.
        wrapped = ["\n".join(textwrap.wrap(text, max(20, width - 6), break_on_hyphens=False)) for text in paragraphs]
        super().__init__("\n\n".join(wrapped))
