"""Draws ``docs/run.svg`` from a real download with faults: ``python -m docs.make_run_svg`` (``make pictures``).

Four workers send 8 MiB/s each. Worker 2 is put to sleep and woken up, worker 3 is killed, and a proxy corrupts
segments from worker 4.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from pathlib import Path

from tests.network_fault_proxy import Proxy
from tests.processes import MIB, Download, System, make_file, run_msd

DOCS = Path(__file__).parent
SIZE = 240 * MIB


def run(folder: Path) -> Path:
    """Downloads a file while injecting the faults listed above, and returns the path of the report."""
    report = folder / "report.json"
    os.environ["XDG_RUNTIME_DIR"] = os.environ["XDG_CACHE_HOME"] = str(folder)
    film = make_file(folder / "Star.mp4", SIZE, random.Random(1))  # noqa: S311
    with System(film, "--rate", "8MiB").wait_until_ready() as servers, Proxy(servers.ports[3]) as proxy:
        server_flags = ["-a", "127.0.0.1", "-p", *map(str, (*servers.ports[:3], proxy.port, servers.ports[4]))]
        with Download(server_flags, "-o", str(folder / "copy.mp4"), "--report", str(report)) as client:
            client.wait_until_verified(0.2)
            servers.put_to_sleep(2)
            client.wait_until_verified(0.35)
            servers.kill(3)
            client.wait_until_verified(0.5)
            servers.wake(2)
            client.wait_until_verified(0.7)
            proxy.flip_every = MIB
            client.wait_until_done()
    return report


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="msd-") as folder:
        plot = run_msd("plot", str(run(Path(folder))), "-o", str(DOCS / "run.svg"))
    sys.exit(plot.stderr or plot.returncode)
