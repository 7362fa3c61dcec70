"""Suggests what a user may have meant by a name that is not shared. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def suggestion(name: str, names: Sequence[str]) -> str:
    """Returns an advice for a user who asked for ``name``. ``names`` are shared files, not necessarily all."""
    folder = name.rstrip("/") + "/"
    if any(other.startswith(folder) for other in names):
        return "it is a folder: name a file in it; msd list shows the shared files"
    import difflib  # Rarely needed, and slow to import.

    similar = [other for other in names if other.rsplit("/", 1)[-1] == name.rsplit("/", 1)[-1]][:3]
    similar = similar or difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, similar))}?" if similar else "msd list shows the shared files"
