"""Downloads of folders with msd, beside rsync (daemon), rclone (over HTTP, 32 transfers) and tar (through a socket).

All copies are from memory to memory. The times are those of whole commands; the servers are already running. After each
run, names and bytes of the copy are compared with the source. What the programs verify, and whether they wait until the
data is on the disk, which takes no time for files in memory:

    msd     the BLAKE3 hash of every byte, against the ids in the listing; waits
    rsync   a checksum of every file, which the sender computes while it sends; does not wait
    rclone  the sizes; does not wait
    tar     nothing; does not wait

In the case ``update``, most files exist before the run. The case ``round_trip`` compares many files with one file
of the same size, both with msd through a proxy that delays all data. The case ``memory`` measures the peak memory of
msd's client and of its largest worker. MSD_BENCH_CASES selects cases, such as ``small,deep``; MSD_BENCH_ROUNDS sets the
number of rounds. The largest case needs 3 GiB of memory.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench import ours, peers
from bench.bounds import Bound, conclude, ratios
from bench.measuring import ROUNDS, memory_folder, paired_ratio, warn_if_noisy
from bench.ours import RunningServers
from bench.peers import Sample, Side
from tests.network_fault_proxy import Proxy
from tests.processes import MIB

KIB = 1 << 10
SEED = 19
#: One half of the round trip in the case ``round_trip``, in seconds.
DELAY_S = 0.025

#: The name and the size of a file.
File = tuple[str, int]
#: Starts the servers for a folder, and yields the sides of a comparison, each with its source. The second folder is for
#: copies and configurations.
OpenSides = Callable[[ExitStack, Path, Path], Iterator[tuple[Side, Path]]]


def small_files(count: int) -> Iterator[File]:
    """Files of 10 KiB, 100 in each folder."""
    return ((f"{number // 100:04}/{number:06}.bin", 10 * KIB) for number in range(count))


def large_files() -> Iterator[File]:
    return ((f"{number:02}.bin", 50 * MIB) for number in range(20))


def linux_like_files() -> Iterator[File]:
    """Files like the Linux sources: 70,000 in about 4,500 folders, most of them on the third to sixth level.

    The sizes are log-normal with a median of 5 KiB and a mean of 15 KiB, and ten files have 2 to 20 MiB.
    """
    source = random.Random(SEED)
    folders = ["linux"]
    while len(folders) < 4500:
        # The square prefers the first folders, which limits the depth.
        parent = folders[int(len(folders) * source.random() ** 2)]
        folders.append(f"{parent}/folder-{len(folders)}")
    weights = [source.lognormvariate(0, 1) for _ in folders]
    for number, folder in enumerate(source.choices(folders, weights, k=69_990)):
        yield f"{folder}/source-{number}.c", int(5 * KIB * source.lognormvariate(0, 1.5))
    for number in range(1, 11):
        yield f"{source.choice(folders)}/large-{number}.h", 2 * number * MIB


def nested_files() -> Iterator[File]:
    """Five files of 10 KiB in each of 200 folders, each of which contains the next."""
    folder = ""
    for level in range(200):
        folder += f"{level:03}/"
        yield from ((f"{folder}{number}.bin", 10 * KIB) for number in range(5))


def open_msd(stack: ExitStack, tree: Path, folder: Path) -> Iterator[tuple[Side, Path]]:
    servers = stack.enter_context(ours.serving(tree.parent, folder / "home"))
    # The memory of the indexer, which is idle, is not measured.
    yield replace(peers.msd(servers, tree, folder, sync=True), servers=servers.workers), tree


def open_programs(stack: ExitStack, tree: Path, folder: Path) -> Iterator[tuple[Side, Path]]:
    yield from open_msd(stack, tree, folder)
    missing = peers.missing("rsync", "rclone", "tar", "bash")
    if missing:
        print(f"skipped because not installed: {', '.join(missing)}: run apt install {' '.join(missing)}")
    for open_side, programs in ((peers.rsync, {"rsync"}), (peers.rclone, {"rclone"}), (peers.tar, {"tar", "bash"})):
        if not programs & {*missing}:
            yield stack.enter_context(open_side(tree, folder)), tree


def open_update(stack: ExitStack, tree: Path, folder: Path) -> Iterator[tuple[Side, Path]]:
    previous = folder / "previous"
    subprocess.run(["cp", "-a", tree.parent, previous], check=True)
    for path in sorted(previous.glob("*/*/*"))[::1000]:
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, (status.st_atime, status.st_mtime - 86400))
    for side, source in open_programs(stack, tree, folder):
        if side.name != "tar":
            flags = ["--update"] if side.name == "msd" else []
            yield replace(side, command=[*side.command, *flags], previous=previous), source


def open_round_trip(stack: ExitStack, tree: Path, folder: Path) -> Iterator[tuple[Side, Path]]:
    single = folder / "single.bin"
    with single.open("wb") as file:
        for path in sorted(tree.glob("*/*")):
            file.write(path.read_bytes())
    for name, shared, source in (("many files", tree.parent, tree), ("one file", single, single)):
        servers = stack.enter_context(ours.serving(shared, folder / name))
        side = peers.msd(behind_proxies(stack, servers), source, folder, sync=True)
        yield replace(side, name=f"msd, {name}"), source


def behind_proxies(stack: ExitStack, servers: RunningServers) -> RunningServers:
    """Returns the servers as a client sees them through proxies that delay all data."""
    located = servers.servers
    proxies = [stack.enter_context(Proxy(endpoint.port)) for endpoint in (*located.workers.values(), located.status)]
    for proxy in proxies:
        proxy.delay = DELAY_S
    return replace(servers, server_flags=["-a", "127.0.0.1", "-p", *(str(proxy.port) for proxy in proxies)])


@dataclass(frozen=True)
class Case:
    """A comparison of ways to copy a folder. ``rounds`` do not include the warm-up round."""

    text: str
    files: Callable[[], Iterator[File]]
    open_sides: OpenSides = open_programs
    rounds: int = ROUNDS

    def make(self, tree: Path) -> int:
        """Creates the folder, and returns the bytes in it."""
        source = random.Random(SEED)
        total = 0
        for name, size in self.files():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            total += path.write_bytes(source.randbytes(size))
        return total


CASES = {
    "small": Case("10,000 files of 10 KiB", lambda: small_files(10_000)),
    "linux": Case("70,000 files like the Linux sources", linux_like_files),
    "large": Case("20 files of 50 MiB", large_files),
    "deep": Case("1,000 files of 10 KiB, 200 levels of folders", nested_files),
    "update": Case("10,000 files of 10 KiB, 10 of them changed", lambda: small_files(10_000), open_update),
    "round_trip": Case("10,000 files of 10 KiB, 50 ms round trip", lambda: small_files(10_000), open_round_trip),
    "memory": Case("100,000 files of 10 KiB", lambda: small_files(100_000), open_msd, rounds=1),
}


def run() -> None:
    names = [name for name in os.environ.get("MSD_BENCH_CASES", "").split(",") if name] or [*CASES]
    if unknown := [name for name in names if name not in CASES]:
        sys.exit(f"bench: MSD_BENCH_CASES names no case {unknown[0]!r}: choose from {', '.join(CASES)}")
    samples = {name: measure(CASES[name]) for name in names}
    figures = {name: {side: seconds(values) for side, values in sides.items()} for name, sides in samples.items()}
    conclude("folders", {"seconds": figures}, [bound for name in names for bound in limits(name, samples[name])])


def measure(case: Case) -> dict[str, list[Sample]]:
    """Runs every side once per round, after a warm-up round that is not counted."""
    with memory_folder() as folder, ExitStack() as stack:
        tree = folder / "shared" / "tree"
        size = case.make(tree)
        sides = [*case.open_sides(stack, tree, folder)]
        samples: dict[str, list[Sample]] = {side.name: [] for side, _ in sides}
        for number in range(case.rounds + 1):
            for side, source in sides:
                sample = side.run()
                copy = folder / "copy" / source.name if source.is_dir() else folder / "copy"
                subprocess.run(["diff", "-rq", source, copy], check=True)
                peers.remove(folder / "copy")
                if number:
                    samples[side.name].append(sample)
    show(case, size, samples)
    return samples


def show(case: Case, size: int, samples: dict[str, list[Sample]]) -> None:
    print(f"\n{case.text} ({size / MIB:.0f} MiB), {case.rounds} rounds, medians")
    print(f"{'':16} {'seconds':>8} {'':15} {'client MiB':>11} {'worker MiB':>11}   msd's time relative to this row")
    own = next(iter(samples.values()))
    for name, values in samples.items():
        spread = f"({min(seconds(values)):.2f}–{max(seconds(values)):.2f})"
        client, worker = max(value.client_mib for value in values), max(value.server_mib for value in values)
        memory = f"{client:11.0f} {worker:11.0f}" if name.startswith("msd") else " " * 23
        ratio = "" if values is own else paired_ratio(seconds(own), seconds(values))
        print(f"{name:16} {statistics.median(seconds(values)):8.2f} {spread:15} {memory}   {ratio}", flush=True)
    warn_if_noisy("msd", seconds(own))


def limits(name: str, samples: dict[str, list[Sample]]) -> Iterator[Bound]:
    times = {side: seconds(values) for side, values in samples.items()}
    match name:
        case "small":
            for peer, limit, goal in (("rclone", 1.0, 0.5), ("rsync", 3.0, None)):
                if peer in times:
                    yield Bound(f"small: time of msd / {peer}", ratios(times["msd"], times[peer]), limit, goal, True)
        case "update" if "rsync" in times:
            more = [own - other for own, other in zip(times["msd"], times["rsync"], strict=True)]
            yield Bound("update: time of msd - rsync, seconds", more, 0.5, at_most=True)
        case "round_trip":
            values = ratios(times["msd, many files"], times["msd, one file"])
            yield Bound("round_trip: time of many files / one file", values, 1.2, at_most=True)
        case "memory":
            client, worker = (
                [getattr(sample, side) for sample in samples["msd"]] for side in ("client_mib", "server_mib")
            )
            yield Bound("memory: peak of the client, MiB", client, 150, at_most=True)
            yield Bound("memory: peak of the largest worker, MiB", worker, 100, at_most=True)


def seconds(samples: list[Sample]) -> list[float]:
    return [sample.seconds for sample in samples]
