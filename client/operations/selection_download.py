"""Downloads everything that a selection of shared files and folders contains, in one session.

Small files arrive in bundles, larger files by segments. Where the files go is up to the ``Receiver``. Which pages are
listed is decided by ``client/manifest/lister.py``, what the units are by ``client/plan``.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from msd.client.events import OnEvent
from msd.client.manifest import lister
from msd.client.manifest.lister import Lister
from msd.client.network.progress_timeout import ProgressMade
from msd.client.network.session import Session, Task
from msd.client.network_events import NetworkEvent
from msd.client.operations.bundle_transfer import BundleTransfer
from msd.client.operations.file_download import FileDownload
from msd.client.operations.file_transfer import FileTransfer
from msd.client.operations.transfer import Transfer
from msd.client.plan.plan import BundleUnit, Group, Plan
from msd.client.storage.output import Output
from msd.wire.errors import DiskError, MsdError, UsageError
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import Manifest
from msd.wire.support.core import Stalled, TimePassed

#: The maximum number of files that are fetched by segments at the same time.
MAX_OPEN_FILES = 8
#: While more units than this are missing, no bundle is added: large files come first, so that the end is short.
MAX_PENDING_UNITS = 64


class Receiver(Protocol):
    """Takes the files and folders of a selection. Methods raise ``MsdError``; the other files are not affected by a
    ``DiskError`` or a ``UsageError``.
    """

    def add_folder(self, entry: Entry) -> None:
        """Takes a folder, which may be empty."""

    def save(self, entry: Entry, data: memoryview) -> None:
        """Takes the verified content of a small file."""

    def open(self, manifest: Manifest) -> Output:
        """Returns the output for a version of a file. If there was an earlier version, its output is closed."""
        ...

    def finish(self, output: Output) -> None:
        """Takes a complete file, and closes the output."""

    def discard(self, output: Output) -> None:
        """Closes the output of a file that failed, unless ``open`` has closed it."""


class SelectionDownload(Task):
    """Downloads what ``names`` and ``excludes`` select, with ``transfer``. ``memory`` is as for ``FileTransfer``.

    ``failed`` holds the error of each file that could not be downloaded, and of each name that selects nothing;
    ``files`` counts the others, and ``size`` their bytes. Raises ``MsdError`` if a name can select nothing.
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
    ) -> None:
        self.files = self.size = 0
        self.failed: dict[str, MsdError] = {}
        self._session = session
        self._transfer = transfer
        self._receiver = receiver
        self._memory = memory
        self._on_event = on_event
        self._lister = Lister(names, excludes, session.pool.worker_numbers)
        self._is_planned = False
        #: The numbers of entries and units of the plan that are known to this object.
        self._entries = self._units = 0
        self._plan = Plan()
        #: The names of what was planned, except for a bundle that was not complete, before the listing began again.
        self._planned_before: set[str] = set()
        #: The files to be fetched by segments, and the bundles, as units of a plan.
        self._waiting_files: deque[Entry] = deque()
        self._waiting_bundles: deque[tuple[Plan, int]] = deque()
        self._downloads: dict[FileDownload, Entry] = {}

    def handle(self, event: NetworkEvent | Stalled) -> None:
        if not isinstance(event, Stalled):
            self._perform(self._lister.handle(event, time.monotonic()))

    def pass_time(self) -> float:
        now = time.monotonic()
        self._perform(self._lister.handle(TimePassed(), now))
        for download in [download for download in self._downloads if download.is_done]:
            self._finish(download, self._downloads.pop(download))
        while self._waiting_files and len(self._downloads) < MAX_OPEN_FILES:
            self._start_file(self._waiting_files.popleft())
        while self._waiting_bundles and self._pending_units() < MAX_PENDING_UNITS:
            self._start_bundle(*self._waiting_bundles.popleft())
        is_idle = not (self._waiting_files or self._downloads or self._waiting_bundles or self._transfer.remaining)
        self.is_done = self._is_planned and is_idle
        deadline = self._lister.next_deadline(now)
        return math.inf if deadline is None else deadline

    def _pending_units(self) -> int:
        """The number of missing units, without those of files that no worker has at present."""
        transfers = [download.transfer for download in self._downloads if download.transfer is not None]
        return self._transfer.remaining - sum(transfer.remaining for transfer in transfers if transfer.is_retry)

    # The plan.

    def _perform(self, actions: Sequence[lister.Action]) -> None:
        for action in actions:
            match action:
                case lister.Request(worker, message):
                    self._session.request(self, worker, message)
                case lister.Listed(groups):
                    self._session.pool.progress_timeout.handle(ProgressMade(), time.monotonic())
                    self._add_page(groups)
                case lister.Restarted():
                    self._planned_before |= self._planned_names()
                    entries = map(self._plan.entry, range(self._entries))
                    # These are planned again.
                    self._transfer.total -= sum(e.size for e in entries if e.name not in self._planned_before)
                    self._entries = self._units = 0
                case lister.Completed():
                    self._is_planned = True
                    for error in self._lister.planner.not_found(()):
                        self.failed[error.name or ""] = error
                case lister.Fail(error):
                    raise error

    def _add_page(self, groups: Sequence[Group]) -> None:
        plan = self._plan = self._lister.planner.plan
        for number in range(self._entries, len(plan)):
            entry = plan.entry(number)
            if entry.name in self._planned_before:
                continue
            self._transfer.total += entry.size
            if entry.is_folder:
                self._try(entry.name, partial(self._receiver.add_folder, entry))
            elif not entry.size:
                self._save(entry, memoryview(b""))
        self._entries = len(plan)
        for group in groups:
            unit, self._units = self._units, self._units + len(group.sizes)
            content = plan.unit(unit)
            numbers = content.files if isinstance(content, BundleUnit) else (content.file,)
            entries = [plan.entry(number) for number in numbers]
            new = [entry for entry in entries if entry.name not in self._planned_before]
            if isinstance(content, BundleUnit) and len(new) == len(entries):
                self._waiting_bundles.append((plan, unit))
            else:
                self._waiting_files.extend(new)

    def _planned_names(self) -> set[str]:
        """Returns the names of the entries that are in a group, or need none."""
        names = {entry.name for entry in map(self._plan.entry, range(self._entries)) if not entry.size}
        for unit in range(self._units):
            content = self._plan.unit(unit)
            numbers = content.files if isinstance(content, BundleUnit) else (content.file,)
            names.update(self._plan.entry(number).name for number in numbers)
        return names

    def _try(self, name: str, action: Callable[[], None]) -> bool:
        """Returns True if the action succeeds, otherwise records that the file failed."""
        try:
            action()
        except (DiskError, UsageError) as error:
            self.failed[name] = error
            return False
        return True

    # Bundles.

    def _start_bundle(self, plan: Plan, unit: int) -> None:
        bundle = plan.unit(unit)
        assert isinstance(bundle, BundleUnit)
        entries = [plan.entry(number) for number in bundle.files]
        group = BundleTransfer(plan, unit, entries, save=self._save, give_back=self._waiting_files.append)
        self._transfer.add(group, catalogue=self._lister.planner.catalogue or b"")

    def _save(self, entry: Entry, data: memoryview) -> None:
        self._complete(entry.name, entry.size, partial(self._receiver.save, entry, data))

    def _complete(self, name: str, size: int, action: Callable[[], None]) -> None:
        """Has the receiver take a verified file, and counts it."""
        if self._try(name, action):
            self.files += 1
            self.size += size

    # Files that are fetched by segments.

    def _start_file(self, entry: Entry) -> None:
        def start(manifest: Manifest, catalogue: bytes, previous: FileTransfer | None) -> FileTransfer:
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
            )

        download = FileDownload(self._session, entry.name, None, pinned_by=None, start_transfer=start)
        self._downloads[download] = entry
        self._session.start(download)

    def _finish(self, download: FileDownload, entry: Entry) -> None:
        transfer = download.transfer
        if download.error is None:
            output, size = download.result.output, download.result.manifest.size
            self._complete(entry.name, size, partial(self._receiver.finish, output))
            return
        self.failed[entry.name] = download.error
        if transfer is None:
            self._transfer.total -= entry.size
        else:
            transfer.is_done = True
            self._transfer.total -= transfer.manifest.size
            self._transfer.remove(transfer)
            self._receiver.discard(transfer.output)
