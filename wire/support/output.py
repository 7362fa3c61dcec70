"""Prints lines to a stream that may be a pipe to another program."""

from __future__ import annotations

import contextlib
from typing import TextIO


def print_line(text: str, stream: TextIO) -> None:
    """Prints a line and flushes it. Ignores a closed pipe."""
    # A closed pipe must not end a download.
    with contextlib.suppress(BrokenPipeError):
        print(text, file=stream, flush=True)
