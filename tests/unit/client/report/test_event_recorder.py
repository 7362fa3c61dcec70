"""The events in a report: they are in order, and only progress samples are thinned out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from msd.client.events import FileResult, Outcome, Retried, Syncing
from msd.client.report import event_recorder
from msd.client.report.event_recorder import EventRecorder
from msd.wire.errors import DiskError
from tests.unit.client.report.test_totals import MIB, STARTED, sample


def times_of(recorder: EventRecorder, kind: str) -> list[Any]:
    return [entry["at"] for entry in recorder.entries() if entry["event"] == kind]


def test_every_event_is_recorded_in_chronological_order() -> None:
    recorder = EventRecorder()
    recorder.handle(STARTED, 0.25)
    recorder.handle(sample(0.1, MIB), 0.35)
    recorder.handle(Retried("2", 7, "corrupt"), 0.4)
    recorder.handle(sample(0.2, 2 * MIB), 0.45)
    recorder.handle(Syncing(), 0.5)
    entries = recorder.entries()
    assert [(entry["at"], entry["event"]) for entry in entries] == [
        (0.25, "start"),
        (0.35, "progress"),
        (0.4, "retry"),
        (0.45, "progress"),
        (0.5, "waiting"),
    ]
    assert entries[2] == {"at": 0.4, "event": "retry", "worker": "2", "segment": 7, "cause": "corrupt", "detail": ""}


def test_of_the_results_for_files_only_failures_are_recorded() -> None:
    recorder = EventRecorder()
    for number in range(3):
        recorder.handle(FileResult(f"a/{number}", Outcome.FETCHED, 5), 0.1)
    recorder.handle(FileResult("b", Outcome.FAILED, error=DiskError("b: full", arguments=("output",))), 0.2)
    failure = {"outcome": "failed", "bytes": 0, "code": 6, "message": "b: full (-o)"}
    assert recorder.entries() == [{"at": 0.2, "event": "file", "file": "b", **failure}]


def test_too_many_samples_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_recorder, "MAX_SAMPLES", 100)
    recorder = EventRecorder()
    for number in range(1, 12_346):
        recorder.handle(sample(number, number), number)
    times = times_of(recorder, "progress")
    assert 50 <= len(times) <= 101
    assert times[-1] == 12_345
    gaps = {after - before for before, after in pairwise(times[:-1])}
    assert len(gaps) == 1


def test_if_there_are_too_many_other_events_the_newest_are_kept() -> None:
    recorder = EventRecorder()
    for number in range(event_recorder.MAX_EVENTS + 5):
        recorder.handle(Retried("1", number, "busy"), number)
    times = times_of(recorder, "retry")
    assert (len(times), times[0]) == (event_recorder.MAX_EVENTS, 5)
