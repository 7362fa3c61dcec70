"""Builds what is shared, for tests of the processes that read it."""

from __future__ import annotations

import os
from pathlib import Path

from msd.broker.supervision.shared_paths import write_share
from msd.wire.protocol.child_messages import ShareSettings
from msd.workers.source.share import Share


def share_of(path: Path) -> Share:
    """The share with ``path`` as its only path."""
    return Share({"": path})


def write_share_of(path: Path, folder: Path) -> None:
    """Writes the same share to the catalogue's folder."""
    write_share(folder, ShareSettings(roots={"": os.fsencode(path)}))
