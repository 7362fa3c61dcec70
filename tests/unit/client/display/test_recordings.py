"""The time left of recorded downloads is true within five seconds of a change of rate.

``tests/recordings/record.py`` made the recordings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from msd.client.display.time_left import TimeLeft
from msd.client.report.rate_meter import RateMeter

RECORDINGS = sorted((Path(__file__).parents[3] / "recordings").glob("*.json"))
#: Seconds between two updates, as between two ``Progress`` events.
STEP = 0.1
#: Seconds after a change of the rate from which on the time left must be true, and the maximum deviation.
ADAPTATION_S, MAX_DEVIATION = 5.0, 0.2
MIB = 1 << 20


class Shown(NamedTuple):
    """What is shown at a time: the bytes left, the seconds left and the rate of the download."""

    at: float
    missing: int
    seconds: float | None
    rate: float


class Recording:
    """A recorded download, and what the true figures are."""

    def __init__(self, path: Path) -> None:
        values = json.loads(path.read_text(encoding="utf-8"))
        self.calls: list[tuple[float, int, str | int]] = [(at, worker, what) for at, worker, what in values["calls"]]
        self.end = self.calls[-1][0]
        self.phases = [*pairwise([*values["changes"], self.end])]
        self.missing = values["size"] - values["reused"]
        #: For each worker, the time of each arrival and the bytes that have arrived.
        self.curves: dict[int, list[tuple[float, float]]] = {}
        for at, worker, what in self.calls:
            curve = self.curves.setdefault(worker, [(at, 0.0)])
            curve.append((at, curve[-1][1] + (what if isinstance(what, int) else 0)))

    def replay(self) -> Iterator[Shown]:
        """Yields what a download with these arrivals shows."""
        meters = {worker: RateMeter() for worker in self.curves}
        time_left, missing, calls = TimeLeft(), self.missing, iter(self.calls)
        call = next(calls)
        for step in range(int(self.end / STEP)):
            now = step * STEP
            while call[0] <= now:
                at, worker, what = call
                if isinstance(what, int):
                    meters[worker].count(what, at)
                    missing -= what
                elif what == "start":
                    meters[worker].start(at)
                else:
                    meters[worker].stop()
                call = next(calls)
            rate = sum(meter.rate(now) for meter in meters.values())
            time_left.update(missing, rate, now)
            yield Shown(now, missing, time_left.seconds(now), rate)

    def received(self, at: float) -> float:
        """The bytes received until ``at``, with those of segments that were on their way."""
        total = 0.0
        for curve in self.curves.values():
            for (start, before), (end, after) in pairwise(curve):
                if start < at:
                    total += (after - before) * min(1.0, (at - start) / (end - start) if end > start else 1.0)
        return total

    def true_rate(self, start: float, end: float) -> float:
        """The mean rate of a phase, without the second after the change."""
        return (self.received(end) - self.received(start + 1)) / (end - start - 1)


@pytest.fixture(params=RECORDINGS, ids=lambda path: path.stem)
def recording(request: pytest.FixtureRequest) -> Recording:
    return Recording(request.param)


def test_the_time_left_is_true_within_five_seconds_of_a_change(recording: Recording) -> None:
    """Between the times for the bytes left with and without the segments on their way, and 20 % on both sides. Of a
    download shorter than ten seconds, the second half is checked.
    """
    shown = [*recording.replay()]
    checked = 0
    for start, end in recording.phases:
        rate = recording.true_rate(start, end)
        settled = start + min(ADAPTATION_S, recording.end / 2)
        if rate < 0.01 * MIB:
            assert all(each.seconds is None for each in shown if settled <= each.at < end)
            continue
        for each in shown:
            # When the last segments are on their way, the workers finish one by one, and there is no one rate.
            if settled <= each.at < end and each.missing > 8 * MIB:
                left = recording.missing - recording.received(each.at)
                assert each.seconds is not None, each
                assert (1 - MAX_DEVIATION) * left / rate <= each.seconds, (each, left / rate)
                assert each.seconds <= (1 + MAX_DEVIATION) * each.missing / rate, (each, left / rate)
                checked += 1
    assert checked
