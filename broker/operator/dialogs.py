"""What the console on a terminal opens in front of itself: a question, the help.

Shows and answers; what an answer leads to is said in ``broker/operator/console_app.py``.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Static

HELP = """\
1 … 9      shut that worker down, or wake it up
↑ ↓ Enter  the same for the worker marked ›
PgUp PgDn  older and newer events
q          {quit}
Ctrl-C     {interrupt}

● Alive    it answers     ○ Dead    it does not; the reason stands behind
?          server 5 does not answer: nobody knows whether it is still so
Rst Cli    restarts of its process; clients it serves now
Rate       bytes a second lately, and the half minute before that
Bad        complaints of corrupt segments / strangers: messages that
           were none, and connections that were refused

Any key closes this."""


#: For the application that opens them.
CSS = """
ModalScreen { align: center middle; }
.box { width: auto; max-width: 100%; height: auto; max-height: 100%; padding: 1 2; border: round $primary;
       background: $surface; }
"""


T = TypeVar("T")


class _Dialog(ModalScreen[T]):
    """Something in front, until it is dismissed."""

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        """As Textual's, but only once: a key that was pressed just behind the one that closed it would otherwise close
        what lies underneath, too.
        """
        return super().dismiss(result) if self.is_current else AwaitComplete()


class Question(_Dialog[bool]):
    """Something to be answered with y or n."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes"),
        Binding("n,escape,q", "dismiss(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(f"{self._text}\n\ny yes   n no", classes="box", markup=False)


class Help(_Dialog[None]):
    """What the keys and columns are, until any key. ``owns``: the servers end with this console."""

    def __init__(self, *, owns: bool) -> None:
        super().__init__()
        leave = "end the servers; asks while clients are served" if owns else "leave this console; the servers go on"
        self._text = HELP.format(quit=leave, interrupt="end the servers at once" if owns else "leave this console")

    def compose(self) -> ComposeResult:
        yield Static(self._text, classes="box", markup=False)

    def on_key(self, event: Key) -> None:
        event.stop()  # It is not an order, too.
        self.dismiss(None)
