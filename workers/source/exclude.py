"""Matches names against the patterns of ``--exclude``, with the rules of a ``.gitignore`` file. Opens no files.

A pattern without ``/`` matches a base name in any folder. A pattern with ``/`` at its start or inside matches a whole
name. ``*``, ``?`` and ``[a-z]`` match no ``/``; ``**`` matches any number of folders. A ``/`` at the end matches
folders only. ``!`` and ``#`` at the start, and backslashes, are ordinary characters here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: The special parts of a pattern, and the regular expressions for them; all other characters stand for themselves.
_SPECIAL = re.compile(
    r"(?P<folders>(?<![^/])\*\*/)|(?P<rest>\*\*)|(?P<any>\*)|(?P<one>\?)|\[(?P<not>[!^]?+)(?P<set>\]?[^]]+|\])\]"
)


class Excludes:
    """The patterns of ``--exclude``."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._regex = re.compile("|".join(map(_translate, patterns)), re.DOTALL) if patterns else None

    def match(self, name: str, *, is_folder: bool) -> bool:
        """True if a pattern excludes the file or folder ``name``; the folders above it are not examined."""
        return self._regex is not None and self._regex.fullmatch(f"{name}/" if is_folder else name) is not None


def _translate(pattern: str) -> str:
    """Returns a regular expression for a file's name, or for a folder's name with ``/`` at its end."""
    core = pattern.strip("/")
    is_anchored = "/" in pattern.rstrip("/")
    regex, position = "" if is_anchored else "(?:.*/)?", 0
    for special in _SPECIAL.finditer(core):
        regex += re.escape(core[position : special.start()])
        position = special.end()
        match special.lastgroup:
            case "folders":
                regex += "(?:.*/)?"
            case "rest":
                starts_part = core[special.start() - 1 : special.start()] in ("", "/")
                regex += ".+" if starts_part else ".*"
            case "any":
                regex += "[^/]*"
            case "one":
                regex += "[^/]"
            case _:
                regex += _one_of(special["set"], is_negated=bool(special["not"]))
    return regex + re.escape(core[position:]) + ("/" if pattern.endswith("/") else "/?")


def _one_of(characters: str, *, is_negated: bool) -> str:
    """Returns a regular expression for one of the characters and ranges between brackets or, if negated, for another
    one. A range that ends before it begins contains nothing.
    """
    ranges = [(first, last or first) for first, last in re.findall("(?s)(.)(?:-(.))?", characters)]
    members = "".join(f"{re.escape(first)}-{re.escape(last)}" for first, last in ranges if first <= last)
    if not members:
        return "[^/]" if is_negated else "(?!)"
    return f"(?!/)[{'^' if is_negated else ''}{members}]"
