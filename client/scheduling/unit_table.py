"""Tracks the state of each unit of a file for the scheduler. Pure.

Every missing unit is in exactly one of four states: unchecked, unrequested, outstanding or suspect.
``client/scheduling/scheduler.py`` decides which worker is asked for which unit.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set

from msd.client.scheduling.scheduler_events import UnitState

#: Values of ``UnitTable._source`` that are not worker numbers.
MISSING, REUSED, UNCHECKED = 0, 0xFFFF, 0xFFFE

_NO_WORKERS: frozenset[int] = frozenset()


class UnitTable:
    """The states of the units of one file.

    ``units`` is their number. The disk may hold the units in ``unchecked``.
    """

    def __init__(self, units: int, unchecked: Iterable[int] = ()) -> None:
        #: The number of units that are not verified yet.
        self.remaining = units
        #: Where each unit came from: a worker's number, or one of the values above. The X of a
        #: worker is the set of units with the worker's number.
        self._source = array("H", bytes(2 * units))
        for index in unchecked:
            self._source[index] = UNCHECKED
        #: Missing units from this index on have never been requested.
        self._first_fresh = 0
        #: Unrequested units below ``_first_fresh``, in the order in which they will be requested.
        self._requeued: deque[int] = deque()
        #: The outstanding units and the workers they are requested from: the Y of all workers, indexed by unit.
        self._requested_from: dict[int, list[int]] = {}
        #: Missing units that arrived corrupt, and the workers that sent them. Each is either in
        #: ``_requested_from`` as well, or waits to be requested again.
        self._corrupt_senders: dict[int, set[int]] = {}

    def is_missing(self, index: int) -> bool:
        """True if the unit is not verified yet."""
        return self._source[index] in (MISSING, UNCHECKED)

    def state_of(self, index: int) -> UnitState:
        source = self._source[index]
        if source != MISSING:
            return {UNCHECKED: UnitState.UNCHECKED, REUSED: UnitState.REUSED}.get(source, UnitState.VERIFIED)
        if index in self._requested_from:
            return UnitState.OUTSTANDING
        return UnitState.SUSPECT if index in self._corrupt_senders else UnitState.UNREQUESTED

    def delivered_by(self, worker: int) -> list[int]:
        """X: the units that the worker delivered. Takes time proportional to the total number of units."""
        return [index for index, source in enumerate(self._source) if source == worker]

    def first_missing(self) -> int | None:
        """The first unit known to be missing (not verified, not waiting for a disk check), None if there is none."""
        return next((index for index, source in enumerate(self._source) if source == MISSING), None)

    @property
    def requested_from(self) -> Mapping[int, list[int]]:
        """The outstanding units, each with the workers it is requested from, in the order of the requests."""
        return self._requested_from

    def corrupt_senders(self, index: int) -> Set[int]:
        """The workers that sent a corrupt copy of the unit; empty once it is verified."""
        return self._corrupt_senders.get(index, _NO_WORKERS)

    # State changes.

    def take_unrequested(self, may_request: Callable[[Set[int]], bool], limit: int) -> int | None:
        """Removes and returns the next unit to request, None if there is none below ``limit``.

        ``limit`` never decreases. The caller must then call ``add_request``. A suspect unit is returned only if
        ``may_request`` accepts the set of workers that sent corrupt copies of it.
        """
        for index, senders in self._corrupt_senders.items():
            if index not in self._requested_from and may_request(senders):
                return index
        if self._requeued:
            return self._requeued.popleft()
        while self._first_fresh < min(limit, len(self._source)):
            self._first_fresh += 1
            if self._source[self._first_fresh - 1] == MISSING:
                return self._first_fresh - 1
        return None

    def add_request(self, index: int, worker: int) -> None:
        """Records that the unit is requested from the worker."""
        self._requested_from.setdefault(index, []).append(worker)

    def drop_request(self, index: int, worker: int) -> None:
        """Removes the request to the worker, if any. If no other request is left, requeues the unit at the front."""
        workers = self._requested_from.get(index, [])
        if worker not in workers:
            return
        workers.remove(worker)
        if not workers:
            del self._requested_from[index]
            if index not in self._corrupt_senders:
                self._requeued.appendleft(index)

    def mark_written(self, index: int, worker: int) -> None:
        """Records that the worker delivered the unit, and that it is verified and in the part file."""
        if self._source[index] != MISSING:
            return
        self._source[index] = worker
        self.remaining -= 1
        self._corrupt_senders.pop(index, None)
        if self._requested_from.pop(index, None) is None and index in self._requeued:
            # This is the reply to a request that was already dropped.
            self._requeued.remove(index)

    def mark_corrupt(self, index: int, worker: int) -> None:
        """Records that the worker sent a corrupt copy of the unit."""
        if self._source[index] == MISSING:
            self._corrupt_senders.setdefault(index, set()).add(worker)
            if index in self._requeued:
                self._requeued.remove(index)
            self.drop_request(index, worker)

    def mark_checked(self, index: int, *, valid: bool) -> None:
        """Records whether the data on the disk for an unchecked unit is valid."""
        if self._source[index] != UNCHECKED:
            return
        self._source[index] = REUSED if valid else MISSING
        if valid:
            self.remaining -= 1
        elif index < self._first_fresh:
            self._requeued.append(index)

    def check_invariants(self) -> None:
        """Raises ``AssertionError`` if the data structures are inconsistent."""
        missing = {index for index, source in enumerate(self._source) if source == MISSING}
        assert self.remaining == len(missing) + self._source.count(UNCHECKED)
        assert all(workers and len(set(workers)) == len(workers) for workers in self._requested_from.values())
        requeued = set(self._requeued)
        assert len(requeued) == len(self._requeued)
        suspect = {index for index in self._corrupt_senders if index not in self._requested_from}
        fresh = {index for index in missing if index >= self._first_fresh}
        groups = [requeued, suspect, fresh, set(self._requested_from)]
        assert set().union(*groups) == missing
        assert sum(map(len, groups)) == len(missing)
