"""The cost of our own code: one worker and one download against the bare loop of ``bench/bare.py``.

Both are two processes that read, send, receive, hash and write the same file, from page cache to tmpfs. The rates
are those of the transfers alone: for msd the ``seconds`` of its ``done`` event, from the first request to the
rename; for the bare loop from its first request to its last write. A small window is the best for the bare loop
(what came is still in the processor's cache), a large one is what ours grows to; the better of the two counts.
Also told: the ratio of the whole processes, their start included.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import asdict

from bench import ours, peers
from bench.bounds import Bound, conclude, ratios
from bench.copying import GIB, take_turns
from bench.measuring import ROUNDS, SIZE, memory_folder, noise, paired_ratio, tell_noise

WINDOWS = (4, 32)


def run() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(memory_folder())
        source = noise(folder / "source.bin", SIZE)
        alone = stack.enter_context(ours.serving(source, folder / "alone", workers=1))
        bare = [stack.enter_context(peers.bare(source, folder, window)) for window in WINDOWS]
        samples = take_turns([peers.msd(alone, source, folder), *bare], ROUNDS)
    print(f"{SIZE / GIB:g} GiB, {ROUNDS} rounds, medians; the rates are those of the transfers alone")
    print(f"{'':24} {'GB/s':>6} {'CPU s/GiB':>10}   whole processes: msd is … times as fast")
    whole = {name: [sample.seconds for sample in values] for name, values in samples.items()}
    transfers = {name: [sample.transfer for sample in values] for name, values in samples.items()}
    for name, values in samples.items():
        rate = SIZE / statistics.median(transfers[name]) / 1e9
        cpu = statistics.median(value.cpu for value in values) / (SIZE / GIB)
        ratio = "" if name == "msd" else paired_ratio(whole[name], whole["msd"])
        print(f"{name:24} {rate:6.2f} {cpu:10.2f}   {ratio}")
    better = min(samples.keys() - {"msd"}, key=lambda name: statistics.median(transfers[name]))
    tell_noise(better, transfers[better])
    conclude(
        "overhead",
        {"bytes": SIZE, "samples": {name: [*map(asdict, values)] for name, values in samples.items()}},
        [Bound(f"rate of one worker of msd / of the {better}", ratios(transfers[better], transfers["msd"]), 0.9)],
    )
