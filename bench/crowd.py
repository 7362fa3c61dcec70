"""Many downloads at once: each a process with the project's own client, from its sockets to its part file.

Such a process is forked from one that has imported everything, for to start a hundred interpreters would take
longer than what is to be measured; and it writes what it has verified to the same few places of its part file
again and again, for a hundred copies of a large file have room nowhere.
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
from msd.client.manifest.fetch import find_manifest
from msd.client.network.pool import ConnectionPool
from msd.client.operations.transfer import Transfer
from msd.client.storage.part_file import PartFile
from msd.wire.config.settings import Servers
from msd.wire.protocol.segments import Manifest, segment_size

#: Seconds that everybody may take to connect.
PATIENCE = 120.0
#: The bytes of all are counted for no longer than this (seconds), from when each has ``ROUSED`` segments
#: until the first has so much of its file that its end is near.
WINDOW, ROUSED, NEAR = 10.0, 2, 0.9
#: Seconds between two looks at the counts.
LOOK = 0.005
#: Places that a client writes to, in segments.
PLACES = 16


@dataclass(frozen=True)
class Rates:
    """The rates of clients in bytes a second, over ``seconds`` in which all of them were downloading."""

    seconds: float
    each: list[float]

    @property
    def sum(self) -> float:
        return sum(self.each)

    @property
    def fairness(self) -> float:
        """Jain's index: 1 if all get the same, 1/n if one gets everything."""
        return self.sum**2 / (len(self.each) * sum(rate**2 for rate in self.each))


class _Sink(PartFile):
    """A part file of few places, that counts what is written to it."""

    def __init__(self, output: Path, manifest: Manifest, counts: MutableSequence[int], number: int) -> None:
        super().__init__(output, manifest)
        self._counts = counts
        self._number = number

    def write(self, index: int, data: memoryview) -> None:
        super().write(index % PLACES, data)
        self._counts[self._number] += len(data)


def measure(servers: Servers, size: int, clients: int) -> Rates:
    """Has so many clients download the only file of ``servers``, of ``size`` bytes, until their rates are known."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    counts: MutableSequence[int] = context.Array("Q", clients, lock=False)
    start = context.Barrier(clients + 1)
    with memory_folder() as folder:
        members = [
            context.Process(target=_download, args=(servers, folder / str(number), counts, number, start))
            for number in range(clients)
        ]
        try:
            for member in members:
                member.start()
            start.wait(PATIENCE)
            return _watch(counts, size)
        finally:
            for member in members:
                member.kill()
                member.join()


def _watch(counts: MutableSequence[int], size: int) -> Rates:
    deadline = time.monotonic() + PATIENCE
    while min(counts) < ROUSED * segment_size(size):
        assert time.monotonic() < deadline, "a client gets nothing"
        time.sleep(LOOK)
    before, began = list(counts), time.monotonic()
    after, now = before, began
    while now < began + WINDOW and max(after) < NEAR * size:
        time.sleep(LOOK)
        after, now = list(counts), time.monotonic()
    seconds = now - began
    return Rates(seconds, [(end - start) / seconds for start, end in zip(before, after, strict=True)])


def _download(servers: Servers, output: Path, counts: MutableSequence[int], number: int, start: Barrier) -> None:
    """One client, in its own process."""
    with closing(ConnectionPool(servers, download=True)) as peers:
        manifest, catalogue = find_manifest(peers, None, None, timeout=PATIENCE, on_event=lambda event: None)
        while len(peers.ready) < len(servers.workers):
            peers.turn(time.monotonic() + PATIENCE)
        with closing(_Sink(output, manifest, counts, number)) as part:
            transfer = Transfer(
                peers,
                manifest,
                part,
                catalogue=catalogue,
                timeout=None,
                interval=60.0,
                memory=64 << 20,
                on_event=lambda event: None,
            )
            start.wait(PATIENCE)
            transfer.run()
