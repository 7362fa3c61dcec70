"""The part file's name, lock and identity, also on file systems that lack one of them."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from msd.client.storage import locked_file
from msd.client.storage.change_detector import ChangeDetector
from msd.client.storage.locked_file import LockedFile, check_unused, open_part_file
from msd.wire.errors import DiskError
from msd.wire.support.part_names import short_name


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A descriptor of the temporary folder."""
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


def closed(file: LockedFile) -> LockedFile:
    os.close(file.fd)
    return file


@pytest.mark.parametrize("name", ["a", "a" * 245, "ä" * 122])
def test_a_name_with_room_for_the_suffix_gets_it(tmp_path: Path, folder: int, name: str) -> None:
    assert closed(open_part_file(tmp_path / name, folder)).path == tmp_path / f".{name}.msd-part"


@pytest.mark.parametrize("name", ["a" * 246, "a" * 255, "ä" * 126 + "b", "ä" * 127, "€" * 85, "😀" * 63 + "abc"])
def test_a_name_without_room_for_the_suffix_is_always_shortened_to_the_same(
    tmp_path: Path, folder: int, name: str
) -> None:
    (tmp_path / name).write_bytes(b"")  # The name itself is valid here.
    paths = {closed(open_part_file(tmp_path / name, folder)).path for _ in range(2)}
    assert paths == {tmp_path / short_name(name)}


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def no_locks(fd: int, operation: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    file = closed(open_part_file(tmp_path / "film.mp4", folder))
    assert file.warnings == (
        f"{file.path}: the file system has no locks: do not run a second download to the same file",
    )


def test_another_error_of_a_lock_is_a_disk_error(tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DiskError, match="Input/output error"):
        open_part_file(tmp_path / "film.mp4", folder)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_is_recognized_by_its_inode_or_else_by_its_size_and_time(tmp_path: Path, folder: int) -> None:
    file = open_part_file(tmp_path / "film.mp4", folder)
    os.write(file.fd, b"content")
    other = tmp_path / "other"
    other.write_bytes(b"content")
    os.utime(other, ns=(0, os.fstat(file.fd).st_mtime_ns))
    assert (file.has_name(file.path.name), file.has_name(other.name)) == (True, False)
    unstable = LockedFile(file.path, file.fd, folder, has_stable_inodes=False)
    assert (unstable.has_name(file.path.name), unstable.has_name(other.name)) == (True, True)
    other.write_bytes(b"longer content")
    assert not unstable.has_name(other.name)
    os.close(file.fd)


def test_on_a_file_system_without_stable_inodes_a_file_is_opened_in_the_end(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "samestat", lambda one, other: False)
    before = len(os.listdir("/proc/self/fd"))
    file = open_part_file(tmp_path / "film.mp4", folder)
    assert not file.has_stable_inodes
    assert file.has_name(file.path.name)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    os.close(file.fd)


def test_a_refused_download_does_not_open_the_part_file_of_another_one(tmp_path: Path, folder: int) -> None:
    output = tmp_path / "film.mp4"
    file = open_part_file(output, folder)
    changes = ChangeDetector(file.fd)
    try:
        with pytest.raises(DiskError, match="another download is writing to this file"):
            open_part_file(output, folder)
        with pytest.raises(DiskError, match="another download is writing to this file"):
            check_unused(file.path, folder)
        assert not changes.was_opened()
    finally:
        changes.close()
        os.close(file.fd)
    os.close(open_part_file(output, folder).fd)


def test_the_lock_decides_where_the_system_lists_no_locks(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locked_file, "LOCK_TABLE", tmp_path / "missing")
    file = open_part_file(tmp_path / "film.mp4", folder)
    with pytest.raises(DiskError, match="another download is writing to this file"):
        open_part_file(tmp_path / "film.mp4", folder)
    os.close(file.fd)


def test_a_folder_in_which_nothing_can_be_created_is_an_error_with_an_advice() -> None:
    folder = os.open("/proc", os.O_PATH)
    try:
        with pytest.raises(DiskError, match=r"^/proc/\.x\.msd-part: No such file or directory: choose another folder$"):
            open_part_file(Path("/proc/x"), folder)
    finally:
        os.close(folder)
