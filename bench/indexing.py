"""The start of servers that share 100,000 files of 6 bytes: seconds until they are ready, memory, and the digest cache.

First without a cache, then with it: whole ``msd serve``, until ``msd list`` has answered, from files in memory. Then
the processor time that the indexer needs for its rescans while nothing changes. At last the indexer's ways to read
several files at once, each compared with reading one after another: 20 files of 50 MiB by several threads, and 20,000
files of 10 KiB ahead; in memory, and on the disk after the system has dropped their data.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import ours
from bench.bounds import Bound, conclude
from bench.measuring import memory_folder, paired_ratio, run_interleaved
from bench.peers import cpu_seconds, peak_mib
from msd.workers.indexing import file_hasher
from msd.workers.source.share import Share
from tests.processes import MIB, MSD, wait_for

ROUNDS = int(os.environ.get("MSD_BENCH_ROUNDS") or 5)
FILES, FILES_PER_FOLDER = 100_000, 100
#: Seconds for which the idle servers are watched.
IDLE_S = 30.0
#: The names of the first processes in ``RunningServers.pids``.
PROCESSES = ("broker", "indexer", "worker")


def make_tree(folder: Path, files: int, size: int) -> None:
    data = os.urandom(size)
    for number in range(files):
        path = folder / f"{number // FILES_PER_FOLDER:04}" / f"IMG_2024_{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{number:06}".encode() + data[6:])
    # Files that have just changed are not cached.
    newest = path.stat().st_ctime
    wait_for("the files to settle", lambda: time.time() > newest + 3.0)


def start(tree: Path, home: Path, memory: dict[str, list[float]]) -> float:
    """Starts servers; returns the seconds until a list answers, and adds the peak memory of the processes in MiB."""
    began = time.perf_counter()
    with ours.serving(tree, home) as servers:
        name = f"{FILES // FILES_PER_FOLDER - 1:04}/"
        command = [*MSD, "list", name, *servers.server_flags]
        output = subprocess.run(command, env=servers.env, check=True, capture_output=True).stdout
        assert output.count(b"\n") == FILES_PER_FOLDER
        seconds = time.perf_counter() - began
        for name, pid in zip(PROCESSES, servers.pids, strict=False):
            memory.setdefault(name, []).append(peak_mib(pid))
    return seconds


def idle_share(tree: Path, home: Path) -> float:
    """Returns the share of a core that the indexer takes while nothing changes."""
    with ours.serving(tree, home) as servers:
        indexer = servers.pids[1]
        time.sleep(1)  # After the start, it removes expired digests.
        before = cpu_seconds(indexer)
        time.sleep(IDLE_S)
        return (cpu_seconds(indexer) - before) / IDLE_S


def run() -> None:
    figures: dict[str, list[float]] = {"first": [], "again": []}
    memory: dict[str, list[float]] = {}
    with memory_folder() as folder:
        tree, home = folder / "tree", folder / "home"
        make_tree(tree, FILES, 6)
        for _ in range(ROUNDS):
            shutil.rmtree(home / "msd", ignore_errors=True)
            figures["first"].append(start(tree, home, memory))
            figures["again"].append(start(tree, home, memory))
        cache = home / "msd" / "digests.sqlite"
        figures["cache_bytes"] = [cache.stat().st_size]
        figures["idle_share"] = [idle_share(tree, home)]
    for name in ("first", "again"):
        values = figures[name]
        print(f"{name:>8} {statistics.median(values):6.2f} s  ({min(values):.2f}-{max(values):.2f})")
    print(f"   cache {cache.name}: {figures['cache_bytes'][0] / FILES:.0f} bytes per file")
    print("  memory " + ", ".join(f"{name} {max(values):.0f} MiB" for name, values in memory.items()))
    print(f"    idle {100 * figures['idle_share'][0]:.0f} % of a core")
    reading = {where: _reading(where) for where in ("memory", "disk")}
    conclude(
        "indexing",
        {**figures, "mib": memory, "reading_seconds": reading},
        [
            Bound("seconds until an unchanged tree is ready again", figures["again"], 3, at_most=True),
            Bound("bytes of the digest cache per file", [figures["cache_bytes"][0] / FILES], 150, at_most=True),
            Bound("peak memory of a worker, MiB", [max(memory["worker"])], 100, at_most=True),
            Bound("share of a core for rescans", figures["idle_share"], 0.1, at_most=True),
        ],
    )


def _reading(where: str) -> dict[str, list[float]]:
    """Returns the seconds that hashing takes, by the way the files are read; prints the ratios."""
    folder = memory_folder() if where == "memory" else tempfile.TemporaryDirectory(prefix="msd-bench-")
    with folder as name:
        small, large = Path(name, "small"), Path(name, "large")
        make_tree(small, 20_000, 10 << 10)
        make_tree(large, 20, 50 * MIB)
        os.sync()
        cases = {
            "small, one by one": partial(_hash, small, where, 0, 1),
            "small, ahead": partial(_hash, small, where, file_hasher.READ_AHEAD, 1),
            "large, one by one": partial(_hash, large, where, 0, 1),
            "large, threads": partial(_hash, large, where, 0, file_hasher.MAX_THREADS),
        }
        times = run_interleaved(cases, ROUNDS)
    for size, way in (("small", "ahead"), ("large", "threads")):
        ratio = paired_ratio(times[f"{size}, {way}"], times[f"{size}, one by one"])
        print(f"{size} files {'in memory' if where == 'memory' else 'on the disk'}, {way}: {ratio} × the time")
    return times


def _hash(folder: Path, where: str, read_ahead: int, threads: int) -> float:
    """Returns the seconds for hashing all files of a folder."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    if where == "disk":
        for name in names:
            _drop_data(folder / name)
    with _settings(read_ahead, threads):
        began = time.perf_counter()
        results = [*file_hasher.hash_files(Share({"": folder}), names, lambda *_: None)]
        seconds = time.perf_counter() - began
    assert all(isinstance(result, file_hasher.HashedFile) for result in results)
    return seconds


def _drop_data(path: Path) -> None:
    """Makes the system forget the data of a file, so that it is read from the disk again."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def _settings(read_ahead: int, threads: int) -> Iterator[None]:
    before = file_hasher.READ_AHEAD, file_hasher.MAX_THREADS
    file_hasher.READ_AHEAD, file_hasher.MAX_THREADS = read_ahead, threads
    try:
        yield
    finally:
        file_hasher.READ_AHEAD, file_hasher.MAX_THREADS = before
