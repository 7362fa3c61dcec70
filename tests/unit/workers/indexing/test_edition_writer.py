"""The digest of a catalogue. Other tests read what is written: ``test_catalogue.py``, ``test_catalogue_writer.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3
from msgspec.structs import replace

from msd.workers.indexing.edition_writer import EditionWriter
from msd.workers.source.catalogue import Catalogue, SharedFile, SharedFolder, Version

ID = bytes(range(32))
FILE = SharedFile("a é", Version(1, 2, 245, -2, 4, 0o640), ID)
FOLDER = SharedFolder("b/", 0o755)


def written(folder: Path, *items: SharedFile | SharedFolder) -> bytes:
    """Writes an edition; returns the digest of the catalogue."""
    with EditionWriter(folder) as writer:
        for item in items:
            writer.add(item.name, item.record)
        id = writer.finish()
    catalogue = Catalogue(folder)
    catalogue.close()
    assert catalogue.id == id
    return id


def test_the_digest_covers_names_times_modes_and_ids(tmp_path: Path) -> None:
    encoded = b"a \xc3\xa9\0" + b"\xff" * 7 + b"\xfe\x01\xa0" + ID + b"b/\0" + bytes(8) + b"\x01\xed" + bytes(32)
    assert written(tmp_path, FILE, FOLDER) == blake3(encoded).digest()
    others: list[list[SharedFile | SharedFolder]] = [
        [FILE],
        [replace(FILE, name="a"), FOLDER],
        [replace(FILE, version=replace(FILE.version, mtime_ns=-1)), FOLDER],
        [replace(FILE, version=replace(FILE.version, mode=0o600)), FOLDER],
        [replace(FILE, id=bytes(32)), FOLDER],
        [FILE, SharedFolder("b/", 0o700)],
    ]
    digests = {written(tmp_path, *items) for items in others}
    assert len({written(tmp_path, FILE, FOLDER), *digests}) == 1 + len(others)
    elsewhere = replace(FILE, version=Version(9, 9, 246, -2, 9, 0o640))
    assert written(tmp_path, elsewhere, FOLDER) == written(tmp_path, FILE, FOLDER)


def test_an_edition_in_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        EditionWriter(tmp_path / "missing")
