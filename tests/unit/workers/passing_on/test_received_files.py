"""Reading what a download has verified so far, wherever it lies."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from msd.wire.protocol.segments import content_id, cut, digest, segment_size, span
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.part_names import part_name, short_name
from msd.workers.passing_on import received_files
from msd.workers.passing_on.received_files import CHANGED, MISSING, ReceivedFiles
from msd.workers.source.catalogue import SharedFile, Version
from msd.workers.source.source import ReadRefused

LARGE = random.Random(1).randbytes((3 << 20) + 7)


def shared(name: str, content: bytes) -> SharedFile:
    return SharedFile(name, Version(0, 0, len(content), 0, 0), content_id(memoryview(content)))


def digests(content: bytes) -> bytes:
    return b"".join(map(digest, cut(memoryview(content))))


class Scene:
    """Files of which the units in ``held`` are verified."""

    def __init__(self, folder: Path, *, has_paths: bool = True) -> None:
        self.path = folder
        self.held: set[int] = set()
        root = os.open(folder, os.O_PATH) if has_paths else None
        self.files = ReceivedFiles(root, self.held.__contains__)

    def receive(self, name: str, *contents: bytes, first_unit: int = 0) -> SharedFile:
        """A file is received by segments. Each content is that of one place where they may be; the first is right."""
        descriptors = []
        for number, content in enumerate(contents):
            path = self.path / f".{number}.msd-part"
            path.write_bytes(content)
            descriptors.append(os.open(path, os.O_RDONLY))
        self.files.add(name, first_unit, digests(contents[0]), descriptors)
        return shared(name, contents[0])


def test_a_range_is_read_once_all_its_segments_are_verified(tmp_path: Path) -> None:
    scene = Scene(tmp_path, has_paths=False)
    film = scene.receive("film", LARGE, first_unit=40)
    offset, length = span(len(LARGE), 1)
    assert scene.files.read(film, offset, length) == MISSING
    scene.held.add(41)
    assert scene.files.read(film, offset, length) == LARGE[offset : offset + length]
    assert scene.files.read(film, offset + 5, 7) == LARGE[offset + 5 : offset + 12]
    assert scene.files.read(film, offset - 1, 2) == MISSING
    assert scene.files.read(shared("other", LARGE), 0, 5) == MISSING
    assert scene.files.waits_for(film) is None
    assert scene.files.has_reliable_versions(film)


def test_segments_may_be_in_different_files(tmp_path: Path) -> None:
    scene = Scene(tmp_path, has_paths=False)
    size = segment_size(len(LARGE))
    film = scene.receive("film", LARGE, LARGE)
    (tmp_path / ".0.msd-part").write_bytes(bytes(size) + LARGE[size:])
    (tmp_path / ".1.msd-part").write_bytes(LARGE[:size])
    scene.held |= {0, 1}
    assert scene.files.read(film, 0, 10) == LARGE[:10]
    assert scene.files.read(film, size, 10) == LARGE[size : size + 10]
    (tmp_path / ".1.msd-part").write_bytes(bytes(size))
    assert scene.files.read(film, 0, 10) == CHANGED


def test_the_file_may_be_renamed_or_deleted(tmp_path: Path) -> None:
    scene = Scene(tmp_path, has_paths=False)
    film = scene.receive("film", LARGE)
    scene.held.add(0)
    (tmp_path / ".0.msd-part").rename(tmp_path / "film")
    assert scene.files.read(film, 0, 9) == LARGE[:9]
    (tmp_path / "film").unlink()
    scene.files.close_unread()
    scene.files.close()
    assert scene.files.read(film, 0, 9) == LARGE[:9]


def test_a_file_that_was_truncated_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    film = scene.receive("film", LARGE)
    scene.held.add(0)
    os.truncate(tmp_path / ".0.msd-part", 5)
    result = scene.files.read(film, 0, segment_size(len(LARGE)))
    assert isinstance(result, ReadRefused)
    assert result.reason is RefusalReason.CHANGED


@pytest.mark.parametrize("name", ["a", "ü b/c d/e", "x" * 250])
def test_a_small_file_has_its_name_or_that_of_its_part_file(tmp_path: Path, name: str) -> None:
    scene = Scene(tmp_path)
    file = shared(name, b"twelve bytes")
    assert scene.files.read(file, 0, 12) == CHANGED
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    short = short_name(path.name)
    part = path.with_name(part_name(path.name) if len(path.name) < 240 else short)
    path.write_bytes(b"other bytes!")
    part.write_bytes(b"twelve bytes")
    assert scene.files.read(file, 3, 4) == b"lve ", "what has its name has another content"
    part.rename(path)
    assert scene.files.read(file, 3, 4) == b"lve "


def test_a_large_file_that_is_complete_is_read_from_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received_files, "MAX_OPEN_FILES", 1)
    scene = Scene(tmp_path)
    film = scene.receive("film", LARGE)
    scene.held.add(0)
    (tmp_path / ".0.msd-part").rename(tmp_path / "film")
    before = len(os.listdir("/proc/self/fd"))
    scene.receive("other", LARGE)
    assert len(os.listdir("/proc/self/fd")) == before, "only one file stays open"
    assert scene.files.read(film, 0, 9) == LARGE[:9]
    scene.files.add("kept", 0, digests(LARGE), ())
    assert scene.files.read(shared("kept", LARGE), 0, 9) == CHANGED
    (tmp_path / "film").rename(tmp_path / "kept")
    assert scene.files.read(shared("kept", LARGE), 0, 9) == LARGE[:9]


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a").write_bytes(b"twelve bytes")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to("../outside")
    (inside / "a").symlink_to("../outside/a")
    os.mkfifo(inside / "fifo")
    scene = Scene(inside)
    for name in ("link/a", "a", "../outside/a", "fifo", "./../outside/a"):
        assert scene.files.read(shared(name, b"twelve bytes"), 0, 12) == CHANGED
