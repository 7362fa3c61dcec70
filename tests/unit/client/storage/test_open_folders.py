"""Open folders: relative to one another, locked, and closed when they are not needed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from msd.client.storage import open_folders
from msd.client.storage.open_folders import MAX_LOCKED, MAX_UNUSED, OpenFolders
from msd.client.storage.segments_on_disk import UnusableDiskError
from msd.wire.errors import DiskError, UsageError


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[OpenFolders]:
    with closing(OpenFolders(tmp_path / "out", make=True)) as folders:
        yield folders


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_missing_folders_are_made_or_reported(tmp_path: Path, folders: OpenFolders) -> None:
    assert folders.find("a/b c/") is None
    assert not (tmp_path / "out/a").exists()
    made = folders.make("a/b c/")
    assert os.path.samestat(os.fstat(made.fd), (tmp_path / "out/a/b c").stat())
    assert made.path == tmp_path / "out/a/b c"
    assert folders.find("a/b c/") is made
    assert folders.existing == set()


def test_folders_that_existed_before_are_known(tmp_path: Path, folders: OpenFolders) -> None:
    (tmp_path / "out/a").mkdir()
    folders.make("a/b/")
    assert folders.existing == {"a/"}
    with closing(OpenFolders(tmp_path / "out", make=True)) as others:
        assert others.existing == {""}


def test_a_folder_at_any_depth_is_opened(tmp_path: Path, folders: OpenFolders) -> None:
    name = "d/" * 400
    folders.make(name)
    with closing(OpenFolders(tmp_path / "out", make=False)) as others:
        folders.close()
        assert others.find(name) is not None


@pytest.mark.parametrize("make", [True, False])
def test_a_link_is_not_followed(tmp_path: Path, folders: OpenFolders, make: bool) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "outside")
    with pytest.raises(UsageError, match="out/a is a symbolic link, which is not followed: remove it"):
        folders.make("a/b/") if make else folders.find("a/b/")
    assert not [*(tmp_path / "outside").iterdir()]


def test_a_link_that_takes_the_place_of_an_open_folder_is_not_followed(tmp_path: Path, folders: OpenFolders) -> None:
    folders.make("a/")
    (tmp_path / "out/a").rename(tmp_path / "moved")
    (tmp_path / "outside").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "outside")
    folders.make("a/b/")
    assert (tmp_path / "moved/b").is_dir()
    assert not [*(tmp_path / "outside").iterdir()]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, folders: OpenFolders) -> None:
    (tmp_path / "out/a").write_bytes(b"")
    with pytest.raises(UsageError, match="out/a is not a folder"):
        folders.make("a/b/")


@pytest.mark.parametrize("make", [True, False])
def test_the_path_is_not_a_folder(tmp_path: Path, make: bool) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UsageError, match="is not a folder: choose another path"):
            OpenFolders(path, make=make)


def test_a_path_that_cannot_be_made_is_named() -> None:
    with pytest.raises(DiskError, match="/proc/msd: No such file or directory"):
        OpenFolders(Path("/proc/msd"), make=True)


def test_a_missing_path_has_no_folders(tmp_path: Path) -> None:
    with closing(OpenFolders(tmp_path / "out", make=False)) as folders:
        assert (folders.root, folders.find(""), folders.find("a/")) == (None, None, None)
    assert not (tmp_path / "out").exists()


def test_two_downloads_do_not_write_to_the_same_folder(tmp_path: Path, folders: OpenFolders) -> None:
    folders.make("a/sub/")
    with closing(OpenFolders(tmp_path / "out", make=True)) as others:
        others.make("b/")
        with pytest.raises(UnusableDiskError, match="out/a: another download is writing to this folder"):
            others.make("a/other/")
        assert others.find("a/sub/") is not None
        others.make("")
        with pytest.raises(UnusableDiskError, match="out: another download is writing to this folder"):
            folders.make("")


def test_only_some_folders_are_locked(folders: OpenFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_folders, "MAX_LOCKED", 2)
    before = open_descriptors()
    for number in range(MAX_UNUSED + 5):
        folders.make(f"{number}/")
    assert open_descriptors() == before + MAX_UNUSED + 2


def test_a_file_system_without_locks_is_no_error(folders: OpenFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(fd: int, operation: int) -> None:
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert folders.make("a/")


def test_only_some_folders_without_users_stay_open(folders: OpenFolders) -> None:
    needed = folders.make("needed/")
    needed.users += 1
    before = open_descriptors()
    for number in range(MAX_LOCKED + 3 * MAX_UNUSED):
        folders.make(f"{number}/")
    assert open_descriptors() == before + MAX_UNUSED + MAX_LOCKED - 1
    assert folders.make("needed/") is needed


def test_everything_is_closed(tmp_path: Path) -> None:
    before = open_descriptors()
    with closing(OpenFolders(tmp_path / "out", make=True)) as folders:
        folders.make("a/b/")
    assert open_descriptors() == before
