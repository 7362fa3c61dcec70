"""One large file, from page cache to tmpfs: msd against cp, curl, axel and aria2 with four nginx.

Side by side in one run, in turns; a ratio is the median of the ratios round by round, with its range. The
processor time and the memory are those of all processes of a side, servers included. cp, curl, axel and
aria2 verify nothing. MSD_BENCH_BYTES and MSD_BENCH_ROUNDS set another size and number of rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from bench import peers
from bench.measuring import machine, paired_ratio
from bench.peers import Sample, Side

ROUNDS = int(os.environ.get("MSD_BENCH_ROUNDS") or 7)
SIZE = int(os.environ.get("MSD_BENCH_BYTES") or 4 << 30)
GIB = 1 << 30
TMPFS = Path("/dev/shm")
RESULTS = Path("bench-copying.json")


def run() -> None:
    with ExitStack() as stack:
        base = TMPFS if TMPFS.is_dir() else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="msd-bench-", dir=base)))
        source = folder / "shared" / "source.bin"
        source.parent.mkdir()
        with source.open("wb") as file:
            for _ in range(-(-SIZE // (4 << 20))):
                file.write(os.urandom(4 << 20))
        sides = open_sides(stack, source, folder)
        samples: dict[str, list[Sample]] = {side.name: [] for side in sides}
        for side in sides:
            side.run()  # A round that does not count.
        for _ in range(ROUNDS):
            for side in sides:
                samples[side.name].append(side.run())
    show(samples)
    RESULTS.write_text(
        json.dumps({"machine": machine(), "bytes": SIZE, "samples": {n: [*map(asdict, s)] for n, s in samples.items()}})
    )
    print(f"every sample: {RESULTS}")


def open_sides(stack: ExitStack, source: Path, folder: Path) -> list[Side]:
    sides = [
        peers.cp(source, folder),
        stack.enter_context(peers.msd(source, folder)),
        stack.enter_context(peers.msd(source, folder, encrypted=True)),
    ]
    if missing := peers.missing():
        print(f"left out, for {', '.join(missing)} is missing: apt install nginx-light aria2 curl axel")
        return sides
    plain = stack.enter_context(peers.nginx(source, folder))
    secure = stack.enter_context(peers.nginx(source, folder, tls=True))
    return [
        *sides,
        peers.curl(*plain, folder),
        peers.axel(*plain, folder),
        peers.aria2(*plain, folder, per_server=1),
        peers.aria2(*plain, folder, per_server=4),
        peers.aria2(*secure, folder, per_server=1),
        peers.aria2(*secure, folder, per_server=4),
    ]


def show(samples: dict[str, list[Sample]]) -> None:
    print(f"{SIZE / GIB:g} GiB, {ROUNDS} rounds, medians")
    print(f"{'':28} {'GB/s':>6} {'CPU s/GiB':>10} {'client MiB':>11} {'server MiB':>11}   msd is … times as fast")
    ours = {False: samples["msd"], True: samples["msd, encrypted"]}
    for name, values in samples.items():
        rate = SIZE / statistics.median(value.seconds for value in values) / 1e9
        cpu = statistics.median(value.cpu for value in values) / (SIZE / GIB)
        client = max(value.client_mib for value in values)
        server = max(value.server_mib for value in values)
        own = ours["HTTPS" in name or "encrypted" in name]
        ratio = "" if values is own else paired_ratio([v.seconds for v in values], [v.seconds for v in own])
        print(f"{name:28} {rate:6.2f} {cpu:10.2f} {client:11.0f} {server:11.0f}   {ratio}")
    for title, mine, theirs in (
        ("plain", samples["msd"], [s for n, s in samples.items() if n.startswith("aria2") and "HTTPS" not in n]),
        ("encrypted", samples["msd, encrypted"], [s for n, s in samples.items() if "HTTPS" in n]),
    ):
        if theirs:
            better = min(theirs, key=lambda s: statistics.median(v.seconds for v in s))
            print(f"processor time of msd / of aria2's better setting, {title}: ", end="")
            print(paired_ratio([v.cpu for v in mine], [v.cpu for v in better]))
    spread = max(v.seconds for v in samples["cp"]) / min(v.seconds for v in samples["cp"])
    if spread > 1.5:
        print(f"a noisy sitting: cp itself varied by {spread:.1f} ×")
