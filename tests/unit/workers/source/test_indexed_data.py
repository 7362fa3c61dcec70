"""Reads the indexed data although times changed, refuses other data, and remembers differences for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from msd.wire.protocol.messages import SuspectSegment
from msd.wire.protocol.segments import digest, file_id, segment_count, span
from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import Catalogue, SharedFile, Version
from msd.workers.source.indexed_data import STALE_REPORT_S, IndexedData
from msd.workers.source.local_files import LocalFiles, ReadRefused
from tests.unit.shares import share_of

NUMBERS = bytes(range(245))


class Shared:
    """A folder with copies of ``NUMBERS``, and its catalogue."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "shared"
        self.root.mkdir()
        self._edition = tmp_path / "edition"
        self._edition.mkdir()
        self.local_files = LocalFiles(share_of(self.root))
        self.data: IndexedData

    def index(self, *names: str, content: bytes = NUMBERS) -> SharedFile:
        """Writes files with ``content`` and a catalogue with the digests of ``NUMBERS``; returns the first file."""
        digests = b"".join(
            digest(NUMBERS[offset : offset + length])
            for offset, length in (span(245, index) for index in range(segment_count(245)))
        )
        files = []
        for name in names:
            (self.root / name).write_bytes(content)
            os.utime(self.root / name, (1, 1))
            files.append(SharedFile(name, Version.of((self.root / name).stat()), file_id(245, digests), 0))
        (self._edition / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(files))
        (self._edition / "digests").write_bytes(digests)
        (self._edition / "folders.jsonl").touch()
        self.data = IndexedData(self.local_files, Catalogue(self._edition))
        return files[0]

    def close(self) -> None:
        self.data.catalogue.close()
        self.local_files.close()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    shared = Shared(tmp_path)
    yield shared
    shared.close()


def reason(data: bytes | ReadRefused) -> RefusalReason:
    assert isinstance(data, ReadRefused)
    return data.reason


@pytest.mark.parametrize(("offset", "length"), [(0, 245), (21, 21), (25, 3), (20, 2), (30, 200), (244, 1)])
@pytest.mark.parametrize("change", ["nothing", "times", "unreliable times"])
def test_a_range_has_the_indexed_bytes(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, change: str, offset: int, length: int
) -> None:
    file = shared.index("numbers")
    if change == "times":
        os.utime(shared.root / "numbers", (2, 2))
    elif change == "unreliable times":
        monkeypatch.setattr(shared.local_files, "has_reliable_times", lambda _: False)
    assert shared.data.read(file, offset, length, now=0.0) == NUMBERS[offset : offset + length]
    assert shared.data.is_stale(0.0) == (change == "times")


@pytest.mark.parametrize(("offset", "length"), [(0, 245), (21, 21), (35, 3), (20, 2)])
def test_no_byte_of_a_changed_segment_is_served(shared: Shared, offset: int, length: int) -> None:
    """The byte that has changed is outside the requested range of some requests, but always in one of its segments."""
    file = shared.index("numbers")
    (shared.root / "numbers").write_bytes(NUMBERS[:30] + b"x" + NUMBERS[31:])
    assert reason(shared.data.read(file, offset, length, now=0.0)) is RefusalReason.CHANGED
    assert shared.data.is_stale(0.0)
    assert shared.data.suspect(0.0) is None, "the times tell of the change"
    assert shared.data.read(file, 42, 21, now=0.0) == NUMBERS[42:63], "the other segments are served"


def test_data_that_changed_without_a_change_of_times_is_suspect(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shared.index("numbers", content=NUMBERS[:30] + b"x" + NUMBERS[31:])
    monkeypatch.setattr(shared.local_files, "has_reliable_times", lambda _: False)
    assert reason(shared.data.read(file, 35, 3, now=0.0)) is RefusalReason.CHANGED
    assert shared.data.suspect(0.0) == SuspectSegment(file.id, 1)
    assert shared.data.suspect(STALE_REPORT_S) is None
    assert shared.data.read(file, 42, 21, now=0.0) == NUMBERS[42:63], "the other segments are served"


def test_another_file_with_the_same_content_stands_in(shared: Shared) -> None:
    file = shared.index("a", "b")
    (shared.root / "a").unlink()
    assert shared.data.read(file, 0, 245, now=0.0) == NUMBERS
    (shared.root / "b").write_bytes(bytes(245))
    assert reason(shared.data.read(file, 0, 245, now=0.0)) is RefusalReason.CHANGED


def test_a_difference_counts_for_a_while_or_until_the_next_edition(shared: Shared) -> None:
    file = shared.index("numbers")
    (shared.root / "numbers").unlink()
    shared.data.read(file, 0, 21, now=10.0)
    assert shared.data.is_stale(10.0 + 0.9 * STALE_REPORT_S)
    assert not shared.data.is_stale(10.0 + STALE_REPORT_S)
    shared.data.read(file, 0, 21, now=20.0)
    shared.data.replace_catalogue(shared.data.catalogue)
    assert not shared.data.is_stale(20.0)
