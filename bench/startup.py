"""Start-up time: ``msd --help`` compared with ``import typer``, and the phases of a 1 KiB download."""

from __future__ import annotations

import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from bench.bounds import Bound, conclude, ratios
from bench.measuring import run_interleaved, seconds, serving
from tests.processes import MSD

ROUNDS = 15
#: Imports all modules that a download uses.
IMPORTS = "import msd.cli, msd.client.operations.download, msd.client.display.printers, msd.wire.config.settings"


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="msd-bench-") as folder:
        path = Path(folder, "small.bin")
        path.write_bytes(bytes(range(256)) * 4)
        with serving(path) as system:
            download = [*MSD, "download", *system.server_flags, "--force", "--quiet", "-o", "copy.bin"]
            cases = {
                "interpreter": partial(seconds, [sys.executable, "-c", "pass"]),
                "import typer": partial(seconds, [sys.executable, "-c", "import typer"]),
                "msd --help": partial(seconds, [*MSD, "--help"]),
                "imports of download": partial(seconds, [sys.executable, "-P", "-c", IMPORTS]),
                "download of 1 KiB": partial(seconds, download, Path(folder)),
                "download, --no-sync": partial(seconds, [*download, "--no-sync"], Path(folder)),
            }
            times = run_interleaved(cases, ROUNDS)
    for name, values in times.items():
        print(f"{name:22} {1000 * statistics.median(values):7.1f} ms")
    medians = {name: statistics.median(values) for name, values in times.items()}
    imports = medians["imports of download"] - medians["interpreter"]
    work = medians["download of 1 KiB"] - medians["imports of download"]
    print(f"phases of the download: interpreter {1000 * medians['interpreter']:.0f} ms, ", end="")
    print(f"imports {1000 * imports:.0f} ms, work {1000 * work:.0f} ms")
    help_ratio = ratios(times["msd --help"], times["import typer"])
    conclude("startup", {"seconds": times}, [Bound("msd --help / import typer", help_ratio, 2.0, at_most=True)])
