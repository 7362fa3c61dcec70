"""The content of a chart: rates, verified bytes and marks, computed from the events of a report."""

from __future__ import annotations

from typing import Any

import pytest

from msd.client.report.chart_data import (
    AWAKE,
    CORRUPT,
    MAX_MARKS,
    MAX_POINTS,
    RECOVERED,
    NothingTransferredError,
    chart_data,
)

MB = 10**6


def progress(at: float, *received: int, reused: int = 0, total: int = 100 * MB) -> dict[str, Any]:
    workers = {str(n): {"received": size, "assigned": size, "rate": 0} for n, size in enumerate(received, 1)}
    size = sum(received) + reused
    return {"at": at, "event": "progress", "bytes": size, "total": total, "reused_bytes": reused, "workers": workers}


def worker(at: float, name: str, state: str) -> dict[str, Any]:
    return {"at": at, "event": "worker", "name": name, "state": state, "detail": ""}


def corrupt(at: float, name: str) -> dict[str, Any]:
    return {"at": at, "event": "retry", "worker": name, "segment": 1, "cause": "corrupt", "detail": ""}


def steady(seconds: int, *rates: int, reused: int = 0) -> list[dict[str, Any]]:
    """Returns ten progress events per second for workers that deliver at constant rates (in bytes per second)."""
    return [progress(n / 10, *(rate * n // 10 for rate in rates), reused=reused) for n in range(1, seconds * 10 + 1)]


def marks(*events: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the worker and the kind of each mark in the chart of a 100 s download with these events."""
    data = chart_data([*steady(100, MB), *events])
    return [(mark.worker, mark.kind) for mark in data.marks]


def test_the_rates_are_those_of_the_workers() -> None:
    data = chart_data(steady(20, MB, 3 * MB))
    assert (data.times[0], data.times[-1]) == (0, 20)
    assert [*data.rates["1"]] == pytest.approx([MB] * len(data.times), rel=0.01)
    assert [*data.rates["2"]] == pytest.approx([3 * MB] * len(data.times), rel=0.01)
    assert data.received["2"][-1] == 60 * MB


def test_the_bytes_of_a_segment_are_spread_over_the_time_before_its_arrival() -> None:
    """One segment of 1 MB every half second is drawn as a steady 2 MB/s."""
    data = chart_data([progress(n / 10, MB * (n // 5)) for n in range(1, 101)])
    assert [*data.rates["1"]][10:-10] == pytest.approx([2 * MB] * (len(data.times) - 20), rel=0.05)


def test_no_bytes_are_spread_over_the_time_of_a_lost_connection() -> None:
    """The connection is lost from 4 s to 6 s; the next segment arrives half a second later."""
    before = [progress(n / 10, MB * n // 10) for n in range(1, 41)]
    after = [progress(6.5 + n / 10, 4 * MB + MB * (n + 5) // 10) for n in range(41)]
    data = chart_data([*before, worker(4, "1", "lost"), worker(6, "1", "ready"), *after])
    while_lost = [rate for time, rate in zip(data.times, data.rates["1"], strict=True) if 4.4 < time < 5.6]
    assert while_lost
    assert not any(while_lost)


def test_reused_bytes_do_not_count_in_the_rates() -> None:
    data = chart_data(steady(5, MB, reused=50 * MB))
    assert data.reused[-1] == 50 * MB
    assert max(data.rates["1"]) < 2 * MB
    assert data.total == 100 * MB


def test_a_worker_that_is_put_to_sleep_and_woken_up() -> None:
    asleep = [worker(30, "1", "asleep"), worker(30.3, "1", "lost")]
    assert marks(worker(0.1, "1", "ready"), *asleep, worker(50, "1", "ready")) == [("1", "asleep"), ("1", AWAKE)]


def test_a_worker_that_dies_and_is_restarted() -> None:
    """The connection is lost before server 5 reports the reason: the chart has one mark, at the earlier time."""
    events = [worker(30, "2", "lost"), worker(30.2, "2", "dead"), worker(31, "2", "ready")]
    assert marks(*events) == [("2", "died"), ("2", RECOVERED)]


def test_a_worker_that_freezes_and_is_killed() -> None:
    frozen = [worker(10, "1", "silent"), worker(70, "1", "dead"), worker(70.1, "1", "lost")]
    assert marks(*frozen, worker(72, "1", "ready")) == [("1", "silent"), ("1", "died"), ("1", RECOVERED)]


def test_a_connection_that_is_lost_for_an_unknown_reason() -> None:
    assert marks(worker(30, "1", "lost"), worker(31, "1", "ready")) == [("1", "connection lost"), ("1", RECOVERED)]


def test_a_worker_that_sends_corrupt_segments_until_it_is_banned() -> None:
    assert marks(corrupt(10, "1"), corrupt(20, "1"), corrupt(30, "1"), worker(30, "1", "set aside")) == [
        *[("1", CORRUPT)] * 3,
        ("1", "set aside"),
    ]


def test_equal_events_at_almost_the_same_time_are_one_mark() -> None:
    assert marks(*(corrupt(10 + n / 1000, "1") for n in range(50))) == [("1", CORRUPT)]


def test_server_5_has_no_marks() -> None:
    assert marks(worker(10, "server 5", "lost"), worker(20, "server 5", "ready")) == []


def test_the_numbers_of_marks_and_points_are_limited() -> None:
    events = [
        event for n in range(10) for name in range(64) for event in (corrupt(n * 10, str(name)), progress(n * 10))
    ]
    data = chart_data([*events, *steady(100, *[MB] * 64)])
    assert len(data.marks) == MAX_MARKS
    assert data.omitted_marks > 0
    assert len(data.times) * 64 <= MAX_POINTS


def test_without_progress_there_is_nothing_to_draw() -> None:
    with pytest.raises(NothingTransferredError):
        chart_data([worker(1, "1", "ready")])


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1.0])
def test_an_invalid_time_is_an_error(at: float) -> None:
    with pytest.raises(ValueError, match="invalid time"):
        chart_data([progress(at, MB)])
