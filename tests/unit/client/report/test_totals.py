"""What a download sums up at its end, and the log that its report keeps."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.client.events import (
    Event,
    Progress,
    Retried,
    Sampled,
    Started,
    Syncing,
    Waiting,
    WorkerChanged,
    WorkerProgress,
)
from msd.client.report import event_log
from msd.client.report.event_log import EventRecorder
from msd.client.report.totals import RunningTotals, Totals

MIB = 1 << 20
STARTED = Started("film", Path("film"), "ab" * 32, 100 * MIB, 100)


def sample(seconds: float, received: float, reused: int = 0) -> Sampled:
    """So many bytes came over the network by then."""
    size = int(received)
    worker = WorkerProgress("1", size, size, 0.0)
    return Sampled(Progress(size + reused, 100 * MIB, reused, seconds, 0.0, (worker,)))


def summed(*events: tuple[float, Event], end: float | None = None) -> Totals:
    """The totals of a download in which these events happen at these times."""
    summary = RunningTotals()
    for now, event in events:
        summary.take(event, 1000 + now)
    return summary.totals(1000 + (events[-1][0] if end is None else end))


def steady(rate: float, begin: float, end: float, before: float = 0.0) -> list[tuple[float, Event]]:
    """Samples of a time in which data flows."""
    steps = round((end - begin) * 10)
    return [(begin + n / 10, sample(begin + n / 10, before + rate * n / 10)) for n in range(1, steps + 1)]


# Retries.


def test_of_nothing_there_is_nothing_to_sum_up() -> None:
    assert RunningTotals().totals(5.0) == Totals()


def test_retries_are_counted_by_cause() -> None:
    causes = ["sleeping", "corrupt", "sleeping"]
    totals = summed(*[(1.0, Retried("1", n, cause)) for n, cause in enumerate(causes)])
    assert totals.retries == {"corrupt": 1, "sleeping": 2}


def test_segments_of_a_lost_connection_are_retries_of_their_own() -> None:
    lost = [(1.0, WorkerChanged("1", "lost", "3 segments go to others", 3)), (2.0, WorkerChanged("2", "lost"))]
    assert summed(*lost, (3.0, WorkerChanged("1", "dead"))).retries == {"lost": 3}


# Waiting.


def test_a_wait_counts_from_when_nothing_moved_to_when_something_does() -> None:
    totals = summed((1.0, sample(1.0, MIB)), (3.0, Waiting("why", 1.5)), (5.0, sample(5.0, 2 * MIB)), end=9.0)
    assert totals.waited_seconds == pytest.approx(3.5)


def test_a_sample_of_nothing_new_does_not_end_a_wait() -> None:
    totals = summed((1.0, sample(1.0, MIB)), (3.0, Waiting("why", 1.0)), (4.0, sample(4.0, MIB)), end=6.0)
    assert totals.waited_seconds == pytest.approx(4.0)


def test_another_reason_is_no_other_wait() -> None:
    totals = summed((2.0, Waiting("one", 1.0)), (4.0, Waiting("another", 3.0)), (5.0, sample(5.0, MIB)))
    assert totals.waited_seconds == pytest.approx(4.0)


def test_looking_for_the_servers_is_waiting_until_the_file_is_known() -> None:
    totals = summed((1.0, Waiting("nobody answers", 1.0)), (7.0, STARTED), (7.1, sample(0.1, MIB)), end=20.0)
    assert totals.waited_seconds == pytest.approx(7.0)


def test_waits_add_up() -> None:
    totals = summed(
        (2.0, Waiting("why", 1.0)),
        (3.0, sample(3.0, MIB)),
        (6.0, Waiting("why", 1.0)),
        (8.0, sample(8.0, 2 * MIB)),
    )
    assert totals.waited_seconds == pytest.approx(5.0)


# Rates.


def test_the_peak_is_the_best_second_and_the_median_that_of_all() -> None:
    slow = steady(MIB, 0, 3)
    fast = steady(4 * MIB, 3, 4, 3 * MIB)
    again = steady(MIB, 4, 7, 7 * MIB)
    totals = summed(*slow, *fast, *again)
    # A second does not end exactly where a rate does.
    assert totals.rate_peak == pytest.approx(4 * MIB, rel=0.4)
    assert totals.rate_p50 == pytest.approx(MIB, rel=0.01)


def test_the_median_of_two_seconds_lies_between_them() -> None:
    totals = summed(*steady(MIB, 0, 1), *steady(3 * MIB, 1, 2, MIB))
    assert totals.rate_p50 == pytest.approx(2 * MIB, rel=0.2)
    assert totals.rate_peak > 1.2 * totals.rate_p50


def test_a_second_in_which_nothing_came_has_no_rate() -> None:
    totals = summed(*steady(MIB, 0, 2), *steady(0, 2, 9, 2 * MIB), *steady(MIB, 9, 10, 2 * MIB))
    assert totals.rate_p50 == pytest.approx(MIB, rel=0.15)


def test_a_download_of_less_than_a_second_has_the_rate_of_all_of_it() -> None:
    totals = summed((0.1, sample(0.1, MIB)), (0.2, sample(0.2, 3 * MIB)))
    assert totals.rate_p50 == totals.rate_peak == pytest.approx(15 * MIB)


def test_a_last_moment_makes_no_peak() -> None:
    totals = summed(*steady(MIB, 0, 3), (3.15, sample(3.15, 4 * MIB)))
    assert totals.rate_peak == pytest.approx(MIB, rel=0.15)


def test_what_the_disk_had_is_no_rate() -> None:
    assert summed((0.5, sample(0.5, 0, reused=50 * MIB)), (1.5, sample(1.5, 0, reused=90 * MIB))) == Totals()


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 10 * MIB)), max_size=30))
def test_a_median_is_never_above_the_peak_nor_the_peak_above_what_came(steps: list[tuple[float, int]]) -> None:
    summary = RunningTotals()
    seconds, received = 0.0, 0
    for span, size in steps:
        seconds, received = seconds + span, received + size
        summary.take(sample(seconds, received), seconds)
    totals = summary.totals(seconds)
    assert 0 <= totals.rate_p50 <= totals.rate_peak
    assert math.isfinite(totals.rate_peak)
    assert (totals.rate_peak > 0) == (received > 0)


# The log.


def kept(recording: EventRecorder, kind: str) -> list[Any]:
    return [entry["at"] for entry in recording.entries() if entry["event"] == kind]


def test_the_log_has_every_event_with_its_time_in_order() -> None:
    recording = EventRecorder()
    recording.take(STARTED, 0.25)
    recording.take(sample(0.1, MIB), 0.35)
    recording.take(Retried("2", 7, "corrupt"), 0.4)
    recording.take(sample(0.2, 2 * MIB), 0.45)
    recording.take(Syncing(), 0.5)
    entries = recording.entries()
    assert [(entry["at"], entry["event"]) for entry in entries] == [
        (0.25, "start"),
        (0.35, "progress"),
        (0.4, "retry"),
        (0.45, "progress"),
        (0.5, "waiting"),
    ]
    assert entries[2] == {"at": 0.4, "event": "retry", "worker": "2", "segment": 7, "cause": "corrupt", "detail": ""}


def test_progress_as_often_as_it_was_asked_for_is_not_logged() -> None:
    recording = EventRecorder()
    recording.take(sample(0.1, MIB).progress, 0.1)
    assert recording.entries() == []


def test_too_many_samples_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MAX_SAMPLES", 100)
    recording = EventRecorder()
    for number in range(1, 12_346):
        recording.take(sample(number, number), number)
    times = kept(recording, "progress")
    assert 50 <= len(times) <= 101
    assert times[-1] == 12_345
    gaps = {after - before for before, after in pairwise(times[:-1])}
    assert len(gaps) == 1


def test_of_too_many_other_events_the_newest_are_kept() -> None:
    recording = EventRecorder()
    for number in range(event_log.MAX_EVENTS + 5):
        recording.take(Retried("1", number, "busy"), number)
    times = kept(recording, "retry")
    assert (len(times), times[0]) == (event_log.MAX_EVENTS, 5)
