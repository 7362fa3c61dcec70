"""Redraws a frame of lines in place, below a terminal's earlier output.

After each frame the cursor is at the frame's first character. It stays there when the terminal is resized, whether the
terminal rewraps or truncates the lines, so the next frame overwrites it completely. Terminal modes are
restored after each frame, so a killed process leaves the terminal usable. Does not decide what to draw.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from msd.wire.support.job_control import is_in_background

#: Escape sequences. Wrapping is disabled while drawing, because the terminal may be narrower than last reported.
DISABLE_WRAP, ENABLE_WRAP, ERASE_TO_LINE_END = "\x1b[?7l", "\x1b[?7h", "\x1b[K"


class TerminalPainter:
    """Draws frames on one terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        #: The last frame, and the terminal's size when it was drawn.
        self._last_frame: list[Text] = []
        self._last_size = self.size
        #: Number of frames drawn.
        self.draw_count = 0

    @property
    def size(self) -> tuple[int, int]:
        """The current size of the terminal in columns and lines.

        Asks rich only as a fallback: rich prefers the environment variables ``COLUMNS`` and ``LINES``, which may be
        outdated, because readline exports them to child processes.
        """
        try:
            columns, lines = os.get_terminal_size(self._console.file.fileno())
        except (OSError, ValueError):
            columns = lines = 0
        width, height = self._console.size
        return columns or width, lines or height

    @property
    def may_draw(self) -> bool:
        """False while this process is in the background of the terminal, where a frame would disturb other output."""
        try:
            return not is_in_background(self._console.file.fileno())
        except (OSError, ValueError):
            return True  # Not a terminal with job control.

    def draw(self, lines: Sequence[Text], above: Sequence[str] = ()) -> None:
        """Draws ``lines`` over the last frame, below the new permanent lines ``above``, if anything changed."""
        size = self.size
        if lines == self._last_frame and size == self._last_size and not above:
            return
        self.draw_count += 1
        text = "".join(f"{line}{ERASE_TO_LINE_END}\n" for line in above)
        text += DISABLE_WRAP + "\n".join(f"{self._rendered(line)}{ERASE_TO_LINE_END}" for line in lines) + ENABLE_WRAP
        if not lines:
            text += ERASE_TO_LINE_END
        if self._last_frame or len(lines) > 1:
            # Erase the rest of the last frame, but do not start at its first line: tmux would then save the
            # erased lines in its history.
            text += "\n\x1b[J\x1b[A" if len(lines) < 2 else "\x1b[J"
        text += "\r" + (f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else "")
        self._last_frame, self._last_size = [*lines], size
        self._console.file.write(text)
        self._console.file.flush()

    def _rendered(self, line: Text) -> str:
        with self._console.capture() as capture:
            self._console.print(line, end="", soft_wrap=True)
        return capture.get()
