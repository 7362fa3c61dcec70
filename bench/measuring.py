"""How things are measured here: whole processes, in turns, medians."""

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

from tests.system import MIB, System

#: What large files are measured with.
ROUNDS = int(os.environ.get("MSD_BENCH_ROUNDS") or 7)
SIZE = int(os.environ.get("MSD_BENCH_BYTES") or 4 << 30)
TMPFS = Path("/dev/shm")


def seconds(command: list[str], cwd: Path | None = None) -> float:
    """Wall-clock seconds of one run of a command; its output is thrown away."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd)
    return time.perf_counter() - began


def in_turns(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Runs every case once a round (after a round that does not count), so that a machine whose speed
    drifts does so for all of them."""
    for case in cases.values():
        case()
    results: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            results[name].append(case())
    return results


def paired_ratio(ones: list[float], others: list[float]) -> str:
    """The median of the ratios round by round, and their range."""
    ratios = [one / other for one, other in zip(ones, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def tell_noise(baseline: str, seconds: list[float]) -> None:
    """Says so where the baseline itself varied too much for the ratios to be quoted."""
    spread = max(seconds) / min(seconds)
    if spread > 1.5:
        print(f"A NOISY SITTING, not to be quoted: {baseline} itself varied by {spread:.1f} ×")


def machine() -> str:
    """The machine, for the head of a table."""
    model = Path("/proc/cpuinfo").read_text().partition("model name\t: ")[2].split("\n")[0] or platform.machine()
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}, Python {platform.python_version()}"


@contextmanager
def serving(path: Path, *arguments: str) -> Iterator[System]:
    """Servers for ``path``, ready."""
    with System(path, *arguments) as system:
        yield system.wait_until_ready()


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory, where there is such a thing."""
    with tempfile.TemporaryDirectory(prefix="msd-bench-", dir=TMPFS if TMPFS.is_dir() else None) as name:
        yield Path(name)


def noise(path: Path, size: int) -> Path:
    """A file that no file system, however clever, can make smaller."""
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(os.urandom(min(size, 4 * MIB)))
    return path
