"""Scheduler events per second: the cost of an event must not depend on the number of units."""

from __future__ import annotations

import statistics
import time

from bench.bounds import conclude
from msd.client.scheduling.scheduler import Scheduler
from msd.client.scheduling.scheduler_events import RequestUnit, UnitWritten
from tests.connections import opened

ROUNDS = 3
CASES = [(10_000, 4), (1_000_000, 4), (1_000_000, 64)]


def events_per_second(units: int, workers: int) -> float:
    """Runs a whole download through the scheduler; replies arrive in the order of the requests."""
    scheduler = Scheduler(units, range(1, workers + 1))
    queue: list[RequestUnit] = []
    for number in range(1, workers + 1):
        queue += [a for a in scheduler.handle(opened(number), 0.0) if isinstance(a, RequestUnit)]
    began = time.perf_counter()
    # Simulated time: every worker delivers 1000 units/s.
    step, now, done = 0.001 / workers, 0.0, 0
    for request in queue:
        now += step
        done += 1
        for action in scheduler.handle(UnitWritten(request.worker, request.unit), now):
            if isinstance(action, RequestUnit):
                queue.append(action)
    assert not scheduler.remaining
    return done / (time.perf_counter() - began)


def run() -> None:
    rates: dict[str, list[float]] = {}
    for units, workers in CASES:
        case = f"{units:9,} units, {workers:2} workers"
        rates[case] = [events_per_second(units, workers) for _ in range(ROUNDS)]
        print(f"{case}: {statistics.median(rates[case]):9,.0f} events/s")
    conclude("scheduler", {"events_per_second": rates}, [])
