"""The lines for files that fail in a download of several files. Pure."""

from __future__ import annotations

from msd.client.events import FileResult
from msd.wire.config.error_flags import with_flags
from msd.wire.support.presentable_names import presentable

#: The maximum number of failures that are shown; further ones are counted.
MAX_FAILURES = 20


class FailureLines:
    """Makes a line for each failure, but only for the first ones. ``lines`` are those so far."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, result: FileResult) -> str:
        """Returns the line for a file, an empty string if there is none."""
        if result.error is None or len(self.lines) > MAX_FAILURES:
            return ""
        is_shown = len(self.lines) < MAX_FAILURES
        text = presentable(with_flags(result.error)) if is_shown else "more files failed: they are only counted"
        self.lines.append(f"msd: {text}")
        return self.lines[-1]
