"""Builds what is shared, and editions of the catalogue, for tests of the processes that read them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from msd.wire.protocol.child_messages import ShareSettings
from msd.wire.protocol.segments import digest, file_id
from msd.wire.sharing.shared_paths import write_share
from msd.workers.indexing.edition_writer import EditionWriter
from msd.workers.source.catalogue import Catalogue, SharedFile, SharedFolder, Version
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


def catalogue_of(folder: Path, files: Mapping[str, bytes]) -> Catalogue:
    """A catalogue with these small files, by name, and their folders. Close it when done."""
    items: list[SharedFile | SharedFolder] = []
    for inode, (name, content) in enumerate(files.items()):
        id = file_id(len(content), b"".join(digest(content[at : at + 1]) for at in range(len(content))))
        assert len(content) <= 12, "each byte is a segment"
        items.append(SharedFile(name, Version(1, inode, len(content), 1000, 2000), id))
    folders = {name[: at + 1] for name in files for at, character in enumerate(name) if character == "/"}
    items += [SharedFolder(name, 0o755) for name in folders]
    write_edition(folder, items)
    return Catalogue(folder)
