"""The output of ``msd download --json`` matches its description in docs/events.md, key by key."""

from __future__ import annotations

import random
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.processes import MIB, Download, Serve, Source, make_file, run_msd, wait_for

DOCUMENT = Path(__file__).parents[2] / "docs" / "events.md"
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "object": (dict,), "boolean": (bool,), "array": (list,)
}  # fmt: skip


def documented() -> dict[str, dict[str, str]]:
    """Returns the keys of each event and their types from the tables of the document."""
    events: dict[str, dict[str, str]] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            keys = events[line.removeprefix("## ")] = {}
        elif row := re.match(r"\| (`[^|]+`) \| (\w+) \|", line):
            keys.update(dict.fromkeys(re.findall(r"`(\w+)`", row[1]), row[2]))
    return events


def check(event: dict[str, Any]) -> None:
    """Checks that an event has exactly the documented keys, with values of the documented types."""
    keys = documented()[event["event"]]
    if event["event"] == "progress" and "files" not in event:
        # A download of a single file.
        del keys["files"]
    assert event.keys() - {"at"} == keys.keys(), event
    for key, kind in keys.items():
        assert isinstance(event[key], TYPES[kind]), (key, event)
        assert kind == "boolean" or not isinstance(event[key], bool), (key, event)


def documented_values(event: str, key: str) -> set[str]:
    """Returns the backquoted names in the document's row for ``key``: its possible values, or the object's keys."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"\n## {event}\n")[1].split("\n## ")[0]
    row = next(line for line in section.splitlines() if line.startswith(f"| `{key}` "))
    return set(re.findall(r"`([\w -]+)`", row)) - {key}


@pytest.fixture
def events(serve: Serve, source: Source, tmp_path: Path) -> list[dict[str, Any]]:
    """Events of a download: a worker is killed, all workers sleep, the client waits, is interrupted, and resumes."""
    system = serve(source(24 * MIB), "--rate", "3MiB")
    copy = str(tmp_path / "copy")
    with system.download("-o", copy) as download:
        download.wait_until_verified(0.2)
        system.kill(3)
        system.put_to_sleep(1, 2, 3, 4)
        wait_for("the client to wait", lambda: download.events_of("waiting"))
        system.wake(1, 2, 3, 4)
        download.wait_until_verified(0.7)
        download.signal(signal.SIGINT)
        assert download.wait() == 130
        events = download.events
    with system.download("-o", copy) as download:
        download.wait_until_done()
        return events + download.events


def test_real_events_have_the_documented_keys(events: list[dict[str, Any]]) -> None:
    assert {event["event"] for event in events} >= {"start", "progress", "worker", "waiting", "error", "done"}
    for event in events:
        check(event)
    for start in (event for event in events if event["event"] == "start"):
        assert start["version"] == 2
    for event in events:
        if event["event"] == "worker":
            assert event["state"] in documented_values("worker", "state")
        elif event["event"] == "retry":
            assert event["cause"] in documented_values("retry", "cause")
    progress = next(event for event in events if event["event"] == "progress")
    assert {*progress["workers"]["1"]} == documented_values("progress", "workers") - {"bytes"}
    done = events[-1]
    assert {*done["workers"]["1"]} == documented_values("done", "workers")


def test_the_events_for_a_changed_file_match_the_document(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(8 * MIB)
    with serve(path, "--rate", "4MiB", workers=1).download("-o", str(tmp_path / "copy")) as download:
        download.wait_until_verified(0.1)
        path.write_bytes(bytes(7 * MIB))
        download.wait_until_done()
        assert len(download.events_of("changed")) == 1
        retries = download.events_of("retry")
        assert retries
        for event in download.events:
            check(event)
        assert {event["cause"] for event in retries} <= documented_values("retry", "cause")


def test_the_events_of_several_files_match_the_document(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    shared = tmp_path / "shared"
    for name, size in {"a/1": 10, "a/2": 20, "a/film": 4 * MIB, "b": 30}.items():
        make_file(shared / name, size, rng)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "b").write_text("mine")
    system = serve(shared, "--rate", "2MiB", workers=1)
    with system.download("a/", "b", "nothing", "-o", str(copy)) as download:
        assert download.wait() == 2
        events = download.events
    for event in events:
        check(event)
        assert event["event"] != "progress" or {*event["files"]} == documented_values("progress", "files") - {
            "file",
            "bytes",
            "total",
        }
    assert [event["event"] for event in (events[0], events[-2], events[-1])] == ["selection", "summary", "error"]
    assert (events[0]["version"], events[-1]["code"]) == (2, 2)
    results = {event["file"]: event["outcome"] for event in download.events_of("file")}
    fetched = dict.fromkeys(("a/1", "a/2", "a/film"), "fetched")
    assert results == {**fetched, "b": "failed", "nothing": "failed"}
    assert {*results.values()} <= documented_values("file", "outcome")
    assert any(event["files"]["in_flight"] for event in download.events_of("progress"))
    summary = events[-2]
    assert {*summary["files"]} == documented_values("summary", "files") - {"progress"}
    assert [set(error) for error in summary["errors"]] == [documented_values("summary", "errors")] * 2


@pytest.mark.parametrize("arguments", ["-i 0", "--frobnicate", "-p 1 1"])
def test_a_usage_error_prints_one_error_event(arguments: str) -> None:
    ended = run_msd("download", "--json", *arguments.split())
    (event,) = Download.parse(ended.stdout)
    check(event)
    assert (event["event"], event["code"]) == ("error", ended.returncode)
