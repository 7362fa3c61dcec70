"""From one worker to four, and from one client to a hundred.

Workers: one ``msd download`` of the whole file from so many workers; the rate is that of its ``done`` event.

Clients: so many at once from the same four workers, as in ``bench/crowd.py``: the project's own client with its
connections, windows, hashes and writes (over and over to the same 16 MiB), a process each. The clock runs from when
all are connected and each has two segments, until the first has nine tenths of its file, for 10 s at most: in all
this time everyone downloads. Interpreters start before that, and nobody's end is in it.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import asdict, replace

from bench import crowd, ours, peers
from bench.bounds import Bound, conclude, ratios
from bench.copying import GIB, take_turns
from bench.measuring import ROUNDS, SIZE, memory_folder, noise, paired_ratio, tell_noise
from bench.peers import Sample, clear_peak, peak_mib

WORKERS = (1, 2, 3, 4)
CLIENTS = (1, 10, 100)


def run() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(memory_folder())
        source = noise(folder / "source.bin", SIZE)
        systems = {n: stack.enter_context(ours.serving(source, folder / f"{n}", workers=n)) for n in WORKERS}
        by_workers = take_turns(
            [replace(peers.msd(system, source, folder), name=str(n)) for n, system in systems.items()], ROUNDS
        )
        (folder / "copy").unlink()
        show_workers(by_workers)
        by_clients: dict[int, list[crowd.Rates]] = {clients: [] for clients in CLIENTS}
        memory: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
        four = systems[4]
        for _ in range(ROUNDS):
            for clients in CLIENTS:
                clear_peak(four.pids)
                by_clients[clients].append(crowd.measure(four.servers, SIZE, clients))
                memory[clients].append(max(map(peak_mib, four.pids)))
    show_clients(by_clients, memory)
    one, most = CLIENTS[0], CLIENTS[-1]
    alone, together = by_clients[one], by_clients[most]
    tell_noise("one client", [SIZE / rates.sum for rates in alone])
    figures = {
        "bytes": SIZE,
        "workers": {name: [*map(asdict, values)] for name, values in by_workers.items()},
        "clients": {clients: [*map(asdict, values)] for clients, values in by_clients.items()},
        "server_mib": memory,
    }
    sums = ratios([rates.sum for rates in together], [rates.sum for rates in alone])
    bounds = [
        Bound(f"{most} clients: sum of their rates / rate of one alone", sums, 0.8),
        Bound(f"{most} clients: Jain's fairness", [rates.fairness for rates in together], 0.95),
        Bound(
            f"{most} clients: MiB of the largest server process, at its peak", [max(memory[most])], 400, at_most=True
        ),
    ]
    conclude("scaling", figures, bounds)


def show_workers(samples: dict[str, list[Sample]]) -> None:
    print(f"{SIZE / GIB:g} GiB, {ROUNDS} rounds, medians")
    print(f"{'workers':>7} {'GB/s':>6} {'CPU s/GiB':>10}   times the rate of one")
    one = [sample.transfer for sample in samples["1"]]
    for name, values in samples.items():
        seconds = [value.transfer for value in values]
        cpu = statistics.median(value.cpu for value in values) / (SIZE / GIB)
        print(f"{name:>7} {SIZE / statistics.median(seconds) / 1e9:6.2f} {cpu:10.2f}   {paired_ratio(one, seconds)}")


def show_clients(by_clients: dict[int, list[crowd.Rates]], memory: dict[int, list[float]]) -> None:
    print(f"{'clients':>7} {'GB/s, sum':>10} {'MB/s, each':>12} {'fairness':>9} {'server MiB':>11} {'counted':>8}")
    for clients, values in by_clients.items():
        total = statistics.median(rates.sum for rates in values) / 1e9
        least, most = (pick(pick(rates.each) for rates in values) / 1e6 for pick in (min, max))
        fairness = statistics.median(rates.fairness for rates in values)
        seconds = statistics.median(rates.seconds for rates in values)
        spread = f"{least:.1f}–{most:.1f}"
        print(f"{clients:7} {total:10.2f} {spread:>12} {fairness:9.3f} {max(memory[clients]):11.0f} {seconds:6.1f} s")
