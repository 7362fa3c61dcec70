"""Prints lines that another program may read."""

from __future__ import annotations

import contextlib
from typing import TextIO


def print_line(text: str, stream: TextIO) -> None:
    """Prints a line and flushes it."""
    # A closed pipe must not end a download.
    with contextlib.suppress(BrokenPipeError):
        print(text, file=stream, flush=True)
