"""What the servers share: the catalogue of one worker, page by page."""

from __future__ import annotations

import time
from itertools import pairwise

from msd.client.network.connection import new_rid
from msd.client.network.pool import ConnectionPool
from msd.client.network.transport import LinkOpened, ReplyReceived
from msd.wire.config.settings import Servers
from msd.wire.errors import NoAnswerError
from msd.wire.protocol.messages import CataloguePage, Entry, List

#: Seconds after which nobody is taken to answer any more.
PATIENCE = 5.0


def list_files(servers: Servers, patience: float = PATIENCE) -> list[Entry]:
    """All shared files in order of their names, as the first worker that has told them all has them.

    Raises ``NoAnswerError`` after ``patience`` seconds without an answer.
    """
    peers = ConnectionPool(servers, download=False)
    #: What each worker has told so far; the first to have told all is believed.
    told: dict[int, list[Entry]] = {}
    give_up = time.monotonic() + patience
    try:
        while time.monotonic() < give_up:
            for event in peers.turn(give_up):
                match event:
                    case LinkOpened(worker):
                        told[worker] = []
                        peers.request(worker, List(rid=new_rid()))
                    case ReplyReceived(worker, List(after=after), CataloguePage(entries=page, more=more)):
                        if not _continues(page, after):
                            continue  # It could go on for ever.
                        told[worker] += page
                        if not more or not page:
                            return told[worker]
                        give_up = time.monotonic() + patience
                        peers.request(worker, List(rid=new_rid(), after=page[-1].name))
        raise NoAnswerError(f"no worker answers: {peers.why_waiting()}")
    finally:
        peers.close()


def _continues(page: list[Entry], after: str) -> bool:
    """True if the names of a page go on where the last one ended, each greater than the one before."""
    names = [after, *(entry.name for entry in page)]
    return all(one < other for one, other in pairwise(names))
