"""MultiServer Downloader: downloads a file from several workers at once and verifies every byte.

``from msd import download, Servers`` is the Python API; the command ``msd`` is built on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msd.client.operations.download import download

__all__ = ["download"]


def __getattr__(name: str) -> Any:
    if name == "download":
        from msd.client.operations.download import download

        return download
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
