"""The lines for files that fail in a download of several files. Pure."""

from __future__ import annotations

from msd.client.events import FileResult
from msd.wire.config.error_flags import with_flags
from msd.wire.support.presentable_names import presentable

#: The maximum number of failures that are shown; further ones are counted.
MAX_FAILURES = 20


class FailureLines:
    """Makes a line for each failure, but only for the first ones, and one for all that have the same text, such as that
    of a folder that cannot be made. ``lines`` are those so far.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, result: FileResult) -> str:
        """Returns the line for a file, an empty string if there is none."""
        if result.error is None or len(self.lines) > MAX_FAILURES:
            return ""
        line = f"msd: {presentable(with_flags(result.error))}"
        if line in self.lines:
            return ""
        if len(self.lines) == MAX_FAILURES:
            line = "msd: more files failed: they are only counted"
        self.lines.append(line)
        return line
