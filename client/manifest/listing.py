"""Lists shared files and folders: sends the requests that ``client/manifest/lister.py`` decides on.

Makes no decisions itself. Downloads no file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from msd.client.manifest import lister
from msd.client.manifest.lister import Lister
from msd.client.manifest.shared_files import SharedFiles, workers_by_catalogue
from msd.client.network.progress_timeout import ProgressMade
from msd.client.network.session import Session, Task
from msd.client.network_events import NetworkEvent
from msd.client.plan.plan import Plan
from msd.client.plan.selection import EVERYTHING
from msd.wire.errors import NotFoundError, SourceError, UsageError
from msd.wire.protocol.messages import Entry
from msd.wire.support.core import Stalled, TimePassed


class Listing(Task):
    """Lists what ``names`` select. With a ``catalogue`` lists only that one, from ``workers``. Raises ``MsdError``."""

    def __init__(
        self,
        session: Session,
        names: Sequence[str],
        *,
        catalogue: bytes | None = None,
        workers: Sequence[int] = (),
    ) -> None:
        self._session = session
        known = session.pool.worker_numbers if catalogue is None else workers
        self._lister = Lister(names, (), known, has_units=False, catalogue=catalogue)
        #: The largest number of entries so far.
        self._most_listed = 0

    @property
    def plan(self) -> Plan:
        """The files and folders that are listed so far, sorted by name."""
        return self._lister.planner.plan

    @property
    def catalogue(self) -> bytes | None:
        """The digest of the catalogue that is listed; None before the first page."""
        return self._lister.planner.catalogue

    @property
    def has_globs(self) -> bool | None:
        """True if a name is a glob; None while it is unknown whether it is the name of a file or folder."""
        return self._lister.planner.has_globs

    def not_found(self) -> list[NotFoundError]:
        """Returns an error for each name that has selected nothing so far."""
        return self._lister.planner.not_found(())

    def handle(self, event: NetworkEvent | Stalled) -> None:
        if not isinstance(event, Stalled):
            self._perform(self._lister.handle(event, time.monotonic()))

    def pass_time(self) -> float:
        now = time.monotonic()
        self._perform(self._lister.handle(TimePassed(), now))
        deadline = self._lister.next_deadline(now)
        return math.inf if deadline is None else deadline

    def _perform(self, actions: Sequence[lister.Action]) -> None:
        for action in actions:
            match action:
                case lister.Request(worker, message):
                    self._session.request(self, worker, message)
                # A faulty worker may make the listing begin again and again.
                case lister.Listed() if len(self.plan) > self._most_listed:
                    self._most_listed = len(self.plan)
                    self._session.pool.progress_timeout.handle(ProgressMade(), time.monotonic())
                case lister.Completed():
                    self.is_done = True
                case lister.Fail(error):
                    raise error


class _NameCheck(Listing):
    """Lists what a name selects, but not if it is a glob."""

    def _perform(self, actions: Sequence[lister.Action]) -> None:
        super()._perform(actions)
        self.is_done = self.is_done or bool(self.has_globs)


class _FirstPage(Listing):
    """Lists what a name selects until something is found."""

    def _perform(self, actions: Sequence[lister.Action]) -> None:
        super()._perform(actions)
        self.is_done = self.is_done or bool(len(self.plan))


def list_catalogues(session: Session, names: Sequence[str]) -> tuple[SharedFiles, list[NotFoundError]]:
    """Lists what ``names`` select of all catalogues that workers serve. Returns also an error for each name that
    selects nothing. Raises ``MsdError`` if no catalogue can be listed.
    """
    listing = Listing(session, names)
    session.run(listing)
    pool = session.pool
    served = workers_by_catalogue(pool.status, {number: event.welcome for number, event in pool.ready.items()})
    files, errors = SharedFiles(), listing.not_found()
    files.add(listing.plan, len(served.pop(listing.catalogue or b"", ())) or 1)
    for catalogue, workers in served.items():
        other = Listing(session, names, catalogue=catalogue, workers=workers)
        try:
            session.run(other)
        except SourceError:
            # The list has what the other workers share.
            continue
        files.add(other.plan, len(workers))
        missing = {error.name for error in other.not_found()}
        errors = [error for error in errors if error.name in missing]
    return files, errors


def shared_file_or_folder(session: Session, name: str) -> str:
    """Returns the name of the shared file or, with ``/`` at its end, folder that ``name`` means. Raises ``MsdError``:
    ``NotFoundError`` if no worker has one, ``UsageError`` for a glob.
    """
    listing = _FirstPage(session, [name])
    session.run(listing)
    errors = listing.not_found()
    served = workers_by_catalogue(session.pool.status, {n: event.welcome for n, event in session.pool.ready.items()})
    served.pop(listing.catalogue or b"", None)
    while served and not len(listing.plan):
        catalogue, workers = served.popitem()
        listing = _FirstPage(session, [name], catalogue=catalogue, workers=workers)
        with suppress(SourceError):
            session.run(listing)
    folder = f"{name.rstrip('/')}/"
    for entry in entries(listing.plan):
        if entry.name == name:
            return name
        if entry.name.startswith(folder):
            return folder
        raise UsageError(f"{name!r} is a pattern: name one file or folder, or . for everything")
    raise errors[0]


def fetch_listing(session: Session) -> list[Entry]:
    """Returns all shared files, sorted by name. Raises ``MsdError``."""
    files, _ = list_catalogues(session, [EVERYTHING])
    return [entry for entry in entries(files.plan) if not entry.is_folder]


def is_file(session: Session, name: str) -> bool:
    """True if a shared file has exactly this name, which may look like a glob. Raises ``MsdError``."""
    check = _NameCheck(session, [name])
    session.run(check)
    return any(entry.name == name for entry in entries(check.plan))


def entries(plan: Plan) -> Iterator[Entry]:
    """Yields the files and folders of a plan."""
    return (plan.entry(number) for number in range(len(plan)))
