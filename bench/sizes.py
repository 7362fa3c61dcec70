"""Downloads of 1 KiB to 8 GiB: their times, and the memory of both sides, which must not grow with the file size.

The file and its copy are in memory, so a file of 8 GiB needs 16 GiB; sizes that do not fit are skipped with a message.
MSD_BENCH_LARGEST sets the largest size in bytes. The rates exclude start-up, but for small files they are dominated by
connection set-up. The times are those of the whole command.
"""

from __future__ import annotations

import os
import shutil
import statistics
from dataclasses import asdict
from pathlib import Path

from bench import ours, peers
from bench.bounds import Bound, conclude
from bench.measuring import make_random_file, memory_folder
from bench.peers import Sample

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = {"1 KiB": KIB, "1 MiB": MIB, "16 MiB": 16 * MIB, "256 MiB": 256 * MIB, "8 GiB": 8 * GIB}
LARGEST = int(os.environ.get("MSD_BENCH_LARGEST") or 8 * GIB)
#: Rounds for files below 1 GiB; larger files are downloaded once.
ROUNDS = 5
#: Bytes of memory left free for other processes.
SPARE = 2 * GIB


def run() -> None:
    samples: dict[str, list[Sample]] = {}
    print(f"{'size':>8} {'seconds':>8} {'MiB/s':>6} {'client MiB':>11} {'server MiB':>11}")
    with memory_folder() as folder:
        for name, size in SIZES.items():
            if size > LARGEST or 2 * size + SPARE > available_bytes(folder):
                print(f"{name:>8} skipped: file and copy do not fit in memory, or the size exceeds MSD_BENCH_LARGEST")
                continue
            source = make_random_file(folder / "source.bin", size)
            # Start new servers for each size, so that their peak memory is that of this size alone.
            with ours.serving(source, folder / "home") as servers:
                side = peers.msd(servers, source, folder)
                samples[name] = [side.run() for _ in range(ROUNDS if size < GIB else 1)]
            (folder / "copy").unlink()
            show(name, size, samples[name])
    all_samples = [value for values in samples.values() for value in values]
    largest = [*samples][-1]
    bounds = [
        Bound(
            f"peak memory of the client in MiB, all sizes up to {largest}",
            [max(v.client_mib for v in all_samples)],
            150,
            at_most=True,
        ),
        Bound(
            f"peak memory of a server process in MiB, all sizes up to {largest}",
            [max(v.server_mib for v in all_samples)],
            100,
            at_most=True,
        ),
    ]
    conclude("sizes", {"samples": {name: [*map(asdict, values)] for name, values in samples.items()}}, bounds)


def show(name: str, size: int, values: list[Sample]) -> None:
    seconds = statistics.median(value.seconds for value in values)
    rate = size / statistics.median(value.transfer for value in values) / MIB
    client, server = max(value.client_mib for value in values), max(value.server_mib for value in values)
    print(f"{name:>8} {seconds:8.2f} {rate:6.1f} {client:11.0f} {server:11.0f}", flush=True)


def available_bytes(folder: Path) -> int:
    """Returns the number of bytes available for files in a folder on tmpfs."""
    available = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * KIB
    return min(shutil.disk_usage(folder).free, available)
