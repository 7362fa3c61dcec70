"""Listings of shared files for tests, and a worker that sends them in pages."""

from __future__ import annotations

from collections.abc import Sequence

from msd.wire.protocol.messages import CataloguePage, Entry, List
from msd.wire.protocol.segments import digest, file_id

CATALOGUE = b"c" * 32


def entry(name: str, size: int = 5) -> Entry:
    """A folder if ``name`` ends in ``/``, otherwise a file with an id of its own."""
    if name.endswith("/"):
        return Entry(name=name, size=0, mtime_ns=7, mode=0o755)
    id = digest(name.encode()) if size else file_id(0, b"")
    return Entry(name=name, size=size, mtime_ns=len(name), mode=0o644, id=id)


def page_of(listing: Sequence[Entry], request: List, limit: int = 100, catalogue: bytes = CATALOGUE) -> CataloguePage:
    """The reply of a worker that shares ``listing``, with at most ``limit`` entries."""
    found = [e for e in listing if e.name > request.after and e.name.startswith(request.prefix)]
    return CataloguePage(rid=1, epoch=1, catalogue=catalogue, entries=found[:limit], more=len(found) > limit)
