"""Draws a picture of some lines in place, again and again, at the end of what a terminal shows.

The cursor waits at the picture's first character. A terminal that is resized keeps it there, whether it breaks
the lines anew or cuts them: the next picture begins where the last one did, and nothing of that is left. What a
terminal is set to is the same before and after each picture, so whatever ends the process breaks nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

#: Within a picture nothing wraps: a terminal may be narrower by now than it has said. Erased to its end, a line
#: leaves nothing of the one before.
OPEN, CLOSE, END = "\x1b[?7l", "\x1b[?7h", "\x1b[K"


class TerminalPainter:
    """The pictures on one terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        #: The last picture, and the terminal's size when it was drawn.
        self._drawn: list[Text] = []
        self._size = self.size
        #: How often it has drawn.
        self.draws = 0

    @property
    def size(self) -> tuple[int, int]:
        """The columns and lines of the terminal, now. ``COLUMNS`` and ``LINES``, which rich puts above that, are
        what it had when somebody set them (readline does so for each process that is started from it).
        """
        try:
            columns, lines = os.get_terminal_size(self._console.file.fileno())
        except (OSError, ValueError):
            columns = lines = 0
        width, height = self._console.size
        return columns or width, lines or height

    def draw(self, lines: Sequence[Text], above: Sequence[str] = ()) -> None:
        """Draws ``lines`` in place of the last picture, if they are others; lines ``above`` it stay for good."""
        size = self.size
        if lines == self._drawn and size == self._size and not above:
            return
        self.draws += 1
        text = "".join(f"{line}{END}\n" for line in above)
        text += OPEN + "\n".join(f"{self._rendered(line)}{END}" for line in lines) + CLOSE
        if not lines:
            text += END
        if self._drawn or len(lines) > 1:
            # Below is what was there before. Not from the first line on: tmux would keep that for its history.
            text += "\n\x1b[J\x1b[A" if len(lines) < 2 else "\x1b[J"
        text += "\r" + (f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else "")
        self._drawn, self._size = [*lines], size
        self._console.file.write(text)
        self._console.file.flush()

    def _rendered(self, line: Text) -> str:
        with self._console.capture() as capture:
            self._console.print(line, end="", soft_wrap=True)
        return capture.get()
