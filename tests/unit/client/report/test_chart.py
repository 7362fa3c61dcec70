"""``msd plot``: the files it reads and writes."""

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
from msd.client.report.chart_data import AWAKE, CORRUPT, RECOVERED, STATE_MARKS
from msd.wire.errors import DiskError, UsageError
from tests.unit.client.report.test_chart_data import MB, corrupt, progress, steady, worker


def test_every_kind_of_mark_has_its_own_shape() -> None:
    assert {*STATE_MARKS.values(), AWAKE, RECOVERED, CORRUPT} == {*SHAPES}
    assert len({*SHAPES.values()}) == len(SHAPES)


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    events = [worker(2, "2", "asleep"), worker(4, "2", "ready"), corrupt(5, "1"), worker(6, "1", "set aside")]
    values = {"version": 1, "file": "Star $x_2$.mp4", "bytes": 50 * MB, "transfer_seconds": 7.98, "rate": 6 * MB}
    return {**values, "events": [*steady(8, MB, 2 * MB, reused=5 * MB), *events]}


def draw(report: object, output: str) -> bytes:
    Path("report.json").write_text(json.dumps(report))
    plot("report.json", output)
    return Path(output).read_bytes()


@pytest.mark.parametrize(("name", "magic"), [("a.svg", b"<?xml"), ("a.png", b"\x89PNG"), ("A.PDF", b"%PDF")])
def test_the_suffix_determines_the_file_format(report: dict[str, Any], name: str, magic: bytes) -> None:
    assert draw(report, name).startswith(magic)
    assert {*os.listdir()} == {"report.json", name}


def test_the_same_report_gives_the_same_file(report: dict[str, Any]) -> None:
    first = draw(report, "one.svg")
    assert draw(report, "other.svg") == first
    assert b"<dc:date>" not in first
    ElementTree.fromstring(first)


def test_the_chart_of_the_worst_case_is_below_300_kb(report: dict[str, Any], rng: random.Random) -> None:
    totals = [0] * 64
    events = []
    for n in range(1, 501):
        totals = [total + rng.randrange(2 * MB) for total in totals]
        events.append(progress(n, *totals, total=1 << 40))
        events.append(worker(n, str(rng.randint(1, 64)), rng.choice(["ready", "asleep", "dead", "lost"])))
    assert len(draw({**report, "events": events}, "run.svg")) < 300_000


def test_the_title_of_several_files_has_their_number(report: dict[str, Any]) -> None:
    del report["file"]
    drawn = draw({**report, "files": {"listed": 1234}}, "run.svg").decode()
    assert "<!-- 1,234 files: 47.7 MiB verified in 7.98 s, 5.7 MiB/s -->" in drawn


@pytest.mark.parametrize(
    ("size", "rate", "units"),
    [(90, 9, ("B", "B")), (40 * MB, 2 * MB, ("MiB", "MiB")), (90_000 * MB, MB, ("GiB", "KiB"))],
)
def test_each_axis_has_one_unit(report: dict[str, Any], size: int, rate: int, units: tuple[str, str]) -> None:
    events = [progress(n, size * n // 8, total=size, rates=(rate,) * 64) for n in range(1, 9)]
    drawn = draw({**report, "events": events}, "run.svg").decode()
    assert f"<!-- verified, {units[0]} -->" in drawn
    assert f"<!-- rate, {units[1]}/s -->" in drawn


def test_of_many_workers_only_those_with_marks_have_a_row(report: dict[str, Any]) -> None:
    events = [*steady(8, *[MB] * 64), worker(3, "17", "asleep")]
    drawn = draw({**report, "events": events}, "run.svg").decode()
    assert "<!-- worker 17: 7.6 MiB -->" in drawn
    assert "<!-- 57 other workers: 435 MiB -->" in drawn
    assert "<!-- 17 -->" in drawn
    assert "<!-- 18 -->" not in drawn


def test_the_panel_of_the_workers_is_left_out_if_it_would_be_empty(report: dict[str, Any]) -> None:
    assert "<!-- worker -->" in draw(report, "run.svg").decode()
    assert "<!-- worker -->" not in draw({**report, "events": steady(8, MB)}, "run.svg").decode()


def test_a_failed_download_is_drawn_up_to_its_end(report: dict[str, Any]) -> None:
    error = {"code": 7, "message": "gave up after 3 s without progress"}
    assert draw({"version": 1, "error": error, "events": report["events"]}, "run.svg")


@pytest.mark.parametrize("output", ["run", "run.jpg", "run.svg.gz", ".svg"])
def test_any_other_suffix_is_a_usage_error(report: dict[str, Any], output: str) -> None:
    with pytest.raises(UsageError, match=r"the file name must end in \.svg or \.png or \.pdf"):
        draw(report, output)


def test_a_chart_needs_an_existing_folder_and_does_not_replace_one(report: dict[str, Any]) -> None:
    Path("folder.svg").mkdir()
    for output in ("missing/run.svg", "folder.svg"):
        with pytest.raises(UsageError, match="must be a file in an existing folder"):
            draw(report, output)


def test_a_chart_that_cannot_be_written_is_a_disk_error(
    report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msd.client.report.chart.write_file", full)
    with pytest.raises(DiskError, match=r"run\.svg: cannot be written: No space"):
        draw(report, "run.svg")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a download report"),
        ("not JSON", "is not a download report"),
        ("[" * 100_000, "is not a download report"),
        ("[]", "is not a download report"),
        ("{}", "is not a download report"),
        ('{"version": "1", "events": []}', "is not a download report"),
        ('{"version": 1, "events": {}}', "is not a download report"),
        ('{"version": 1, "events": [1]}', "is not a download report"),
        ('{"version": 1, "events": [{}]}', "is not a download report"),
        ('{"version": 1, "file": "f", "events": [{"at": NaN, "event": "progress"}]}', "is not a download report"),
        ('{"version": 1, "events": [{"at": 1e999, "event": "progress"}]}', "is not a download report"),
        (json.dumps({"version": 1, "events": [progress(1, 5)]}), "is not a download report"),
        (json.dumps({"version": 1, "error": 1, "events": [progress(1, 5)]}), "is not a download report"),
        (
            '{"version": 1, "error": {"message": "m"}, "events": []}',
            "nothing to draw: the download transferred nothing",
        ),
        ('{"version": 2, "events": []}', "is a version 2 report, but this msd supports only version 1: update msd"),
        ('{"file": "f", "received_bytes": 5}', "is an old report without events: write a new one"),
    ],
)
def test_an_invalid_report_gives_a_message_of_one_line(report: dict[str, Any], text: str, message: str) -> None:
    Path("report.json").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        plot("report.json", "run.svg")
    assert str(caught.value).startswith("report.json")
    assert "\n" not in str(caught.value)
    assert not Path("run.svg").exists()


def test_an_unreadable_report_is_a_usage_error(report: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"missing\.json: no such file: msd download --report FILE writes one"):
        plot("missing.json", "run.svg")
    with pytest.raises(UsageError, match=r"\.: cannot be read: Is a directory"):
        plot(".", "run.svg")
    Path("binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not a download report"):
        plot("binary", "run.svg")


def test_without_matplotlib_the_message_says_what_to_install(
    report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"^a chart needs matplotlib: .* install matplotlib$"):
        draw(report, "run.svg")


def test_a_download_does_not_import_the_modules_of_a_chart() -> None:
    code = (
        "import sys, msd.client.operations.download, msd.client.report.report_file, msd.client.display.printers;"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "numpy", "prometheus_client", "textual", "msd.client.report.chart"} & {*loaded}
