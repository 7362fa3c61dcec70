"""``msd list``: fetches the list of shared files. Downloads no file."""

from __future__ import annotations

from contextlib import closing

from msd.client.manifest.listing import fetch_listing
from msd.client.network.pool import ConnectionPool
from msd.client.network.session import Session
from msd.wire.config.servers import Servers
from msd.wire.protocol.messages import Entry

#: How long to wait for each answer.
ANSWER_TIMEOUT_S = 5.0


def list_files(servers: Servers, timeout: float = ANSWER_TIMEOUT_S) -> list[Entry]:
    """Returns all shared files, sorted by name.

    Raises ``NoAnswerError`` after ``timeout`` seconds without an answer.
    """
    with closing(ConnectionPool(servers, download=False, timeout=timeout)) as pool:
        return fetch_listing(Session(pool))
