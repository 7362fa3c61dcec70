"""Copies one large file from the page cache to tmpfs: msd compared with cp, and with curl, axel and aria2 using nginx.

What a program verifies, and against what: msd every segment of 1 MiB (BLAKE3, against the catalogue); aria2 with
"SHA-256" every piece of 1 MiB, against a Metalink file; the others nothing.

Each round runs every program once. A ratio is shown as the median and the range of the per-round ratios. The processor
time in a row covers all its processes, including servers. The bare pyzmq loop (``bench/bare.py``) hashes and writes; it
is an upper bound, not a usable tool. cp uses no network; within one tmpfs, the kernel copies the data for it.
MSD_BENCH_BYTES and MSD_BENCH_ROUNDS set the file size and the number of rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from bench import ours, peers
from bench.bounds import Bound, conclude, ratios
from bench.measuring import ROUNDS, SIZE, make_random_file, memory_folder, paired_ratio, warn_if_noisy
from bench.peers import Sample, Side

GIB = 1 << 30
CP = "cp (kernel copies)"
#: Heading of the ratio column.
RATIO = "msd's speed relative to this row (1.0 = parity)"


def run() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(memory_folder())
        source = make_random_file(folder / "source.bin", SIZE)
        sides = open_sides(stack, source, folder)
        samples = run_rounds(sides, ROUNDS)
    show(samples)
    figures = {"bytes": SIZE, "samples": {name: [*map(asdict, values)] for name, values in samples.items()}}
    conclude("copying", figures, list(limits(samples)))


def open_sides(stack: ExitStack, source: Path, folder: Path) -> list[Side]:
    plain = stack.enter_context(ours.serving(source, folder / "plain"))
    encrypted = stack.enter_context(ours.serving(source, folder / "encrypted", encrypted=True))
    sides = [
        peers.cp(source, folder, by_kernel=True),
        peers.cp(source, folder, by_kernel=False),
        peers.msd(plain, source, folder),
        peers.msd(encrypted, source, folder),
        stack.enter_context(peers.bare(source, folder, window=4, workers=4)),
    ]
    missing = peers.missing("nginx", "aria2c", "curl", "axel")
    if missing:
        print(f"skipped because not installed: {', '.join(missing)}: run apt install nginx-light aria2 curl axel")
    if "nginx" in missing:
        return sides
    http = stack.enter_context(peers.nginx(source, folder))
    https = stack.enter_context(peers.nginx(source, folder, tls=True))
    others = [
        peers.curl(*http, folder),
        peers.axel(*http, folder),
        *(peers.aria2(*urls, folder, per_server=count) for urls in (http, https) for count in (1, 4)),
        *(peers.aria2_verifying(source, *urls, folder, per_server=4) for urls in (http, https)),
    ]
    return sides + [side for side in others if side.command[0] not in missing]


def run_rounds(sides: list[Side], rounds: int) -> dict[str, list[Sample]]:
    """Runs every side once per round, after a warm-up round that is not counted."""
    for side in sides:
        side.run()
    samples: dict[str, list[Sample]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            samples[side.name].append(side.run())
    return samples


def show(samples: dict[str, list[Sample]]) -> None:
    print(f"{SIZE / GIB:g} GiB, {ROUNDS} rounds, medians; peak memory")
    print(f"{'':34} {'GiB/s':>6} {'CPU s/GiB':>10} {'client MiB':>11} {'server MiB':>11}   {RATIO}")
    for name, values in samples.items():
        rate = SIZE / statistics.median(value.seconds for value in values) / GIB
        cpu = statistics.median(value.cpu for value in values) / (SIZE / GIB)
        client = max(value.client_mib for value in values)
        server = max(value.server_mib for value in values)
        own = samples["msd, encrypted" if "HTTPS" in name or "encrypted" in name else "msd"]
        ratio = "" if values is own else paired_ratio(seconds(values), seconds(own))
        print(f"{name:34} {rate:6.2f} {cpu:10.2f} {client:11.0f} {server:11.0f}   {ratio}")
    warn_if_noisy("cp", seconds(samples[CP]))


def limits(samples: dict[str, list[Sample]]) -> Iterator[Bound]:
    plain, encrypted = samples["msd"], samples["msd, encrypted"]
    yield Bound("rate of msd / rate of cp", ratios(seconds(samples[CP]), seconds(plain)), 0.6, 0.75)
    if http := faster_aria2(samples, verifies=True):
        yield Bound(f"rate of msd / rate of {http}", ratios(seconds(samples[http]), seconds(plain)), 2.0, 2.5)
    if http := faster_aria2(samples):
        yield Bound(f"rate of msd / rate of {http}", ratios(seconds(samples[http]), seconds(plain)), 1.2, 1.5)
        used = ratios([s.cpu for s in plain], [s.cpu for s in samples[http]])
        yield Bound(f"processor time of msd / {http} and nginx", used, 1.2, 1.0, at_most=True)
    if https := faster_aria2(samples, over_https=True, verifies=True):
        rates = ratios(seconds(samples[https]), seconds(encrypted))
        yield Bound(f"rate of msd, encrypted / rate of {https}", rates, 1.0)


def faster_aria2(samples: dict[str, list[Sample]], *, over_https: bool = False, verifies: bool = False) -> str | None:
    """Returns the name of the faster aria2 row of a kind; None if aria2 was not measured."""
    names = [
        name
        for name in samples
        if name.startswith("aria2") and ("HTTPS" in name) == over_https and ("SHA-256" in name) == verifies
    ]
    return min(names, key=lambda name: statistics.median(seconds(samples[name])), default=None)


def seconds(samples: list[Sample]) -> list[float]:
    return [sample.seconds for sample in samples]
