"""The plan of a million files: seconds from the pages of the listing to the units, and the memory for it."""

from __future__ import annotations

import gc
import os
import statistics
import time
from pathlib import Path

from bench.bounds import Bound, conclude
from msd.client.plan.planner import Planner
from msd.wire.protocol.messages import CataloguePage, List
from tests.listings import CATALOGUE, entry
from tests.processes import MIB

ROUNDS = 3
FILES, FILES_PER_FOLDER, ENTRIES_PER_PAGE = 1_000_000, 5000, 8000
#: NAMEs and excludes.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "a folder": (["photos"], []),
    "a folder with excludes": (["photos"], ["*.tmp", "cache/"]),
    "a glob": (["**/*.jpg"], []),
}


def reply(request: List) -> CataloguePage:
    """The page of a worker. Of a hundred files 99 have 10 KiB, and one has 2 MiB."""
    start = int(request.after[-11:-4]) + 1 if request.after else 0
    numbers = range(start, min(start + ENTRIES_PER_PAGE, FILES))
    entries = [
        entry(f"photos/{number // FILES_PER_FOLDER:03}/IMG_2024_{number:07}.jpg", 10240 if number % 100 else 2 * MIB)
        for number in numbers
    ]
    return CataloguePage(rid=1, epoch=1, catalogue=CATALOGUE, entries=entries, more=numbers.stop < FILES)


def plan(names: list[str], excludes: list[str]) -> tuple[float, Planner]:
    """Returns the seconds that the plan took, without those of the worker, and the finished planner."""
    planner = Planner(names, excludes)
    seconds = 0.0
    while request := planner.next_request():
        page = reply(request)
        began = time.perf_counter()
        planner.add_page(page)
        seconds += time.perf_counter() - began
    assert len(planner.plan) == FILES
    return seconds, planner


def look_up(planner: Planner) -> float:
    """Returns the requests for units per second."""
    units = range(planner.plan.units)
    began = time.perf_counter()
    for unit in units:
        planner.plan.request(unit)
    return len(units) / (time.perf_counter() - began)


def resident() -> float:
    """The memory of this process, in MiB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def run() -> None:
    seconds: dict[str, list[float]] = {case: [] for case in CASES}
    memory: list[float] = []
    requests: list[float] = []
    ids: list[float] = []
    reply(List(rid=1))
    for _ in range(ROUNDS):
        for case, (names, excludes) in CASES.items():
            before = resident()
            duration, planner = plan(names, excludes)
            seconds[case].append(duration)
            memory.append(resident() - before)
            requests.append(look_up(planner))
            began = time.perf_counter()
            planner.plan.id  # noqa: B018
            ids.append(time.perf_counter() - began)
            units = planner.plan.units
            del planner
    for case in CASES:
        print(f"{case:22}: {statistics.median(seconds[case]):.2f} s")
    print(
        f"{units:,} units; {statistics.median(requests):,.0f} requests/s, plan id in {statistics.median(ids):.2f} s,"
        f" {max(memory):.0f} MiB"
    )
    conclude(
        "plan",
        {"seconds": seconds, "mib": memory, "requests_per_second": requests, "id_seconds": ids},
        [
            Bound("seconds for 1,000,000 files of a folder", seconds["a folder"], 5, at_most=True),
            Bound("MiB of memory for them", [max(memory)], 150, at_most=True),
        ],
    )
