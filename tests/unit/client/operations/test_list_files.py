"""The list of shared files, and whether a name that looks like a glob is the name of a file."""

from __future__ import annotations

from typing import Any

import pytest

from msd.client.operations import list_files as module
from msd.client.operations.list_files import list_files, looks_like_several, shared_name
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.errors import NotFoundError, UsageError
from tests.memory_worker import MemoryWorker, entry_of

SERVERS = locate_servers(Config())
FILES = {"a [1].mkv": b"1", "a 1.mkv": b"2", "photos/": b"", "photos/x": b"3" * 9, "photos/y": b""}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> MemoryWorker:
    worker = MemoryWorker({**FILES}, page_size=2)
    monkeypatch.setattr(worker, "close", lambda: None, raising=False)
    monkeypatch.setattr(module, "ConnectionPool", lambda *_, **__: worker)
    return worker


@pytest.mark.usefixtures("worker")
def test_all_files_and_folders_are_listed() -> None:
    files, errors = list_files(SERVERS)
    assert [*files] == [(entry_of(name, data), 1) for name, data in sorted(FILES.items())]
    assert errors == []


@pytest.mark.usefixtures("worker")
def test_names_select_files_and_each_that_selects_none_is_an_error() -> None:
    files, errors = list_files(SERVERS, ["./photos", "*.avi", "a [1].mkv", "nothing"])
    assert [entry.name for entry, _ in files] == ["a [1].mkv", "photos/", "photos/x", "photos/y"]
    assert [error.name for error in errors] == ["*.avi", "nothing"]
    assert {type(error) for error in errors} == {NotFoundError}


def test_a_list_without_files_is_no_error(worker: MemoryWorker) -> None:
    worker._listing = []
    files, errors = list_files(SERVERS)
    assert (len([*files]), errors) == (0, [])


@pytest.mark.parametrize(
    ("name", "expected"), [("*.mkv", True), ("a [12].mkv", True), ("a [1].mkv", False), ("photos", False), ("x", False)]
)
def test_a_name_that_looks_like_a_glob_may_be_that_of_a_file(worker: MemoryWorker, name: str, expected: bool) -> None:
    options: Any = {"timeout": None, "on_event": lambda event: None}
    assert looks_like_several(SERVERS, name, **options) is expected
    assert len(worker.requests) <= 3
    assert bool(worker.requests) is ("[" in name or "*" in name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("photos", "photos/"), ("photos/", "photos/"), ("photos/x", "photos/x"), ("a [1].mkv", "a [1].mkv")],
)
def test_the_name_of_a_folder_ends_with_a_slash(worker: MemoryWorker, name: str, expected: str) -> None:
    worker._page_size = 1
    assert shared_name(SERVERS, name) == expected
    assert len(worker.requests) <= 3, "the files of a large folder are not listed"


@pytest.mark.usefixtures("worker")
def test_a_name_that_is_not_shared_or_a_pattern_is_an_error() -> None:
    for name in ("photo", "photos/z", "photos/x/", "*.avi"):
        with pytest.raises(NotFoundError):
            shared_name(SERVERS, name)
    with pytest.raises(UsageError, match="is a pattern: name one file or folder"):
        shared_name(SERVERS, "*.mkv")
