"""Matches names against patterns with the rules of a ``.gitignore`` file. Opens no files.

A pattern without ``/`` matches a base name in any folder. A pattern with ``/`` at its start or inside matches a whole
name. ``*``, ``?`` and ``[a-z]`` match no ``/``; ``**`` matches any number of folders. A ``/`` at the end matches
folders only. ``!`` and ``#`` at the start, and backslashes, are ordinary characters here.

The names may come from a hostile peer, so the time for one name must not grow exponentially with the wildcards of a
pattern: every wildcard but the last one matches as little as possible, and is not tried again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: The special parts of a pattern; all other characters stand for themselves.
_SPECIAL = re.compile(
    r"(?P<folders>(?<![^/])\*\*/)|(?P<rest>\*\*)|(?P<any>\*)|(?P<one>\?)|\[(?P<not>[!^]?+)(?P<set>\]?[^]]+|\])\]"
)


#: The wildcards that match several characters, as regular expressions that match as few as possible.
_WILDCARDS = {"": "", "any": "[^/]*?", "folders": "(?:.*?/)??", "rest": ".*?", "some": ".+?"}


class NamePatterns:
    """The patterns of ``--exclude``, for example."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._regex = re.compile("|".join(map(_translate, patterns)), re.DOTALL) if patterns else None

    def match(self, name: str) -> bool:
        """True if a pattern matches the file ``name`` or, with ``/`` at the end of ``name``, the folder. The folders
        above it are not examined.
        """
        return self._regex is not None and self._regex.fullmatch(name) is not None


def literal_prefix(pattern: str) -> str:
    """Returns the characters before the first wildcard of ``pattern``; all of them if there is none."""
    wildcard = _SPECIAL.search(pattern)
    return pattern[: wildcard.start()] if wildcard else pattern


def _translate(pattern: str) -> str:
    """Returns a regular expression for a file's name, or for a folder's name with ``/`` at its end."""
    core = pattern.strip("/")
    is_anchored = "/" in pattern.rstrip("/")
    #: The names of the wildcards, each with the regular expression for the characters that follow it.
    parts = [["" if is_anchored else "folders", ""]]
    position = 0
    for special in _SPECIAL.finditer(core):
        parts[-1][1] += re.escape(core[position : special.start()])
        position = special.end()
        match special.lastgroup:
            case "folders" | "any":
                parts.append([special.lastgroup, ""])
            case "rest":
                starts_part = core[special.start() - 1 : special.start()] in ("", "/")
                parts.append(["some" if starts_part else "rest", ""])
            case "one":
                parts[-1][1] += "[^/]"
            case _:
                parts[-1][1] += _one_of(special["set"], is_negated=bool(special["not"]))
    parts[-1][1] += re.escape(core[position:]) + ("/" if pattern.endswith("/") else "/?")
    return _join(parts)


def _join(parts: Sequence[Sequence[str]]) -> str:
    """Joins the parts of a pattern so that each wildcard but the last one has only one possible match.

    The shortest match of a ``*`` leaves the most for the next ``*``: if the rest of the pattern matches after a longer
    one, the next wildcard can match the difference. That also holds for all parts between two ``**``.
    """
    groups: list[str] = []
    for number, (wildcard, rest) in enumerate(parts, 1):
        regex = _WILDCARDS[wildcard] + rest
        if wildcard != "any":
            groups.append(regex)
        else:
            groups[-1] += regex if number == len(parts) else f"(?>{regex})"
    return "".join(f"(?>{group})" for group in groups[:-1]) + groups[-1]


def _one_of(characters: str, *, is_negated: bool) -> str:
    """Returns a regular expression for one of the characters and ranges between brackets or, if negated, for another
    one. A range that ends before it begins contains nothing.
    """
    ranges = [(first, last or first) for first, last in re.findall("(?s)(.)(?:-(.))?", characters)]
    members = "".join(f"{re.escape(first)}-{re.escape(last)}" for first, last in ranges if first <= last)
    if not members:
        return "[^/]" if is_negated else "(?!)"
    return f"(?!/)[{'^' if is_negated else ''}{members}]"
