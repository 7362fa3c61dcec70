"""What a download reports to server 5, and when."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.events import FileCounts, FilesProgress, FilesStarted, Hashing, Progress, Started, Syncing
from msd.client.events import WorkerProgress as Worker
from msd.client.operations import progress_reports
from msd.client.operations.progress_reports import REPORT_INTERVAL_S, ProgressReports
from msd.wire.errors import DiskError, Interrupted
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import ControlRequest, DownloadProgress
from msd.wire.protocol.states import DownloadState

DOWNLOADING, FINISHING, DONE, BROKEN = DownloadState
WORKERS = (Worker("1", 60, 90, 20.0), Worker("2", 20, 20, 0.0), Worker("3", 0, 0, 0.0))
PROGRESS = Progress(100, 400, 20, 5, 4.0, 25.0, WORKERS, received_bytes=85)
STARTED = Started("film.mkv", Path("film.mkv"), "00" * 32, 400, 12)


class Scene:
    """A download with a clock; ``sent`` are the messages that were sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.sent: list[DownloadProgress] = []
        monkeypatch.setattr(progress_reports, "time", SimpleNamespace(monotonic=lambda: self.now))
        pool: Any = SimpleNamespace(session=7, peers=None, report_progress=self.send)
        self.reports = ProgressReports(pool, "anna@attic")

    def send(self, message: DownloadProgress) -> None:
        assert decode(encode(message), ControlRequest) == message
        self.sent.append(message)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_a_report_says_what_is_downloaded_and_how_far_it_is(scene: Scene) -> None:
    scene.reports.handle(STARTED)
    scene.now += 4
    scene.reports.handle(PROGRESS)
    assert scene.sent == [
        DownloadProgress(
            session=7,
            state=DOWNLOADING,
            selection="film.mkv",
            bytes=100,
            total=400,
            name="anna@attic",
            received=85,
            files=1,
            rate=20.0,
            seconds=4.0,
            workers=1,
        )
    ]


def test_there_is_one_report_every_two_seconds(scene: Scene) -> None:
    scene.reports.handle(STARTED)
    for _ in range(100):
        scene.reports.handle(PROGRESS)
        scene.now += REPORT_INTERVAL_S / 20
    assert len(scene.sent) == 5


def test_the_time_is_that_since_the_first_request(scene: Scene) -> None:
    scene.now += 9
    scene.reports.handle(STARTED)
    scene.reports.handle(PROGRESS)
    scene.now += 2
    scene.reports.handle(PROGRESS)
    scene.now += 0.5
    scene.reports.end()
    assert [message.seconds for message in scene.sent] == [4.0, 4.0, 4.5]


def test_the_last_report_has_the_averages_and_is_sent_once(scene: Scene) -> None:
    with scene.reports:
        scene.reports.handle(STARTED)
        scene.reports.handle(PROGRESS)
        scene.reports.end()
    scene.reports.handle(PROGRESS)
    *_, last = scene.sent
    assert len(scene.sent) == 2
    assert (last.state, last.exit_code, last.workers, last.rate) == (DONE, 0, 2, 25.0)


@pytest.mark.parametrize(
    ("error", "code"), [(DiskError("full"), 6), (Interrupted("interrupted", 2), 130), (ValueError(), 1)]
)
def test_an_error_breaks_the_download(scene: Scene, error: Exception, code: int) -> None:
    scene.reports.handle(STARTED)
    with pytest.raises(type(error)), scene.reports:
        raise error
    assert [(message.state, message.exit_code) for message in scene.sent] == [(BROKEN, code)]


def test_a_download_that_has_not_begun_reports_nothing(scene: Scene) -> None:
    scene.reports.handle(PROGRESS)
    with pytest.raises(DiskError), scene.reports:
        raise DiskError("exists")
    scene.reports.handle(FilesStarted(("a",), (), Path(), dry_run=True))
    scene.reports.end()
    assert scene.sent == []


def test_a_checksum_and_a_sync_are_reported_before_they_begin(scene: Scene) -> None:
    for event in (STARTED, PROGRESS, Hashing(), Syncing()):
        scene.reports.handle(event)
    assert [message.state for message in scene.sent] == [DOWNLOADING, FINISHING]


def test_several_files_are_named_as_they_were_selected(scene: Scene) -> None:
    scene.reports.handle(FilesStarted(("photos/", "*.mkv", "\x1b[2J", "x" * 300), (), Path()))
    counts = FileCounts(listed=12)
    scene.reports.handle(Progress(1, 2, 0, 0, 1.0, 1.0, (), files=FilesProgress(counts, False, ())))
    (message,) = scene.sent
    assert message.selection.startswith("photos/ *.mkv \\x1b[2J xxx")
    assert (len(message.selection), message.files) == (256, 12)
