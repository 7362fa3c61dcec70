"""Reads the indexed data although times changed, refuses other data, and remembers differences for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from msd.wire.protocol.messages import SuspectSegment
from msd.wire.protocol.segments import cut, digest, file_id, segment_size
from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import Catalogue, SharedFile, Version
from msd.workers.source.indexed_data import STALE_REPORT_S, IndexedData
from msd.workers.source.local_files import LocalFiles
from msd.workers.source.source import ReadRefused
from tests.unit.shares import share_of, write_edition

NUMBERS = bytes(range(245))
#: A large file of 2 MiB; its segments are a twelfth of that.
LARGE = bytes(range(256)) * 8192
SEGMENT = segment_size(len(LARGE))


def damaged(content: bytes, position: int) -> bytes:
    """Returns the content with another byte at this position."""
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


class Shared:
    """A folder and its catalogue."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "shared"
        self.root.mkdir()
        self._edition = tmp_path / "edition"
        self._edition.mkdir()
        self.local_files = LocalFiles(share_of(self.root))
        self.data: IndexedData

    def index(self, *names: str, content: bytes = NUMBERS, damage: int | None = None) -> SharedFile:
        """Writes files and a catalogue of their ``content``; on the disk, the byte at ``damage`` is another one.
        Returns the first file.
        """
        digests = b"".join(map(digest, cut(memoryview(content))))
        files = []
        for name in names:
            (self.root / name).write_bytes(content if damage is None else damaged(content, damage))
            os.utime(self.root / name, (1, 1))
            version = Version.of((self.root / name).stat())
            files.append(SharedFile(name, version, file_id(len(content), digests)))
        write_edition(self._edition, files, *([] if files[0].is_small else [digests] * len(files)))
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


@pytest.mark.parametrize(
    ("content", "offset", "length"),
    [
        *((NUMBERS, *span) for span in ((0, 245), (25, 3), (30, 200), (244, 1))),
        *((LARGE, *span) for span in ((0, SEGMENT), (SEGMENT, SEGMENT), (5, 3), (SEGMENT - 1, 2), (len(LARGE) - 1, 1))),
    ],
)
@pytest.mark.parametrize("change", ["nothing", "times", "unreliable times"])
def test_a_range_has_the_indexed_bytes(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, change: str, content: bytes, offset: int, length: int
) -> None:
    file = shared.index("numbers", content=content)
    if change == "times":
        os.utime(shared.root / "numbers", (2, 2))
    elif change == "unreliable times":
        monkeypatch.setattr(shared.local_files, "has_reliable_versions", lambda _: False)
    assert shared.data.read(file, offset, length, now=0.0) == content[offset : offset + length]
    assert shared.data.is_stale(0.0) == (change == "times")


@pytest.mark.parametrize(("offset", "length"), [(SEGMENT, SEGMENT), (SEGMENT + 9, 3), (SEGMENT - 1, 2)])
def test_no_byte_of_a_changed_segment_is_served(shared: Shared, offset: int, length: int) -> None:
    """The byte that has changed is outside the requested range of some requests, but always in one of its segments."""
    file = shared.index("numbers", content=LARGE)
    (shared.root / "numbers").write_bytes(damaged(LARGE, SEGMENT + 5))
    assert reason(shared.data.read(file, offset, length, now=0.0)) is RefusalReason.CHANGED
    assert shared.data.is_stale(0.0)
    assert shared.data.suspect(0.0) is None, "the times tell of the change"
    other = shared.data.read(file, 2 * SEGMENT, SEGMENT, now=0.0)
    assert other == LARGE[2 * SEGMENT : 3 * SEGMENT], "the other segments are served"


@pytest.mark.parametrize("content", [damaged(NUMBERS, 30), NUMBERS[:-1], b""])
def test_no_byte_of_a_changed_small_file_is_served(shared: Shared, content: bytes) -> None:
    file = shared.index("numbers")
    (shared.root / "numbers").write_bytes(content)
    assert reason(shared.data.read(file, 0, 21, now=0.0)) is RefusalReason.CHANGED
    assert reason(shared.data.digests(file, 0, now=0.0)) is RefusalReason.CHANGED
    assert shared.data.is_stale(0.0)
    assert shared.data.suspect(0.0) is None, "the times tell of the change"


def test_a_small_file_that_grew_still_has_its_indexed_bytes(shared: Shared) -> None:
    file = shared.index("numbers")
    (shared.root / "numbers").write_bytes(NUMBERS + b"more")
    assert shared.data.read(file, 0, 245, now=0.0) == NUMBERS
    assert shared.data.is_stale(0.0)


@pytest.mark.parametrize(("content", "index"), [(NUMBERS, 0), (LARGE, 1)])
def test_data_that_changed_without_a_change_of_times_is_suspect(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, content: bytes, index: int
) -> None:
    """Of a small file, any segment is suspect."""
    file = shared.index("numbers", content=content, damage=len(content) // 8)
    monkeypatch.setattr(shared.local_files, "has_reliable_versions", lambda _: False)
    assert reason(shared.data.read(file, len(content) // 9, 3, now=0.0)) is RefusalReason.CHANGED
    assert shared.data.suspect(0.0) == SuspectSegment(file.id, index)
    assert shared.data.suspect(STALE_REPORT_S) is None


@pytest.mark.parametrize("content", [NUMBERS, LARGE])
def test_the_digests_are_those_of_the_indexed_data(shared: Shared, content: bytes) -> None:
    file = shared.index("numbers", content=content)
    digests = [digest(segment) for segment in cut(memoryview(content))]
    for start in range(13):
        assert shared.data.digests(file, start, now=0.0) == b"".join(digests[start:])
    os.utime(shared.root / "numbers", (2, 2))
    assert shared.data.digests(file, 11, now=0.0) == digests[11]


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
