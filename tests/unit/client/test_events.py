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
    Hashing,
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

PROGRESS = Progress(5, 10, 2, 1, 1.0, 3.0, (WorkerProgress("1", 3, 4, 3.0),))
EVENTS: list[Event] = [
    Started("film.mp4", Path("copy.mp4"), "ab" * 32, 10, 2),
    PROGRESS,
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


def test_events_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        EVENTS[4].reason = "other"  # type: ignore[misc, union-attr]
