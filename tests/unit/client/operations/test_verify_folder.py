"""A local folder compared with a shared one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from msd.client.operations import verify_folder as module
from msd.client.operations.verify_folder import Difference, FolderComparison, verify_folder
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.errors import NotFoundError
from tests.memory_worker import MemoryWorker

SERVERS = locate_servers(Config())
FILES = {
    "other": b"x",
    "photos/": b"",
    "photos/a b": b"1" * 5000,
    "photos/sub/": b"",
    "photos/sub/c": b"",
    "x*/y": b"z",
}


@pytest.fixture(autouse=True)
def _worker(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = MemoryWorker({**FILES}, page_size=2)
    monkeypatch.setattr(worker, "close", lambda: None, raising=False)
    monkeypatch.setattr(module, "ConnectionPool", lambda *_, **__: worker)


def make(root: Path, prefix: str = "") -> Path:
    """Writes the shared files whose names begin with ``prefix``, without it."""
    for name, data in FILES.items():
        if name.startswith(prefix) and not name.endswith("/"):
            path = root / name.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


def compare(folder: Path, name: str | None = None) -> FolderComparison:
    return verify_folder(SERVERS, folder, name, 5.0)


@pytest.mark.parametrize("name", ["photos/", "photos", "./photos", None])
def test_a_folder_is_compared_with_the_shared_one_of_that_name(tmp_path: Path, name: str | None) -> None:
    folder = make(tmp_path / "photos", "photos/")
    assert compare(folder, name) == FolderComparison(folder, "photos/", files=2, matching=2, differences={})


@pytest.mark.parametrize("name", [None, ".", "/"])
@pytest.mark.parametrize("base_name", ["copy", "x*", "-\n"])
def test_another_folder_is_compared_with_everything(tmp_path: Path, name: str | None, base_name: str) -> None:
    if (name, base_name) == (None, "x*"):
        base_name = "x?"  # A glob is not taken for a name.
    folder = make(tmp_path / base_name)
    assert compare(folder, name) == FolderComparison(folder, "", files=4, matching=4, differences={})


def test_each_kind_of_difference_is_found(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "photos/a b").write_bytes(b"1" * 4999 + b"2")
    (folder / "other").write_bytes(b"longer")
    (folder / "photos/sub/c").unlink()
    (folder / "photos/new").write_bytes(b"")
    (folder / "photos/.a b.msd-part").write_bytes(b"")
    (folder / "empty").mkdir()
    (folder / "link").symlink_to(folder)
    comparison = compare(folder, ".")
    assert comparison.differences == {
        "other": Difference.DIFFERS,
        "photos/a b": Difference.DIFFERS,
        "photos/sub/c": Difference.MISSING,
        "photos/new": Difference.EXTRA,
    }
    assert (comparison.files, comparison.matching, comparison.matches) == (4, 1, False)
    assert [*comparison.differences][-1] == "photos/new"


def test_a_file_of_another_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path)
    (folder / "photos/a b").write_bytes(b"1" * 5001)
    monkeypatch.setattr(module, "compare_content", lambda *_: iter([True]))
    assert compare(folder, ".").differences == {"photos/a b": Difference.DIFFERS}


def test_nothing_is_changed(tmp_path: Path) -> None:
    path = make(tmp_path) / "other"
    os.utime(path, ns=(5, 5))
    assert compare(tmp_path, ".").matches
    assert path.stat().st_mtime_ns == 5


def test_what_is_no_file_differs_and_what_is_below_a_file_is_missing(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "other").unlink()
    os.mkfifo(folder / "other")
    (folder / "photos/sub/c").unlink()
    (folder / "photos/sub").rmdir()
    (folder / "photos/sub").write_bytes(b"")
    assert compare(folder, ".").differences == {
        "other": Difference.DIFFERS,
        "photos/sub/c": Difference.MISSING,
        "photos/sub": Difference.EXTRA,
    }


def test_a_file_that_cannot_be_read_does_not_end_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opened = make(tmp_path), os.open

    def refuse(path: Path, *arguments: int) -> int:
        if Path(path).name == "a b":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    comparison = compare(folder, ".")
    assert comparison.differences == {"photos/a b": Difference.UNREADABLE}
    assert comparison.matching == 3


@pytest.mark.parametrize("name", ["nothing", "other", "*", "photos/a b"])
def test_a_name_that_is_no_shared_folder_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFoundError, match=f"no shared folder is named '{name}/'".replace("*", r"\*")):
        compare(tmp_path, name)


def test_extra_files_are_no_difference(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "mine").write_bytes(b"")
    comparison = compare(folder, ".")
    assert comparison.matches
    assert comparison.differences == {"mine": Difference.EXTRA}
