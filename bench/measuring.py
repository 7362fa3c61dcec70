"""Measures whole processes in alternating rounds, and formats medians and per-round ratios."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.processes import MIB, System

#: Number of rounds and file size (in bytes) of the benchmarks that use large files.
ROUNDS = int(os.environ.get("MSD_BENCH_ROUNDS") or 7)
SIZE = int(os.environ.get("MSD_BENCH_BYTES") or 4 << 30)
TMPFS = Path("/dev/shm")


def seconds(command: list[str], cwd: Path | None = None) -> float:
    """Runs a command once, discards its output and returns the wall-clock seconds."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd)
    return time.perf_counter() - began


def run_interleaved(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Runs every case once per round, so that changes in the machine's speed affect all cases alike.

    A warm-up round is not counted.
    """
    for case in cases.values():
        case()
    results: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            results[name].append(case())
    return results


def paired_ratio(numerators: list[float], denominators: list[float]) -> str:
    """Returns the median and the range of the per-round ratios as text."""
    ratios = [numerator / denominator for numerator, denominator in zip(numerators, denominators, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def warn_if_noisy(baseline: str, seconds: list[float]) -> None:
    """Prints a warning if the baseline varied too much for the ratios to be quoted."""
    spread = max(seconds) / min(seconds)
    if spread > 1.5:
        print(f"WARNING: noisy run, do not quote: the time of {baseline} varied by a factor of {spread:.1f}")


def machine() -> str:
    """Returns the description of this machine that is printed above the tables."""
    model = Path("/proc/cpuinfo").read_text().partition("model name\t: ")[2].split("\n")[0] or platform.machine()
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}, Python {platform.python_version()}"


@contextmanager
def serving(path: Path, *arguments: str) -> Iterator[System]:
    """Starts servers for ``path`` and waits until they are ready."""
    with System(path, *arguments) as system:
        yield system.wait_until_ready()


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A temporary folder on tmpfs, or on disk if /dev/shm does not exist."""
    with tempfile.TemporaryDirectory(prefix="msd-bench-", dir=TMPFS if TMPFS.is_dir() else None) as name:
        yield Path(name)


def make_random_file(path: Path, size: int) -> Path:
    """Writes a file of random bytes, which no file system can compress or deduplicate."""
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(os.urandom(min(size, 4 * MIB)))
    return path
