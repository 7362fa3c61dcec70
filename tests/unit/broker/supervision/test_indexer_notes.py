"""What the indexer says, as notes."""

from __future__ import annotations

from msd.broker.supervision.indexer_notes import MOST_SKIPPED, IndexerNotes
from msd.wire.protocol.child_messages import Indexed, IndexProgress, IndexSkipped


def indexed(files: int = 3, size: int = 1234, hashed: int = 512) -> Indexed:
    return Indexed(files=files, size=size, hashed=hashed, catalogue="00" * 32)


def test_progress_is_told_in_percent() -> None:
    assert IndexerNotes().of(IndexProgress(name="film.mp4", done=1, total=3)) == ["indexing film.mp4: 33 %"]
    assert IndexerNotes().of(IndexProgress(name="empty", done=0, total=0)) == ["indexing empty: 0 %"]


def test_the_end_says_what_was_found_and_what_had_to_be_read() -> None:
    assert IndexerNotes().of(indexed()) == ["indexed 3 files, 1,234 bytes (512 of them read)"]
    assert IndexerNotes().of(indexed(files=1)) == ["indexed 1 file, 1,234 bytes (512 of them read)"]


def test_the_first_files_not_shared_are_named_and_the_others_counted() -> None:
    notes = IndexerNotes()
    told = [notes.of(IndexSkipped(name=f"pipe-{n}", why="not a regular file")) for n in range(5000)]
    assert told[:MOST_SKIPPED] == [[f"not shared: pipe-{n}: not a regular file"] for n in range(MOST_SKIPPED)]
    assert not any(told[MOST_SKIPPED:])
    assert notes.of(indexed())[0] == f"not shared: {5000 - MOST_SKIPPED:,} more"


def test_nothing_is_counted_where_all_were_named() -> None:
    notes = IndexerNotes()
    for number in range(MOST_SKIPPED):
        notes.of(IndexSkipped(name=str(number), why="a link to a folder"))
    assert len(notes.of(indexed())) == 1
