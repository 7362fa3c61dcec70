"""The notes that the broker prints for the indexer's messages."""

from __future__ import annotations

import pytest

from msd.broker.supervision.indexer_notes import MAX_NAMED_SKIPS, IndexerNotes
from msd.wire.protocol.child_messages import Indexed, IndexProgress, IndexSkipped


def indexed(files: int = 3, size: int = 2048, hashed: int = 512) -> Indexed:
    return Indexed(files=files, size=size, hashed=hashed, catalogue="00" * 32)


def test_progress_is_shown_in_percent() -> None:
    assert IndexerNotes().format(IndexProgress(name="film.mp4", done=1, total=3)) == ["indexing film.mp4: 33 %"]
    assert IndexerNotes().format(IndexProgress(name="empty", done=0, total=0)) == ["indexing empty: 0 %"]


@pytest.mark.parametrize(
    ("message", "note"),
    [
        (indexed(hashed=2048), "indexed 3 files, 2.0 KiB"),
        (indexed(hashed=512), "indexed 3 files, 2.0 KiB (512 B read, the rest from cache)"),
        (indexed(files=1, hashed=0), "indexed 1 file, 2.0 KiB (from cache)"),
        (indexed(files=1, size=0, hashed=0), "indexed 1 file, 0 B"),
    ],
)
def test_the_summary_of_an_edition_distinguishes_read_and_cached_bytes(message: Indexed, note: str) -> None:
    assert IndexerNotes().format(message) == [note]


def test_the_first_skipped_files_are_named_and_the_others_counted() -> None:
    notes = IndexerNotes()
    skipped = [notes.format(IndexSkipped(name=f"pipe-{n}", reason="not a regular file")) for n in range(5000)]
    assert skipped[:MAX_NAMED_SKIPS] == [[f"not shared: pipe-{n}: not a regular file"] for n in range(MAX_NAMED_SKIPS)]
    assert not any(skipped[MAX_NAMED_SKIPS:])
    assert notes.format(indexed())[0] == f"not shared: {5000 - MAX_NAMED_SKIPS:,} more"


def test_no_count_is_shown_if_all_skipped_files_were_named() -> None:
    notes = IndexerNotes()
    for number in range(MAX_NAMED_SKIPS):
        notes.format(IndexSkipped(name=str(number), reason="a link to a folder"))
    assert len(notes.format(indexed())) == 1
