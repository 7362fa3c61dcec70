"""Chooses what the content of a share is read from. Reads nothing itself."""

from __future__ import annotations

from msd.workers.source.local_files import LocalFiles
from msd.workers.source.share import Share
from msd.workers.source.source import Source


def source_of(share: Share) -> Source:
    """Returns the source of a share."""
    return LocalFiles(share)
