"""Decides which file names can be shared and printed, and escapes the others.

A name is not presentable if it could control a terminal or mislead the reader.
"""

from __future__ import annotations

import re

#: Control characters, line and paragraph separators, characters that change the direction of the text around them (they
#: can make "fdp.exe" look like "exe.pdf"), and lone surrogates. Compiled when it is first needed: that takes 0.5 ms.
_UNPRESENTABLE = "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"


def is_presentable(name: str) -> bool:
    """True if ``name`` can be printed without escapes. All kinds of spaces and joined emoji are allowed."""
    # The first test is faster. It also rejects some presentable characters, such as a space that breaks no line.
    return name.isprintable() or re.search(_UNPRESENTABLE, name) is None


def shortened(text: str, size: int) -> str:
    """Returns ``text``, or as many of its first characters as fit into ``size`` bytes of UTF-8."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def presentable(name: str) -> str:
    """Returns ``name``, with escapes if it is not presentable."""
    return name if is_presentable(name) else ascii(name)[1:-1]
