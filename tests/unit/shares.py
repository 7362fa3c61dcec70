"""Builds what is shared, and editions of the catalogue, for tests of the processes that read them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from msd.wire.protocol.child_messages import ShareSettings
from msd.wire.sharing.shared_paths import write_share
from msd.workers.indexing.edition_writer import EditionWriter
from msd.workers.source.catalogue import SharedFile, SharedFolder
from msd.workers.source.share import Share


def share_of(path: Path) -> Share:
    """The share with ``path`` as its only path."""
    return Share({"": path})


def write_share_of(path: Path, folder: Path) -> None:
    """Writes the same share to the catalogue's folder."""
    write_share(folder, ShareSettings(roots={"": os.fsencode(path)}))


def write_edition(folder: Path, items: Iterable[SharedFile | SharedFolder], *digests: bytes) -> None:
    """Writes an edition with these files and folders, and the digests of its large files in the order of their names,
    to ``folder``.
    """
    remaining = iter(digests)
    with EditionWriter(folder) as writer:
        for item in sorted(items, key=lambda item: item.name):
            is_large = isinstance(item, SharedFile) and not item.is_small
            writer.add(item.name, item.record, next(remaining) if is_large else b"")
        writer.finish()
    assert not [*remaining]
