"""Fetches the list of shared files, page by page, all pages from the same catalogue. Downloads no file."""

from __future__ import annotations

import math
import time

from msd.client.network.progress_timeout import ProgressMade
from msd.client.network.session import Session, Task
from msd.client.network_events import ConnectionOpened, NetworkEvent, ReplyReceived
from msd.wire.protocol.messages import CataloguePage, Entry, List, Refusal, new_rid
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Stalled


class Listing(Task):
    """Fetches the list of shared files. Asks all workers; the first complete list wins."""

    def __init__(self, session: Session) -> None:
        self._session = session
        #: All shared files, sorted by name, once the listing is complete.
        self.entries: list[Entry] = []
        #: The files that each worker has listed so far.
        self._listed: dict[int, list[Entry]] = {}
        #: The largest number of files that a worker has listed.
        self._most_listed = 0

    def handle(self, event: NetworkEvent | Stalled) -> None:
        match event:
            case ConnectionOpened(worker):
                self._listed[worker] = []
                self._session.request(self, worker, List(rid=new_rid()))
            case ReplyReceived(worker, List(), Refusal(reason=RefusalReason.UNKNOWN)):
                # The catalogue of the earlier pages is not kept any more.
                self._listed[worker] = []
                self._session.request(self, worker, List(rid=new_rid()))
            case ReplyReceived(worker, List(), CataloguePage(catalogue=catalogue, entries=page, more=more)):
                self._listed[worker] += [entry for entry in page if not entry.is_folder]
                if not more:
                    self.entries, self.is_done = self._listed[worker], True
                    return
                # A faulty worker may send a first page again and again on new connections.
                if len(self._listed[worker]) > self._most_listed:
                    self._most_listed = len(self._listed[worker])
                    self._session.pool.progress_timeout.handle(ProgressMade(), time.monotonic())
                self._session.request(self, worker, List(rid=new_rid(), after=page[-1].name, catalogue=catalogue))

    def pass_time(self) -> float:
        return math.inf


def fetch_listing(session: Session) -> list[Entry]:
    """Returns all shared files, sorted by name. Raises ``MsdError``."""
    listing = Listing(session)
    session.run(listing)
    return listing.entries
