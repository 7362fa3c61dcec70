"""The file of ``--report``: it is written atomically, even if the download fails."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from msd.client.events import (
    Event,
    FileCounts,
    FileResult,
    FilesReport,
    OnEvent,
    Outcome,
    Report,
    Retried,
    Started,
    Totals,
)
from msd.client.report.report_file import ReportFile, write_file
from msd.wire.errors import DiskError, Interrupted, MsdError, NoAnswerError, UsageError

STARTED = Started("film", Path("copy"), "ab" * 32, 5, 5)
REPORT = Report("film", Path("copy"), "ab" * 32, 5, 1.0, 5, 0, 0, {}, Totals({"corrupt": 1}, 0.0, 5.0, 5.0))


@pytest.fixture(autouse=True)
def _in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(name: str = "report.json") -> Any:
    text = Path(name).read_text(encoding="utf-8")
    assert text.endswith("}\n")
    return json.loads(text)


def fail_with(error: MsdError, on_event: OnEvent = lambda event: None) -> None:
    with ReportFile("report.json") as report_file:
        report_file.recorder(on_event)(Retried("1", 3, "corrupt"))
        raise error


def test_the_report_of_several_files_has_their_numbers_and_failures() -> None:
    counts = FileCounts(listed=3, fetched=1, kept=1, failed=1, size=5)
    error = UsageError("out/b exists", arguments=("update", "force"))
    with ReportFile("report.json") as report_file:
        report_file.recorder(lambda event: None)(FileResult("b", Outcome.FAILED, error=error))
        report_file.write(FilesReport(Path("out"), counts, {"b": error}, 1.0, 5, 0, 0))
    report = read()
    assert report["files"] == {"listed": 3, "fetched": 1, "kept": 1, "same": 0, "failed": 1}
    assert (report["bytes"], report["output"], report["version"]) == (5, "out", 1)
    failure = {"file": "b", "code": 2, "message": "out/b exists (--update, --force)"}
    assert report["errors"] == [failure]
    assert report["events"][0].items() >= failure.items()


def test_a_report_has_the_result_and_the_events() -> None:
    events: list[Event] = []
    with ReportFile("report.json") as report_file:
        report_file.recorder(events.append)(STARTED)
        report_file.write(REPORT)
    assert events == [STARTED]
    report = read()
    assert report["version"] == 1
    assert (report["file"], report["bytes"], report["retries"]) == ("film", 5, {"corrupt": 1})
    assert [event["event"] for event in report["events"]] == ["start"]
    assert "error" not in report
    assert os.listdir() == ["report.json"]


@pytest.mark.parametrize("error", [NoAnswerError("no answer"), Interrupted("interrupted", signal.SIGINT)])
def test_a_failed_download_has_a_report_with_the_error(error: MsdError) -> None:
    with pytest.raises(type(error)):
        fail_with(error)
    report = read()
    assert report["error"] == {"code": error.exit_code, "message": str(error)}
    assert report["retries"] == {"corrupt": 1}
    assert report.keys() >= {"version", "waited_seconds", "rate_p50", "rate_peak", "events"}
    assert "bytes" not in report


def test_a_usage_error_writes_no_report() -> None:
    with pytest.raises(UsageError):
        fail_with(UsageError("wrong"))
    assert os.listdir() == []


@pytest.mark.parametrize("file", ["folder", "missing/report"])
def test_an_invalid_report_path_is_rejected_before_the_download(file: str) -> None:
    Path("folder").mkdir()
    with pytest.raises(UsageError, match=f"--report {file}: must be a file in an existing folder"):
        ReportFile(file)


@pytest.mark.parametrize("file", ["copy", "./copy", ".copy.msd-part"])
def test_a_report_must_not_replace_the_download(file: str) -> None:
    Path(file).write_text("kept")
    with pytest.raises(UsageError, match="is the output or its part file"), ReportFile(file) as report_file:
        report_file.recorder(lambda event: None)(STARTED)
    assert Path(file).read_text() == "kept"


def test_a_report_that_cannot_be_written_is_a_disk_error_and_leaves_no_file() -> None:
    report_file = ReportFile("report.json")
    Path("report.json").mkdir()
    with pytest.raises(DiskError, match="cannot write the report"):
        report_file.write(REPORT)
    assert os.listdir() == ["report.json"]
    assert os.listdir("report.json") == []


def test_after_a_failed_download_a_report_that_cannot_be_written_is_only_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def mkdir(event: Event) -> None:
        Path("report.json").mkdir()

    with pytest.raises(NoAnswerError):
        fail_with(NoAnswerError("no answer"), on_event=mkdir)
    assert "report.json: cannot write the report" in capsys.readouterr().err


def test_a_report_replaces_the_previous_report_atomically() -> None:
    Path("report.json").write_text("old")
    with Path("report.json").open() as reader:
        write_file(Path("report.json"), b"new")
        assert reader.read() == "old"
    assert Path("report.json").read_text() == "new"


def test_a_link_or_pipe_is_written_to_and_not_replaced() -> None:
    Path("link").symlink_to("target")
    write_file(Path("link"), b"new")
    assert Path("link").is_symlink()
    assert Path("target").read_bytes() == b"new"
    os.mkfifo("pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(Path("pipe").read_bytes()))
    reader.start()
    write_file(Path("pipe"), b"through")
    reader.join()
    assert received == [b"through"]
    assert Path("pipe").is_fifo()


def test_a_report_that_cannot_be_created_is_an_error_before_the_download() -> None:
    for file in ("/proc/report.json", "/sys/kernel/report.json"):
        with pytest.raises(DiskError, match=f"^--report {file}: cannot be created: .*: choose another file$"):
            ReportFile(file)
    # A check that opened a pipe would wait for its reader.
    os.mkfifo("pipe")
    Path("there").symlink_to("new.json")
    for file in ("pipe", "there", "/dev/full", "report.json"):
        ReportFile(file)
    assert {*os.listdir()} == {"pipe", "there"}
