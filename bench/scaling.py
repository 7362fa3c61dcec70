"""Scaling: one to four workers, and one to a hundred clients.

Workers: one ``msd download`` of the whole file from one to four workers. The time is ``seconds`` in its ``done`` event.

Clients: concurrent downloads from the same four workers (see ``bench/crowd.py``). Each runs in its own process with the
real client code: connections, windows, hashing and writing, but it always writes to the same 16 MiB of its part file.
The measurement starts when all clients are connected and have two segments. It ends after 10 s, or when the first
client has nine tenths of its file. All clients download throughout, and neither start-up nor completion is measured.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import asdict, replace

from bench import crowd, ours, peers
from bench.bounds import Bound, conclude, ratios
from bench.copying import GIB, run_rounds
from bench.measuring import ROUNDS, SIZE, make_random_file, memory_folder, paired_ratio, warn_if_noisy
from bench.peers import Sample, clear_peak, peak_mib
from tests.processes import MIB

WORKERS = (1, 2, 3, 4)
CLIENTS = (1, 10, 100)


def run() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(memory_folder())
        source = make_random_file(folder / "source.bin", SIZE)
        systems = {n: stack.enter_context(ours.serving(source, folder / f"{n}", workers=n)) for n in WORKERS}
        by_workers = run_rounds(
            [replace(peers.msd(system, source, folder), name=str(n)) for n, system in systems.items()], ROUNDS
        )
        (folder / "copy").unlink()
        show_workers(by_workers)
        by_clients: dict[int, list[crowd.Rates]] = {clients: [] for clients in CLIENTS}
        memory: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
        servers = systems[4]
        for _ in range(ROUNDS):
            for clients in CLIENTS:
                clear_peak(servers.pids)
                by_clients[clients].append(crowd.measure(servers.servers, SIZE, clients))
                memory[clients].append(max(map(peak_mib, servers.pids)))
    show_clients(by_clients, memory)
    most = CLIENTS[-1]
    single, concurrent = by_clients[CLIENTS[0]], by_clients[most]
    warn_if_noisy("one client", [SIZE / rates.sum for rates in single])
    figures = {
        "bytes": SIZE,
        "workers": {name: [*map(asdict, values)] for name, values in by_workers.items()},
        "clients": {clients: [*map(asdict, values)] for clients, values in by_clients.items()},
        "server_mib": memory,
    }
    sums = ratios([rates.sum for rates in concurrent], [rates.sum for rates in single])
    bounds = [
        Bound(f"{most} clients: sum of rates / rate of a single client", sums, 0.8),
        Bound(f"{most} clients: Jain's fairness index", [rates.fairness for rates in concurrent], 0.95),
        Bound(
            f"{most} clients: peak memory of the largest server process, MiB", [max(memory[most])], 400, at_most=True
        ),
    ]
    conclude("scaling", figures, bounds)


def show_workers(samples: dict[str, list[Sample]]) -> None:
    print(f"{SIZE / GIB:g} GiB, {ROUNDS} rounds, medians")
    print(f"{'workers':>7} {'GiB/s':>6} {'CPU s/GiB':>10}   rate relative to one worker")
    one = [sample.transfer for sample in samples["1"]]
    for name, values in samples.items():
        seconds = [value.transfer for value in values]
        cpu = statistics.median(value.cpu for value in values) / (SIZE / GIB)
        print(f"{name:>7} {SIZE / statistics.median(seconds) / GIB:6.2f} {cpu:10.2f}   {paired_ratio(one, seconds)}")


def show_clients(by_clients: dict[int, list[crowd.Rates]], memory: dict[int, list[float]]) -> None:
    print(f"{'clients':>7} {'GiB/s, sum':>10} {'MiB/s, each':>12} {'fairness':>9} {'server MiB':>11} {'seconds':>8}")
    for clients, values in by_clients.items():
        total = statistics.median(rates.sum for rates in values) / GIB
        least, most = (pick(pick(rates.each) for rates in values) / MIB for pick in (min, max))
        fairness = statistics.median(rates.fairness for rates in values)
        seconds = statistics.median(rates.seconds for rates in values)
        spread = f"{least:.1f}–{most:.1f}"
        print(f"{clients:7} {total:10.2f} {spread:>12} {fairness:9.3f} {max(memory[clients]):11.0f} {seconds:6.1f} s")
