"""Verifying what lies on the disk, from page cache, against reading it only; and indexing. One core."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.measuring import in_turns, paired_ratio
from client.disk import Copy
from wire.segments import Manifest, digest, segment_count, span
from workers.index import DigestCache, write_catalogue
from workers.looking import look

ROUNDS = 7
SIZE = 1 << 30


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="msd-bench-") as name:
        path, folder = Path(name, "file.bin"), Path(name, "catalogue")
        folder.mkdir()
        with path.open("wb") as file:
            for _ in range(SIZE >> 22):
                file.write(os.urandom(4 << 20))
        spans = [span(SIZE, index) for index in range(segment_count(SIZE))]
        data = path.read_bytes()
        digests = b"".join(digest(memoryview(data)[start : start + length]) for start, length in spans)
        copy_of = Manifest.build("file.bin", SIZE, digests)
        del data
        with path.open("rb", buffering=0) as shared:
            copy = Copy(shared.fileno(), copy_of)
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
    for case, values in times.items():
        print(f"{case:6} {SIZE / statistics.median(values) / 1e9:5.2f} GB/s")
    print(f"rate of verify / rate of read: {paired_ratio(times['read'], times['verify'])}")


def _timed(do: Callable[[], None]) -> Callable[[], float]:
    def timed() -> float:
        began = time.process_time()
        do()
        return time.process_time() - began

    return timed
