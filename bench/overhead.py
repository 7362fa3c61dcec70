"""The overhead of msd's own code: one worker and one download, compared with the bare loop of ``bench/bare.py``.

Both sides use two processes that read, send, receive, hash and write the same file, from the page cache to tmpfs. The
rates exclude start-up: the time of msd is ``seconds`` in its ``done`` event, from the first request to the rename; the
time of the bare loop lasts from its first request to its last write. The bare loop runs twice: with a small window,
which is fastest for it (the data is still in the processor cache), and with a large window, the size that msd's own
window reaches. The faster of the two counts. The table also shows the ratio for whole processes, including start-up.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import asdict

from bench import ours, peers
from bench.bounds import Bound, conclude, ratios
from bench.copying import GIB, RATIO, run_rounds
from bench.measuring import ROUNDS, SIZE, make_random_file, memory_folder, paired_ratio, warn_if_noisy

WINDOWS = (4, 32)


def run() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(memory_folder())
        source = make_random_file(folder / "source.bin", SIZE)
        servers = stack.enter_context(ours.serving(source, folder / "home", workers=1))
        bare = [stack.enter_context(peers.bare(source, folder, window)) for window in WINDOWS]
        samples = run_rounds([peers.msd(servers, source, folder), *bare], ROUNDS)
    print(f"{SIZE / GIB:g} GiB, {ROUNDS} rounds, medians; rates without start-up")
    print(f"{'':24} {'GiB/s':>6} {'CPU s/GiB':>10}   whole processes: {RATIO}")
    whole = {name: [sample.seconds for sample in values] for name, values in samples.items()}
    transfers = {name: [sample.transfer for sample in values] for name, values in samples.items()}
    for name, values in samples.items():
        rate = SIZE / statistics.median(transfers[name]) / GIB
        cpu = statistics.median(value.cpu for value in values) / (SIZE / GIB)
        ratio = "" if name == "msd" else paired_ratio(whole[name], whole["msd"])
        print(f"{name:24} {rate:6.2f} {cpu:10.2f}   {ratio}")
    faster = min(samples.keys() - {"msd"}, key=lambda name: statistics.median(transfers[name]))
    warn_if_noisy(faster, transfers[faster])
    conclude(
        "overhead",
        {"bytes": SIZE, "samples": {name: [*map(asdict, values)] for name, values in samples.items()}},
        [
            Bound(
                f"rate of msd with one worker / rate of the {faster}", ratios(transfers[faster], transfers["msd"]), 0.9
            )
        ],
    )
