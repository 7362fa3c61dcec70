"""Verifying what lies on the disk, from page cache, against reading it only; and indexing.

The rates are those of one core: bytes by processor seconds. Then servers are started twice for the same file,
and what their indexer says that it has read is counted.
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
from bench.measuring import in_turns, noise, paired_ratio
from msd.client.storage.local_copy import LocalCopy
from msd.wire.protocol.segments import Manifest, digest, segment_count, span
from msd.workers.indexing.catalogue_writer import DigestCache, write_catalogue
from msd.workers.source.scan import look

ROUNDS = 7
SIZE = 1 << 30


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="msd-bench-") as name:
        path, folder = Path(name, "file.bin"), Path(name, "catalogue")
        folder.mkdir()
        noise(path, SIZE)
        spans = [span(SIZE, index) for index in range(segment_count(SIZE))]
        data = path.read_bytes()
        digests = b"".join(digest(memoryview(data)[start : start + length]) for start, length in spans)
        copy_of = Manifest.build("file.bin", SIZE, digests)
        del data
        with path.open("rb", buffering=0) as shared:
            copy = LocalCopy(shared.fileno(), copy_of)
            buffer = memoryview(bytearray(1 << 20))

            def read_only() -> None:
                for start, length in spans:
                    os.preadv(shared.fileno(), [buffer[:length]], start)

            def verify() -> None:
                assert all(copy.read(index) is not None for index in range(copy_of.segments))

            def index() -> None:
                # No cache: its folder cannot be made.
                cache = DigestCache(Path("/dev/null/none"))
                write_catalogue(path, look(path).files, folder, cache, lambda line: None)

            cases = {"read": read_only, "verify": verify, "index": index}
            times = in_turns({case: _timed(do) for case, do in cases.items()}, ROUNDS)
        read = [bytes_read(path, Path(name, "home")) for _ in range(2)]
    rates = {case: [SIZE / seconds / 1e9 for seconds in values] for case, values in times.items()}
    for case, values in rates.items():
        print(f"{case:6} {statistics.median(values):5.2f} GB/s")
    print(f"rate of verify / rate of read: {paired_ratio(times['read'], times['verify'])}")
    print(f"servers started for the first time read {read[0]:,} bytes, for the second time {read[1]:,}")
    bounds = [
        Bound("GB/s of indexing, a core", rates["index"], 2.0),
        Bound("bytes read by a restart with an unchanged file", [read[1]], 0, at_most=True),
    ]
    conclude("disk", {"bytes": SIZE, "gb_per_core_second": rates, "bytes_read_by_starts": read}, bounds)


def bytes_read(path: Path, home: Path) -> int:
    """What the indexer reads when servers start; ``home`` is where they keep what they know."""
    with ours.serving(path, home) as four:
        told = re.search(r"\(([\d,]+) of them read\)", four.said)
    assert told, four.said
    return int(told[1].replace(",", ""))


def _timed(do: Callable[[], None]) -> Callable[[], float]:
    def timed() -> float:
        began = time.process_time()
        do()
        return time.process_time() - began

    return timed
