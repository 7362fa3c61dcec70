"""The client: finds out what is shared, fetches it from all workers at once, and verifies it.

``from client import download`` is the Python API; the command ``msd download`` is built on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.download import download

__all__ = ["download"]


def __getattr__(name: str) -> Any:
    # Imported when first used: ``client.commands`` has to stay light.
    if name == "download":
        from client.download import download

        return download
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
