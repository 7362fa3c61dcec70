"""The dry run of a single file says what a download would do, and writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msd.client.events import Event, FileCounts, FileResult, FilesReport, FilesStarted, Outcome
from msd.client.operations import dry_run as module
from msd.client.operations.dry_run import dry_run
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.errors import NotFoundError, UsageError
from msd.wire.protocol.messages import Get
from tests.memory_worker import MemoryWorker, entry_of

DATA = b"film" * 1000


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryWorker:
    monkeypatch.chdir(tmp_path)
    worker = MemoryWorker({"photos/film": DATA})
    monkeypatch.setattr(worker, "close", lambda: None, raising=False)
    monkeypatch.setattr(module, "ConnectionPool", lambda *_, **__: worker)
    return worker


def run(output: str | None, name: str | None = "photos/film", **options: Any) -> tuple[FilesReport, list[Event]]:
    events: list[Event] = []
    values: dict[str, Any] = {"id": None, "update": False, "force": False, "checksum": False, "timeout": None}
    return dry_run(locate_servers(Config()), name, output, **{**values, **options}, on_event=events.append), events


@pytest.mark.parametrize(
    ("output", "target"), [(None, "film"), ("copy", "copy"), ("new/folder/", "new/folder/film"), (".", "film")]
)
def test_a_missing_file_would_be_fetched(worker: MemoryWorker, output: str | None, target: str) -> None:
    report, events = run(output, "./photos/film")
    wanted = FileResult("photos/film", Outcome.MISSING, 4000)
    assert events == [FilesStarted(("photos/film",), (), Path(target), dry_run=True), wanted]
    assert (report.output, report.wanted, report.counts) == (Path(target), [wanted], FileCounts(listed=1))
    assert report.dry_run
    assert [*Path().iterdir()] == []
    assert not any(isinstance(request, Get) for request in worker.requests)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("content", "options", "outcome"),
    [
        (DATA, {"update": True}, Outcome.SAME),
        (DATA, {"checksum": True}, Outcome.SAME),
        (DATA, {"force": True}, Outcome.DIFFERS),
        (b"mine", {"update": True}, Outcome.DIFFERS),
        (b"mine", {"checksum": True, "force": True}, Outcome.DIFFERS),
    ],
)
def test_an_existing_file_would_be_kept_or_replaced(content: bytes, options: dict[str, Any], outcome: Outcome) -> None:
    Path("film").write_bytes(content)
    report, _ = run(None, **options)
    assert report.counts == FileCounts(listed=1, same=outcome is Outcome.SAME)
    assert [result.outcome for result in report.wanted] == ([outcome] if outcome is Outcome.DIFFERS else [])
    assert Path("film").read_bytes() == content


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("options", [{}, {"checksum": True}])
def test_an_existing_file_that_may_not_be_replaced_is_an_error(options: dict[str, Any]) -> None:
    Path("film").write_bytes(b"mine")
    with pytest.raises(UsageError, match="film exists"):
        run(None, **options)


@pytest.mark.usefixtures("worker")
def test_a_version_may_be_named() -> None:
    id = entry_of("", DATA).id
    assert id is not None
    report, _ = run("copy", id=id.hex()[:6])
    assert [result.name for result in report.wanted] == ["photos/film"]
    with pytest.raises(NotFoundError):
        run("copy", id="000000")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(("output", "name", "kind"), [("-", "photos/film", UsageError), ("x", "film", NotFoundError)])
def test_what_a_download_refuses_is_refused(output: str, name: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        run(output, name)
