"""A client that fetches all shared files into memory and verifies them, for ``bench/small_files.py``.

Argument: the configuration file of the servers. Prints the number of files, of their bytes, and of the requests sent.
"""

from __future__ import annotations

import sys
from contextlib import closing

from msd.client.network.pool import ConnectionPool
from msd.client.network.session import Session
from msd.client.operations.selection_download import SelectionDownload
from msd.client.operations.transfer import Transfer
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import load
from msd.wire.protocol.messages import Correlated, Entry
from tests.memory_receiver import MemoryReceiver

MEMORY = 64 << 20
TIMEOUT = 60.0


class CountingReceiver(MemoryReceiver):
    """Counts the files; keeps none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.size = self.count = 0

    def save(self, entry: Entry, data: memoryview) -> None:  # noqa: ARG002
        self.size += len(data)
        self.count += 1


class CountingPool(ConnectionPool):
    """Counts the requests."""

    requests = 0

    def request(self, worker: int, request: Correlated) -> None:
        self.requests += 1
        super().request(worker, request)


def main(config: str) -> None:
    servers = locate_servers(load(config))
    with closing(CountingPool(servers, download=True, timeout=TIMEOUT)) as pool:
        session, receiver = Session(pool), CountingReceiver()
        transfer = Transfer(session, memory=MEMORY, max_rate=None, on_event=lambda event: None)
        download = SelectionDownload(
            session, transfer, ["**"], (), receiver, memory=MEMORY, on_event=lambda event: None
        )
        session.start(transfer)
        session.run(download)
        if download.errors:
            sys.exit(f"failed: {download.errors}")
        assert pool.requests, "no request was counted"
        print(receiver.count, receiver.size, pool.requests)


if __name__ == "__main__":
    main(sys.argv[1])
