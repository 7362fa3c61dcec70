"""Suggests what a user may have meant by a name that is not shared. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msd.wire.errors import NotFoundError
from msd.wire.support.name_patterns import NamePatterns, literal_prefix


def with_suggestion(error: NotFoundError, name: str | None) -> NotFoundError:
    """Adds similar names to the error about a file that is not shared. ``name`` is None if the user omitted it."""
    if error.name is None:
        return error
    folder = f"{error.name.rstrip('/')}/"
    if any(other.startswith(folder) for other in error.names):
        return NotFoundError(f"{error.name!r} is a folder: name a file in it, or download it as {folder!r}")
    hint = suggestion(error.name, error.names)
    if name is None:
        problem = f"no shared file is named {error.name!r}: give the name of a shared file"
        return NotFoundError(f"{problem}; {hint}")
    return NotFoundError(f"{error}; {hint}")


def suggestion(name: str, names: Sequence[str]) -> str:
    """Returns an advice for a user who asked for ``name``: a file, a folder with ``/`` at its end, or a glob. ``names``
    are shared files and folders, not necessarily all.
    """
    if "/" not in name and literal_prefix(name) != name:
        glob = NamePatterns([name])
        if any(glob.match(other) for other in names):
            return f"did you mean {f'**/{name}'!r}?"
    import difflib  # Rarely needed, and slow to import.

    similar = [other for other in names if _base_name(other) == _base_name(name)][:3]
    similar = similar or difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, similar))}?" if similar else "msd list shows the shared files"


def _base_name(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]
