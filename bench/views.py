"""The cost of displays: a download with each kind of output, and servers with and without a console.

The download runs at full speed from the page cache to tmpfs, with each kind of output once per round; wall-clock and
processor seconds of the client are compared with those of --quiet. Then the servers send at a limited rate, and the
processor time of the broker is measured without and with a console, as is that of the console itself. Frames of the
live view are counted by their first escape sequence. MSD_BENCH_BYTES and MSD_BENCH_ROUNDS set the file size and the
number of rounds.
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
from bench.measuring import ROUNDS, SIZE, make_random_file, memory_folder, paired_ratio, serving
from bench.peers import Side, cpu_seconds
from tests.processes import MSD, System, wait_for
from tests.terminal import Terminal

#: Duration of each measurement of the servers, in seconds.
MEASURE_S = 10.0
#: The kinds of output: their flags, and whether the client runs on a terminal.
OUTPUTS = {
    "--quiet": (["--quiet"], False),
    "metric lines": (["-i", "1"], False),
    "--json": (["--json", "-i", "0.1"], False),
    "--verbose": (["--verbose", "-i", "0.1"], False),
    "live view": ([], True),
}
#: The escape sequence that begins each frame of the live view.
FRAME_START = re.compile(rb"\x1b\[\?7l")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one download: wall-clock seconds, processor seconds and frames drawn."""

    seconds: float
    cpu: float
    frames: int


def run() -> None:
    with memory_folder() as folder:
        shared = folder / "shared"
        shared.mkdir()
        source = make_random_file(shared / "film.bin", SIZE)
        with serving(source) as system:
            costs = measure_downloads(system, folder)
        with serving(source, "--rate", "8MiB") as system:
            measure_console(system)
    conclude("views", {"bytes": SIZE, "samples": {name: [*map(asdict, values)] for name, values in costs.items()}}, [])


def measure_downloads(system: System, folder: Path) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {name: [] for name in OUTPUTS}
    for round_number in range(ROUNDS + 1):
        for name, (flags, on_terminal) in OUTPUTS.items():
            cost = download(system, folder, flags, on_terminal=on_terminal)
            if round_number:  # The warm-up round is not counted.
                costs[name].append(cost)
    print(f"a download of {SIZE / (1 << 30):g} GiB, {ROUNDS} rounds, medians")
    print(f"{'':14} {'s':>6} {'CPU s':>6} {'frames/s':>10}   time / --quiet         CPU / --quiet")
    quiet = costs["--quiet"]
    for name, values in costs.items():
        seconds, cpu = (statistics.median(getattr(cost, key) for cost in values) for key in ("seconds", "cpu"))
        frames = max(cost.frames / cost.seconds for cost in values)
        time_ratio = paired_ratio([c.seconds for c in values], [c.seconds for c in quiet])
        cpu_ratio = paired_ratio([c.cpu for c in values], [c.cpu for c in quiet])
        print(f"{name:14} {seconds:6.2f} {cpu:6.2f} {frames:10.1f}   {time_ratio:20}   {cpu_ratio}")
    return costs


def download(system: System, folder: Path, flags: list[str], *, on_terminal: bool) -> Cost:
    command = [*MSD, "download", *system.server_flags, "-o", "copy", "--force", "--no-sync", *flags]
    side = Side("msd", command, folder, [], {**os.environ, "TERM": "xterm-256color"})
    with open_terminal() as (terminal, written):
        sample = side.run(stderr=terminal if on_terminal else subprocess.STDOUT)
    return Cost(sample.seconds, sample.cpu, len(FRAME_START.findall(b"".join(written))))


@contextmanager
def open_terminal() -> Iterator[tuple[int, list[bytes]]]:
    """Yields a terminal to write to, and a list that contains everything written to it once the block ends."""
    master, slave = pty.openpty()
    written: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(master, 65536):
                written.append(data)
        except OSError:
            pass  # All writers have closed the terminal.

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield slave, written
    finally:
        os.close(slave)
        reader.join()
        os.close(master)


def measure_console(system: System) -> None:
    print(f"\nservers that send 32 MiB/s, measured for {MEASURE_S:g} s")
    with (
        tempfile.TemporaryDirectory() as folder,
        system.download("-o", "slow", "--no-sync", cwd=Path(folder)) as client,
    ):
        client.wait_until_verified(1e-9)
        began = cpu_seconds(system.pid)
        time.sleep(MEASURE_S)
        without = (cpu_seconds(system.pid) - began) / MEASURE_S
        with Terminal("console", *system.server_flags) as console:
            console.expect("4 of 4 alive")
            wait_for("a rate", lambda: "MiB/s" in console.text)
            broker_cpu, console_cpu, read = cpu_seconds(system.pid), cpu_seconds(console.pid), len(console.chunks)
            time.sleep(MEASURE_S)
            with_console = (cpu_seconds(system.pid) - broker_cpu) / MEASURE_S
            drawing = (cpu_seconds(console.pid) - console_cpu) / MEASURE_S
            times = [at for at, _ in console.chunks[read:]]
            console.press("q")
            console.wait()
    # A pause of more than 30 ms separates two frames.
    frames = 1 + sum(later - earlier > 0.03 for earlier, later in itertools.pairwise(times))
    print(f"broker: {without:.2%} of a core without a console, {with_console:.2%} with a console")
    print(f"console: {drawing:.1%} of a core, {frames / MEASURE_S:.1f} frames/s")
