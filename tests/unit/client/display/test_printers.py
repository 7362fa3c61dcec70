"""The output of a download, as text and as JSON."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from msd.client.display.printers import (
    RETRY_CAUSES,
    JsonPrinter,
    LinePrinter,
    LogPrinter,
    Printer,
    ResultPrinter,
    log_entry,
    metric_lines,
    result_lines,
)
from msd.client.events import (
    STANDARD_OUTPUT,
    Event,
    FileChanged,
    FileCounts,
    FileResult,
    FilesProgress,
    FilesReport,
    FilesStarted,
    Hashing,
    Progress,
    Report,
    Retried,
    Started,
    Syncing,
    Totals,
    Waiting,
    Warned,
    WorkerChanged,
    WorkerProgress,
    WorkerReport,
)
from msd.client.events import Outcome as FileOutcome
from msd.wire.errors import DiskError
from msd.wire.net.diagnosis import Contact, Outcome
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.units import format_time

ID = "ab" * 32
MIB = 1 << 20
STARTED = Started("Star.mp4", Path("out/final.mp4"), ID, 12 * MIB, 12)
#: The figures from the example in the university report, which defines the metric lines.
PROGRESS = Progress(
    bytes=8_642_720,
    total=11_523_640,
    reused_bytes=0,
    wasted_bytes=0,
    seconds=0.24,
    rate=36_011_350.0,
    workers=(
        WorkerProgress("1", 0, 0, 0.0),
        WorkerProgress("2", 2_880_910, 2_880_910, 0.0),
        WorkerProgress("3", 2_880_910, 2_880_910, 18_005_670.0),
        WorkerProgress("4", 2_880_910, 2_880_910, 36_011_350.0),
    ),
)
METRIC_LINES = """\
Server1: 0.0/0.0, download speed: 0kb/s
Server2: 2880.91/2880.91, download speed: 0kb/s
Server3: 2880.91/2880.91, download speed: 18005.67kb/s
Server4: 2880.91/2880.91, download speed: 36011.35kb/s
Total: 8642.72, download speed: 36011.35kb/s"""
REPORT = Report(
    file="Star.mp4",
    output=Path("out/final.mp4"),
    id=ID,
    bytes=4 * MIB,
    seconds=2.0,
    received_bytes=3 * MIB,
    wasted_bytes=0,
    reused_bytes=MIB,
    workers={"1": WorkerReport(bytes=3 * MIB, segments=3, failures=1, corrupt=2), "2": WorkerReport()},
    transfer_seconds=1.5,
    rate=2.0 * MIB,
)
CONTACTS = (Contact("worker 1", Endpoint("::1", 9001), Outcome.VERSION, "7"),)
EVENTS: list[Event] = [
    STARTED,
    PROGRESS,
    FileChanged("Star.mp4", 1, "cd" * 32, 13 * MIB, 13, 5 * MIB),
    WorkerChanged("2", "lost", "3 segments reassigned"),
    Waiting("0 of 4 workers alive", 1.23456, CONTACTS, 30.0),
    Warned("copy is complete, but its folder cannot be synced"),
    Retried("3", 7, "corrupt"),
    Hashing(),
    Syncing(),
]


class ClosedPipe(io.StringIO):
    """A stream whose reader has closed it."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def lines(capsys: pytest.CaptureFixture[str], printer: Printer, *events: Event) -> list[str]:
    for event in events:
        printer.on_event(event)
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert err == ""
    return [json.loads(line) for line in out.splitlines()]


# Text.


def test_the_metric_lines_match_the_report() -> None:
    assert metric_lines(PROGRESS) == METRIC_LINES


def test_reused_bytes_are_added_to_the_total_line() -> None:
    progress = Progress(3000, 4000, 1000, 0, 1.0, 2000.0, ())
    assert metric_lines(progress) == "Total: 3.0, download speed: 2.0kb/s, verified on disk: 1.0"


def test_the_result_names_the_sources() -> None:
    assert (
        result_lines(REPORT) == "out/final.mp4: 4.0 MiB verified in 1.50 s, 2.0 MiB/s (worker 1 3.0 MiB, disk 1.0 MiB)"
    )


def test_the_result_of_an_empty_file_names_no_source() -> None:
    empty = Report("e", Path("e"), ID, 0, 0.02, 0, 0, 0, {"1": WorkerReport()}, transfer_seconds=0.01)
    assert result_lines(empty) == "e: 0 B verified in 0.01 s"


def test_the_result_of_a_completely_reused_file_has_no_rate() -> None:
    reused = Report("e", Path("e"), ID, MIB, 0.6, 0, 0, MIB, {}, transfer_seconds=0.5)
    assert result_lines(reused) == "e: 1.0 MiB verified in 0.50 s (disk 1.0 MiB)"


def test_the_result_of_an_unchanged_file_says_that_it_is_up_to_date() -> None:
    unchanged = Report("e", Path("e"), ID, MIB, 0.5, 0, 0, MIB, {}, unchanged=True)
    assert result_lines(unchanged) == "e: already up to date (1.0 MiB)"


def test_problems_are_printed_on_a_second_line() -> None:
    report = replace(
        REPORT,
        wasted_bytes=2 * MIB,
        totals=Totals({"corrupt": 3, "lost": 12}, waited_seconds=3.04, rate_p50=1.5 * MIB, rate_peak=2 * MIB),
    )
    first, second = result_lines(report).splitlines()
    assert first == result_lines(REPORT)
    assert second == (
        "  retried segments: 3 (corrupt), 12 (connection lost); waited 3.0 s; 2.0 MiB wasted"
        " (duplicate, corrupt or outdated); median 1.5 MiB/s, peak 2.0 MiB/s"
    )


def test_without_problems_there_is_no_second_line() -> None:
    fast = replace(REPORT, totals=Totals(rate_p50=1.5 * MIB, rate_peak=2 * MIB))
    assert result_lines(fast) == result_lines(REPORT)


def test_zeros_are_not_called_data_from_disk() -> None:
    progress = Progress(3000, 4000, 1000, 0, 1.0, 2000.0, (), zero_bytes=600)
    assert metric_lines(progress).endswith(", verified on disk: 0.4, zeros: 0.6")
    assert "(worker 1 3.0 MiB, zeros 1.0 MiB)" in result_lines(replace(REPORT, zero_bytes=MIB))


def test_a_limit_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    limited = replace(STARTED, max_rate=50)
    assert log_entry(limited)[2].endswith(", to out/final.mp4, limited to 50 B/s")
    assert lines(capsys, LinePrinter(quiet=False), limited) == [
        "Star.mp4: 12.0 MiB in 12 segments, to out/final.mp4, limited to 50 B/s"
    ]


def test_each_event_is_printed_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    events = [event for event in EVENTS if not isinstance(event, Waiting)]
    assert lines(capsys, LinePrinter(quiet=False), *events) == [
        "Star.mp4: 12.0 MiB in 12 segments, to out/final.mp4",
        *METRIC_LINES.splitlines(),
        "Star.mp4 changed on the servers: going on with the new version, 13.0 MiB, 5.0 MiB kept",
        "worker 2 lost: 3 segments reassigned",
        "warning: copy is complete, but its folder cannot be synced",
        "worker 3 sent a corrupt copy of segment 7; retrying elsewhere",
        "computing the SHA-256",
        "syncing to disk",
    ]


def test_each_event_is_a_log_entry() -> None:
    assert [log_entry(event) for event in EVENTS] == [
        ("info", "client", "Star.mp4 (abababababababab…): 12,582,912 bytes in 12 segments, to out/final.mp4"),
        (
            "debug",
            "client",
            "8,642,720 of 11,523,640 bytes verified, 0 reused from disk, 0 wasted (duplicate, corrupt or outdated)",
        ),
        (
            "warning",
            "client",
            "Star.mp4 changed on the servers, change 1: cdcdcdcdcdcdcdcd…:"
            " 13,631,488 bytes in 13 segments, 5,242,880 bytes kept",
        ),
        ("warning", "worker 2", "lost: 3 segments reassigned"),
        ("warning", "client", "waiting for 1.2 s: 0 of 4 workers alive (gives up after 30 s)"),
        ("warning", "client", "copy is complete, but its folder cannot be synced"),
        ("warning", "worker 3", "retrying segment 7: corrupt"),
        ("info", "client", "computing the SHA-256"),
        ("info", "client", "syncing to disk"),
    ]


def test_the_log_entry_of_a_refusal_has_its_reason_and_detail() -> None:
    entry = log_entry(Retried("1", 3, "unreadable", "Input/output error"))
    assert entry == ("warning", "worker 1", "retrying segment 3: file unreadable (Input/output error)")
    assert log_entry(WorkerChanged("1", "ready"))[0] == "info"


@pytest.mark.parametrize("cause", ["lost", "corrupt", *RefusalReason])
def test_every_cause_of_a_retry_has_a_text(cause: str) -> None:
    assert cause in RETRY_CAUSES


def test_a_wait_is_printed_with_its_start_time_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(quiet=False)
    times = [format_time(time.time() - 3600)]
    (line,) = lines(capsys, printer, Waiting("0 of 4 workers alive", 3600.0))
    times.append(format_time(time.time() - 3600))
    assert line in [f"waiting since {time}: 0 of 4 workers alive (Ctrl-C ends the wait)" for time in times]
    assert re.fullmatch(r"\d\d:\d\d:\d\d", times[0])


def test_server_5_is_not_printed_as_a_worker(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, LinePrinter(quiet=False), WorkerChanged("server 5", "lost")) == ["server 5 lost"]


@pytest.mark.parametrize("printer", [LinePrinter(quiet=False), JsonPrinter()], ids=["lines", "json"])
def test_a_closed_pipe_is_not_an_error(printer: Printer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", ClosedPipe())
    monkeypatch.setattr("sys.stderr", ClosedPipe())
    for event in EVENTS:
        printer.on_event(event)
    printer.on_done(REPORT)


def test_ordinary_events_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, LinePrinter(quiet=False), WorkerChanged("1", "ready"), Retried("1", 3, "sleeping")) == []


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(quiet=True)
    assert lines(capsys, printer, *EVENTS) == []
    printer.on_done(REPORT)
    assert capsys.readouterr() == ("", "")


def test_the_result_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    LinePrinter(quiet=False).on_done(REPORT)
    assert capsys.readouterr() == (result_lines(REPORT) + "\n", "")


def test_the_result_goes_to_standard_error_if_standard_output_has_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    report = replace(REPORT, output=STANDARD_OUTPUT)
    LinePrinter(quiet=False).on_done(report)
    assert capsys.readouterr() == ("", result_lines(report) + "\n")


# JSON.


def test_each_event_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    printer = JsonPrinter()
    for event in EVENTS:
        printer.on_event(event)
    received = {"received": 2_880_910, "assigned": 2_880_910}
    assert objects(capsys) == [
        {
            "event": "start",
            "version": 2,
            "file": "Star.mp4",
            "output": "out/final.mp4",
            "id": ID,
            "bytes": 12 * MIB,
            "segments": 12,
            "max_rate": 0,
        },
        {
            "event": "progress",
            "bytes": 8_642_720,
            "total": 11_523_640,
            "reused_bytes": 0,
            "wasted_bytes": 0,
            "seconds": 0.24,
            "rate": 36_011_350,
            "workers": {
                "1": {"received": 0, "assigned": 0, "rate": 0},
                "2": {**received, "rate": 0},
                "3": {**received, "rate": 18_005_670},
                "4": {**received, "rate": 36_011_350},
            },
            "zero_bytes": 0,
            "received_bytes": 0,
        },
        {
            "event": "changed",
            "file": "Star.mp4",
            "changes": 1,
            "id": "cd" * 32,
            "bytes": 13 * MIB,
            "segments": 13,
            "kept_bytes": 5 * MIB,
        },
        {"event": "worker", "name": "2", "state": "lost", "detail": "3 segments reassigned", "place": ""},
        {
            "event": "waiting",
            "reason": "0 of 4 workers alive",
            "seconds": 1.235,
            "addresses": [
                {"name": "worker 1", "address": "[::1]:9001", "outcome": "other-version", "detail": "7"},
            ],
        },
        {"event": "warning", "text": "copy is complete, but its folder cannot be synced"},
        {"event": "retry", "worker": "3", "segment": 7, "cause": "corrupt", "detail": ""},
        {"event": "waiting", "reason": "computing the SHA-256", "seconds": 0.0, "addresses": []},
        {"event": "waiting", "reason": "syncing to disk", "seconds": 0.0, "addresses": []},
    ]


def test_the_last_object_on_success_is_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    JsonPrinter().on_done(REPORT)
    assert objects(capsys) == [
        {
            "event": "done",
            "file": "Star.mp4",
            "output": "out/final.mp4",
            "id": ID,
            "bytes": 4 * MIB,
            "seconds": 2.0,
            "received_bytes": 3 * MIB,
            "wasted_bytes": 0,
            "reused_bytes": MIB,
            "workers": {
                "1": {"bytes": 3 * MIB, "segments": 3, "failures": 1, "corrupt": 2},
                "2": {"bytes": 0, "segments": 0, "failures": 0, "corrupt": 0},
            },
            "transfer_seconds": 1.5,
            "rate": 2 * MIB,
            "zero_bytes": 0,
            "passed_on_bytes": 0,
            "retries": {},
            "waited_seconds": 0.0,
            "rate_p50": 0,
            "rate_peak": 0,
            "unchanged": False,
        }
    ]


# Several files.

FILES = FilesProgress(FileCounts(listed=9, fetched=2), is_listed=True, in_flight=())
FILES_REPORT = FilesReport(
    Path("out"), FileCounts(listed=3, fetched=2, failed=1, size=5), {}, 1.0, 5, 0, 0, totals=Totals(waited_seconds=2.0)
)


def failed(name: str) -> FileResult:
    return FileResult(name, FileOutcome.FAILED, error=DiskError(f"out/{name} exists", arguments=("force",)))


def test_the_numbers_of_files_follow_the_metric_lines() -> None:
    lines = metric_lines(replace(PROGRESS, files=FILES)).splitlines()
    assert lines[:-1] == METRIC_LINES.splitlines()
    assert lines[-1].startswith("2 of 9 files, 8.2 MiB of 11.0 MiB")


def test_failures_are_printed_as_they_come_and_then_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(quiet=False)
    printer.on_event(FilesStarted(("a/",), (), Path("out")))
    printer.on_event(FileResult("a/1", FileOutcome.FETCHED, 5))
    printer.on_event(failed("a/2"))
    printer.on_done(FILES_REPORT)
    out, err = capsys.readouterr()
    assert err == "a/: to out\nmsd: out/a/2 exists (--force)\n"
    assert out == "3 files, 5 B verified in 0.00 s (2 fetched, 1 failed): out\n  waited 2.0 s\n"


def test_failures_are_printed_once_even_if_other_lines_follow(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(quiet=False)
    printer.on_event(failed("a"))
    printer.on_event(Syncing())
    printer.on_done(FILES_REPORT)
    assert capsys.readouterr().err == "msd: out/a exists (--force)\nsyncing to disk\n"


def test_a_dry_run_has_no_metric_lines(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(quiet=False)
    printer.on_event(FilesStarted(("a",), (), Path(), dry_run=True))
    printer.on_event(replace(PROGRESS, files=FILES))
    printer.close()
    assert capsys.readouterr().err == "a: dry run\n"


def test_a_quiet_download_prints_only_failures(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(quiet=True)
    for event in (FilesStarted(("a",), (), Path()), replace(PROGRESS, files=FILES), failed("a"), Syncing()):
        printer.on_event(event)
    printer.on_done(FILES_REPORT)
    assert capsys.readouterr() == ("", "msd: out/a exists (--force)\n")


def test_if_no_file_was_found_only_the_failure_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(quiet=False)
    printer.on_event(failed("a"))
    printer.on_done(replace(FILES_REPORT, counts=FileCounts(), errors={"a": DiskError("out/a exists")}))
    assert capsys.readouterr() == ("", "msd: out/a exists (--force)\n")


def test_the_log_has_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LogPrinter(ResultPrinter())
    printer.on_event(FileResult("a/1", FileOutcome.KEPT, 1234))
    printer.on_event(failed("a/2"))
    printer.on_done(FILES_REPORT)
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.endswith("a/1: kept (1,234 bytes)")
    assert second.endswith("out/a/2 exists")
    assert out.startswith("3 files, ")


def test_the_summary_is_the_last_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    printer = JsonPrinter()
    printer.on_event(failed("a"))
    printer.on_done(replace(FILES_REPORT, errors={"a": DiskError("a: full")}))
    first, summary = objects(capsys)
    message = {"code": 6, "message": "out/a exists (--force)"}
    assert first == {"event": "file", "file": "a", "outcome": "failed", "bytes": 0, **message}
    assert (summary["event"], summary["bytes"]) == ("summary", 5)
    assert summary["files"] == {"listed": 3, "fetched": 2, "kept": 0, "same": 0, "failed": 1}
    assert summary["errors"] == [{"file": "a", "code": 6, "message": "a: full"}]
