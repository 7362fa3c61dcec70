"""Fetches the list of shared files, page by page. Downloads no file."""

from __future__ import annotations

import math
import time
from itertools import pairwise

from msd.client.network.progress_timeout import ProgressMade
from msd.client.network.session import Session, Task
from msd.client.network_events import ConnectionOpened, NetworkEvent, ReplyReceived
from msd.wire.protocol.messages import CataloguePage, Entry, List, new_rid
from msd.wire.support.core import Stalled


class Listing(Task):
    """Fetches the list of shared files. Asks all workers; the first complete list wins."""

    def __init__(self, session: Session) -> None:
        self._session = session
        #: All shared files, sorted by name, once the listing is complete.
        self.entries: list[Entry] = []
        #: The files that each worker has listed so far.
        self._listed: dict[int, list[Entry]] = {}

    def handle(self, event: NetworkEvent | Stalled) -> None:
        match event:
            case ConnectionOpened(worker):
                self._listed[worker] = []
                self._session.request(self, worker, List(rid=new_rid()))
            case ReplyReceived(worker, List(after=after), CataloguePage(entries=page, more=more)):
                if not _is_next_page(page, after):
                    # Ignore a page that is out of order: a faulty worker might repeat pages indefinitely.
                    return
                self._listed[worker] += page
                if not more or not page:
                    self.entries, self.is_done = self._listed[worker], True
                    return
                self._session.pool.progress_timeout.handle(ProgressMade(), time.monotonic())
                self._session.request(self, worker, List(rid=new_rid(), after=page[-1].name))

    def pass_time(self) -> float:
        return math.inf


def fetch_listing(session: Session) -> list[Entry]:
    """Returns all shared files, sorted by name. Raises ``MsdError``."""
    listing = Listing(session)
    session.run(listing)
    return listing.entries


def _is_next_page(page: list[Entry], after: str) -> bool:
    """True if the page's names are sorted and all come after the last name of the previous page."""
    names = [after, *(entry.name for entry in page)]
    return all(earlier < later for earlier, later in pairwise(names))
