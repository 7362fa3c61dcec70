"""Which file names can be shared and shown: what could act on a terminal or mislead the eye cannot."""

from __future__ import annotations

import unicodedata

#: Control characters, lone surrogates, line and paragraph separators.
_REFUSED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
#: Characters that turn the direction of the text around them: "fdp.exe" can be shown as "exe.pdf".
_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_presentable(name: str) -> bool:
    """True if a name can be shown as it is. Spaces of all kinds and joined emoji can."""
    return not any(c in _DIRECTION or unicodedata.category(c) in _REFUSED_CATEGORIES for c in name)


def presentable(name: str) -> str:
    """``name``, escaped where it cannot be shown as it is."""
    return name if is_presentable(name) else ascii(name)[1:-1]
