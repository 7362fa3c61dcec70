"""The progress and the result of several files as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from msd.client.display.files_text import files_lines, files_result, selection_text
from msd.client.events import (
    FileCounts,
    FileProgress,
    FileResult,
    FilesProgress,
    FilesReport,
    FilesStarted,
    Outcome,
    Progress,
    WorkerProgress,
    WorkerReport,
)
from msd.wire.errors import DiskError

MIB = 1 << 20
COUNTS = FileCounts(listed=10_003, fetched=9_990, kept=13, size=103 * MIB)
REPORT = FilesReport(Path("out"), COUNTS, {}, 1.4, 103 * MIB, 0, 0, transfer_seconds=1.234, rate=80.0 * MIB)
ERRORS = {"x": DiskError("x")}
FILES = FilesProgress(FileCounts(listed=10_003, fetched=1_200, kept=34), is_listed=True, in_flight=())
PROGRESS = Progress(50 * MIB, 100 * MIB, 0, 0, 1.0, 3.0, (WorkerProgress("1", 1, 1, 10.0 * MIB),), files=FILES)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "photos/ docs/*.pdf: to out"),
        ({"max_rate": 5 * MIB}, "photos/ docs/*.pdf: to out, limited to 5.0 MiB/s"),
        ({"dry_run": True}, "photos/ docs/*.pdf: dry run"),
    ],
)
def test_the_beginning_names_what_is_downloaded_and_where_to(options: dict[str, Any], expected: str) -> None:
    assert selection_text(FilesStarted(("photos/", "docs/*.pdf"), (), Path("out"), **options)) == expected


def test_the_progress_has_the_numbers_of_files_and_the_time_left() -> None:
    assert [*files_lines(PROGRESS)] == ["1,234 of 10,003 files, 34 kept, 50.0 MiB of 100 MiB, 0:05 left"]


def test_the_numbers_may_grow_while_files_are_listed() -> None:
    files = replace(FILES, is_listed=False, counts=replace(FILES.counts, same=1, failed=2))
    (line,) = files_lines(replace(PROGRESS, files=files))
    assert line == "1,235 of 10,003+ files, 34 kept, 1 verified on disk, 2 failed, 50.0 MiB of 100 MiB+"


def test_the_largest_files_in_flight_are_named() -> None:
    in_flight = tuple(FileProgress(f"{number}\x07.mkv", number * MIB, 9 * MIB) for number in range(1, 6))
    _, line = files_lines(replace(PROGRESS, files=replace(FILES, in_flight=in_flight)))
    assert line == (
        r"In flight: 1\x07.mkv 1.0 MiB of 9.0 MiB, 2\x07.mkv 2.0 MiB of 9.0 MiB, 3\x07.mkv 3.0 MiB of 9.0 MiB"
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (COUNTS, "10,003 files, 103 MiB verified in 1.23 s, 80.0 MiB/s (9,990 fetched, 13 kept): out"),
        (FileCounts(listed=1, fetched=1, size=5), "1 file, 5 B verified in 1.23 s, 80.0 MiB/s (1 fetched): out"),
        (
            FileCounts(listed=9, fetched=1, kept=2, same=3, failed=4, size=5),
            "9 files, 5 B verified in 1.23 s, 80.0 MiB/s (1 fetched, 2 kept, 3 verified on disk, 4 failed): out",
        ),
        (FileCounts(listed=9, kept=8, same=1), "out: already up to date: 9 files (8 kept, 1 verified on disk)"),
        (FileCounts(), "out: no files to fetch"),
    ],
)
def test_the_result_is_one_line(counts: FileCounts, expected: str) -> None:
    assert files_result(replace(REPORT, counts=counts)) == expected


def test_nothing_is_up_to_date_if_something_failed() -> None:
    counts = FileCounts(listed=9, kept=8, failed=1)
    report = replace(REPORT, counts=counts, errors=ERRORS, rate=0.0)
    assert files_result(report) == "9 files (0 fetched, 8 kept, 1 failed): out"
    report = replace(report, counts=FileCounts(listed=9, kept=9))
    assert files_result(report) == "9 files (0 fetched, 9 kept): out", "a folder failed"


def test_bytes_that_were_on_the_disk_are_not_called_received() -> None:
    report = replace(REPORT, reused_bytes=5 * MIB, zero_bytes=2 * MIB)
    assert files_result(report).endswith("(9,990 fetched, 13 kept, 3.0 MiB reused from disk): out")
    report = replace(REPORT, reused_bytes=2 * MIB, zero_bytes=2 * MIB)
    assert files_result(report).endswith("(9,990 fetched, 13 kept): out")


def test_what_came_from_peers_and_what_was_passed_on_is_said() -> None:
    workers = {
        "1": WorkerReport(MIB),
        "peer 1": WorkerReport(2 * MIB),
        "peer 2": WorkerReport(MIB),
        "peer 3": WorkerReport(),
    }
    line = files_result(replace(REPORT, workers=workers, passed_on_bytes=5 * MIB))
    assert line.endswith("(9,990 fetched, 13 kept, 3.0 MiB from 2 peers): out, 5.0 MiB passed on")
    unchanged = replace(REPORT, counts=FileCounts(listed=3, kept=3), passed_on_bytes=5 * MIB)
    assert files_result(unchanged) == "out: already up to date: 3 files (3 kept), 5.0 MiB passed on"


def test_a_dry_run_lists_what_would_be_fetched_and_why() -> None:
    wanted = [FileResult("a\x1b", Outcome.MISSING, 5 * MIB), FileResult("b c", Outcome.DIFFERS, 7)]
    counts = FileCounts(listed=4, kept=1, failed=1)
    report = replace(REPORT, counts=counts, dry_run=True, wanted=wanted, errors=ERRORS)
    assert files_result(report).splitlines() == [
        r"   5.0 MiB  missing  a\x1b",
        "       7 B  differs  b c",
        "2 of 4 files would be fetched, 5.0 MiB (1 missing, 1 differs, 1 kept, 1 failed): out",
    ]
    report = replace(REPORT, counts=FileCounts(listed=4, kept=4), dry_run=True)
    assert files_result(report) == "4 files, nothing to fetch (4 kept): out"
