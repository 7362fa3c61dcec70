"""How often a consumer receives progress."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from msd.client.events import Event, FileCounts, FilesProgress, Progress, Started, WorkerProgress
from msd.client.report.progress_throttle import ProgressThrottle

TOTAL = 1000


def passed(interval: float, *events: Event) -> list[Event]:
    """Returns the events that a throttle with this interval (in seconds) passes on."""
    result: list[Event] = []
    throttle = ProgressThrottle(result.append, interval)
    for event in events:
        throttle.handle(event)
    return result


def progress(seconds: float, received: int) -> Progress:
    return Progress(received, TOTAL, 0, 0, seconds, 1.0, (WorkerProgress("1", received, TOTAL, 7.0),))


def test_progress_passes_every_interval() -> None:
    events: list[Event] = [progress(step / 10, step * step) for step in range(1, 26)]
    assert passed(1.0, *events) == [events[9], events[19]]


def test_the_last_progress_always_passes() -> None:
    events: list[Event] = [progress(0.1, 10), progress(60.0, 600), progress(60.5, TOTAL)]
    assert passed(60.0, *events) == events[1:]


def test_the_last_progress_of_several_files_always_passes() -> None:
    def files(done: int) -> FilesProgress:
        return FilesProgress(FileCounts(listed=3, fetched=done), is_listed=True, in_flight=())

    events: list[Event] = [replace(progress(0.1 * done, TOTAL), files=files(done)) for done in range(1, 4)]
    assert passed(60.0, *events) == events[2:]


def test_an_interval_of_0_passes_everything() -> None:
    events: list[Event] = [progress(step / 10, step * 10) for step in range(1, 26)]
    assert passed(0.0, *events) == events


def test_other_events_pass_at_once() -> None:
    started = Started("film", Path("film"), "ab" * 32, TOTAL, 1)
    assert passed(60.0, started, progress(0.1, 10), started) == [started, started]
