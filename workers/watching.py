"""When to look at the shared files again, and when what is seen there is worth indexing: a pure core.

Whoever writes a file seldom does so in one stroke, so a change is indexed when two looks in a row
have seen the same; and after a while in any case, for some files never stand still. Times are in
seconds on the caller's monotonic clock; what was seen is opaque.
"""

from __future__ import annotations

#: Between two looks while nothing happens, and between two while something does.
CALM, ALERT = 2.0, 0.5
#: Looking takes at most one part in so many of the time, however many files there are.
LOOK_SHARE = 20
#: What never stands still is indexed after so long, or this many times what indexing took.
RESTLESS, INDEX_SHARE = 10.0, 10


class Watch:
    """Follows what ``seen`` says of the shared files, which were indexed as they are in it."""

    def __init__(self, seen: bytes, now: float) -> None:
        self._indexed = self._last = seen
        self._restless = RESTLESS
        self._changed_at: float | None = None
        #: When a look is due for a nudge.
        self._soon = now + ALERT
        self.next_look = now + CALM

    def nudge(self) -> None:
        """Something says that a file has changed: look as soon as may be."""
        self.next_look = min(self.next_look, self._soon)

    def looked(self, seen: bytes, took: float, now: float) -> bool:
        """A look that took so long and ended now; True if what was seen is to be indexed."""
        self._soon = now + max(ALERT, LOOK_SHARE * took)
        stands_still, self._last = seen == self._last, seen
        if seen == self._indexed:
            self._changed_at = None
            self.next_look = now + max(CALM, LOOK_SHARE * took)
            return False
        if self._changed_at is None:
            self._changed_at = now
        self.next_look = self._soon
        return stands_still or now >= self._changed_at + self._restless

    def indexed(self, seen: bytes, took: float) -> None:
        """What was ``seen`` is indexed now, which took so long."""
        self._indexed = seen
        self._restless = max(RESTLESS, INDEX_SHARE * took)
        self._changed_at = None
