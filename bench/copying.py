"""A verified download from four workers against ``cp``, both from page cache to a tmpfs."""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
from functools import partial
from pathlib import Path

from bench.measuring import in_turns, paired_ratio, seconds, serving
from tests.system import MSD

ROUNDS = 7
SIZE = int(os.environ.get("MSD_BENCH_BYTES") or 2 << 30)
TMPFS = Path("/dev/shm")


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="msd-bench-", dir=TMPFS if TMPFS.is_dir() else None) as name:
        folder = Path(name)
        source = folder / "source.bin"
        with source.open("wb") as file:
            for _ in range(-(-SIZE // (4 << 20))):
                file.write(os.urandom(4 << 20))
        with serving(source) as system:
            download = [*MSD, "download", *system.where, "--force", "--quiet", "--no-sync", "-o", "copy.bin"]
            cases = {
                "cp": partial(seconds, ["cp", "source.bin", "copy.bin"], folder),
                "msd": partial(seconds, download, folder),
            }
            times = in_turns(cases, ROUNDS)
        for case, values in times.items():
            print(f"{case:4} {SIZE / statistics.median(values) / 1e9:5.2f} GB/s")
        print(f"rate of msd / rate of cp: {paired_ratio(times['cp'], times['msd'])}")
        spread = max(times["cp"]) / min(times["cp"])
        if spread > 1.5:
            print(f"a noisy sitting: cp itself varied by {spread:.1f} ×")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"largest process: {peak:.0f} MiB")
