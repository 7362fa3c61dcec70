"""The list of shared files on connections that are already open. Its pages: test_list_files.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from msd.client.manifest.listing import fetch_listing
from msd.client.network.session import Session
from msd.client.network_events import ReplyReceived
from msd.wire.protocol.messages import CataloguePage, Entry, List
from tests.connections import opened

ENTRY = Entry(name="film.mp4", size=5, mtime_ns=0, id=b"i" * 32)


def test_workers_that_are_connected_already_are_asked() -> None:
    pool: Any = SimpleNamespace(current_state=lambda: [opened(2)], wait=lambda deadline: None, stalled_seconds=0.0)

    def request(worker: int, message: List) -> None:
        page = CataloguePage(rid=message.rid, epoch=7, catalogue=b"", entries=[ENTRY], more=False)
        pool.events = lambda: [ReplyReceived(worker, message, page, None)]

    pool.request = request
    assert fetch_listing(Session(pool)) == [ENTRY]
