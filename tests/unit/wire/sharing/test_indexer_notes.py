"""The notes that the broker prints for the indexer's messages."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from msd.wire.protocol.child_messages import Indexed, IndexingDone, IndexLeftOut, IndexNote, IndexProgress, IndexSkipped
from msd.wire.sharing.indexer_notes import indexer_notes


def indexed(files: int = 3, size: int = 2048, hashed: int = 512) -> Indexed:
    return Indexed(files=files, size=size, hashed=hashed, catalogue="00" * 32)


def test_progress_is_shown_in_percent() -> None:
    one, several = {"files": 0, "total_files": 1}, {"files": 999, "total_files": 70_000}
    assert indexer_notes(IndexProgress(name="film.mp4", done=1, total=3, **one)) == ["indexing film.mp4: 33 %"]
    assert indexer_notes(IndexProgress(name="empty", done=0, total=0, **one)) == ["indexing empty: 0 %"]
    progress = IndexProgress(name="film.mp4", done=1, total=3, **several)
    assert indexer_notes(progress) == ["indexing film.mp4: 33 % (999 of 70,000 files)"]


def test_a_very_long_name_is_shortened() -> None:
    name = "folder/" * 500 + "film.mp4"
    (note,) = indexer_notes(IndexSkipped(name=name, reason="File name too long"))
    assert len(note) < 250
    assert note.startswith("not shared: folder/folder/")
    assert note.endswith("/film.mp4: File name too long")
    assert indexer_notes(IndexSkipped(name="x" * 200, reason="is a pipe")) == [f"not shared: {'x' * 200}: is a pipe"]


def test_the_end_of_an_indexing_has_no_note() -> None:
    assert indexer_notes(IndexingDone()) == []


def test_a_note_is_shown_as_it_is() -> None:
    assert indexer_notes(IndexNote(text="cannot read the digest cache")) == ["cannot read the digest cache"]


@pytest.mark.parametrize(
    ("message", "note"),
    [
        (indexed(hashed=2048), "indexed 3 files, 2.0 KiB"),
        (indexed(hashed=512), "indexed 3 files, 2.0 KiB (512 B read)"),
        (indexed(files=1, hashed=0), "indexed 1 file, 2.0 KiB (from cache)"),
        (indexed(files=1, size=0, hashed=0), "indexed 1 file, 0 B"),
    ],
)
def test_the_summary_of_an_edition_distinguishes_read_and_cached_bytes(message: Indexed, note: str) -> None:
    assert indexer_notes(message) == [note]


def test_skipped_files_are_named_or_counted() -> None:
    skipped = IndexSkipped(name="pipe", reason="not a regular file")
    assert indexer_notes(skipped) == ["not shared: pipe: not a regular file"]
    assert indexer_notes(IndexLeftOut(text="2 hidden (--hidden)")) == ["not shared: 2 hidden (--hidden)"]
    assert indexer_notes(IndexLeftOut(text="")) == ["not shared: nothing is left out any more"]
    assert indexer_notes(replace(indexed(), unnamed=4980))[0] == "not shared: 4,980 more"
