"""The requests for 10,000 files of 10 KiB, and the time to fetch them into memory and verify them.

The time is that of a whole process of ``bench/fetch_files.py``, which writes nothing. ``bench/folders.py`` measures
commands that write the files.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from bench import ours
from bench.bounds import Bound, conclude
from bench.folders import CASES
from bench.measuring import memory_folder, run_interleaved, seconds

ROUNDS = 5
FILES = 10_000


def run() -> None:
    with memory_folder() as folder:
        tree = folder / "tree"
        size = CASES["small"].make(tree)
        with ours.serving(tree, folder / "home") as servers:
            command = [sys.executable, "-m", "bench.fetch_files", str(servers.config)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            files, received, requests = map(int, output.split())
            assert (files, received) == (FILES, size), "not all files arrived"
            times = run_interleaved({"msd": lambda: seconds(command)}, ROUNDS)["msd"]
    print(f"{statistics.median(times):.2f} s ({min(times):.2f}–{max(times):.2f})")
    bound = Bound("requests per file", [requests / FILES], 0.05, at_most=True)
    conclude("small_files", {"seconds": times, "requests": requests}, [bound])
