"""Compares the rate of verifying a file in the page cache with that of only reading it, and measures indexing.

Rates are per core: bytes per processor second. Then the servers are started twice for the same file, to measure how
many bytes the indexer reads at each start.
"""

from __future__ import annotations

import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import ours
from bench.bounds import Bound, conclude
from bench.copying import GIB
from bench.measuring import make_random_file, paired_ratio, run_interleaved
from msd.client.storage.segments_on_disk import SegmentsOnDisk
from msd.wire.protocol.segments import Manifest, digest, segment_count, span
from msd.workers.indexing.catalogue_writer import write_catalogue
from msd.workers.indexing.digest_cache import DigestCache
from msd.workers.source.scan import scan
from msd.workers.source.share import Share

ROUNDS = 7
SIZE = 1 << 30


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="msd-bench-") as name:
        path, folder = Path(name, "file.bin"), Path(name, "catalogue")
        folder.mkdir()
        make_random_file(path, SIZE)
        spans = [span(SIZE, index) for index in range(segment_count(SIZE))]
        data = path.read_bytes()
        digests = b"".join(digest(memoryview(data)[start : start + length]) for start, length in spans)
        manifest = Manifest.build("file.bin", SIZE, digests)
        del data
        with path.open("rb", buffering=0) as shared:
            copy = SegmentsOnDisk(shared.fileno(), manifest)
            buffer = memoryview(bytearray(1 << 20))

            def read_only() -> None:
                for start, length in spans:
                    os.preadv(shared.fileno(), [buffer[:length]], start)

            def verify() -> None:
                assert all(copy.read(index) is not None for index in range(manifest.segments))

            share = Share({"": path})

            def index() -> None:
                # A folder that cannot be created disables the cache.
                cache = DigestCache(Path("/dev/null/none"), lambda text: None)
                write_catalogue(share, scan(share).files, folder, cache, lambda line: None)

            cases = {"read": read_only, "verify": verify, "index": index}
            times = run_interleaved({case: _timed(action) for case, action in cases.items()}, ROUNDS)
        read = [bytes_read(path, Path(name, "home")) for _ in range(2)]
    rates = {case: [SIZE / seconds / GIB for seconds in values] for case, values in times.items()}
    for case, values in rates.items():
        print(f"{case:6} {statistics.median(values):5.2f} GiB/s")
    print(f"rate of verifying / rate of reading: {paired_ratio(times['read'], times['verify'])}")
    print(f"bytes read by the indexer: {read[0]:,} at the first start, {read[1]:,} at the second")
    bounds = [
        Bound("indexing, GiB/s per core", rates["index"], 1.86),
        Bound("bytes read after a restart with an unchanged file", [read[1]], 0, at_most=True),
    ]
    conclude("disk", {"bytes": SIZE, "gib_per_core_second": rates, "bytes_read_by_starts": read}, bounds)


def bytes_read(path: Path, home: Path) -> int:
    """Starts servers and returns the number of bytes that their indexer reads; ``home`` contains the digest cache."""
    with ours.serving(path, home) as servers:
        note = re.search(r"^indexed 1 file, [^(\n]*(\(from cache\))?$", servers.output, re.MULTILINE)
    assert note, servers.output
    return 0 if note[1] else SIZE


def _timed(action: Callable[[], None]) -> Callable[[], float]:
    def timed() -> float:
        began = time.process_time()
        action()
        return time.process_time() - began

    return timed
