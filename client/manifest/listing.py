"""Fetches the list of shared files, page by page. Downloads no file."""

from __future__ import annotations

import time
from itertools import pairwise

from msd.client.network.pool import ConnectionPool
from msd.client.network.progress_timeout import ProgressMade
from msd.client.network_events import ConnectionOpened, ReplyReceived
from msd.wire.protocol.messages import CataloguePage, Entry, List, new_rid


def fetch_listing(pool: ConnectionPool) -> list[Entry]:
    """Returns all shared files, sorted by name. Asks all workers; the first complete list wins. Raises ``MsdError``."""
    #: The files that each worker has listed so far.
    listed: dict[int, list[Entry]] = {}
    events = pool.current_state()
    while True:
        for event in events:
            match event:
                case ConnectionOpened(worker):
                    listed[worker] = []
                    pool.request(worker, List(rid=new_rid()))
                case ReplyReceived(worker, List(after=after), CataloguePage(entries=page, more=more)):
                    if not _is_next_page(page, after):
                        # Ignore a page that is out of order: a faulty worker might repeat pages indefinitely.
                        continue
                    listed[worker] += page
                    if not more or not page:
                        return listed[worker]
                    pool.progress_timeout.handle(ProgressMade(), time.monotonic())
                    pool.request(worker, List(rid=new_rid(), after=page[-1].name))
        events = pool.poll(None)


def _is_next_page(page: list[Entry], after: str) -> bool:
    """True if the page's names are sorted and all come after the last name of the previous page."""
    names = [after, *(entry.name for entry in page)]
    return all(earlier < later for earlier, later in pairwise(names))
