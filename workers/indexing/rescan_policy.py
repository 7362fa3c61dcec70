"""When to look at the shared files again, and which of them are to be indexed then: a pure core.

Whoever writes a file seldom does so in one stroke, so a change of a file is indexed when two looks
in a row have seen the same of it; until then its old entry stays. What could not be indexed is tried
again, ever less often. Times are in seconds on the caller's monotonic clock; versions are opaque.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

#: Between two looks while nothing happens, and between two while something does.
CALM, ALERT = 2.0, 0.5
#: Looking takes at most one part in so many of the time, however many files there are.
LOOK_SHARE = 20
#: The first and the longest wait after a file could not be indexed; each is twice the one before.
RETRY_FIRST, RETRY_LAST = 2.0, 60.0

V = TypeVar("V")


class Watch(Generic[V]):
    """Compares what is seen of the shared files, their versions by name, with what is indexed."""

    def __init__(self, held: Mapping[str, V]) -> None:
        #: What the latest edition holds.
        self.held = held
        #: What the last look saw; None before the first.
        self._last: Mapping[str, V] | None = None
        #: What ``looked`` last wanted, and the names for which that differs from what was held.
        self._wanted: Mapping[str, V] = {}
        self._due: set[str] = set()
        #: Files that differ from what is held because they could not be indexed: how long they wait
        #: and until when.
        self._failed: dict[str, tuple[float, float]] = {}
        #: When a look is due for a nudge.
        self._soon = 0.0
        self.next_look = 0.0

    def nudge(self) -> None:
        """Something says that a file has changed: look as soon as may be."""
        self.next_look = min(self.next_look, self._soon)

    def looked(self, seen: Mapping[str, V], took: float, now: float) -> Mapping[str, V] | None:
        """A look that took so long and ended now. What the next edition is to hold, or None if there
        is no reason for one. The first look always is one, and takes all it sees to stand still.
        """
        first, last = self._last is None, seen if self._last is None else self._last
        self._last = seen
        changed = _differing(seen, self.held)
        self._failed = {name: wait for name, wait in self._failed.items() if name in changed}
        pending = {name for name in changed if name not in self._failed or now >= self._failed[name][1]}
        self._due = {name for name in pending if seen.get(name) == last.get(name)}
        self._soon = now + max(ALERT, LOOK_SHARE * took)
        self.next_look = self._soon if pending else now + max(CALM, LOOK_SHARE * took)
        if not self._due and not first:
            return None
        wanted = dict(self.held)
        for name in self._due:
            if name in seen:
                wanted[name] = seen[name]
            else:
                del wanted[name]
        self._wanted = wanted
        return wanted

    def indexed(self, held: Mapping[str, V], now: float) -> None:
        """It was tried to index what was wanted, and ``held`` is what the latest edition holds now."""
        for name in self._due:
            if held.get(name) != self._wanted.get(name):
                wait = min(2 * self._failed[name][0], RETRY_LAST) if name in self._failed else RETRY_FIRST
                self._failed[name] = wait, now + wait
        self.held = held


def _differing(seen: Mapping[str, V], held: Mapping[str, V]) -> set[str]:
    if seen == held:
        return set()
    return {name for name, version in seen.items() if held.get(name) != version} | (held.keys() - seen.keys())
