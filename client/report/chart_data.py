"""Computes the content of a chart from the events of a report: rates, worker state changes and verified bytes.

Pure. ``client/report/chart.py`` draws the chart.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from msd.client.events import is_peer_name
from msd.client.report.rate_meter import SETTLING_S
from msd.wire.support.units import format_count

#: Maximum number of points in all curves together, so that an SVG stays well below 300 KB; without those at marks.
MAX_POINTS = 1600
#: Maximum number of marks at which the curves have a point before and one after, so that they turn at the mark.
MAX_TURNS = 40
#: Maximum number of bands for workers. Of more workers, those that have sent least share one.
MAX_BANDS = 8
#: The bands of several senders: of the other workers, and of all peers.
OTHERS, PEERS = "others", "peers"
#: Maximum number of marks; the first are kept.
MAX_MARKS = 200
#: A lost connection and its reason are merged into one mark if they are at most this many seconds apart.
MERGE_WINDOW_S = 2.0

#: The kind of mark for each worker state.
STATE_MARKS = {
    "asleep": "asleep",
    "dead": "died",
    "failed": "failed",
    "silent": "silent",
    "lost": "connection lost",
    "unreachable": "connection lost",
    "set aside": "set aside",
}
#: The kinds of mark for a worker that is available again: after sleep, and after a failure.
AWAKE, RECOVERED = "awake", "recovered"
#: The kind of mark for a corrupt segment.
CORRUPT = "corrupt segment"


class Sample(Struct, frozen=True):
    """The progress at time ``at``, ``seconds`` after the first request: the bytes reused from the disk, the bytes
    received from each worker, and the current rate of each worker.
    """

    at: float
    seconds: float
    reused: int
    received: Mapping[str, int]
    rates: Mapping[str, int]


class Mark(Struct, frozen=True):
    """Marks an event of a worker. ``kind`` is a value in ``STATE_MARKS``, ``AWAKE``, ``RECOVERED`` or ``CORRUPT``."""

    at: float
    worker: str
    kind: str


class NothingTransferredError(ValueError):
    """The report has no progress to draw."""


class ChartData(Struct, frozen=True):
    """The curves and marks of a chart.

    ``times`` are in seconds since the start. ``rates`` (current rates in bytes a second), ``received`` (bytes) and
    ``reused`` (bytes found on the disk) have one value for each time. The first two are by band: the name of a worker,
    ``OTHERS`` or ``PEERS``. ``labels`` is what each band is called, and ``bands`` the band of each sender.
    """

    times: Sequence[float]
    rates: Mapping[str, Sequence[float]]
    received: Mapping[str, Sequence[float]]
    reused: Sequence[float]
    labels: Mapping[str, str]
    bands: Mapping[str, str]
    total: int
    marks: Sequence[Mark]
    #: Number of marks left out because there are more than ``MAX_MARKS``.
    omitted_marks: int


def chart_data(events: Sequence[Mapping[str, Any]]) -> ChartData:
    """Computes the content of a chart from a report's events.

    Raises ``NothingTransferredError`` if the events contain no progress, and ``KeyError``, ``TypeError`` or
    ``ValueError`` if they are malformed.
    """
    events = sorted(events, key=_time)
    samples = [_sample(event) for event in events if event["event"] == "progress"]
    if not samples or not samples[-1].at > 0:
        raise NothingTransferredError
    marks = _marks(events)
    bands = _bands(samples[-1].received, {mark.worker for mark in marks})
    senders = {band: [name for name in bands if bands[name] == band] for band in dict.fromkeys(bands.values())}
    order = sorted(senders, key=lambda band: (OTHERS, PEERS).index(band) if band in (OTHERS, PEERS) else -1)
    end = samples[-1].at
    points = max(2, min(300, MAX_POINTS // max(1, len(order)) - 1))
    step = end / (points - 1)
    marks = _thinned(marks, step)
    # The rates of the first second are those at its end, as for the peak rate of the report.
    settled = [sample for sample in samples if sample.seconds >= SETTLING_S] or samples[-1:]
    peak = max(settled, key=lambda sample: sum(sample.rates.values()))
    turns = _turns([sample.at for sample in samples], [mark.at for mark in marks[:MAX_TURNS]])
    times = sorted({*(step * point for point in range(points - 1)), *turns, end, peak.at})
    return ChartData(
        times=times,
        rates={band: _interpolate(times, [(s.at, _sum(s.rates, senders[band])) for s in settled]) for band in order},
        received={
            band: _interpolate(times, [(0.0, 0), *((s.at, _sum(s.received, senders[band])) for s in samples)])
            for band in order
        },
        reused=_interpolate(times, [(s.at, s.reused) for s in samples]),
        labels={band: _label(band, [samples[-1].received[name] for name in senders[band]]) for band in order},
        bands=bands,
        total=max(int(event["total"]) for event in events if event["event"] == "progress"),
        marks=marks[:MAX_MARKS],
        omitted_marks=max(0, len(marks) - MAX_MARKS),
    )


def _bands(received: Mapping[str, int], marked: Container[str]) -> dict[str, str]:
    """Returns the band of each sender. Workers with marks and those that have sent most have bands of their own."""
    names = sorted(received, key=lambda name: (len(name), name))
    workers = [name for name in names if not is_peer_name(name)]
    own = {*workers}
    if len(workers) > MAX_BANDS:
        ranked = sorted(workers, key=lambda name: (name not in marked, -received[name]))
        own = {*ranked[: MAX_BANDS - 1]}
    return {name: PEERS if is_peer_name(name) else name if name in own else OTHERS for name in names}


def _label(band: str, received: Sequence[int]) -> str:
    """Returns what a band is called. ``received`` is what each of its senders has sent: idle peers do not count."""
    if band == PEERS:
        return format_count(sum(size > 0 for size in received), "peer")
    return f"{len(received):,} other workers" if band == OTHERS else f"worker {band}"


def _sum(values: Mapping[str, int], senders: Iterable[str]) -> int:
    return sum(values.get(name, 0) for name in senders)


def _turns(samples: Sequence[float], marks: Iterable[float]) -> Iterator[float]:
    """Yields the times of the last sample before each mark and of the first one after it."""
    for at in marks:
        after = bisect_right(samples, at)
        yield from samples[max(0, after - 1) : after + 1]


def _sample(event: Mapping[str, Any]) -> Sample:
    workers = event["workers"].items()
    return Sample(
        at=_time(event),
        seconds=float(event["seconds"]),
        reused=int(event["reused_bytes"]),
        received={name: int(worker["received"]) for name, worker in workers},
        rates={name: int(worker["rate"]) for name, worker in workers},
    )


def _time(event: Mapping[str, Any]) -> float:
    at = float(event["at"])
    if not (math.isfinite(at) and at >= 0):
        raise ValueError("invalid time")
    return at


def _interpolate(times: Sequence[float], curve: Sequence[tuple[float, float]]) -> list[float]:
    """Returns the values of a curve at the given times, by linear interpolation."""
    points = [at for at, _ in curve]
    values: list[float] = []
    for time in times:
        after = bisect_right(points, time)
        (at, value), (later, next_value) = curve[max(0, after - 1)], curve[min(after, len(curve) - 1)]
        values.append(value + (next_value - value) * (time - at) / (later - at) if later > at else value)
    return values


def _marks(events: Iterable[Mapping[str, Any]]) -> list[Mark]:
    """Returns the marks for the workers' events."""
    marks: list[Mark] = []
    #: For each unavailable worker, the position of its last mark in ``marks``.
    down: dict[str, int] = {}
    for event in events:
        at = float(event["at"])
        match event:
            case {"event": "worker", "name": str(name), "state": "ready"}:
                if (position := down.pop(name, None)) is not None:
                    slept = marks[position].kind == STATE_MARKS["asleep"]
                    marks.append(Mark(at, name, AWAKE if slept else RECOVERED))
            case {"event": "worker", "name": str(name), "state": str(state)} if state in STATE_MARKS:
                _mark_down(marks, down, Mark(at, name, STATE_MARKS[state]))
            case {"event": "retry", "worker": str(name), "cause": "corrupt"}:
                marks.append(Mark(at, name, CORRUPT))
    return marks


def _thinned(marks: Sequence[Mark], step: float) -> list[Mark]:
    """Drops each mark that is less than ``step`` seconds after the last kept mark of the same kind and worker."""
    last_kept: dict[tuple[str, str], float] = {}
    kept = []
    for mark in marks:
        if mark.at - last_kept.get((mark.worker, mark.kind), -math.inf) >= step:
            last_kept[mark.worker, mark.kind] = mark.at
            kept.append(mark)
    return [mark for mark in kept if mark.worker.isdigit()]


def _mark_down(marks: list[Mark], down: dict[str, int], mark: Mark) -> None:
    """Adds a mark for a worker that became unavailable, or merges it with the worker's previous mark."""
    position = down.get(mark.worker)
    last = marks[position] if position is not None else None
    if last is None or mark.at - last.at > MERGE_WINDOW_S:
        if last is not None and mark.kind in (STATE_MARKS["lost"], last.kind):
            return  # The worker is already marked as unavailable.
        down[mark.worker] = len(marks)
        marks.append(mark)
    elif position is not None and last.kind == STATE_MARKS["lost"]:
        marks[position] = Mark(last.at, mark.worker, mark.kind)
