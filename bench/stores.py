"""The rate of a download from an object store through four workers, compared with a bare loop over obstore.

The store is SeaweedFS on this machine; ``make test-stores`` installs it. The bare loop reads segments in threads,
hashes each and drops it; it has 8 or 16 threads, and the faster of both counts. msd hashes each segment in a worker and
in the client, and writes it to tmpfs. The cache of the workers is too small for the next round. The times exclude
start-up.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from bench import ours
from bench.bounds import Bound, conclude, ratios
from bench.measuring import ROUNDS, SIZE, memory_folder, run_interleaved, warn_if_noisy
from tests.processes import MIB, MSD
from tests.stores.servers import BUCKET, CREDENTIALS, SeaweedFs

GIB = 1 << 30
#: SeaweedFS, too, keeps the object in memory here.
BYTES = min(SIZE, 512 * MIB)
THREADS = (8, 16)
CACHE = '[store]\ncache = "8MiB"\n'


def run() -> None:
    with memory_folder() as folder:
        try:
            server = SeaweedFs(folder / "seaweedfs")
        except pytest.skip.Exception as reason:
            print(reason)
            return
        with server:
            _run(folder, server)


def _run(folder: Path, server: SeaweedFs) -> None:
    # Random data: nothing on the way can compress it.
    part = os.urandom(16 * MIB)
    import obstore

    obstore.put(server.client(), "film.bin", part * (BYTES // len(part)))
    os.environ |= {**CREDENTIALS, "AWS_ENDPOINT_URL": server.url}
    with ours.serving(f"s3://{BUCKET}/film.bin", folder / "home", settings=CACHE) as servers:
        output = folder / "copy"
        command = [*MSD, "download", *servers.server_flags, "--json", "--force", "-o", str(output)]

        def msd() -> float:
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            return float(json.loads(lines[-1])["seconds"])

        def bare(threads: int) -> float:
            bare_command = [sys.executable, "-m", "bench.stores", server.url, str(threads)]
            return float(subprocess.run(bare_command, check=True, capture_output=True, text=True).stdout)

        cases = {"msd": msd} | {f"obstore, {n} threads": lambda n=n: bare(n) for n in THREADS}
        times = run_interleaved(cases, ROUNDS)
    print(f"{BYTES / GIB:g} GiB, {ROUNDS} rounds, medians")
    for name, seconds in times.items():
        print(f"{name:24} {BYTES / statistics.median(seconds) / MIB:6.0f} MiB/s")
    faster = min(times.keys() - {"msd"}, key=lambda name: statistics.median(times[name]))
    warn_if_noisy(faster, times[faster])
    bound = Bound(f"rate of msd / rate of {faster}", ratios(times[faster], times["msd"]), 0.8)
    conclude("stores", {"bytes": BYTES, "seconds": times}, [bound])


def fetch(endpoint: str, threads: int) -> float:
    """Reads and hashes the object, and returns the seconds that it took."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=endpoint,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    def read(start: int) -> bytes:
        return blake3(obstore.get_range(store, "film.bin", start=start, length=MIB)).digest()

    with ThreadPoolExecutor(threads) as pool:
        read(0)
        began = time.perf_counter()
        assert len([*pool.map(read, range(0, BYTES, MIB))]) == BYTES // MIB
        return time.perf_counter() - began


if __name__ == "__main__":
    print(fetch(sys.argv[1], int(sys.argv[2])))
