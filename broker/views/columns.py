"""Tables for people: which columns fit into a width, and how cells are aligned in them. Pure.

Knows nothing of workers or clients. Widths are in columns of a terminal; some characters take two of them, or none.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence

from msgspec import Struct

Cells = Mapping[str, str]


class Column(Struct, frozen=True):
    """A column: its heading and its minimum width. A table that does not fit leaves out the column with the highest
    ``rank`` first, and never one of rank 0. A column with ``most`` is as wide as its longest cell up to ``least`` and,
    if there is room, up to ``most``.
    """

    name: str
    least: int
    rank: int = 0
    most: int = 0
    is_left: bool = False


def fit(columns: Sequence[Column], rows: Sequence[Cells], width: int) -> Mapping[str, int]:
    """Returns the names of the columns that fit into ``width``, and their widths, in the order of ``columns``."""
    longest = {c.name: max([text_width(c.name), *(text_width(row[c.name]) for row in rows)]) for c in columns if c.most}
    widths = {
        c.name: min(longest[c.name], max(c.least, text_width(c.name))) if c.most else max(c.least, len(c.name))
        for c in columns
    }
    for column in sorted(columns, key=lambda column: -column.rank):
        if sum(widths.values()) + len(widths) <= width + 1 or not column.rank:
            break
        del widths[column.name]
    spare = max(0, width + 1 - sum(widths.values()) - len(widths))
    for column in columns:
        if column.most and column.name in widths:
            wider = min(spare, min(column.most, longest[column.name]) - widths[column.name])
            widths[column.name] += max(0, wider)
            spare -= max(0, wider)
    return widths


def heading(columns: Sequence[Column], widths: Mapping[str, int]) -> str:
    return line(columns, {column.name: column.name for column in columns}, widths)


def line(columns: Sequence[Column], cells: Cells, widths: Mapping[str, int]) -> str:
    """Returns the cells of a row, aligned to ``widths``; without blanks at the end."""
    aligned = [
        _aligned(clip_middle(cells[column.name], widths[column.name]), widths[column.name], is_left=column.is_left)
        for column in columns
        if column.name in widths
    ]
    return " ".join(aligned).rstrip()


def _aligned(text: str, width: int, *, is_left: bool) -> str:
    blanks = " " * (width - text_width(text))
    return text + blanks if is_left else blanks + text


def text_width(text: str) -> int:
    """Returns the number of columns that a terminal needs for ``text``."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clip_middle(text: str, width: int) -> str:
    """Shortens a name to ``width`` columns: its beginning and its end tell names apart, so an ellipsis replaces the
    middle.
    """
    if text_width(text) <= width:
        return text
    tail = _beginning(text[::-1], (width - 1) // 2)[::-1]
    return f"{_beginning(text, width - 1 - text_width(tail))}…{tail}" if width > 1 else "…"[:width]


def _beginning(text: str, width: int) -> str:
    """Returns as many of the first characters as fit into ``width`` columns."""
    if text.isascii():
        return text[:width]
    for index, character in enumerate(text):
        width -= _character_width(character)
        if width < 0:
            return text[:index]
    return text


def wrap(text: str, width: int, indent: int = 2) -> list[str]:
    """Wraps a text between words; every line but the first is indented."""
    return textwrap.wrap(text, max(width, indent + 10), subsequent_indent=" " * indent, break_on_hyphens=False)


def first_that_fits(texts: Sequence[str], width: int) -> str:
    """Returns the first of ``texts`` that fits into ``width`` columns; an empty text if none does."""
    return next((text for text in texts if text_width(text) <= width), "")
