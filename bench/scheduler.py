"""Scheduler events per second: the cost of an event must not depend on the number of units."""

from __future__ import annotations

import statistics
import time

from bench.bounds import conclude
from msd.client.scheduling.scheduler import Scheduler
from msd.client.scheduling.scheduler_events import (
    Action,
    CheckUnit,
    PartReceived,
    PartsChecked,
    RequestUnit,
    UnitsAdded,
    UnitWritten,
)
from tests.connections import opened

ROUNDS = 3
CASES = [(10_000, 4), (1_000_000, 4), (1_000_000, 64)]
UNIT_SIZE = 1 << 20


def events_per_second(units: int, workers: int) -> float:
    """Runs a whole download through the scheduler; replies arrive in the order of the requests."""
    scheduler = Scheduler(range(1, workers + 1), memory=1 << 30)
    queue: list[RequestUnit] = []
    # Simulated time: every worker delivers 1000 units/s.
    step, now, done = 0.001 / workers, 0.0, 0

    def perform(actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, RequestUnit):
                queue.append(action)
            elif isinstance(action, CheckUnit):
                perform(scheduler.handle(PartsChecked(action.worker, action.unit, valid=True), now))

    scheduler.handle(UnitsAdded([UNIT_SIZE] * units), 0.0)
    for number in range(1, workers + 1):
        perform(scheduler.handle(opened(number), 0.0))
    began = time.perf_counter()
    for request in queue:
        now += step
        done += 1
        if request.length == UNIT_SIZE:
            event: UnitWritten | PartReceived = UnitWritten(request.worker, request.unit)
        else:
            # While the first parts show that the workers are fast.
            event = PartReceived(request.worker, request.unit, request.start, request.length)
        perform(scheduler.handle(event, now))
    assert not scheduler.remaining
    return done / (time.perf_counter() - began)


def run() -> None:
    rates: dict[str, list[float]] = {}
    for units, workers in CASES:
        case = f"{units:9,} units, {workers:2} workers"
        rates[case] = [events_per_second(units, workers) for _ in range(ROUNDS)]
        print(f"{case}: {statistics.median(rates[case]):9,.0f} events/s")
    conclude("scheduler", {"events_per_second": rates}, [])
