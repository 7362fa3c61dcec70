"""Downloads everything that a selection of shared files and folders contains, in one session.

Small files arrive in bundles, larger files by segments. Where the files go, and which of them are there already, is up
to the ``Receiver``. Which pages are listed is decided by ``client/manifest/lister.py``, what the units are by
``client/plan``.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec.structs import replace

from msd.client.events import FileCounts, FileProgress, FileResult, FilesProgress, OnEvent, Outcome, Warned
from msd.client.manifest import lister
from msd.client.manifest.hosts_lister import HostsLister
from msd.client.network.progress_timeout import ProgressMade
from msd.client.network.session import Session, Task
from msd.client.network_events import NetworkEvent
from msd.client.operations.bundle_transfer import BundleTransfer
from msd.client.operations.file_download import FileDownload
from msd.client.operations.file_transfer import FileTransfer
from msd.client.operations.transfer import Transfer
from msd.client.plan.plan import BundleUnit, Group, Plan
from msd.client.plan.selection import Selection
from msd.client.storage.existing_file import Decision
from msd.client.storage.output import Output
from msd.client.storage.segments_on_disk import UnusableDiskError
from msd.client.storage.tree import Saved
from msd.wire.errors import DiskError, MsdError, NotFoundError, UsageError
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import Manifest
from msd.wire.support.core import Stalled, TimePassed

if TYPE_CHECKING:
    from msd.client.operations.selection_passing import SelectionPassing

T = TypeVar("T")
#: The maximum number of files that are fetched by segments at the same time, and of those that wait besides for a new
#: version on the servers.
MAX_OPEN_FILES, MAX_WAITING_FILES = 8, 32
#: While more units than this are missing, no bundle is added: large files come first, so that the end is short.
MAX_PENDING_UNITS = 64
#: Seconds for which listed entries are checked, and files on the disk compared, before events of the network are
#: handled. A page has thousands of entries: the first replies decide how much the workers are asked for.
CHECK_S, COMPARE_S = 0.01, 0.02
#: How many entries are checked between two looks at the clock.
CHECKED_AT_ONCE = 64
#: The maximum number of files in flight that the progress names.
MAX_NAMED_FILES = 8
#: The number of errors that are kept.
MAX_ERRORS = 1000


class Receiver(Protocol):
    """Takes the files and folders of a selection. ``client/storage/tree.py`` describes the methods.

    They raise ``MsdError``. A ``UsageError`` or ``DiskError`` concerns one file, unless it is an ``UnusableDiskError``.
    """

    def check(self, entry: Entry) -> Decision: ...
    def compare(self, entry: Entry) -> Generator[bool | None]: ...
    def check_replaceable(self, entry: Entry) -> None: ...
    def check_free_space(self, needed: int) -> None: ...
    def add_folder(self, entry: Entry) -> None: ...
    def save(self, entry: Entry, data: memoryview) -> None: ...
    def open(self, manifest: Manifest) -> Output: ...
    def finish(self, manifest: Manifest) -> None: ...
    def discard(self, name: str) -> None: ...
    def settle(self, now: float) -> list[Saved]: ...
    def complete(self) -> list[Saved]: ...


class SelectionDownload(Task):
    """Downloads what ``names`` and ``excludes`` select, with ``transfer``. ``memory`` is as for ``FileTransfer``.

    With ``fetches`` False nothing is fetched; ``wanted`` then holds the files that would be. ``errors`` holds the error
    of each file that could not be downloaded, and of each name that selects nothing, but not more than ``MAX_ERRORS``.
    With ``passing`` the files are passed on; nothing is fetched before all are listed and compared, for then the plan
    is known. Raises ``MsdError`` if a name can select nothing, or if nothing can be saved any more.
    """

    def __init__(
        self,
        session: Session,
        transfer: Transfer,
        names: Sequence[str],
        excludes: Sequence[str],
        receiver: Receiver,
        *,
        memory: int,
        on_event: OnEvent,
        fetches: bool = True,
        passing: SelectionPassing | None = None,
    ) -> None:
        self.counts = FileCounts()
        self.errors: dict[str, MsdError] = {}
        self.wanted: list[FileResult] = []
        self._session = session
        self._transfer = transfer
        self._receiver = receiver
        self._memory = memory
        self._on_event = on_event
        self._passing = passing
        self.fetches = fetches
        self._lister = HostsLister(names, excludes, session.pool.worker_numbers)
        #: All that is listed and selected, the number of entries of it that are checked, and True once it is complete.
        self._listing = Plan()
        self._entries = 0
        self._has_all_pages = False
        #: True once the user knows that server 5 vouches for no catalogue.
        self._has_warned = False
        #: The names that were listed before the listing began again, each with the size.
        self._listed_before: dict[str, int] = {}
        #: The files that may have the shared content, and the comparison of the first one.
        self._unsure: deque[Entry] = deque()
        self._comparison: Generator[bool | None] | None = None
        #: The files to be fetched, the number of their units, and True if none will follow.
        self._plan = Plan()
        self._units = 0
        self._is_planned = False
        #: The files to be fetched by segments, each with a unit of the plan: its first one, or that of the bundle from
        #: which it was given back. The bundles, as units of the plan.
        self._waiting_files: deque[tuple[Entry, int]] = deque()
        self._waiting_bundles: deque[int] = deque()
        self._downloads: dict[FileDownload, tuple[Entry, int]] = {}

    def handle(self, event: NetworkEvent | Stalled) -> None:
        if not isinstance(event, Stalled):
            self._perform(self._lister.handle(event, time.monotonic()))

    def pass_time(self) -> float:
        now = time.monotonic()
        self._perform(self._lister.handle(TimePassed(), now))
        self._check_listed(now + CHECK_S)
        self._compare(now + COMPARE_S)
        if self.is_listed and not self._unsure and not self._is_planned:
            self._is_planned = True
            if self._passing is not None:
                self._pass_on(self._passing)
            else:
                self._add_groups(self._plan.finish())
            for error in self._lister.not_found():
                self._fail(error.name or "", error, is_file=False)
        for download in [download for download in self._downloads if download.is_done]:
            self._finish(download, *self._downloads.pop(download))
        self._start_waiting()
        self._transfer.expect_units(not self._is_planned or bool(self._waiting_files or self._waiting_bundles))
        self._record(self._receiver.settle(now))
        is_idle = not (self._waiting_files or self._downloads or self._waiting_bundles or self._transfer.remaining)
        if self._is_planned and is_idle:
            self._record(self._receiver.complete())
            self.is_done = True
        deadline = self._lister.next_deadline(now)
        is_busy = self._unsure or self._entries < len(self._listing)
        return -math.inf if is_busy else math.inf if deadline is None else deadline

    @property
    def is_listed(self) -> bool:
        """True once the listing is complete, and all of it is checked."""
        return self._has_all_pages and self._entries == len(self._listing)

    def new_selection(self) -> Selection:
        """Returns what is selected. Raises ``MsdError`` if that is not known yet."""
        return self._lister.new_selection()

    def in_flight(self) -> list[FileTransfer]:
        """Returns the files that are being fetched by segments, the largest first."""
        transfers = [download.transfer for download in self._downloads if download.transfer is not None]
        return sorted(transfers, key=lambda transfer: transfer.manifest.size, reverse=True)

    def progress(self) -> FilesProgress:
        """Returns the progress so far. It names no file of which nothing has arrived."""
        largest = [transfer for transfer in self.in_flight() if transfer.verified][:MAX_NAMED_FILES]
        in_flight = tuple(FileProgress(file.name, file.verified, file.manifest.size) for file in largest)
        return FilesProgress(copy(self.counts), self.is_listed, in_flight)

    def _start_waiting(self) -> None:
        """Starts as much of what waits as may be in flight."""
        waiting = sum(download.is_waiting for download in self._downloads)
        while self._waiting_files and len(self._downloads) < MAX_OPEN_FILES + min(waiting, MAX_WAITING_FILES):
            self._start_file(*self._waiting_files.popleft())
        while self._waiting_bundles and self._pending_units() < MAX_PENDING_UNITS:
            self._start_bundle(self._waiting_bundles.popleft())

    def _pending_units(self) -> int:
        """The number of missing units, without those of files that no worker has at present."""
        return self._transfer.remaining - sum(transfer.remaining for transfer in self.in_flight() if transfer.is_retry)

    def _report_progress(self) -> None:
        """Reports progress that is not data from a worker."""
        self._session.pool.progress_timeout.handle(ProgressMade(), time.monotonic())

    # The listing.

    def _perform(self, actions: Sequence[lister.Action]) -> None:
        for action in actions:
            match action:
                case lister.Request(worker, message):
                    self._session.request(self, worker, message)
                case lister.Listed():
                    self._report_progress()
                    self._warn_once()
                    self._listing = self._lister.plan
                case lister.Restarted():
                    entries = map(self._listing.entry, range(self._entries))
                    self._listed_before.update((entry.name, entry.size) for entry in entries)
                    self._listing, self._entries = Plan(), 0
                case lister.Completed():
                    self._has_all_pages = True
                case lister.Fail(error):
                    raise error

    def _warn_once(self) -> None:
        if self._lister.warning and not self._has_warned:
            self._has_warned = True
            self._on_event(Warned(self._lister.warning))

    def _check_listed(self, deadline: float) -> None:
        """Checks entries that are listed until ``deadline``."""
        listing, end = self._listing, len(self._listing)
        if self._entries == end:
            return
        self._report_progress()
        while self._entries < end:
            first, self._entries = self._entries, min(self._entries + CHECKED_AT_ONCE, end)
            for number in range(first, self._entries):
                entry = listing.entry(number)
                if entry.name not in self._listed_before:
                    self._check(entry)
            if time.monotonic() >= deadline:
                break
        # Before all entries are checked, too: those that are checked are requested now, and could fill the disk.
        self._receiver.check_free_space(self._transfer.total - self._transfer.verified)

    def _check(self, entry: Entry) -> None:
        """Finds out whether a file has to be fetched. Makes a folder."""
        if entry.is_folder:
            if self.fetches:
                self._try(entry.name, partial(self._receiver.add_folder, entry))
            return
        self.counts.listed += 1
        match self._try(entry.name, partial(self._receiver.check, entry)):
            case Decision.FETCH:
                self._want(entry, Outcome.MISSING)
            case Decision.REPLACE:
                self._want(entry, Outcome.DIFFERS)
            case Decision.KEEP:
                self._report(FileResult(entry.name, Outcome.KEPT, entry.size))
            case Decision.COMPARE:
                self._unsure.append(entry)

    def _compare(self, deadline: float) -> None:
        """Compares files on the disk with the shared ones until ``deadline``."""
        while self._unsure and time.monotonic() < deadline:
            entry = self._unsure[0]
            self._report_progress()
            if self._comparison is None:
                self._comparison = self._receiver.compare(entry)
            try:
                matches = next(self._comparison)
                if matches is False:
                    self._receiver.check_replaceable(entry)
            except (DiskError, UsageError) as error:
                self._fail(entry.name, error)
            else:
                if matches is None:
                    continue
                if matches:
                    self._report(FileResult(entry.name, Outcome.SAME, entry.size))
                else:
                    self._want(entry, Outcome.DIFFERS)
            self._unsure.popleft()
            self._comparison.close()
            self._comparison = None

    def _want(self, entry: Entry, reason: Outcome) -> None:
        """Fetches a file, which is missing or differs."""
        if not self.fetches:
            self.wanted.append(FileResult(entry.name, reason, entry.size))
            self._on_event(self.wanted[-1])
            return
        self._transfer.total += entry.size
        if not entry.size:
            self._try(entry.name, partial(self._receiver.save, entry, memoryview(b"")))
        elif self._passing is None:
            self._add_groups(self._plan.add([entry]))

    def _add_groups(self, groups: Sequence[Group]) -> None:
        for group in groups:
            unit, self._units = self._units, self._units + len(group.sizes)
            if isinstance(self._plan.unit(unit), BundleUnit):
                self._waiting_bundles.append(unit)
            else:
                self._waiting_files.append((self._plan.entry(group.number), unit))

    def _pass_on(self, passing: SelectionPassing) -> None:
        """Starts to pass on what is listed, and fetches what is wanted of it as units of this plan."""
        plan = self._plan = self._listing
        if self._listed_before:
            self._check_again(plan, passing)
        passing.start(plan)
        for first in plan.first_units:
            unit = plan.unit(first)
            if isinstance(unit, BundleUnit):
                self._waiting_bundles.append(first)
            elif passing.is_wanted((entry := plan.entry(unit.file)).name):
                self._waiting_files.append((entry, first))
            else:
                passing.keep(entry, first)

    def _check_again(self, plan: Plan, passing: SelectionPassing) -> None:
        """The listing has begun again: of the files that are wanted, fetches only what ``plan``, the last one, has."""
        before, self._transfer.total = self._listed_before, 0
        for entry in map(plan.entry, range(len(plan))):
            size = before.pop(entry.name, 0)
            if passing.is_wanted(entry.name):
                self._transfer.total += entry.size
                if size and not entry.size:
                    self._try(entry.name, partial(self._receiver.save, entry, memoryview(b"")))
        for name, size in before.items():
            if size and passing.is_wanted(name):
                self._fail(name, NotFoundError(f"{name!r} is no longer shared", name))

    # Results.

    def _try(self, name: str, action: Callable[[], T]) -> T | None:
        """Returns what the action returns. If it fails, records that the file failed and returns None."""
        try:
            return action()
        except UnusableDiskError:
            raise
        except (DiskError, UsageError) as error:
            self._fail(name, error, is_file=not name.endswith("/"))
        return None

    def _fail(self, name: str, error: MsdError, *, is_file: bool = True) -> None:
        # The traceback would keep the data of the file in memory.
        error = error.with_traceback(None)
        if len(self.errors) < MAX_ERRORS:
            self.errors[name] = error
        self.counts.failed += is_file
        if self._passing is not None:
            self._passing.skip(name, is_kept=False)
        self._on_event(FileResult(name, Outcome.FAILED, error=error))

    def _report(self, result: FileResult) -> None:
        """Counts a file that is in place, and reports it."""
        counts = self.counts
        if self._passing is not None and result.outcome is not Outcome.FETCHED:
            self._passing.skip(result.name, is_kept=True)
        match result.outcome:
            case Outcome.FETCHED:
                counts.fetched += 1
                counts.size += result.bytes
            case Outcome.KEPT:
                counts.kept += 1
            case Outcome.SAME:
                counts.same += 1
        self._on_event(result)

    def _record(self, saved: Sequence[Saved]) -> None:
        """Counts files that are in place, or could not be put there."""
        if saved:
            # The live view then shows no reason for waiting any more: if one remains, it is reported again.
            self._report_progress()
        for file in saved:
            if file.error is not None:
                self._fail(file.name, file.error)
            else:
                self._report(FileResult(file.name, Outcome.FETCHED, file.size))

    # Bundles.

    def _start_bundle(self, unit: int) -> None:
        plan, own_unit = self._plan, unit
        bundle = plan.unit(unit)
        assert isinstance(bundle, BundleUnit)
        entries = [plan.entry(number) for number in bundle.files]
        if self._passing is not None:
            entries = self._passing.start_bundle(unit, entries)
            if not entries:
                return
            # Without the files that are there already, the bundle is one of another plan.
            plan, own_unit = Plan(), 0
            plan.add(entries)
            plan.end_bundle()
        group = BundleTransfer(
            plan,
            own_unit,
            entries,
            save=lambda entry, data: self._put(entry.name, partial(self._receiver.save, entry, data), unit),
            give_back=lambda entry: self._waiting_files.append((entry, unit)),
        )
        group.plan_unit = unit if self._passing is not None else None
        self._transfer.add(group, catalogue=self._lister.catalogue)

    def _put(self, name: str, action: Callable[[], None], unit: int | None) -> None:
        """Saves a file of the plan's ``unit``; None if what is saved is not of the plan."""
        errors = self.counts.failed
        self._try(name, action)
        if self._passing is not None and unit is not None and self.counts.failed == errors:
            self._passing.on_saved(unit)

    # Files that are fetched by segments.

    def _start_file(self, entry: Entry, unit: int) -> None:
        def start(manifest: Manifest, catalogue: bytes, previous: FileTransfer | None) -> FileTransfer:
            if manifest.id == entry.id:
                # The time by which the next run recognizes the file.
                manifest = replace(manifest, mtime_ns=entry.mtime_ns, mode=entry.mode)
            output = self._receiver.open(manifest)
            self._transfer.total += manifest.size - (previous.manifest.size if previous else entry.size)
            return FileTransfer(
                self._session,
                self._transfer,
                manifest,
                output,
                catalogue=catalogue,
                memory=self._memory,
                previous=previous,
                on_event=self._on_event,
                passing=self._passing.receive(manifest, unit, output) if self._passing is not None else None,
            )

        download = FileDownload(self._session, entry.name, None, pinned_by=None, start_transfer=start)
        self._downloads[download] = entry, unit
        self._session.start(download)

    def _finish(self, download: FileDownload, entry: Entry, unit: int) -> None:
        transfer, error = download.transfer, download.error
        if error is None:
            manifest = download.result.manifest
            finish = partial(self._receiver.finish, manifest)
            self._put(entry.name, finish, unit if manifest.id == entry.id else None)
            return
        if isinstance(error, UnusableDiskError):
            raise error
        self._fail(entry.name, error)
        if transfer is None:
            self._transfer.total -= entry.size
        else:
            transfer.is_done = True
            self._transfer.total -= transfer.manifest.size
            self._transfer.remove(transfer)
            self._receiver.discard(entry.name)
