"""The files and units of a download, numbered in the order of the listing. Pure.

A unit is a segment of a file, or a bundle of small files that follow one another. The plan stores files and groups of
units, and computes what a unit consists of: a large file takes no more memory than a small one. Does not decide when a
unit is requested, or from which worker: ``client/scheduling/scheduler.py`` does.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from blake3 import blake3
from msgspec import Struct

from msd.wire.errors import UsageError
from msd.wire.protocol.messages import MAX_BUNDLE_FILES, Entry, Get, GetBundle, new_rid
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_BUNDLE_SIZE, digest, segment_count, segment_size

#: The maximum number of units: the scheduler stores a state for each. In large files, these are 16 TiB or more.
MAX_UNITS = 1 << 24


class Group(Struct, frozen=True):
    """Units that follow one another and fail together: all segments of a file, or one bundle.

    ``number`` is the number of the first file. ``sizes`` are the sizes of the units in bytes.
    """

    number: int
    sizes: array[int]


class SegmentUnit(Struct, frozen=True):
    """The unit is segment ``index`` of a file."""

    file: int
    index: int


class BundleUnit(Struct, frozen=True):
    """The unit consists of the bytes of these files, one after another."""

    files: tuple[int, ...]


class Plan:
    """Files and folders, numbered together, and the units of the files.

    A folder and an empty file have no units. A plan with only one file that is not empty has the segments of this file,
    whatever its size: so the units do not depend on how the file was selected. With ``has_units`` False no file has
    units: a list of them has no limit then.
    """

    def __init__(self, *, has_units: bool = True) -> None:
        #: The number of units so far, without the open bundle, to which files may be added.
        self.units = 0
        #: The size in bytes up to which files are bundled.
        self._max_bundled_size = MAX_BUNDLE_SIZE
        self._has_units = has_units
        # The entries. Element ``n`` of ``_starts`` and ``_name_starts`` is the number of bytes of all files, or of all
        # names, before entry ``n``.
        self._starts = array("Q", [0])
        self._name_starts = array("Q", [0])
        self._names = bytearray()
        self._mtimes = array("q")
        self._modes = array("H")
        self._ids = bytearray()
        #: The first entry and the first unit of each group, and of the open bundle.
        self._first_entries = array("I")
        self._first_units = array("I")
        #: The number of files in the open bundle; 0 if there is none.
        self._open_files = 0

    def __len__(self) -> int:
        """The number of files and folders."""
        return len(self._mtimes)

    @property
    def size(self) -> int:
        """The number of bytes of all files."""
        return self._starts[-1]

    @property
    def id(self) -> bytes:
        """The id of a complete plan: two plans have the same id if they have the same units in the same order. That of
        one file is the id of the file.
        """
        if len(self._first_entries) == 1 and self._has_segments(first := self._first_entries[0]):
            return self._id(first)
        hasher = blake3()
        for unit_id in self._unit_ids():
            hasher.update(unit_id)
        return hasher.digest()

    def entry(self, number: int) -> Entry:
        """Returns a file or folder."""
        name = self._names[self._name_starts[number] : self._name_starts[number + 1]].decode()
        return Entry(
            name=name,
            size=self._starts[number + 1] - self._starts[number],
            mtime_ns=self._mtimes[number],
            mode=self._modes[number],
            id=None if name.endswith("/") else self._id(number),
        )

    # Construction.

    def add(self, entries: Iterable[Entry]) -> list[Group]:
        """Adds files and folders, and returns the groups that are complete now.

        Raises ``UsageError`` if there are too many units.
        """
        groups: list[Group] = []
        for entry in entries:
            number, size, start = len(self._mtimes), entry.size, self._starts[-1]
            self._starts.append(start + size)
            self._names += entry.name.encode()
            self._name_starts.append(len(self._names))
            self._mtimes.append(entry.mtime_ns)
            self._modes.append(entry.mode)
            self._ids += entry.id or bytes(DIGEST_SIZE)
            if not self._has_units:
                continue
            if size > self._max_bundled_size:
                groups += self._close_bundle(number)
                self._open_group(number)
                groups.append(self._complete_file(size))
            elif size:
                if self._open_files and not self._fits_into_bundle(start + size):
                    groups += self._close_bundle(number)
                if not self._open_files:
                    self._open_group(number)
                self._open_files += 1
        return groups

    def finish(self) -> list[Group]:
        """Returns the last group, if any: no file follows."""
        if self._open_files == 1 and not self.units:
            self._max_bundled_size = self._open_files = 0
            return [self._complete_file(self._size(self._first_entries[0]))]
        return self.end_bundle()

    def end_bundle(self) -> list[Group]:
        """Returns the open bundle, if any, which is then complete. It remains a bundle if it has only one file."""
        return self._close_bundle(len(self))

    def _fits_into_bundle(self, end: int) -> bool:
        return self._open_files < MAX_BUNDLE_FILES and end - self._starts[self._first_entries[-1]] <= MAX_BUNDLE_SIZE

    def _close_bundle(self, end: int) -> list[Group]:
        """Completes the open bundle, if any, of the files before ``end``."""
        if not self._open_files:
            return []
        self._open_files = 0
        size = self._starts[end] - self._starts[self._first_entries[-1]]
        return [self._complete_group(size, 1, size)]

    def _open_group(self, first_entry: int) -> None:
        self._first_entries.append(first_entry)
        self._first_units.append(self.units)

    def _complete_file(self, size: int) -> Group:
        """Completes the group of a file that has segments."""
        return self._complete_group(segment_size(size), segment_count(size), size)

    def _complete_group(self, unit_size: int, units: int, size: int) -> Group:
        """Completes a group of ``size`` bytes: all units but the last one have ``unit_size`` bytes."""
        self.units += units
        if self.units > MAX_UNITS:
            raise UsageError(f"the selected files have more than {MAX_UNITS:,} segments: select fewer files")
        sizes = array("I", [unit_size]) * units
        sizes[-1] = size - unit_size * (units - 1)
        return Group(self._first_entries[-1], sizes)

    @property
    def first_units(self) -> array[int]:
        """The first unit of each group that is complete."""
        return self._first_units[: len(self._first_units) - (self._open_files > 0)]

    # Look-ups, for the units so far. They take time proportional to the logarithm of the number of groups.

    def unit(self, unit: int) -> SegmentUnit | BundleUnit:
        """Returns what the unit consists of."""
        group = self._group_of(unit)
        first = self._first_entries[group]
        if self._has_segments(first):
            return SegmentUnit(first, unit - self._first_units[group])
        return BundleUnit(tuple(self._files(first, self._end_of(group))))

    def request(self, unit: int, start: int = 0, length: int | None = None) -> Get | GetBundle:
        """Returns the request for a unit, or for ``length`` bytes of it from ``start`` on (None: to its end)."""
        group = self._group_of(unit)
        first, end = self._first_entries[group], self._end_of(group)
        if self._has_segments(first):
            index = unit - self._first_units[group]
            return Get(rid=new_rid(), id=self._id(first), index=index, start=start, length=length)
        offset = self._starts[first] + start
        if start:
            # The last entry that begins there or before is a file with bytes: empty files and folders precede it.
            first = bisect_right(self._starts, offset, first, end) - 1
        if length is not None:
            end = bisect_left(self._starts, offset + length, first, end)
        ids = b"".join(map(self._id, self._files(first, end)))
        return GetBundle(rid=new_rid(), ids=ids, start=offset - self._starts[first], length=length)

    def _group_of(self, unit: int) -> int:
        assert 0 <= unit < self.units, unit
        return bisect_right(self._first_units, unit) - 1

    def _end_of(self, group: int) -> int:
        """Returns the first entry after a group."""
        return self._first_entries[group + 1] if group + 1 < len(self._first_entries) else len(self)

    def _files(self, first: int, end: int) -> Iterator[int]:
        """Yields the files that are not empty, from ``first`` to before ``end``."""
        return (number for number in range(first, end) if self._size(number))

    def _has_segments(self, number: int) -> bool:
        """True if the units of a file are its segments, False if it is in a bundle."""
        return self._size(number) > self._max_bundled_size

    def _size(self, number: int) -> int:
        return self._starts[number + 1] - self._starts[number]

    def _id(self, number: int) -> bytes:
        return bytes(self._ids[DIGEST_SIZE * number : DIGEST_SIZE * (number + 1)])

    def _unit_ids(self) -> Iterator[bytes]:
        for group, first in enumerate(self._first_entries):
            if self._has_segments(first):
                for index in range(segment_count(self._size(first))):
                    yield digest(self._id(first) + index.to_bytes(8, "big"))
            else:
                yield digest(b"".join(map(self._id, self._files(first, self._end_of(group)))))
