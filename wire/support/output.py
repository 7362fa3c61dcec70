"""Prints lines to a stream that may be a pipe to another program."""

from __future__ import annotations

import contextlib
import os
from typing import TextIO


def print_line(text: str, stream: TextIO) -> None:
    """Prints a line and flushes it. Ignores a closed pipe."""
    # A closed pipe must not end a download.
    with contextlib.suppress(BrokenPipeError):
        print(text, file=stream, flush=True)


def has_cursor_movement() -> bool:
    """Returns True if ``TERM`` names a terminal that can move its cursor."""
    return os.environ.get("TERM", "dumb") not in ("", "dumb")
