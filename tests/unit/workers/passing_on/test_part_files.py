"""Reading what a download has verified so far."""

from __future__ import annotations

import os
import random
from pathlib import Path

from msd.wire.protocol.segments import segment_size, span
from msd.wire.protocol.states import RefusalReason
from msd.workers.passing_on.part_files import MISSING, PartFiles
from msd.workers.source.catalogue import SharedFile, Version
from msd.workers.source.source import ReadRefused

LARGE = random.Random(1).randbytes((3 << 20) + 7)


def shared(name: str, content: bytes) -> SharedFile:
    return SharedFile(name, Version(0, 0, len(content), 0, 0), bytes(32))


def part_files(tmp_path: Path, content: bytes = LARGE) -> tuple[PartFiles, SharedFile]:
    path = tmp_path / ".film.msd-part"
    path.write_bytes(content)
    return PartFiles({"film": os.open(path, os.O_RDONLY)}), shared("film", content)


def test_a_range_is_read_once_all_its_segments_are_verified(tmp_path: Path) -> None:
    files, film = part_files(tmp_path)
    offset, length = span(len(LARGE), 1)
    assert files.read(film, offset, length) == MISSING
    files.add("film", 1)
    assert files.read(film, offset, length) == LARGE[offset : offset + length]
    assert files.read(film, offset + 5, 7) == LARGE[offset + 5 : offset + 12]
    assert files.read(film, offset - 1, 2) == MISSING
    assert files.waits_for(film) is None
    assert not files.has_reliable_versions(film), "its digest is compared"


def test_a_small_file_is_read_once_it_is_complete(tmp_path: Path) -> None:
    files, film = part_files(tmp_path, b"twelve bytes")
    for index in range(11):
        files.add("film", index)
    assert files.read(film, 0, 12) == MISSING
    files.add("film", 11)
    assert files.read(film, 3, 4) == b"lve "


def test_the_file_may_be_renamed_or_deleted(tmp_path: Path) -> None:
    files, film = part_files(tmp_path)
    files.add("film", 0)
    (tmp_path / ".film.msd-part").rename(tmp_path / "film")
    assert files.read(film, 0, 9) == LARGE[:9]
    (tmp_path / "film").unlink()
    files.close_unread()
    files.close()
    assert files.read(film, 0, 9) == LARGE[:9]


def test_a_file_that_was_truncated_is_refused(tmp_path: Path) -> None:
    files, film = part_files(tmp_path)
    files.add("film", 0)
    os.truncate(tmp_path / ".film.msd-part", 5)
    result = files.read(film, 0, segment_size(len(LARGE)))
    assert isinstance(result, ReadRefused)
    assert result.reason is RefusalReason.CHANGED
