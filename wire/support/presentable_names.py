"""Decides which file names can be shared and printed, and escapes the others.

A name is not presentable if it could control a terminal or mislead the reader.
"""

from __future__ import annotations

import unicodedata

#: Control characters, lone surrogates, line and paragraph separators.
_ESCAPED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
#: Characters that change the direction of the text around them: they can make "fdp.exe" look like "exe.pdf".
_DIRECTION_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_presentable(name: str) -> bool:
    """True if ``name`` can be printed without escapes. All kinds of spaces and joined emoji are allowed."""
    return not any(c in _DIRECTION_CONTROLS or unicodedata.category(c) in _ESCAPED_CATEGORIES for c in name)


def presentable(name: str) -> str:
    """Returns ``name``, with escapes if it is not presentable."""
    return name if is_presentable(name) else ascii(name)[1:-1]
