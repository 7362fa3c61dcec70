"""Files of a selection on the disk: each under its shared name, complete or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from msd.client.storage.folder import Folder
from msd.wire.errors import DiskError, UsageError
from tests.memory_worker import entry_of, manifest_of


def folder_of(path: Path, *, replace: bool = False) -> Folder:
    return Folder(path, replace=replace, sync=True, on_warning=lambda text: None)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with closing(folder_of(tmp_path / "out")) as folder:
        yield folder


def save(folder: Folder, name: str, data: bytes) -> None:
    folder.save(entry_of(name, data), memoryview(data))


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 50])
def test_a_small_file_is_saved_under_its_name_in_missing_folders(tmp_path: Path, folder: Folder, data: bytes) -> None:
    save(folder, "a/b c/ü", data)
    assert (tmp_path / "out/a/b c/ü").read_bytes() == data
    assert [path.name for path in (tmp_path / "out/a/b c").iterdir()] == ["ü"]


def test_an_empty_folder_is_made(tmp_path: Path, folder: Folder) -> None:
    folder.add_folder(entry_of("a/empty/", b""))
    assert (tmp_path / "out/a/empty").is_dir()


def test_an_existing_file_is_replaced_only_if_wanted(tmp_path: Path, folder: Folder) -> None:
    save(folder, "a", b"old")
    with pytest.raises(UsageError, match="exists"):
        save(folder, "a", b"new")
    assert (tmp_path / "out/a").read_bytes() == b"old"
    with closing(folder_of(tmp_path / "out", replace=True)) as replacing:
        save(replacing, "a", b"new")
    assert (tmp_path / "out/a").read_bytes() == b"new"


def test_a_file_where_a_folder_must_be_is_an_error_of_this_file(tmp_path: Path, folder: Folder) -> None:
    save(folder, "a", b"file")
    with pytest.raises(DiskError):
        save(folder, "a/b", b"x")
    assert (tmp_path / "out/a").read_bytes() == b"file"


def test_an_unfinished_file_leaves_only_its_part_file(tmp_path: Path) -> None:
    data = b"x" * 5000
    with closing(folder_of(tmp_path)) as folder:
        folder.open(manifest_of("film", b"?" * 5000))
        output = folder.open(manifest_of("film", data))  # Another version.
        output.write(0, memoryview(data)[: manifest_of("film", data).span(0)[1]])
    assert [path.name for path in tmp_path.iterdir()] == [".film.msd-part"]


def test_the_path_of_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(UsageError, match="is not a folder"):
        folder_of(tmp_path / "out")


def test_an_output_that_was_closed_for_another_version_can_be_discarded(tmp_path: Path) -> None:
    with closing(folder_of(tmp_path)) as folder:
        output = folder.open(manifest_of("film", b"old" * 9))
        (tmp_path / "film").mkdir()
        with pytest.raises(UsageError):
            folder.open(manifest_of("film", b"new" * 9))
        folder.discard(output)
