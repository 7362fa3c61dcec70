"""Parses the lines that an operator types at the plain console.

Does not read or carry out commands.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct


class ToggleLine(Struct, frozen=True):
    """A worker's number: toggle that worker."""

    number: int


class QuitLine(Struct, frozen=True):
    """The line ``-1``: shut down."""


class InvalidLine(Struct, frozen=True):
    """Any other line; ``message`` lists the valid choices."""

    message: str


def parse_line(line: str, numbers: Collection[int]) -> ToggleLine | QuitLine | InvalidLine | None:
    """Parses a line that an operator entered; ``numbers`` are those of the workers. Returns None for an empty line."""
    text = line.strip()
    if not text:
        return None
    if text == "-1":
        return QuitLine()
    # Check the length first: ``int()`` raises ``ValueError`` for thousands of digits.
    if len(text) <= 9 and text.isascii() and text.isdigit() and int(text) in numbers:
        return ToggleLine(int(text))
    return InvalidLine(f"invalid choice {text[:40]!r}: enter {_choices(numbers)}-1 to quit")


def _choices(numbers: Collection[int]) -> str:
    if not numbers:
        return ""
    has_gaps = len(numbers) < max(numbers)
    return f"{', '.join(map(str, sorted(numbers))) if has_gaps else f'1 to {max(numbers)}'}, or "
