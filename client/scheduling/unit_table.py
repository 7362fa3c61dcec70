"""Tracks the state of each unit for the scheduler: what is missing, what is requested, and what has arrived. Pure.

Every missing unit is in exactly one of four states: unchecked, unrequested, started or suspect.
``client/scheduling/scheduler.py`` decides which worker is asked for which part of which unit.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from msgspec import Struct

from msd.client.scheduling.ranges import (
    add_range,
    count_in_ranges,
    first_in_ranges,
    is_in_ranges,
    numbers_in_ranges,
    remove_range,
)
from msd.client.scheduling.scheduler_events import RequestUnit, UnitState

#: Values of ``UnitTable._source`` that are not worker numbers.
MISSING, REUSED, UNCHECKED, REMOVED = 0, 0xFFFF, 0xFFFE, 0xFFFD

_STATES = {UNCHECKED: UnitState.UNCHECKED, REUSED: UnitState.REUSED, REMOVED: UnitState.REMOVED}


class StartedUnit(Struct):
    """What is known of a missing unit that was requested, or that arrived corrupt. ``size`` is in bytes.

    ``requests`` are outstanding, in the order in which they were sent. ``received`` are the bytes that have arrived in
    parts, and ``senders`` the workers that sent them. What is unrequested is derived from these: see ``parts``.
    """

    size: int
    requests: list[RequestUnit]
    received: list[int] = []
    senders: frozenset[int] = frozenset()
    #: The workers that sent all bytes of a corrupt copy.
    corrupt_senders: frozenset[int] = frozenset()
    #: True if a copy with several senders is corrupt. The next request is for the whole unit: a corrupt copy then has
    #: one sender.
    is_next_whole: bool = False

    @property
    def is_received(self) -> bool:
        """True if all bytes have arrived in parts."""
        return self.received == [0, self.size]

    @property
    def workers(self) -> set[int]:
        """The workers that have sent a part, or were asked for one."""
        return {*self.senders, *(request.worker for request in self.requests)}

    @property
    def is_untouched(self) -> bool:
        """True if the unit is like one that was never requested."""
        return not (self.requests or self.received or self.corrupt_senders or self.is_next_whole)

    def parts(self) -> Iterator[tuple[int, int, list[RequestUnit]]]:
        """Yields the start and end of each part that has not arrived, and the requests for it: none if it is
        unrequested.
        """
        bounds = {0, self.size, *self.received}
        for request in self.requests:
            bounds |= {request.start, request.end}
        for start, end in pairwise(sorted(bounds)):
            if not is_in_ranges(self.received, start):
                yield start, end, [request for request in self.requests if request.start <= start < request.end]

    def unrequested_part(self) -> tuple[int, int] | None:
        """Returns the start and end of the first part to be requested, None if no byte is unrequested."""
        if self.is_next_whole:
            return 0, self.size
        return next(((start, end) for start, end, requests in self.parts() if not requests), None)

    def remove_request(self, worker: int, start: int) -> None:
        self.requests = [request for request in self.requests if (request.worker, request.start) != (worker, start)]

    def discard_received(self) -> None:
        self.received, self.senders = [], frozenset()


class UnitTable:
    """The states of all units. Units are numbered from 0, in the order in which they are added."""

    def __init__(self) -> None:
        #: The number of units that are missing.
        self.remaining = 0
        #: Increases whenever something becomes unrequested.
        self.returned = 0
        #: The size of each unit in bytes.
        self.sizes = array("I")
        #: Where each unit came from: a worker's number, or one of the values above. The X of a worker is the set of
        #: units with the worker's number.
        self._source = array("H")
        #: The unrequested units, as ranges.
        self._unrequested: list[int] = []
        #: The missing units that are not unchecked, as bits; None until they are needed for the first time.
        self._missing_bits: int | None = None
        #: The started and suspect units. To be changed by the methods only, like the following set.
        self.started: dict[int, StartedUnit] = {}
        #: The started and suspect units of which some bytes are unrequested.
        self.incomplete: set[int] = set()

    def state_of(self, unit: int) -> UnitState:
        source = self._source[unit]
        if source != MISSING:
            return _STATES.get(source, UnitState.VERIFIED)
        if (started := self.started.get(unit)) is None:
            return UnitState.UNREQUESTED
        return UnitState.STARTED if started.requests or started.received else UnitState.SUSPECT

    def missing_bytes(self, unit: int, start: int, length: int) -> int:
        """Returns how many of the ``length`` bytes from ``start`` on are neither verified nor received in parts."""
        if self._source[unit] not in (MISSING, UNCHECKED):
            return 0
        started = self.started.get(unit)
        if started is None or not started.received:
            return length
        return length - count_in_ranges(started.received, start, start + length)

    def delivered_by(self, worker: int) -> list[int]:
        """X: the units that the worker completed. Takes time proportional to the total number of units."""
        return [unit for unit, source in enumerate(self._source) if source == worker]

    def has_delivered(self, worker: int, start: int, end: int) -> bool:
        """True if the worker completed a unit from ``start`` to before ``end``."""
        return any(self._source[unit] == worker for unit in range(start, end))

    def first_missing(self, start: int, end: int) -> int | None:
        """Returns the first unit from ``start`` to before ``end`` that is known to be missing (not verified, not
        waiting for a disk check), None if there is none.
        """
        return next((unit for unit in range(start, end) if self._source[unit] == MISSING), None)

    def first_unrequested(self, start: int, limit: float) -> int | None:
        """Returns the first unrequested unit from ``start`` to below ``limit``, None if there is none."""
        unit = first_in_ranges(self._unrequested, start)
        return unit if unit is not None and unit < limit else None

    @property
    def missing_bits(self) -> int:
        """The missing units that are not unchecked, as bits."""
        if self._missing_bits is None:
            digits = "".join("1" if source == MISSING else "0" for source in reversed(self._source))
            self._missing_bits = int(digits or "0", 2)
        return self._missing_bits

    # State changes.

    def add(self, sizes: Sequence[int]) -> None:
        """Adds unrequested units of these sizes in bytes."""
        if sizes:
            add_range(self._unrequested, len(self.sizes), len(self.sizes) + len(sizes))
            self.sizes.extend(sizes)
            self.returned += 1
            self._source.extend(array("H", bytes(2 * len(sizes))))
            self.remaining += len(sizes)
            if self._missing_bits is not None:
                self._missing_bits |= ((1 << len(sizes)) - 1) << (len(self.sizes) - len(sizes))

    def mark_unchecked(self, units: Iterable[int]) -> None:
        """Records that the disk may hold these unrequested units."""
        for unit in units:
            self._source[unit] = UNCHECKED
            remove_range(self._unrequested, unit, unit + 1)
            self._clear_bit(unit)

    def mark_checked(self, unit: int, *, valid: bool) -> None:
        """Records whether the data on the disk for an unchecked unit is valid."""
        if self._source[unit] != UNCHECKED:
            return
        self._source[unit] = REUSED if valid else MISSING
        if valid:
            self.remaining -= 1
        else:
            add_range(self._unrequested, unit, unit + 1)
            self.returned += 1
            if self._missing_bits is not None:
                self._missing_bits |= 1 << unit

    def remove(self, start: int, end: int) -> None:
        """Records that the missing units from ``start`` to before ``end`` are not needed any more."""
        for unit in range(start, end):
            if self._source[unit] in (MISSING, UNCHECKED):
                if self._source[unit] == MISSING:
                    self._clear_bit(unit)
                self._source[unit] = REMOVED
                self.remaining -= 1
                self.started.pop(unit, None)
                self.incomplete.discard(unit)
        if start < end:
            remove_range(self._unrequested, start, end)

    def add_request(self, request: RequestUnit) -> None:
        """Records that a worker is asked for a part of an unrequested, started or suspect unit."""
        unit = request.unit
        if (started := self.started.get(unit)) is None:
            remove_range(self._unrequested, unit, unit + 1)
            size = self.sizes[unit]
            self.started[unit] = StartedUnit(size, [request])
            if request.length < size:
                self.incomplete.add(unit)
        else:
            started.requests.append(request)
            started.is_next_whole = False
            self._update(unit, started)

    def drop_request(self, worker: int, unit: int, start: int) -> None:
        """Removes a request that is still outstanding, if there is one. What it alone was for becomes unrequested."""
        if (started := self.started.get(unit)) is not None:
            started.remove_request(worker, start)
            self._update(unit, started)

    def mark_received(self, worker: int, unit: int, start: int, length: int) -> None:
        """Records that the worker sent a part of the unit."""
        if self._source[unit] == MISSING:
            started = self._started_unit(unit)
            started.remove_request(worker, start)
            add_range(started.received, start, start + length)
            started.senders |= {worker}
            self._update(unit, started)

    def mark_written(self, worker: int, unit: int) -> None:
        """Records that the worker completed the unit, and that it is verified and in the part file."""
        if self._source[unit] != MISSING:
            return
        self._source[unit] = worker
        self.remaining -= 1
        if self._missing_bits is not None:
            self._clear_bit(unit)
        if self.started.pop(unit, None) is None:
            # This is the reply to a request that was already dropped.
            remove_range(self._unrequested, unit, unit + 1)
        self.incomplete.discard(unit)

    def mark_corrupt(self, worker: int, unit: int) -> None:
        """Records that the worker sent a corrupt copy of the whole unit. What has arrived in parts is discarded."""
        if self._source[unit] == MISSING:
            started = self._started_unit(unit)
            started.remove_request(worker, 0)
            started.corrupt_senders |= {worker}
            started.discard_received()
            self._update(unit, started)

    def mark_parts_corrupt(self, unit: int) -> int | None:
        """Records that the unit that arrived in parts is corrupt. The parts are discarded. Returns the worker that sent
        all of them, None if there are several.
        """
        started = self.started[unit]
        sender = min(started.senders) if len(started.senders) == 1 else None
        if sender is None:
            started.is_next_whole = True
        else:
            started.corrupt_senders |= {sender}
        started.discard_received()
        self._update(unit, started)
        return sender

    def check_invariants(self) -> None:
        """Raises ``AssertionError`` if the data structures are inconsistent."""
        missing = {unit for unit, source in enumerate(self._source) if source == MISSING}
        assert self.remaining == len(missing) + self._source.count(UNCHECKED)
        unrequested = numbers_in_ranges(self._unrequested)
        assert self._missing_bits in (None, sum(1 << unit for unit in missing))
        assert unrequested.isdisjoint(self.started)
        assert unrequested | self.started.keys() == missing
        for unit, started in self.started.items():
            assert not started.is_untouched, unit
            assert started.size == self.sizes[unit], unit
            assert all(0 <= r.start < r.end <= started.size or not started.size for r in started.requests), unit
            assert len({(r.worker, r.start) for r in started.requests}) == len(started.requests), unit
            assert bool(started.received) == bool(started.senders), unit
            assert (started.unrequested_part() is not None) == (unit in self.incomplete), unit
        assert self.incomplete <= self.started.keys()

    def _clear_bit(self, unit: int) -> None:
        if self._missing_bits is not None:
            self._missing_bits &= ~(1 << unit)

    def _started_unit(self, unit: int) -> StartedUnit:
        """Returns the record of a missing unit, and creates it if the unit is unrequested."""
        started = self.started.get(unit)
        if started is None:
            remove_range(self._unrequested, unit, unit + 1)
            started = self.started[unit] = StartedUnit(self.sizes[unit], [])
        return started

    def _update(self, unit: int, started: StartedUnit) -> None:
        """Updates what depends on the record of a unit, after the record has changed."""
        self.incomplete.discard(unit)
        if started.is_untouched:
            del self.started[unit]
            add_range(self._unrequested, unit, unit + 1)
            self.returned += 1
        elif started.unrequested_part() is not None:
            self.incomplete.add(unit)
            self.returned += 1
