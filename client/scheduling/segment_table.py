"""Where each segment of a file is: the bookkeeping of the scheduler. Pure.

Every missing segment is in exactly one of four places: unchecked, unasked, asked or disputed. Whom to ask for
which is decided in ``client/scheduling/scheduler.py``.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set

from msd.client.scheduling.events import SegmentState

#: Marks in ``SegmentTable._source``, where other numbers are workers.
MISSING, ON_DISK, UNCHECKED = 0, 0xFFFF, 0xFFFE

_NOBODY: frozenset[int] = frozenset()


class SegmentTable:
    """The ``segments`` of one file; the disk may hold those that are ``unchecked``."""

    def __init__(self, segments: int, unchecked: Iterable[int] = ()) -> None:
        #: How many are not verified yet.
        self.remaining = segments
        #: Where each segment came from: a worker's number, or a mark. X of a worker are the
        #: segments with its number.
        self._source = array("H", bytes(2 * segments))
        for index in unchecked:
            self._source[index] = UNCHECKED
        #: Missing segments from here on have never been asked for.
        self._fresh = 0
        #: Missing segments below ``_fresh`` that nobody is asked for now, next one first.
        self._returned: deque[int] = deque()
        #: Missing segments by the workers asked for them: the other index of all Y.
        self._owners: dict[int, list[int]] = {}
        #: Missing segments that came corrupt, by who sent them; in ``_owners``, or waiting for
        #: somebody else.
        self._disputed: dict[int, set[int]] = {}

    def is_missing(self, index: int) -> bool:
        """True if a segment is not verified yet."""
        return self._source[index] in (MISSING, UNCHECKED)

    def where(self, index: int) -> SegmentState:
        """Where a segment is."""
        source = self._source[index]
        if source != MISSING:
            return {UNCHECKED: SegmentState.UNCHECKED, ON_DISK: SegmentState.ON_DISK}.get(source, SegmentState.HERE)
        if index in self._owners:
            return SegmentState.ASKED
        return SegmentState.DISPUTED if index in self._disputed else SegmentState.UNASKED

    def delivered_by(self, worker: int) -> list[int]:
        """X of a worker. Takes time in proportion to the file."""
        return [index for index, source in enumerate(self._source) if source == worker]

    def first_missing(self) -> int | None:
        """The first segment that is neither verified nor to be found on the disk, perhaps."""
        return next((index for index, source in enumerate(self._source) if source == MISSING), None)

    @property
    def owners(self) -> Mapping[int, list[int]]:
        """The segments that somebody is asked for, and who: the first one asked first."""
        return self._owners

    def liars(self, index: int) -> Set[int]:
        """The workers that have sent a missing segment corrupt."""
        return self._disputed.get(index, _NOBODY)

    # What becomes of a segment.

    def next_unasked(self, may_try: Callable[[Set[int]], bool]) -> int | None:
        """Takes the next segment that nobody is asked for; of those that came corrupt only one where
        ``may_try`` says so of those who sent it. ``ask`` for it.
        """
        for index, liars in self._disputed.items():
            if index not in self._owners and may_try(liars):
                return index
        if self._returned:
            return self._returned.popleft()
        while self._fresh < len(self._source):
            self._fresh += 1
            if self._source[self._fresh - 1] == MISSING:
                return self._fresh - 1
        return None

    def ask(self, index: int, worker: int) -> None:
        self._owners.setdefault(index, []).append(worker)

    def disown(self, index: int, worker: int) -> None:
        """``worker`` is not asked for a segment any more. If nobody else is, it is the next one."""
        owners = self._owners.get(index, [])
        if worker not in owners:
            return
        owners.remove(worker)
        if not owners:
            del self._owners[index]
            if index not in self._disputed:
                self._returned.appendleft(index)

    def written(self, index: int, worker: int) -> None:
        """Verified, and in the part file."""
        if self._source[index] != MISSING:
            return
        self._source[index] = worker
        self.remaining -= 1
        self._disputed.pop(index, None)
        if self._owners.pop(index, None) is None and index in self._returned:
            # Asked for before the worker was given up, and here all the same.
            self._returned.remove(index)

    def corrupt(self, index: int, worker: int) -> None:
        """``worker`` sent it, and it is not what it should be."""
        if self._source[index] == MISSING:
            self._disputed.setdefault(index, set()).add(worker)
            if index in self._returned:
                self._returned.remove(index)
            self.disown(index, worker)

    def checked(self, index: int, *, good: bool) -> None:
        """What the disk holds of an unchecked segment was hashed."""
        if self._source[index] != UNCHECKED:
            return
        self._source[index] = ON_DISK if good else MISSING
        if good:
            self.remaining -= 1
        elif index < self._fresh:
            self._returned.append(index)

    def check_invariants(self) -> None:
        missing = {index for index, source in enumerate(self._source) if source == MISSING}
        assert self.remaining == len(missing) + self._source.count(UNCHECKED)
        assert all(owners and len(set(owners)) == len(owners) for owners in self._owners.values())
        returned = set(self._returned)
        assert len(returned) == len(self._returned)
        waiting = {index for index in self._disputed if index not in self._owners}
        fresh = {index for index in missing if index >= self._fresh}
        groups = [returned, waiting, fresh, set(self._owners)]
        assert set().union(*groups) == missing
        assert sum(map(len, groups)) == len(missing)
