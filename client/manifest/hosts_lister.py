"""Lists a selection of what all hosts share, and decides which version of each file is downloaded. Pure.

If all workers serve one catalogue, its pages are passed on as they arrive. If their catalogues differ, each is listed
first, and the version of a file is then the one that server 5 vouches for or, if there is none, the one that most
workers have. ``client/manifest/lister.py`` lists one catalogue.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby

from msd.client.manifest.awaited_workers import AGREEING_WORKERS
from msd.client.manifest.lister import Action, Completed, Event, Fail, Listed, Lister
from msd.client.manifest.shared_files import SharedFiles, workers_by_catalogue
from msd.client.network_events import ConnectionClosed, ConnectionOpened, SnapshotReceived
from msd.client.plan.page_check import PageChecker
from msd.client.plan.plan import Plan
from msd.client.plan.selection import Selection
from msd.wire.errors import NotFoundError, ProtocolError, SourceError
from msd.wire.support.core import TimePassed


class HostsLister:
    """Lists what ``names`` and ``excludes`` select. The actions are those of a ``Lister``.

    ``workers`` are the numbers of the workers that are known before the first snapshot. Raises ``MsdError`` if a name
    can select nothing.
    """

    def __init__(self, names: Sequence[str], excludes: Sequence[str], workers: Iterable[int]) -> None:
        self._first = self._lister = Lister(names, excludes, workers)
        self._new_lister = partial(Lister, names, excludes, has_units=False)
        self._snapshot: SnapshotReceived | None = None
        self._opened: dict[int, ConnectionOpened] = {}
        #: The catalogues that are to be listed after the first one, each with its workers; None before the first page.
        self._others: list[tuple[bytes, list[int]]] | None = None
        #: True if server 5 vouches for the first catalogue.
        self._is_vouched = False
        #: What is listed of several catalogues so far, and what is chosen of it in the end.
        self._files = SharedFiles()
        self._chosen: Plan | None = None
        self._missing: list[NotFoundError] = []
        #: The number of chosen files for which server 5 does not vouch, and about which the workers do not agree.
        self._unvouched = 0

    @property
    def plan(self) -> Plan:
        """What is listed so far; nothing while several catalogues are listed."""
        if not self._has_several:
            return self._first.planner.plan
        return self._chosen or Plan(has_units=False)

    @property
    def catalogue(self) -> bytes:
        """The digest of the catalogue that is listed; empty if there are several, or before the first page."""
        return b"" if self._has_several else self._first.planner.catalogue or b""

    @property
    def warning(self) -> str:
        """What the user should know about the versions that are chosen; empty if there is nothing, or not yet."""
        if self._unvouched:
            return (
                f"server 5 vouches for no version of {self._unvouched:,} of these files: the version of each that most"
                f" of {self._files.workers} workers have is downloaded"
            )
        majority = self._first.majority if not self._has_several else None
        return majority.warning("these files", self.catalogue) if majority is not None and self.catalogue else ""

    def not_found(self) -> list[NotFoundError]:
        """Returns an error for each name that has selected nothing."""
        return self._missing if self._has_several else self._first.planner.not_found(())

    def new_selection(self) -> Selection:
        """Returns what is selected. Raises ``MsdError`` if that is not known yet."""
        return self._first.planner.new_selection()

    def handle(self, event: Event, now: float) -> list[Action]:
        match event:
            case SnapshotReceived():
                self._snapshot = event
            case ConnectionOpened(worker):
                self._opened[worker] = event
            case ConnectionClosed(worker):
                self._opened.pop(worker, None)
        return [done for action in self._lister.handle(event, now) for done in self._perform(action, now)]

    def next_deadline(self, now: float) -> float | None:
        return self._lister.next_deadline(now)

    @property
    def _has_several(self) -> bool:
        return bool(self._others) or self._files.workers > 0

    def _perform(self, action: Action, now: float) -> list[Action]:
        match action:
            case Listed() if self._others is None:
                served = self._served()
                first = self._first.planner.catalogue
                self._is_vouched = self._snapshot is not None and first == self._snapshot.status.catalogue
                self._others = [(catalogue, workers) for catalogue, workers in served.items() if catalogue != first]
                return [Listed(()) if self._has_several else action]
            case Listed() if self._has_several:
                return [Listed(())]
            case Completed() if self._has_several:
                return self._complete(now)
            case Fail(SourceError()) if self._lister is not self._first:
                return self._list_next(now)
        return [action]

    def _served(self) -> dict[bytes, list[int]]:
        status = self._snapshot.status if self._snapshot is not None else None
        # Without a snapshot it is unknown which workers there are.
        return workers_by_catalogue(status, {}) if status is not None else {}

    def _complete(self, now: float) -> list[Action]:
        """A catalogue is listed completely."""
        planner = self._lister.planner
        workers = len(self._served().get(planner.catalogue or b"", ())) or 1
        missing = planner.not_found(())
        if self._lister is self._first:
            self._missing = missing
        else:
            names = {error.name for error in missing}
            self._missing = [error for error in self._missing if error.name in names]
        self._files.add(planner.plan, workers)
        return self._list_next(now)

    def _list_next(self, now: float) -> list[Action]:
        if not self._others:
            self._choose()
            return [Listed(()), Completed()]
        catalogue, workers = self._others.pop(0)
        self._lister = self._new_lister(workers, catalogue=catalogue)
        lister, actions = self._lister, list[Action]()
        snapshots = [self._snapshot] if self._snapshot is not None else []
        known: list[Event] = [*snapshots, *self._opened.values(), TimePassed()]
        for event in known:
            if self._lister is lister:
                actions += self.handle(event, now)
        return actions

    def _choose(self) -> None:
        """Chooses a version of each file."""
        first = self._first.planner
        own = first.plan if self._is_vouched else Plan(has_units=False)
        self._chosen, checker = Plan(), PageChecker()
        for name, versions in groupby(self._files, key=lambda counted: counted[0].name):
            number, is_agreed = _find(own, name), True
            if number is not None:
                entry = own.entry(number)
            elif _find(own, f"{name}/") is not None:
                continue  # Server 5 vouches for a folder of this name.
            else:
                counted = [*versions]
                entry, count = max(counted, key=lambda version: version[1])
                is_agreed = not self._is_vouched and len(counted) == 1 and count >= AGREEING_WORKERS
            try:
                checker.check((entry,))
            except ProtocolError:
                continue  # One host has a file, another one a folder of this name.
            self._chosen.add((entry,))
            self._unvouched += not is_agreed and not entry.is_folder
        self._chosen.finish()


def _find(plan: Plan, name: str) -> int | None:
    """Returns the number of the entry with this name, None if there is none."""
    number = bisect_left(range(len(plan)), name, key=lambda number: plan.entry(number).name)
    return number if number < len(plan) and plan.entry(number).name == name else None
