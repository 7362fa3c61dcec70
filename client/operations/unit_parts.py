"""Keeps the parts of units until all parts of a unit have arrived.

Does not know what is missing: ``client/scheduling/scheduler.py`` does.
"""

from __future__ import annotations

from collections import Counter

from msgspec import Struct


class Parts(Struct):
    """The parts of one unit: its ``data``, and how many bytes of it came from each worker."""

    data: bytearray
    senders: Counter[int]


class UnitParts:
    """The parts of all incomplete units."""

    def __init__(self) -> None:
        self._units: dict[int, Parts] = {}

    def add(self, worker: int, unit: int, size: int, start: int, data: memoryview, *, new: int) -> None:
        """Keeps a part of a unit of ``size`` bytes; ``new`` of the bytes have not arrived before."""
        if unit not in self._units:
            self._units[unit] = Parts(bytearray(size), Counter())
        parts = self._units[unit]
        parts.data[start : start + len(data)] = data
        parts.senders[worker] += new

    def take(self, unit: int) -> Parts:
        """Removes and returns the parts of the unit."""
        return self._units.pop(unit)

    def discard(self, unit: int) -> int:
        """Removes the parts of the unit, if there are any, and returns their size."""
        parts = self._units.pop(unit, None)
        return parts.senders.total() if parts else 0

    @property
    def size(self) -> int:
        """The number of bytes that have arrived in parts."""
        return sum(parts.senders.total() for parts in self._units.values())

    def bytes_from(self, worker: int) -> int:
        """Returns how many of these bytes came from the worker."""
        return sum(parts.senders[worker] for parts in self._units.values())
