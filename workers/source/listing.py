"""The list of what is shared, page by page; also of earlier editions, so that a client can end what it began. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

from msd.wire.protocol.codec import MAX_HEADER
from msd.wire.protocol.messages import MAX_ENTRIES, Entry

#: Maximum size of a page in bytes without the names: a reserve for the header's other keys, and for each entry the
#: largest size of its keys and values.
PAGE_OVERHEAD, ENTRY_OVERHEAD = 1024, 88
#: How long (seconds) the listing of an edition is kept after the next edition has replaced it. A client on a slow link
#: needs about a second for a page.
KEPT_S = 60.0
#: If there are several such listings, they have at most this many entries in all: each takes 160 bytes.
MAX_KEPT_ENTRIES = 1 << 17


class Listing:
    """The list of the sorted ``names`` in the catalogue with the digest ``id``. ``entry_at`` returns an entry by its
    position.
    """

    def __init__(self, id: bytes, names: Sequence[str], entry_at: Callable[[int], Entry]) -> None:
        self.id = id
        self._names = names
        self._entry_at = entry_at

    def __len__(self) -> int:
        return len(self._names)

    def select(self, after: str, prefix: str, scope: str = "") -> range:
        """Returns the positions of the entries whose names begin with ``prefix`` and sort after ``after``. ``scope`` is
        the only file or folder that may be listed; empty for everything.
        """
        first, end = self._beginning_with(prefix)
        if scope:
            scope_first, scope_end = self._beginning_with(scope)
            if not scope.endswith("/"):
                scope_end = min(scope_end, scope_first + (self._names[scope_first : scope_first + 1] == [scope]))
            first, end = max(first, scope_first), min(end, scope_end)
        return range(min(max(first, bisect.bisect_right(self._names, after)), end), end)

    def _beginning_with(self, prefix: str) -> tuple[int, int]:
        first = bisect.bisect_left(self._names, prefix)
        return first, bisect.bisect_left(self._names, True, first, key=lambda name: not name.startswith(prefix))

    def page(self, positions: range) -> tuple[list[Entry], bool]:
        """Returns the entries at the first ``positions``, as many as one page may have, and whether more follow."""
        entries: list[Entry] = []
        room = MAX_HEADER - PAGE_OVERHEAD
        for position in positions[:MAX_ENTRIES]:
            room -= len(self._names[position].encode()) + ENTRY_OVERHEAD
            if room < 0:
                break
            entries.append(self._entry_at(position))
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
