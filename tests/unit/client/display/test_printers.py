"""What a download prints, for people and for programs."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from msd.client.display.printers import JsonPrinter, LinePrinter, Printer, metrics, result, since
from msd.client.events import (
    Event,
    Progress,
    Report,
    Retried,
    Sampled,
    Started,
    Syncing,
    Waiting,
    WorkerChanged,
    WorkerProgress,
    WorkerReport,
)
from msd.client.report.json_values import report_values
from msd.wire.support.units import amount

ID = "ab" * 32
MIB = 1 << 20
STARTED = Started("Star.mp4", Path("out/final.mp4"), ID, 12 * MIB, 12)
#: The figures of the report's own example.
PROGRESS = Progress(
    bytes=8_642_720,
    total=11_523_640,
    reused_bytes=0,
    seconds=0.24,
    rate=36_011_350.0,
    workers=(
        WorkerProgress("1", 0, 0, 0.0),
        WorkerProgress("2", 2_880_910, 2_880_910, 0.0),
        WorkerProgress("3", 2_880_910, 2_880_910, 18_005_670.0),
        WorkerProgress("4", 2_880_910, 2_880_910, 36_011_350.0),
    ),
)
REPORTS_LINES = """\
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
)
EVENTS: list[Event] = [
    STARTED,
    PROGRESS,
    WorkerChanged("2", "lost", "3 segments go to others"),
    Waiting("0 of 4 workers alive", 1.23456),
    Retried("3", 7, "corrupt"),
    Syncing(),
    Sampled(PROGRESS),
]


class ClosedPipe(io.StringIO):
    """A stream whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def lines(capsys: pytest.CaptureFixture[str], show: Printer, *events: Event) -> list[str]:
    for event in events:
        show.event(event)
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert err == ""
    return [json.loads(line) for line in out.splitlines()]


# For people.


def test_the_metrics_are_the_reports_lines() -> None:
    assert metrics(PROGRESS) == REPORTS_LINES


def test_what_was_found_on_the_disk_is_added_to_the_total() -> None:
    progress = Progress(bytes=3000, total=4000, reused_bytes=1000, seconds=1.0, rate=2000.0, workers=())
    assert metrics(progress) == "Total: 3.0, download speed: 2.0kb/s, verified on disk: 1.0"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (12 * MIB, "12.0 MiB"),
        (1.2345 * MIB, "1.2 MiB"),
        (5 << 30, "5.0 GiB"),
        (64 << 40, "64.0 TiB"),
        (2048 << 40, "2048.0 TiB"),
    ],
)
def test_an_amount_is_written_for_people(size: float, text: str) -> None:
    assert amount(size) == text


def test_the_result_says_what_came_from_where() -> None:
    assert result(REPORT) == "out/final.mp4: 4.0 MiB verified in 2.00 s, 1.5 MiB/s (worker 1 3.0 MiB, disk 1.0 MiB)"


def test_the_result_of_an_empty_file_names_no_source() -> None:
    empty = Report("e", Path("e"), ID, 0, 0.01, 0, 0, 0, {"1": WorkerReport()})
    assert result(empty) == "e: 0 B verified in 0.01 s"


def test_a_result_all_from_the_disk_has_no_rate() -> None:
    kept = Report("e", Path("e"), ID, MIB, 0.5, 0, 0, MIB, {})
    assert result(kept) == "e: 1.0 MiB verified in 0.50 s (disk 1.0 MiB)"


def test_a_file_that_was_right_is_said_to_be_so() -> None:
    right = Report("e", Path("e"), ID, MIB, 0.5, 0, 0, MIB, {}, unchanged=True)
    assert result(right) == "e: already right, all 1.0 MiB of it (0.50 s)"


def test_what_went_wrong_on_the_way_is_a_second_line() -> None:
    report = replace(
        REPORT,
        retries={"corrupt": 3, "lost": 12},
        waited_seconds=3.04,
        wasted_bytes=2 * MIB,
        rate_p50=1.5 * MIB,
        rate_peak=2 * MIB,
    )
    first, second = result(report).splitlines()
    assert first == result(REPORT)
    assert second == (
        "  asked again for segments: 3 corrupt, 12 lost; waited 3.0 s; 2.0 MiB received in vain;"
        " median 1.5 MiB/s, peak 2.0 MiB/s"
    )


def test_rates_alone_are_no_second_line() -> None:
    assert result(replace(REPORT, rate_p50=1.5 * MIB, rate_peak=2 * MIB)) == result(REPORT)


def test_each_event_is_told_in_a_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    told = [event for event in EVENTS if not isinstance(event, Waiting)]
    assert lines(capsys, LinePrinter(quiet=False), *told) == [
        "Star.mp4: 12.0 MiB in 12 segments, to out/final.mp4",
        *REPORTS_LINES.splitlines(),
        "worker 2 lost: 3 segments go to others",
        "worker 3 sent segment 7 corrupt: asking another one",
        "syncing to disk",
    ]


def test_a_wait_is_told_with_its_reason_and_the_time_it_began(capsys: pytest.CaptureFixture[str]) -> None:
    show = LinePrinter(quiet=False)
    times = [since(3600)]
    (line,) = lines(capsys, show, Waiting("0 of 4 workers alive", 3600.0))
    times.append(since(3600))
    assert line in [f"waiting since {time}: 0 of 4 workers alive" for time in times]
    assert re.fullmatch(r"\d\d:\d\d:\d\d", times[0])


def test_server_5_is_called_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, LinePrinter(quiet=False), WorkerChanged("server 5", "lost")) == ["server 5 lost"]


@pytest.mark.parametrize("show", [LinePrinter(quiet=False), JsonPrinter()], ids=["lines", "json"])
def test_a_closed_pipe_is_no_error(show: Printer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", ClosedPipe())
    monkeypatch.setattr("sys.stderr", ClosedPipe())
    for event in EVENTS:
        show.event(event)
    show.done(REPORT)


def test_what_is_ordinary_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, LinePrinter(quiet=False), WorkerChanged("1", "ready"), Retried("1", 3, "sleeping")) == []


def test_quiet_says_nothing_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    show = LinePrinter(quiet=True)
    assert lines(capsys, show, *EVENTS) == []
    show.done(REPORT)
    assert capsys.readouterr() == ("", "")


def test_the_result_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    LinePrinter(quiet=False).done(REPORT)
    assert capsys.readouterr() == (result(REPORT) + "\n", "")


# For programs.


def test_each_event_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    show = JsonPrinter()
    for event in EVENTS:
        show.event(event)
    received = {"received": 2_880_910, "assigned": 2_880_910}
    assert objects(capsys) == [
        {
            "event": "start",
            "version": 1,
            "file": "Star.mp4",
            "output": "out/final.mp4",
            "id": ID,
            "bytes": 12 * MIB,
            "segments": 12,
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
        },
        {"event": "worker", "name": "2", "state": "lost", "detail": "3 segments go to others"},
        {"event": "waiting", "reason": "0 of 4 workers alive", "seconds": 1.235},
        {"event": "retry", "worker": "3", "segment": 7, "cause": "corrupt", "detail": ""},
        {"event": "waiting", "reason": "syncing to disk", "seconds": 0.0},
    ]


def test_the_last_object_on_success_is_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    JsonPrinter().done(REPORT)
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
            "retries": {},
            "waited_seconds": 0.0,
            "rate_p50": 0,
            "rate_peak": 0,
            "unchanged": False,
        }
    ]


def test_the_report_as_a_dict_is_json_through_and_through() -> None:
    assert json.loads(json.dumps(report_values(REPORT))) == report_values(REPORT)
