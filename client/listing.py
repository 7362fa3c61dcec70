"""What the servers share: the catalogue of one worker, page by page."""

from __future__ import annotations

import time

from client.peers import Peers
from client.transport import LinkOpened, ReplyReceived
from wire.config import Servers
from wire.errors import NoAnswerError
from wire.messages import Catalog, Entry, List

#: Seconds after which nobody is taken to answer any more.
PATIENCE = 5.0


def list_files(servers: Servers, patience: float = PATIENCE) -> list[Entry]:
    """All shared files in order of their names, as the first worker that answers has them.

    Raises ``NoAnswerError`` after ``patience`` seconds without an answer.
    """
    peers = Peers(servers)
    entries: list[Entry] = []
    give_up = time.monotonic() + patience
    try:
        while time.monotonic() < give_up:
            for event in peers.turn(give_up):
                match event:
                    case LinkOpened(worker):
                        peers.request(worker, List(rid=peers.transport.rid()))
                    case ReplyReceived(worker, List(after=after), Catalog(entries=page, more=more)):
                        if after != (entries[-1].name if entries else ""):
                            continue  # Another worker's page: one catalogue is enough.
                        entries += page
                        give_up = time.monotonic() + patience
                        if not more or not page:
                            return entries
                        peers.request(worker, List(rid=peers.transport.rid(), after=page[-1].name))
        raise NoAnswerError(f"no worker answers: {peers.why_waiting()}")
    finally:
        peers.close()
