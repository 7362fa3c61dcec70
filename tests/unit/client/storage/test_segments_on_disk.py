"""A local file compared with a manifest: reading segments, finding data, and disk errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msd.client.storage.segments_on_disk import SegmentsOnDisk, disk_error, disk_errors, read_error
from msd.wire.errors import DiskError
from msd.wire.protocol.segments import Manifest
from tests.unit.client.storage.test_part_file import DATA, MANIFEST, MIB, SIZE, fail_to_seek, manifest_of, segment_of


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A readable and writable descriptor of an empty file."""
    with (tmp_path / "film.mp4").open("w+b", buffering=0) as file:
        yield file.fileno()


def data_ranges(fd: int, size: int) -> list[tuple[int, int]]:
    return list(SegmentsOnDisk(fd, Manifest("film.mp4", size, b"", b"")).data_ranges())


@pytest.mark.parametrize("index", [0, 5, 16])
def test_a_matching_segment_is_read(fd: int, index: int) -> None:
    os.pwrite(fd, DATA, 0)
    copy = SegmentsOnDisk(fd, MANIFEST)
    assert copy.read(index) == segment_of(DATA, index)
    assert copy.try_read(index) == segment_of(DATA, index)


@pytest.mark.parametrize("index", [5, 16])
def test_a_segment_that_differs_or_is_cut_off_is_not_read(fd: int, index: int) -> None:
    os.pwrite(fd, DATA[:-1], 0)
    os.pwrite(fd, b"\0", 5 * MIB)
    copy = SegmentsOnDisk(fd, MANIFEST)
    assert copy.read(index) is None
    assert copy.try_read(index) is None


def test_a_disk_that_cannot_read_raises_only_in_read(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, buffers: list[memoryview], offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    copy = SegmentsOnDisk(fd, MANIFEST)
    assert copy.try_read(0) is None
    with pytest.raises(OSError, match="Input/output error"):
        copy.read(0)


def test_all_zero_segments_are_known_from_the_manifest(fd: int) -> None:
    copy = SegmentsOnDisk(fd, manifest_of(bytes(4 * MIB) + DATA[4 * MIB : 16 * MIB] + bytes(1234)))
    assert [index for index in range(17) if copy.is_all_zeros(index)] == [0, 1, 2, 3, 16]


def test_segments_with_data_are_candidates_once_and_in_order(fd: int) -> None:
    os.truncate(fd, SIZE)
    for offset in (9 * MIB, 3 * MIB - 4096, 3 * MIB + 65536, 9 * MIB + 65536):
        os.pwrite(fd, b"x" * 8192, offset)
    assert list(SegmentsOnDisk(fd, MANIFEST).candidates()) == [2, 3, 9]


def test_data_ranges_omit_holes_and_data_beyond_the_manifest(fd: int) -> None:
    os.truncate(fd, SIZE)
    os.pwrite(fd, b"x" * MIB, 4 * MIB)
    assert data_ranges(fd, SIZE) == [(4 * MIB, 5 * MIB)]
    assert data_ranges(fd, 5 * MIB - 5) == [(4 * MIB, 5 * MIB - 5)]
    assert data_ranges(fd, 4 * MIB) == []


def test_without_support_for_holes_the_whole_file_is_data(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(fd, SIZE)
    assert data_ranges(fd, SIZE) == []
    fail_to_seek(monkeypatch, errno.EINVAL)
    assert data_ranges(fd, SIZE) == [(0, SIZE)]
    assert data_ranges(fd, SIZE - 5) == [(0, SIZE - 5)]
    assert data_ranges(fd, 2 * SIZE) == [(0, SIZE)]
    assert data_ranges(fd, 0) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "out: No space left on device: free some space, then run the same command again"),
        (errno.EACCES, "out: Permission denied: choose a folder that you can write to"),
        (errno.ENOTDIR, "out: Not a directory"),
    ],
)
def test_a_disk_error_says_what_to_do(code: int, message: str) -> None:
    error = disk_error(Path("out"), OSError(code, os.strerror(code)))
    assert str(error).startswith(message)
    assert error.exit_code == 6


def test_a_read_error_says_what_to_do() -> None:
    error = read_error(Path("in"), PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    assert str(error) == "in: cannot be read: Permission denied: make it readable with chmod u+r"


@pytest.mark.parametrize(
    ("convert", "hint"), [(None, "choose a folder that you can write to"), (read_error, "make it readable")]
)
def test_an_operating_system_error_becomes_a_disk_error_with_a_hint(convert: Any, hint: str) -> None:
    with pytest.raises(DiskError, match=f"film: .*{hint}"), disk_errors(Path("film"), convert):
        raise PermissionError(errno.EACCES, "Permission denied")
