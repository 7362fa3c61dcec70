"""The picture of a run: what it shows, computed; and the files it is drawn into."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from msd.client.report.chart import SHAPES, plot
from msd.client.report.chart_data import MARKS, MAX_MARKS, MAX_POINTS, chart_data
from msd.wire.errors import DiskError, UsageError

MB = 10**6


def progress(at: float, *received: int, reused: int = 0, total: int = 100 * MB) -> dict[str, Any]:
    workers = {str(n): {"received": size, "assigned": size, "rate": 0} for n, size in enumerate(received, 1)}
    size = sum(received) + reused
    return {"at": at, "event": "progress", "bytes": size, "total": total, "reused_bytes": reused, "workers": workers}


def worker(at: float, name: str, state: str) -> dict[str, Any]:
    return {"at": at, "event": "worker", "name": name, "state": state, "detail": ""}


def lied(at: float, name: str) -> dict[str, Any]:
    return {"at": at, "event": "retry", "worker": name, "segment": 1, "cause": "corrupt", "detail": ""}


def steady(seconds: int, *rates: int, reused: int = 0) -> list[dict[str, Any]]:
    """Ten samples a second of workers that each deliver at one rate."""
    return [progress(n / 10, *(rate * n // 10 for rate in rates), reused=reused) for n in range(1, seconds * 10 + 1)]


def marks(*events: dict[str, Any]) -> list[tuple[str, str]]:
    """What is marked if these things happen under a download of 100 s, with its workers."""
    shown = chart_data([*steady(100, MB), *events])
    return [(mark.worker, mark.what) for mark in shown.marks]


# What it shows.


def test_the_rates_are_those_of_the_workers() -> None:
    shown = chart_data(steady(20, MB, 3 * MB))
    assert (shown.times[0], shown.times[-1]) == (0, 20)
    assert [*shown.rates["1"]] == pytest.approx([MB] * len(shown.times), rel=0.01)
    assert [*shown.rates["2"]] == pytest.approx([3 * MB] * len(shown.times), rel=0.01)
    assert shown.received["2"][-1] == 60 * MB


def test_a_segment_that_arrives_whole_was_on_its_way_before() -> None:
    """One segment of 1 MB in each half of a second is a steady rate."""
    shown = chart_data([progress(n / 10, MB * (n // 5)) for n in range(1, 101)])
    assert [*shown.rates["1"]][10:-10] == pytest.approx([2 * MB] * (len(shown.times) - 20), rel=0.05)


def test_nothing_is_on_its_way_from_a_worker_that_is_away() -> None:
    """Away from the 4th second to the 6th, it delivers half a second after it is back."""
    before = [progress(n / 10, MB * n // 10) for n in range(1, 41)]
    after = [progress(6.5 + n / 10, 4 * MB + MB * (n + 5) // 10) for n in range(41)]
    shown = chart_data([*before, worker(4, "1", "lost"), worker(6, "1", "ready"), *after])
    away = [rate for time, rate in zip(shown.times, shown.rates["1"], strict=True) if 4.4 < time < 5.6]
    assert away
    assert not any(away)


def test_what_the_disk_had_is_apart_from_the_rates() -> None:
    shown = chart_data(steady(5, MB, reused=50 * MB))
    assert shown.reused[-1] == 50 * MB
    assert max(shown.rates["1"]) < 2 * MB
    assert shown.total == 100 * MB


def test_a_worker_that_is_put_to_sleep_and_woken_up() -> None:
    away = [worker(30, "1", "asleep"), worker(30.3, "1", "lost")]
    assert marks(worker(0.1, "1", "ready"), *away, worker(50, "1", "ready")) == [("1", "slept"), ("1", "woke")]


def test_a_worker_that_dies_and_is_started_again() -> None:
    """The connection is lost before server 5 says why: that is one mark, at the earlier time."""
    events = [worker(30, "2", "lost"), worker(30.2, "2", "dead"), worker(31, "2", "ready")]
    assert marks(*events) == [("2", "died"), ("2", "came back")]


def test_a_worker_that_freezes_and_is_killed_for_it() -> None:
    frozen = [worker(10, "1", "silent"), worker(70, "1", "dead"), worker(70.1, "1", "lost")]
    assert marks(*frozen, worker(72, "1", "ready")) == [("1", "froze"), ("1", "died"), ("1", "came back")]


def test_a_connection_that_is_lost_for_no_known_reason() -> None:
    assert marks(worker(30, "1", "lost"), worker(31, "1", "ready")) == [("1", "lost"), ("1", "came back")]


def test_a_worker_that_lies_until_it_is_set_aside() -> None:
    assert marks(lied(10, "1"), lied(20, "1"), lied(30, "1"), worker(30, "1", "set aside")) == [
        *[("1", "lied")] * 3,
        ("1", "set aside"),
    ]


def test_what_happens_at_once_is_one_mark() -> None:
    assert marks(*(lied(10 + n / 1000, "1") for n in range(50))) == [("1", "lied")]


def test_server_5_has_no_row() -> None:
    assert marks(worker(10, "server 5", "lost"), worker(20, "server 5", "ready")) == []


def test_every_mark_has_a_shape_of_its_own() -> None:
    assert {*MARKS.values(), "woke", "came back", "lied"} == {*SHAPES}
    assert len({*SHAPES.values()}) == len(SHAPES)


def test_there_is_a_bound_to_what_is_shown() -> None:
    events = [event for n in range(10) for name in range(64) for event in (lied(n * 10, str(name)), progress(n * 10))]
    shown = chart_data([*events, *steady(100, *[MB] * 64)])
    assert len(shown.marks) == MAX_MARKS
    assert shown.left_out > 0
    assert len(shown.times) * 64 <= MAX_POINTS


# Its files.


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    events = [worker(2, "2", "asleep"), worker(4, "2", "ready"), lied(5, "1"), worker(6, "1", "set aside")]
    values = {"version": 1, "file": "Star $x_2$.mp4", "bytes": 50 * MB, "seconds": 8.0}
    return {**values, "events": [*steady(8, MB, 2 * MB, reused=5 * MB), *events]}


def draw(report: object, output: str) -> bytes:
    Path("report.json").write_text(json.dumps(report))
    plot("report.json", output)
    return Path(output).read_bytes()


@pytest.mark.parametrize(("name", "begin"), [("a.svg", b"<?xml"), ("a.png", b"\x89PNG"), ("A.PDF", b"%PDF")])
def test_the_name_says_which_kind_of_file(report: dict[str, Any], name: str, begin: bytes) -> None:
    assert draw(report, name).startswith(begin)
    assert {*os.listdir()} == {"report.json", name}


def test_the_same_report_makes_the_same_file(report: dict[str, Any]) -> None:
    first = draw(report, "one.svg")
    assert draw(report, "other.svg") == first
    assert b"<dc:date>" not in first
    ElementTree.fromstring(first)


def test_a_picture_of_the_worst_case_is_below_300_kb(report: dict[str, Any], rng: random.Random) -> None:
    totals = [0] * 64
    events = []
    for n in range(1, 501):
        totals = [total + rng.randrange(2 * MB) for total in totals]
        events.append(progress(n, *totals, total=1 << 40))
        events.append(worker(n, str(rng.randint(1, 64)), rng.choice(["ready", "asleep", "dead", "lost"])))
    assert len(draw({**report, "events": events}, "run.svg")) < 300_000


def test_a_download_that_failed_is_drawn_as_far_as_it_got(report: dict[str, Any]) -> None:
    error = {"code": 7, "message": "gave up after 3 s without progress"}
    assert draw({"version": 1, "error": error, "events": report["events"]}, "run.svg")


@pytest.mark.parametrize("output", ["run", "run.jpg", "run.svg.gz", ".svg"])
def test_any_other_name_is_wrong_use(report: dict[str, Any], output: str) -> None:
    with pytest.raises(UsageError, match=r"a picture is a file named \*\.svg, \*\.png, \*\.pdf"):
        draw(report, output)


def test_a_picture_needs_a_folder_and_replaces_none(report: dict[str, Any]) -> None:
    Path("folder.svg").mkdir()
    for output in ("missing/run.svg", "folder.svg"):
        with pytest.raises(UsageError, match="not a file in a folder that exists"):
            draw(report, output)


def test_a_picture_that_cannot_be_written_is_a_disk_error(
    report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msd.client.report.chart.replace_file", full)
    with pytest.raises(DiskError, match=r"run\.svg: cannot be written: No space"):
        draw(report, "run.svg")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no report of a download"),
        ("not JSON", "is no report"),
        ("[" * 100_000, "is no report"),
        ("[]", "is no report"),
        ("{}", "is no report"),
        ('{"version": "1", "events": []}', "is no report"),
        ('{"version": 1, "events": {}}', "is no report"),
        ('{"version": 1, "events": [1]}', "is no report"),
        ('{"version": 1, "events": [{}]}', "is no report"),
        ('{"version": 1, "file": "f", "events": [{"at": NaN, "event": "progress"}]}', "is no report"),
        ('{"version": 1, "events": [{"at": 1e999, "event": "progress"}]}', "is no report"),
        (json.dumps({"version": 1, "events": [progress(1, 5)]}), "is no report"),
        (json.dumps({"version": 1, "error": 1, "events": [progress(1, 5)]}), "is no report"),
        ('{"version": 1, "error": {"message": "m"}, "events": []}', "there is nothing to draw"),
        ('{"version": 2, "events": []}', "version 2, and this msd knows version 1: update it"),
        ('{"file": "f", "received_bytes": 5}', "an old report, without events"),
    ],
)
def test_what_is_no_report_is_told_in_one_line(report: dict[str, Any], text: str, says: str) -> None:
    Path("report.json").write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        plot("report.json", "run.svg")
    assert str(caught.value).startswith("report.json: ")
    assert "\n" not in str(caught.value)
    assert not Path("run.svg").exists()


def test_a_report_that_cannot_be_read_is_told(report: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"missing\.json: no such file; msd download --report FILE writes one"):
        plot("missing.json", "run.svg")
    with pytest.raises(UsageError, match=r"\.: cannot be read: Is a directory"):
        plot(".", "run.svg")
    Path("binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is no report"):
        plot("binary", "run.svg")


def test_without_matplotlib_it_is_said_what_to_install(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"^a chart needs matplotlib: .* install matplotlib$"):
        draw(report, "run.svg")


def test_a_download_loads_nothing_that_only_a_picture_needs() -> None:
    code = (
        "import sys, msd.client.operations.download, msd.client.report.report_file, msd.client.display.printers;"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "numpy", "prometheus_client", "textual", "msd.client.report.chart"} & {*loaded}
