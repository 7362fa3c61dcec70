"""Files of 1 KiB to 8 GiB: the time of a download, and the memory of both sides, which must not grow with it.

The file and its copy are in memory, so 8 GiB take 16: what has no room is left out, with a word.
MSD_BENCH_LARGEST sets another largest size, in bytes. The rates are those of the transfers alone, of which a
small file's is little more than the connecting; the seconds are those of the whole command.
"""

from __future__ import annotations

import os
import shutil
import statistics
from dataclasses import asdict
from pathlib import Path

from bench import ours, peers
from bench.bounds import Bound, conclude
from bench.measuring import memory_folder, noise
from bench.peers import Sample

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = {"1 KiB": KIB, "1 MiB": MIB, "16 MiB": 16 * MIB, "256 MiB": 256 * MIB, "8 GiB": 8 * GIB}
LARGEST = int(os.environ.get("MSD_BENCH_LARGEST") or 8 * GIB)
#: Rounds of a file of less than 1 GiB; one that is larger is downloaded once.
ROUNDS = 5
#: What everything else on the machine is left, in bytes.
SPARE = 2 * GIB


def run() -> None:
    samples: dict[str, list[Sample]] = {}
    print(f"{'size':>8} {'seconds':>8} {'MB/s':>6} {'client MiB':>11} {'server MiB':>11}")
    with memory_folder() as folder:
        for name, size in SIZES.items():
            if size > LARGEST or 2 * size + SPARE > room(folder):
                print(f"{name:>8} left out: there is no room for two of them, or MSD_BENCH_LARGEST is less")
                continue
            source = noise(folder / "source.bin", size)
            # New servers for each: their memory is that of this size.
            with ours.serving(source, folder / "home") as four:
                side = peers.msd(four, source, folder)
                samples[name] = [side.run() for _ in range(ROUNDS if size < GIB else 1)]
            (folder / "copy").unlink()
            show(name, size, samples[name])
    every = [value for values in samples.values() for value in values]
    largest = [*samples][-1]
    bounds = [
        Bound(
            f"MiB of the client, its highest peak up to {largest}",
            [max(v.client_mib for v in every)],
            150,
            at_most=True,
        ),
        Bound("MiB of a server process, likewise", [max(v.server_mib for v in every)], 100, at_most=True),
    ]
    conclude("sizes", {"samples": {name: [*map(asdict, values)] for name, values in samples.items()}}, bounds)


def show(name: str, size: int, values: list[Sample]) -> None:
    seconds = statistics.median(value.seconds for value in values)
    rate = size / statistics.median(value.transfer for value in values) / 1e6
    client, server = max(value.client_mib for value in values), max(value.server_mib for value in values)
    print(f"{name:>8} {seconds:8.2f} {rate:6.1f} {client:11.0f} {server:11.0f}", flush=True)


def room(folder: Path) -> int:
    """Bytes that files in a folder in memory may take."""
    available = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * KIB
    return min(shutil.disk_usage(folder).free, available)
