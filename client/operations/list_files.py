"""``msd list``: fetches the list of shared files, page by page. Downloads no file."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import pairwise

from msd.client.network.pool import ConnectionPool
from msd.client.network.progress_timeout import ProgressMade
from msd.client.network_events import ConnectionOpened, ReplyReceived
from msd.wire.config.servers import Servers
from msd.wire.protocol.messages import CataloguePage, Entry, List, new_rid

#: How long to wait for each answer.
ANSWER_TIMEOUT_S = 5.0


def list_files(servers: Servers, timeout: float = ANSWER_TIMEOUT_S) -> list[Entry]:
    """Returns all shared files, sorted by name. Asks all workers; the first complete list wins.

    Raises ``NoAnswerError`` after ``timeout`` seconds without an answer.
    """
    #: The files that each worker has listed so far.
    listed: dict[int, list[Entry]] = {}
    with closing(ConnectionPool(servers, download=False, timeout=timeout)) as pool:
        while True:
            for event in pool.poll(None):
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


def _is_next_page(page: list[Entry], after: str) -> bool:
    """True if the page's names are sorted and all come after the last name of the previous page."""
    names = [after, *(entry.name for entry in page)]
    return all(earlier < later for earlier, later in pairwise(names))
