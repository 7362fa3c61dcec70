"""What a picture of a run shows: rates by worker over time, what happened to whom, what was verified.

Computed from the events of a report, by a pure core; drawn in ``client/report/chart.py``.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

#: A segment arrives whole but was on its way before: its bytes count for up to so many seconds before
#: it was seen.
SPREAD = 1.0
#: Seconds over which a rate is taken: the samples are too short to hold many segments.
SMOOTHING = 0.6
#: Points of all curves together; an SVG of them stays well below 300 KB.
MAX_POINTS = 1600
#: Marks shown; of more, the first.
MAX_MARKS = 200
#: Within so many seconds a lost connection and the reason for it are one mark.
TOGETHER = 2.0

#: What a worker's states are called where they are marked.
MARKS = {
    "asleep": "slept",
    "dead": "died",
    "failed": "given up",
    "silent": "froze",
    "lost": "lost",
    "set aside": "set aside",
}


class Sample(Struct, frozen=True):
    """Verified bytes at a time, by where they came from."""

    at: float
    reused: int
    workers: Mapping[str, int]


class Mark(Struct, frozen=True):
    """Something that happened to a worker: a value of ``MARKS``, ``woke``, ``came back`` or ``lied``."""

    at: float
    worker: str
    what: str


class ChartData(Struct, frozen=True):
    """``rates`` (bytes a second) and ``received`` (bytes) of each worker, and ``reused`` bytes from the
    disk, at each of ``times`` (seconds since the start).
    """

    times: Sequence[float]
    rates: Mapping[str, Sequence[float]]
    received: Mapping[str, Sequence[float]]
    reused: Sequence[float]
    total: int
    marks: Sequence[Mark]
    #: Marks beyond ``MAX_MARKS``.
    left_out: int


def chart_data(events: Sequence[Mapping[str, Any]]) -> ChartData:
    """The picture of these events of a report. Raises ``ValueError`` where nothing was transferred,
    and ``KeyError``, ``TypeError`` or ``ValueError`` where they are no such events.
    """
    events = sorted(events, key=_time)
    samples = [
        Sample(_time(event), int(event["reused_bytes"]), {n: int(w["received"]) for n, w in event["workers"].items()})
        for event in events
        if event["event"] == "progress"
    ]
    if not samples or not samples[-1].at > 0:
        raise ValueError("nothing was transferred")
    names = sorted(samples[-1].workers, key=lambda name: (len(name), name))
    end = samples[-1].at
    points = max(2, min(300, MAX_POINTS // max(1, len(names))))
    times = [end * point / (points - 1) for point in range(points)]
    ready = _times_ready(events)
    marks = _marks(events, times[1])
    curves = {name: _spread(((s.at, s.workers.get(name, 0)) for s in samples), ready.get(name, [])) for name in names}
    return ChartData(
        times=times,
        rates={name: _rates(times, curve) for name, curve in curves.items()},
        received={name: _at(times, curve) for name, curve in curves.items()},
        reused=_at(times, [(s.at, s.reused) for s in samples]),
        total=max(int(event["total"]) for event in events if event["event"] == "progress"),
        marks=marks[:MAX_MARKS],
        left_out=max(0, len(marks) - MAX_MARKS),
    )


def _time(event: Mapping[str, Any]) -> float:
    at = float(event["at"])
    if not (math.isfinite(at) and at >= 0):
        raise ValueError("a time that is none")
    return at


def _times_ready(events: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """When each worker could be asked (again)."""
    times: dict[str, list[float]] = {}
    for event in events:
        match event:
            case {"event": "worker", "name": str(name), "state": "ready", "at": at}:
                times.setdefault(name, []).append(float(at))
    return times


def _spread(samples: Iterable[tuple[float, int]], ready: Sequence[float]) -> list[tuple[float, int]]:
    """The samples at which something new had arrived, each with one before it from which on it did."""
    curve: list[tuple[float, int]] = [(0.0, 0)]
    for at, total in samples:
        before, known = curve[-1]
        if total > known:
            asked = ready[bisect_left(ready, at) - 1] if ready and ready[0] < at else 0.0
            begin = max(before, at - SPREAD, asked)
            if begin > before:
                curve.append((begin, known))
            curve.append((at, total))
    return curve


def _at(times: Sequence[float], curve: Sequence[tuple[float, int]]) -> list[float]:
    """The values of a curve at these times, on straight lines between its points."""
    values: list[float] = []
    position = 0
    for time in times:
        while position + 1 < len(curve) and curve[position + 1][0] <= time:
            position += 1
        at, value = curve[position]
        if time <= at or position + 1 == len(curve):
            values.append(value)
            continue
        later, next_value = curve[position + 1]
        values.append(value + (next_value - value) * (time - at) / (later - at))
    return values


def _rates(times: Sequence[float], curve: Sequence[tuple[float, int]]) -> list[float]:
    """How fast a curve grows, at each time: over half of ``SMOOTHING`` before and after it."""
    end = times[-1]
    half = max(times[1] - times[0], min(SMOOTHING, end / 8)) / 2
    begins = [max(0.0, time - half) for time in times]
    ends = [min(end, time + half) for time in times]
    grown = zip(_at(begins, curve), _at(ends, curve), begins, ends, strict=True)
    return [(after - before) / (until - since) for before, after, since, until in grown]


def _marks(events: Iterable[Mapping[str, Any]], step: float) -> list[Mark]:
    """What happened to the workers, without what could not be told apart at ``step`` seconds a point."""
    marks: list[Mark] = []
    #: The last mark of each worker that is not well, by position in ``marks``.
    down: dict[str, int] = {}
    for event in events:
        at = float(event["at"])
        match event:
            case {"event": "worker", "name": str(name), "state": "ready"}:
                if (position := down.pop(name, None)) is not None:
                    woke = marks[position].what == "slept"
                    marks.append(Mark(at, name, "woke" if woke else "came back"))
            case {"event": "worker", "name": str(name), "state": str(state)} if state in MARKS:
                _mark_down(marks, down, Mark(at, name, MARKS[state]))
            case {"event": "retry", "worker": str(name), "cause": "corrupt"}:
                marks.append(Mark(at, name, "lied"))
    seen: dict[tuple[str, str], float] = {}
    kept = []
    for mark in marks:
        if mark.at - seen.get((mark.worker, mark.what), -math.inf) >= step:
            seen[mark.worker, mark.what] = mark.at
            kept.append(mark)
    return [mark for mark in kept if mark.worker.isdigit()]


def _mark_down(marks: list[Mark], down: dict[str, int], mark: Mark) -> None:
    """Adds a mark of a worker that is not well, or has it explain the one before."""
    position = down.get(mark.worker)
    before = marks[position] if position is not None else None
    if before is None or mark.at - before.at > TOGETHER:
        if before is not None and mark.what in ("lost", before.what):
            return  # Known to be down.
        down[mark.worker] = len(marks)
        marks.append(mark)
    elif position is not None and before.what == "lost":
        marks[position] = Mark(before.at, mark.worker, mark.what)
