"""Decides when to scan the shared files again, and which files to index after a scan.

Files are rarely written atomically: a change is indexed once the file has been seen twice in a row in the same version;
until then the old entry stays. Because a scan of very many files takes long, only the changed files are looked at the
second time. Files that could not be indexed are retried with exponential backoff.

Does not scan or index anything, and reads no clock: times are seconds on the caller's monotonic clock, and versions
are opaque.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Generic, TypeVar

from msgspec import Struct

from msd.wire.support.backoff import backoff
from msd.wire.support.core import Core, TimePassed

#: Seconds between two scans, and between two looks at changed files, or before a scan that was requested.
SCAN_INTERVAL_S, CHECK_INTERVAL_S = 2.0, 0.5
#: The pause after a scan or a check is at least this many times as long, so that even a scan of very many files takes a
#: small part of the time.
PAUSE_PER_SCAN = 20
#: First and longest delay (seconds) before a file that could not be indexed is retried.
MIN_BACKOFF_S, MAX_BACKOFF_S = 2.0, 60.0

V = TypeVar("V")


class ScanRequested(Struct, frozen=True):
    """A file may have changed: scan as soon as the pause after the last scan permits."""


class ContentChanged(Struct, frozen=True):
    """The content of a file is not what was indexed, although its version is the indexed one."""

    name: str


class Scanned(Struct, Generic[V], frozen=True):
    """A scan that took ``duration`` seconds saw these versions, by file name."""

    versions: Mapping[str, V]
    duration: float


class FilesChecked(Struct, Generic[V], frozen=True):
    """The files that ``CheckFiles`` named have these versions, by name; some are gone. It took ``duration`` seconds."""

    versions: Mapping[str, V]
    duration: float


class IndexingEnded(Struct, Generic[V], frozen=True):
    """The latest edition now contains these versions, by file name. If indexing failed, wanted versions are missing."""

    versions: Mapping[str, V]


class StartScan(Struct, frozen=True):
    """Scan the shared files."""


class CheckFiles(Struct, frozen=True):
    """Look which versions these files have now. Names of folders are among them."""

    names: Set[str]


class IndexFiles(Struct, Generic[V], frozen=True):
    """Write an edition that contains these versions, by file name. The files ``reread`` are read again even if their
    versions are the indexed ones.
    """

    versions: Mapping[str, V]
    reread: Set[str] = frozenset()


Event = ScanRequested | ContentChanged | Scanned[V] | FilesChecked[V] | IndexingEnded[V] | TimePassed
Action = StartScan | CheckFiles | IndexFiles[V]


class RescanPolicy(Core[Event[V], Action[V]], Generic[V]):
    """Compares the versions of the shared files that a scan saw with the indexed versions, by file name."""

    def __init__(self, indexed: Mapping[str, V], min_interval: float = 0.0) -> None:
        """``min_interval`` is the least time between two scans in seconds, if it is more than the usual one."""
        # The result of scanning 20,000 files takes 6 MB of memory: remember only the last decision, whose scan the
        # policy stores anyway.
        super().__init__(max_decisions=1)
        self._min_interval = min_interval
        #: The versions in the latest edition.
        self.indexed = indexed
        #: The versions that the last scan saw; None before the first scan.
        self._last_scan: Mapping[str, V] | None = None
        #: Changed files: the versions in which they were seen once, None for a file that was deleted.
        self._unconfirmed: dict[str, V | None] = {}
        #: The versions that were last wanted, and the names of the files whose wanted version differs from ``indexed``.
        self._wanted: Mapping[str, V] = {}
        self._due: set[str] = set()
        #: Files whose content changed although their version did not.
        self._suspects: set[str] = set()
        #: Files that could not be indexed: the number of failures in a row, and the time of the next retry.
        self._failed: dict[str, tuple[int, float]] = {}
        #: The earliest time at which a requested scan may start.
        self._earliest_scan = 0.0
        #: The time of the next scan; None while a scan runs.
        self._next_scan: float | None = 0.0
        #: The time of the next look at the unconfirmed files.
        self._next_check = 0.0

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        if self._next_scan is None or not self._unconfirmed:
            return self._next_scan
        return min(self._next_scan, self._next_check)

    def _assert_invariants(self) -> None:
        assert self._next_scan is None or self._next_scan >= self._earliest_scan
        assert not self._due & self._unconfirmed.keys()

    def _decide(self, event: Event[V], now: float) -> list[Action[V]]:
        match event:
            case TimePassed() if self._next_scan is not None and now >= self._next_scan:
                self._next_scan = None
                return [StartScan()]
            case TimePassed() if self._next_scan is not None and self._unconfirmed and now >= self._next_check:
                return [CheckFiles(frozenset(self._unconfirmed))]
            case ScanRequested() if self._next_scan is not None:
                self._next_scan = self._earliest_scan
            case ContentChanged(name):
                self._suspects.add(name)
            case Scanned(versions, duration):
                return self._on_scan(versions, duration, now)
            case FilesChecked(versions, duration):
                return self._on_check(versions, duration, now)
            case IndexingEnded(versions):
                self._on_indexed(versions, now)
        return []

    def _on_scan(self, seen: Mapping[str, V], duration: float, now: float) -> list[Action[V]]:
        """Returns what to index after a scan. The versions that the first scan saw are indexed without waiting for a
        second look to confirm them.
        """
        is_first, last = self._last_scan is None, seen if self._last_scan is None else self._last_scan
        # Of equal results keep one: each takes 40 MB for 100,000 files.
        seen = next((known for known in (self.indexed, last) if known == seen), seen)
        self._last_scan = seen
        changed: set[str] = set()
        if seen is not self.indexed:
            changed = {name for name, version in seen.items() if self.indexed.get(name) != version}
            changed |= self.indexed.keys() - seen.keys()
        self._suspects &= seen.keys()
        changed |= self._suspects
        self._failed = {name: failed for name, failed in self._failed.items() if name in changed}
        pending = {name for name in changed if name not in self._failed or now >= self._failed[name][1]}
        before = self._unconfirmed
        self._due = {name for name in pending if seen.get(name) == before.get(name, last.get(name))}
        self._unconfirmed = {name: seen.get(name) for name in pending - self._due}
        self._earliest_scan = now + max(CHECK_INTERVAL_S, PAUSE_PER_SCAN * duration)
        self._next_scan = now + max(SCAN_INTERVAL_S, self._min_interval, PAUSE_PER_SCAN * duration)
        self._next_check = now + CHECK_INTERVAL_S
        if not self._due and not is_first:
            return []
        return self._index(seen if self._due == changed else self._merge({name: seen.get(name) for name in self._due}))

    def _on_check(self, versions: Mapping[str, V], duration: float, now: float) -> list[Action[V]]:
        """Returns what to index after a look at the unconfirmed files."""
        seen = {name: versions.get(name) for name in self._unconfirmed}
        # A change that was reverted waits for another look, too: looks before it must not count.
        confirmed = {
            name: version
            for name, version in seen.items()
            if version == self._unconfirmed[name] and (version != self.indexed.get(name) or name in self._suspects)
        }
        self._unconfirmed = {name: version for name, version in seen.items() if name not in confirmed}
        self._next_check = now + max(CHECK_INTERVAL_S, PAUSE_PER_SCAN * duration)
        self._due = {*confirmed}
        return self._index(self._merge(confirmed)) if confirmed else []

    def _merge(self, changes: Mapping[str, V | None]) -> Mapping[str, V]:
        """Returns the indexed versions with these changes; None stands for a file that was deleted."""
        return {name: version for name, version in {**self.indexed, **changes}.items() if version is not None}

    def _index(self, wanted: Mapping[str, V]) -> list[Action[V]]:
        self._wanted = wanted
        reread, self._suspects = self._suspects & self._due, self._suspects - self._due
        return [IndexFiles(wanted, reread)]

    def _on_indexed(self, indexed: Mapping[str, V], now: float) -> None:
        for name in self._due:
            if indexed.get(name) != self._wanted.get(name):
                failures = self._failed[name][0] + 1 if name in self._failed else 1
                self._failed[name] = failures, now + backoff(failures, MIN_BACKOFF_S, MAX_BACKOFF_S)
        self.indexed = indexed
