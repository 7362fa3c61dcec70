"""Every event of a download has a JSON form, documented in docs/events.md, and a text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import replace

from msd.client.display.printers import event_lines, log_entry
from msd.client.events import (
    Event,
    FileChanged,
    FileCounts,
    FileProgress,
    FileResult,
    FilesProgress,
    FilesStarted,
    Hashing,
    Outcome,
    Progress,
    Retried,
    Started,
    Syncing,
    Waiting,
    Warned,
    WorkerChanged,
    WorkerProgress,
)
from msd.client.report.json_values import event_values
from msd.wire.errors import DiskError

PROGRESS = Progress(5, 10, 2, 1, 1.0, 3.0, (WorkerProgress("1", 3, 4, 3.0),))
FILES = FilesProgress(FileCounts(listed=3, kept=1), is_listed=False, in_flight=(FileProgress("film.mp4", 5, 10),))
EVENTS: list[Event] = [
    Started("film.mp4", Path("copy.mp4"), "ab" * 32, 10, 2),
    FilesStarted(("films/",), ("*.tmp",), Path("out")),
    replace(PROGRESS, files=FILES),
    FileResult("film.mp4", Outcome.FAILED, error=DiskError("out/film.mp4 exists")),
    FileChanged("film.mp4", 1, "cd" * 32, 11, 2, 5),
    WorkerChanged("1", "lost", "1 segment reassigned", 1),
    Waiting("0 of 4 workers alive", 1.5),
    Warned("copy is complete, but its folder cannot be synced"),
    Retried("1", 1, "corrupt"),
    Hashing(),
    Syncing(),
]
DOCUMENT = Path(__file__).parents[3] / "docs" / "events.md"


def documented_keys(event: str) -> set[str]:
    """Returns the keys listed in the table for ``event`` in docs/events.md."""
    (section,) = re.findall(rf"^## {event}\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.M | re.S)
    return {key for cell in re.findall(r"^\| (`.*?`) \|", section, re.M) for key in re.findall(r"`(\w+)`", cell)}


def test_there_is_an_example_of_every_event() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_has_the_documented_json_keys(event: Event) -> None:
    values = event_values(event)
    assert values.keys() == documented_keys(str(values["event"]))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_has_a_text_and_a_log_entry(event: Event) -> None:
    assert event_lines(event)
    assert all(log_entry(event))


def test_the_current_rate_is_the_sum_of_the_rates_of_the_workers() -> None:
    workers = (WorkerProgress("1", 13, 14, 5.0), WorkerProgress("2", 5, 5, 2.5))
    assert replace(PROGRESS, workers=workers).current_rate == 7.5


@pytest.mark.parametrize(
    ("counts", "is_listed", "is_complete"),
    [
        (FileCounts(), False, False),
        (FileCounts(listed=4, fetched=1, kept=1, same=1, failed=1), False, False),
        (FileCounts(listed=4, fetched=1, kept=1, same=1, failed=1), True, True),
        (FileCounts(listed=4, fetched=1, kept=1, same=1), True, False),
    ],
)
def test_a_download_of_files_is_complete_once_each_is_in_place_or_failed(
    counts: FileCounts, is_listed: bool, is_complete: bool
) -> None:
    assert FilesProgress(counts, is_listed, ()).is_complete is is_complete
    assert replace(PROGRESS, bytes=10, files=FilesProgress(counts, is_listed, ())).is_complete is is_complete


def test_events_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        EVENTS[-1].reason = "other"  # type: ignore[misc, union-attr]
