"""The list of what is shared, page by page; also of earlier editions, so that a client can end what it began. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from operator import attrgetter
from typing import Protocol

from blake3 import blake3

from msd.wire.protocol.codec import MAX_HEADER
from msd.wire.protocol.messages import MAX_ENTRIES, Entry

#: Maximum size of a page in bytes without the names: a reserve for the header's other keys, and for each entry the
#: largest size of its keys and values.
PAGE_OVERHEAD, ENTRY_OVERHEAD = 1024, 88
#: How long (seconds) the listing of an edition is kept after the next edition has replaced it. A client on a slow link
#: needs about a second for a page.
KEPT_S = 60.0
#: If there are several such listings, they have at most this many entries in all: each takes half a kilobyte.
MAX_KEPT_ENTRIES = 1 << 18
#: Stands for the id of a folder in the digest of a catalogue.
_NO_ID = bytes(32)


class Listed(Protocol):
    """What has an entry in the list."""

    @property
    def name(self) -> str: ...

    @property
    def entry(self) -> Entry: ...


class Listing:
    """The list of ``items``."""

    def __init__(self, items: Iterable[Listed]) -> None:
        self._items = sorted(items, key=attrgetter("name"))
        self._names = [item.name for item in self._items]
        #: The digest of the catalogue.
        self.id = blake3(b"".join(_encoded(item.entry) for item in self._items)).digest()

    def __len__(self) -> int:
        return len(self._items)

    def select(self, after: str, prefix: str) -> range:
        """Returns the positions of the items whose names begin with ``prefix`` and sort after ``after``."""
        first = bisect.bisect_left(self._names, prefix)
        end = bisect.bisect_left(self._names, True, first, key=lambda name: not name.startswith(prefix))
        return range(min(max(first, bisect.bisect_right(self._names, after)), end), end)

    def page(self, positions: range) -> tuple[list[Entry], bool]:
        """Returns the entries at the first ``positions``, as many as one page may have, and whether more follow."""
        entries: list[Entry] = []
        room = MAX_HEADER - PAGE_OVERHEAD
        for position in positions[:MAX_ENTRIES]:
            room -= len(self._names[position].encode()) + ENTRY_OVERHEAD
            if room < 0:
                break
            entries.append(self._items[position].entry)
        return entries, len(entries) < len(positions)


class Listings:
    """The ``current`` listing, and those before it for a while."""

    def __init__(self, current: Listing) -> None:
        self.current = current
        #: The listings before it, oldest first, each with the time until which it is kept.
        self._earlier: list[tuple[float, Listing]] = []

    def replace(self, current: Listing, now: float) -> None:
        """Continues with the listing of another edition."""
        self._earlier.append((now + KEPT_S, self.current))
        self.current = current
        while len(self._earlier) > 1 and sum(len(listing) for _, listing in self._earlier) > MAX_KEPT_ENTRIES:
            del self._earlier[0]

    def find(self, id: bytes) -> Listing | None:
        """Returns the listing of the catalogue with this digest, None if it is not kept."""
        listings = (self.current, *(listing for _, listing in self._earlier))
        return next((listing for listing in listings if listing.id == id), None)

    def expire(self, now: float) -> None:
        """Forgets the listings that need not be kept any longer."""
        self._earlier = [(until, listing) for until, listing in self._earlier if now < until]


def _encoded(entry: Entry) -> bytes:
    """Returns what the digest of a catalogue covers of an entry."""
    times = entry.mtime_ns.to_bytes(8, "big", signed=True) + entry.mode.to_bytes(2, "big")
    return entry.name.encode() + b"\0" + times + (entry.id or _NO_ID)
