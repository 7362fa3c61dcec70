"""What it costs to be looked at: a download by how it is shown, and servers with and without a console.

A download of one file at full speed, from the page cache to tmpfs, in turns: wall-clock and processor seconds of
the client by how it is shown, as ratios to --quiet round by round. Then the servers at work, limited to a rate: the
processor time of the broker alone, and that of the broker and of a console that follows it; pictures are counted
by what begins each of them. MSD_BENCH_BYTES and MSD_BENCH_ROUNDS set another size and number of rounds.
"""

from __future__ import annotations

import itertools
import os
import pty
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.bounds import conclude
from bench.measuring import ROUNDS, SIZE, memory_folder, noise, paired_ratio, serving
from bench.peers import Side, cpu_seconds
from tests.system import MSD, System, wait_for
from tests.terminal import Terminal

#: Seconds for which the servers are looked at.
LOOK = 10.0
#: How a download is shown: flags, and whether it has a terminal.
SHOWN = {
    "--quiet": (["--quiet"], False),
    "metric lines": (["-i", "1"], False),
    "--json": (["--json", "-i", "0.1"], False),
    "--verbose": (["--verbose", "-i", "0.1"], False),
    "live view": ([], True),
}
#: What begins a picture of the live view, and what one of the console's is sent as.
PICTURE = re.compile(rb"\x1b\[\?7l")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one client: seconds by the clock and of the processor, and pictures drawn."""

    seconds: float
    cpu: float
    pictures: int


def run() -> None:
    with memory_folder() as folder:
        shared = folder / "shared"
        shared.mkdir()
        source = noise(shared / "film.bin", SIZE)
        with serving(source) as system:
            costs = downloads(system, folder)
        with serving(source, "--rate", "8MiB") as system:
            consoles(system)
    conclude("views", {"bytes": SIZE, "samples": {name: [*map(asdict, ours)] for name, ours in costs.items()}}, [])


def downloads(system: System, folder: Path) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {name: [] for name in SHOWN}
    for round_number in range(ROUNDS + 1):
        for name, (flags, on_terminal) in SHOWN.items():
            cost = download(system, folder, flags, on_terminal=on_terminal)
            if round_number:  # The first one does not count.
                costs[name].append(cost)
    print(f"a download of {SIZE / (1 << 30):g} GiB, {ROUNDS} rounds, medians")
    print(f"{'':14} {'s':>6} {'CPU s':>6} {'pictures/s':>10}   time / --quiet         CPU / --quiet")
    quiet = costs["--quiet"]
    for name, ours in costs.items():
        seconds, cpu = (statistics.median(getattr(cost, key) for cost in ours) for key in ("seconds", "cpu"))
        pictures = max(cost.pictures / cost.seconds for cost in ours)
        time_ratio = paired_ratio([c.seconds for c in ours], [c.seconds for c in quiet])
        cpu_ratio = paired_ratio([c.cpu for c in ours], [c.cpu for c in quiet])
        print(f"{name:14} {seconds:6.2f} {cpu:6.2f} {pictures:10.1f}   {time_ratio:20}   {cpu_ratio}")
    return costs


def download(system: System, folder: Path, flags: list[str], *, on_terminal: bool) -> Cost:
    command = [*MSD, "download", *system.server_flags, "-o", "copy", "--force", "--no-sync", *flags]
    side = Side("msd", command, folder, [], {**os.environ, "TERM": "xterm-256color"})
    with screen() as (terminal, shown):
        sample = side.run(stderr=terminal if on_terminal else subprocess.STDOUT)
    return Cost(sample.seconds, sample.cpu, len(PICTURE.findall(b"".join(shown))))


@contextmanager
def screen() -> Iterator[tuple[int, list[bytes]]]:
    """A terminal to write to, and what was written once the block is left."""
    master, slave = pty.openpty()
    written: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(master, 65536):
                written.append(data)
        except OSError:
            pass  # Nobody writes any more.

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield slave, written
    finally:
        os.close(slave)
        reader.join()
        os.close(master)


def consoles(system: System) -> None:
    print(f"\nservers that send 32 MiB/s, looked at for {LOOK:g} s")
    with (
        tempfile.TemporaryDirectory() as folder,
        system.download("-o", "slow", "--no-sync", cwd=Path(folder)) as client,
    ):
        client.wait_until_verified(1e-9)
        began = cpu_seconds(system.pid)
        time.sleep(LOOK)
        alone = (cpu_seconds(system.pid) - began) / LOOK
        with Terminal("console", *system.server_flags) as console:
            console.sees("4 of 4 alive")
            wait_for("a rate", lambda: "MB/s" in console.text)
            broker, shown, read = cpu_seconds(system.pid), cpu_seconds(console.pid), len(console.read)
            time.sleep(LOOK)
            followed = (cpu_seconds(system.pid) - broker) / LOOK
            drawing = (cpu_seconds(console.pid) - shown) / LOOK
            times = [at for at, _ in console.read[read:]]
            console.press("q")
            console.wait()
    # What is written within 30 ms is one picture.
    pictures = 1 + sum(later - earlier > 0.03 for earlier, later in itertools.pairwise(times))
    print(f"broker alone {alone:.2%} of a core, followed by a console {followed:.2%}")
    print(f"console {drawing:.1%} of a core, {pictures / LOOK:.1f} pictures a second")
