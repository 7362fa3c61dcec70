"""The content of a chart: rates, verified bytes and marks, computed from the events of a report."""

from __future__ import annotations

from typing import Any

import pytest

from msd.client.report.chart_data import (
    AWAKE,
    CORRUPT,
    MAX_BANDS,
    MAX_MARKS,
    MAX_POINTS,
    MAX_TURNS,
    OTHERS,
    PEERS,
    RECOVERED,
    NothingTransferredError,
    chart_data,
)

MB = 10**6


def progress(
    at: float, *received: int, reused: int = 0, total: int = 100 * MB, rates: tuple[int, ...] = (0,) * 64
) -> dict[str, Any]:
    """The progress at ``at``; the first request was sent at 0."""
    workers = {
        str(n): {"received": size, "assigned": size, "rate": rate}
        for n, (size, rate) in enumerate(zip(received, rates, strict=False), 1)
    }
    values = {"bytes": sum(received) + reused, "total": total, "reused_bytes": reused, "workers": workers}
    return {"at": at, "event": "progress", "seconds": at, **values}


def worker(at: float, name: str, state: str) -> dict[str, Any]:
    return {"at": at, "event": "worker", "name": name, "state": state, "detail": ""}


def corrupt(at: float, name: str) -> dict[str, Any]:
    return {"at": at, "event": "retry", "worker": name, "segment": 1, "cause": "corrupt", "detail": ""}


def steady(seconds: int, *rates: int, reused: int = 0) -> list[dict[str, Any]]:
    """Returns ten progress events per second for workers that deliver at constant rates (in bytes per second)."""
    return [
        progress(n / 10, *(rate * n // 10 for rate in rates), reused=reused, rates=rates)
        for n in range(1, seconds * 10 + 1)
    ]


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


def test_the_highest_point_is_the_peak_rate_of_the_report() -> None:
    """A rate that only one of 1000 samples has, and the burst at the start, which is no peak."""
    events = steady(100, MB)
    events[5] = progress(0.6, MB, rates=(9 * MB,))
    events[777] = progress(77.8, 78 * MB, rates=(3 * MB,))
    assert max(chart_data(events).rates["1"]) == 3 * MB


def test_a_download_shorter_than_the_window_has_its_last_rate() -> None:
    data = chart_data([progress(0.1, MB, rates=(10 * MB,)), progress(0.2, 3 * MB, rates=(15 * MB,))])
    assert {*data.rates["1"]} == {15 * MB}


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
    assert (len(data.times) - 2 * MAX_TURNS) * len(data.rates) <= MAX_POINTS


def test_the_curves_turn_at_the_marks() -> None:
    """However few points they have elsewhere."""
    events = [progress(n / 10, n * MB, rates=(MB if n < 333 else 0,) * 64) for n in range(1, 10_001)]
    data = chart_data([*events, worker(33.25, "1", "asleep")])
    assert data.times[1] >= 1
    before, after = (data.times.index(at) for at in (33.2, 33.3))
    assert after == before + 1
    assert (data.rates["1"][before], data.rates["1"][after]) == (MB, 0)


def test_workers_that_send_least_share_a_band_unless_they_have_marks() -> None:
    rates = [MB * n for n in range(1, 65)]
    events = [*steady(10, *rates), worker(5, "3", "asleep")]
    data = chart_data(events)
    own = ["3", *(str(n) for n in range(65 - (MAX_BANDS - 2), 65))]
    assert [*data.rates] == [*data.received] == [*own, OTHERS]
    assert data.labels == {**{name: f"worker {name}" for name in own}, OTHERS: "57 other workers"}
    assert data.bands["1"] == OTHERS
    assert data.bands["64"] == "64"
    assert sum(sizes[-1] for sizes in data.received.values()) == sum(rates) * 10
    assert sum(each[-1] for each in data.rates.values()) == sum(rates)
    assert len(chart_data(steady(10, *rates[:MAX_BANDS])).rates) == MAX_BANDS


def test_all_peers_share_a_band() -> None:
    events = steady(10, MB, MB)
    for event in events:
        for name in ("peer 1", "peer 17"):
            event["workers"][name] = {"received": 2 * event["workers"]["1"]["received"], "assigned": 0, "rate": 2 * MB}
        event["workers"]["peer 18"] = {"received": 0, "assigned": 9, "rate": 0}
    data = chart_data([*events, worker(3, "peer 17", "set aside")])
    assert data.labels == {"1": "worker 1", "2": "worker 2", PEERS: "2 peers"}
    assert (data.received[PEERS][-1], data.rates[PEERS][-1]) == (40 * MB, 4 * MB)
    assert data.marks == []


def test_without_progress_there_is_nothing_to_draw() -> None:
    with pytest.raises(NothingTransferredError):
        chart_data([worker(1, "1", "ready")])


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1.0])
def test_an_invalid_time_is_an_error(at: float) -> None:
    with pytest.raises(ValueError, match="invalid time"):
        chart_data([progress(at, MB)])


def test_all_peers_are_one_curve() -> None:
    events = steady(20, MB, MB)
    for event in events:
        event["workers"] |= {f"peer {number}": event["workers"]["1"] for number in range(1, 300)}
    data = chart_data(events)
    assert [*data.received] == ["1", "2", "peers"]
    assert data.received["peers"][-1] == pytest.approx(299 * 20 * MB, rel=0.01)
    assert data.rates["peers"][-1] == pytest.approx(299 * MB, rel=0.01)
