"""Several files in one call: what lands where, and the report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.events import Event, FileCounts, FilesProgress, FilesStarted, Progress, Syncing
from msd.client.operations import download_files as module
from msd.client.operations import transfer as transfer_module
from msd.client.operations.download_files import download_files
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.errors import NotFoundError, SourceError, UsageError
from tests.memory_worker import MemoryWorker

FILES = {"docs/": b"", "docs/a b": b"1" * 100, "docs/film": b"2" * (3 << 20), "other": b"3"}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> MemoryWorker:
    worker = MemoryWorker({**FILES})
    monkeypatch.setattr(worker, "close", lambda: None, raising=False)
    monkeypatch.setattr(module, "ConnectionPool", lambda *_, **__: worker)
    return worker


@pytest.mark.usefixtures("worker")
def test_a_folder_and_a_file_land_under_their_names(tmp_path: Path) -> None:
    events: list[Event] = []
    report = download_files(locate_servers(Config()), ["./docs/", "other"], tmp_path, on_event=events.append)
    assert (tmp_path / "docs/a b").read_bytes() == FILES["docs/a b"]
    assert (tmp_path / "docs/film").read_bytes() == FILES["docs/film"]
    assert (report.counts, report.errors) == (FileCounts(listed=3, fetched=3, size=101 + (3 << 20)), {})
    assert report.received_bytes == report.counts.size
    assert events[0] == FilesStarted(("./docs/", "other"), (), tmp_path)
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert last.files == FilesProgress(report.counts, is_listed=True, in_flight=())
    assert (report.workers["1"].bytes, report.reused_bytes, report.dry_run) == (report.counts.size, 0, False)
    assert last.bytes == last.total == report.counts.size


@pytest.mark.usefixtures("worker")
def test_failures_are_named_and_the_rest_is_in_place(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"mine")
    report = download_files(locate_servers(Config()), ["docs/", "other", "music/"], tmp_path, exclude=["film"])
    assert {name: type(error) for name, error in report.errors.items()} == {
        "other": UsageError,
        "music/": NotFoundError,
    }
    assert report.counts.fetched == 1
    assert (tmp_path / "other").read_bytes() == b"mine"
    assert not (tmp_path / "docs/film").exists()


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/x", "a//x", "./x", "a/./x", "..", "a\x00b", "a\nb/../../x", "docs"]
)
def test_a_hostile_listing_writes_nothing_outside_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """``docs`` is the name of a folder in the listing."""
    worker = MemoryWorker({**FILES, name: b"evil"})
    monkeypatch.setattr(worker, "close", lambda: None, raising=False)
    monkeypatch.setattr(module, "ConnectionPool", lambda *_, **__: worker)
    output = tmp_path / "a" / "b"
    output.mkdir(parents=True)
    with pytest.raises(SourceError, match="no worker returned a valid list of the shared files"):
        download_files(locate_servers(Config()), ["**"], output)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"evil"]
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]


def test_an_interrupted_download_closes_its_outputs(
    tmp_path: Path, worker: MemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(worker, "close", lambda: closed.append(True), raising=False)

    def interrupt(deadline: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download_files(locate_servers(Config()), ["docs/"], tmp_path)
    assert closed == [True]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("name", [".", "./", "/"])
def test_one_name_stands_for_everything(tmp_path: Path, name: str) -> None:
    report = download_files(locate_servers(Config()), [name], tmp_path, exclude=["film"])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["docs", "docs/a b", "other"]
    assert report.counts.fetched == 2


@pytest.mark.usefixtures("worker")
def test_a_name_that_selects_nothing_shows_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_module, "time", SimpleNamespace(monotonic=lambda: 0.0))  # no time passes
    events: list[Event] = []
    download_files(locate_servers(Config()), ["music/"], tmp_path, on_event=events.append)
    assert not [event for event in events if isinstance(event, Progress | Syncing)]


def test_progress_is_reported_while_nothing_is_to_be_fetched(
    tmp_path: Path, worker: MemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files are kept, but the list is not complete for a while."""
    events: list[Event] = []
    download_files(locate_servers(Config()), ["docs/"], tmp_path)
    now, wait = 0.0, worker.wait
    monkeypatch.setattr(transfer_module, "time", SimpleNamespace(monotonic=lambda: now))

    def slow_wait(deadline: float) -> None:
        nonlocal now
        now += 0.3
        wait(deadline)

    monkeypatch.setattr(worker, "wait", slow_wait)
    monkeypatch.setattr(worker, "_page_size", 1)
    download_files(locate_servers(Config()), ["docs/"], tmp_path, on_event=events.append)
    progress = [event.files for event in events if isinstance(event, Progress)]
    assert [files.counts.kept for files in progress if files] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "a"}, "names and exclude take lists"),
        ({"names": []}, "names is empty"),
        ({"output": ""}, "output is empty"),
        ({"timeout": 0}, "timeout 0: must be more than 0"),
        ({"max_rate": -1}, "max_rate -1: must not be negative"),
    ],
)
def test_a_wrong_argument_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        download_files(locate_servers(Config()), **{"names": ["a"], **options})
