"""The client: finds out what is shared, fetches it from all workers at once, and verifies it.

``from client import download`` is the Python API; the command ``msd download`` is built on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.downloading import download

__all__ = ["download"]


def __getattr__(name: str) -> Any:
    # Imported when first used: ``client.commands`` has to stay light. From a module of another name:
    # importing ``client.download`` would put that module in the function's place.
    if name == "download":
        from client.downloading import download

        return download
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
