"""Many concurrent downloads, each in its own process with the real client code, from sockets to part file.

The processes are forked from a server process that has imported everything, because starting a hundred interpreters
would take longer than the measurement. Each client writes its segments to the same few positions of its part file,
because a hundred copies of a large file would not fit in memory.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import MutableSequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

from bench.measuring import memory_folder
from msd.client.manifest.look_up import find_manifest
from msd.client.network.pool import ConnectionPool
from msd.client.network.session import Session
from msd.client.operations.file_transfer import FileTransfer
from msd.client.operations.transfer import Transfer
from msd.client.storage.part_file import PartFile
from msd.wire.config.servers import Servers
from msd.wire.protocol.segments import Manifest, segment_size

#: Seconds within which all clients must connect and receive their first segments.
TIMEOUT = 120.0
#: The measurement starts once every client has received ``WARM_UP_SEGMENTS``. It ends after ``MAX_SECONDS``, or when
#: the fastest client has received ``MAX_SHARE`` of its file, so that all clients download throughout.
MAX_SECONDS, WARM_UP_SEGMENTS, MAX_SHARE = 10.0, 2, 0.9
#: Seconds between two reads of the counters.
POLL_INTERVAL = 0.005
#: Number of segment positions that each client writes to in its part file.
POSITIONS = 16


@dataclass(frozen=True)
class Rates:
    """The rate of each client in bytes/s, measured over ``seconds`` while all clients download."""

    seconds: float
    each: list[float]

    @property
    def sum(self) -> float:
        return sum(self.each)

    @property
    def fairness(self) -> float:
        """Jain's fairness index: 1 if all n clients have the same rate, 1/n if one client gets everything."""
        return self.sum**2 / (len(self.each) * sum(rate**2 for rate in self.each))


class _CountingPartFile(PartFile):
    """A part file that counts the bytes written and reuses a few segment positions."""

    def __init__(self, output: Path, manifest: Manifest, counts: MutableSequence[int], number: int) -> None:
        super().__init__(output, manifest)
        self._counts = counts
        self._number = number

    def write(self, index: int, data: memoryview) -> None:
        super().write(index % POSITIONS, data)
        self._counts[self._number] += len(data)


def measure(servers: Servers, size: int, clients: int) -> Rates:
    """Starts ``clients`` downloads of the only file shared by ``servers`` (``size`` bytes) and measures their rates."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    counts: MutableSequence[int] = context.Array("Q", clients, lock=False)
    start = context.Barrier(clients + 1)
    with memory_folder() as folder:
        processes = [
            context.Process(target=_download, args=(servers, folder / str(number), counts, number, start))
            for number in range(clients)
        ]
        try:
            for process in processes:
                process.start()
            start.wait(TIMEOUT)
            return _measure_rates(counts, size)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _measure_rates(counts: MutableSequence[int], size: int) -> Rates:
    deadline = time.monotonic() + TIMEOUT
    while min(counts) < WARM_UP_SEGMENTS * segment_size(size):
        assert time.monotonic() < deadline, "a client received too little data before the timeout"
        time.sleep(POLL_INTERVAL)
    before, began = list(counts), time.monotonic()
    after, now = before, began
    while now < began + MAX_SECONDS and max(after) < MAX_SHARE * size:
        time.sleep(POLL_INTERVAL)
        after, now = list(counts), time.monotonic()
    seconds = now - began
    return Rates(seconds, [(end - start) / seconds for start, end in zip(before, after, strict=True)])


def _download(servers: Servers, output: Path, counts: MutableSequence[int], number: int, start: Barrier) -> None:
    """Runs in a client process: downloads the file and counts the bytes in ``counts[number]``."""
    with closing(ConnectionPool(servers, download=True, timeout=TIMEOUT)) as pool:
        session = Session(pool)
        manifest, catalogue = find_manifest(session, None, None)
        while len(pool.ready) < len(servers.workers):
            pool.wait(time.monotonic() + TIMEOUT)
            list(pool.events())
        with closing(_CountingPartFile(output, manifest, counts, number)) as part:
            transfer = Transfer(session, memory=64 << 20, max_rate=None, on_event=lambda event: None)
            session.start(transfer)
            start.wait(TIMEOUT)
            file = FileTransfer(
                session,
                transfer,
                manifest,
                part,
                catalogue=catalogue,
                memory=64 << 20,
                previous=None,
                on_event=lambda event: None,
            )
            session.run(file)
