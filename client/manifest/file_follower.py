"""Decides how a download follows a file that changes on the servers: which version is fetched, when the version is
looked up again, and when the download gives up. Pure.

A download by name fetches the version that the servers share. If they no longer share that version, they may be
indexing a new one, or the file may be put back as it was. So the version is looked up again until a version can be
fetched, for as long as an indexing may take. ``client/manifest/resolver.py`` looks it up, and
``client/operations/transfer.py`` fetches it.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from msd.client.manifest.resolver import DeletedError
from msd.client.network_events import SnapshotReceived
from msd.wire.errors import MsdError, NotFoundError, SourceError
from msd.wire.support.core import Core, TimePassed
from msd.wire.support.presentable_names import presentable

#: The maximum number of versions that one download fetches: a file that changes again then is never complete.
MAX_VERSIONS = 5
#: How long the servers may take to index a version: some seconds to notice a change, to see that the file no longer
#: changes and to load the new catalogue, and the time to hash the file, at a rate (bytes per second) that a slow disk
#: reaches while it serves other clients.
INDEXING_TIME_S = 15.0
INDEXING_RATE = 50 << 20
#: Seconds between two look-ups while server 5 publishes the same catalogue. A file that is put back as it was does not
#: change the catalogue.
LOOKUP_INTERVAL_S = 1.0
#: The longest time between two failures that counts as waiting for an indexing. If no worker is reachable, a look-up
#: lasts until one is.
MAX_COUNTED_S = 5.0
#: Why a download with one of these arguments does not follow its file.
PINNED = {
    "id": "the id names a version that the servers no longer share",
    "sha256": "the file changed on the servers, so it has another SHA-256",
}


# Events.


class VersionFound(Struct, frozen=True):
    """A look-up found this version of the file ``name``, of ``size`` bytes. ``catalogue`` is the digest of the
    catalogue that server 5 published then; empty if unknown.
    """

    name: str
    id: bytes
    size: int
    catalogue: bytes


class LookUpFailed(Struct, frozen=True):
    """A look-up found no version."""

    error: MsdError
    catalogue: bytes


class VersionLost(Struct, frozen=True):
    """The workers no longer share the version that is fetched; ``error`` says which of them refused it and why.

    ``progressed`` is True if a segment arrived since the last ``Fetch``. ``can_restart`` is False if the output cannot
    take another version.
    """

    error: SourceError
    progressed: bool = False
    can_restart: bool = True


Event = VersionFound | LookUpFailed | VersionLost | SnapshotReceived | TimePassed


# Actions.


class LookUp(Struct, frozen=True):
    """Look up the version that the servers share now."""


class Fetch(Struct, frozen=True):
    """Fetch the version that was found: begin, or continue if ``is_new`` is False."""

    is_new: bool


class Fail(Struct, frozen=True):
    """The download failed."""

    error: MsdError


Action = LookUp | Fetch | Fail


class FollowState(enum.StrEnum):
    """What a download is doing."""

    LOOKING_UP = "looking up"  #: it looks up the version
    FETCHING = "fetching"  #: it fetches the version
    PAUSED = "paused"  #: no version can be fetched now; it waits before the next look-up
    FAILED = "failed"


#: The possible changes of the state, and the events that cause them.
TRANSITIONS: dict[tuple[FollowState, FollowState], tuple[type[Event], ...]] = {
    (FollowState.LOOKING_UP, FollowState.FETCHING): (VersionFound,),
    (FollowState.LOOKING_UP, FollowState.PAUSED): (LookUpFailed,),
    (FollowState.LOOKING_UP, FollowState.FAILED): (VersionFound, LookUpFailed),
    (FollowState.FETCHING, FollowState.LOOKING_UP): (VersionLost,),
    (FollowState.FETCHING, FollowState.PAUSED): (VersionLost,),
    (FollowState.FETCHING, FollowState.FAILED): (VersionLost,),
    (FollowState.PAUSED, FollowState.LOOKING_UP): (SnapshotReceived, TimePassed),
}


class FileFollower(Core[Event, Action]):
    """Follows one file from the first look-up of its version.

    ``pinned_by`` is the argument, one of ``PINNED``, that names one version of the file; None if the download follows
    the file. ``name`` is the name that the user gave.
    """

    def __init__(self, name: str | None, pinned_by: str | None = None) -> None:
        super().__init__()
        self.state = FollowState.LOOKING_UP
        #: The number of versions found so far.
        self.versions = 0
        #: Why the download waits, as text for the user; empty unless no version can be fetched.
        self.waiting_reason = ""
        self._file = presentable(name) if name is not None else "the file"
        self._pinned_by = pinned_by
        #: The version found last, and the seconds that the servers may take to index another one.
        self._id: bytes | None = None
        self._indexing_time = INDEXING_TIME_S
        #: The catalogue at the last look-up.
        self._catalogue = b""
        #: When the last look-up or fetch failed, and for how long no version could be fetched by then. The time is None
        #: if a version has been found since, or a segment has arrived.
        self._failed_at: float | None = None
        self._waited = 0.0
        #: When the version is looked up again at the latest, in the state ``PAUSED``.
        self._retry_at = 0.0

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        return self._retry_at if self.state is FollowState.PAUSED else None

    def _assert_invariants(self) -> None:
        assert self.versions <= MAX_VERSIONS or self.state is FollowState.FAILED, self.versions
        assert (self._id is None) == (self.versions == 0)
        assert self.state is not FollowState.FETCHING or self._id is not None
        assert self.state is not FollowState.PAUSED or self.waiting_reason

    def _decide(self, event: Event, now: float) -> list[Action]:
        match event:
            case VersionFound(name, id, size, catalogue) if self.state is FollowState.LOOKING_UP:
                self._file = presentable(name)
                self._catalogue = catalogue
                return [self._on_version_found(id, size)]
            case LookUpFailed(error, catalogue) if self.state is FollowState.LOOKING_UP:
                self._catalogue = catalogue
                return self._on_lookup_failed(error, now)
            case VersionLost() if self.state is FollowState.FETCHING:
                return self._on_version_lost(event, now)
            case SnapshotReceived(status) if self.state is FollowState.PAUSED:
                if status.catalogue not in (b"", self._catalogue):
                    return [self._look_up()]
            case TimePassed() if self.state is FollowState.PAUSED and now >= self._retry_at:
                return [self._look_up()]
        return []

    def _enter(self, state: FollowState) -> None:
        assert (self.state, state) in TRANSITIONS, (self.state, state)
        self.state = state

    def _on_version_found(self, id: bytes, size: int) -> Fetch | Fail:
        if id == self._id:
            self._enter(FollowState.FETCHING)
            return Fetch(is_new=False)
        self.versions += 1
        self._id = id
        if self.versions > MAX_VERSIONS:
            return self._fail(
                SourceError(
                    f"{self._file} changed on the servers {MAX_VERSIONS} times during the download:"
                    " run the command again when it no longer changes"
                )
            )
        self._indexing_time = INDEXING_TIME_S + size / INDEXING_RATE
        self._failed_at = None
        self.waiting_reason = ""
        self._enter(FollowState.FETCHING)
        return Fetch(is_new=True)

    def _on_lookup_failed(self, error: MsdError, now: float) -> list[Action]:
        # If no version was ever found, the name is probably wrong.
        was_shared = isinstance(error, DeletedError) or (isinstance(error, NotFoundError) and self._id is not None)
        if not was_shared or self._pinned_by:
            return [self._fail(error)]
        self._count_failure(now)
        self.waiting_reason = f"{self._file} is no longer shared: waiting for it to return"
        if self._waited >= self._indexing_time:
            return [
                self._fail(
                    NotFoundError(
                        f"{self._file} is no longer shared, and did not return within {self._waited:.0f} s:"
                        " msd list shows the shared files"
                    )
                )
            ]
        return self._pause(now)

    def _on_version_lost(self, event: VersionLost, now: float) -> list[Action]:
        if self._pinned_by:
            reason = PINNED[self._pinned_by]
            return [self._fail(SourceError(f"{event.error}: {reason}", arguments=(self._pinned_by,)))]
        if not event.can_restart:
            advice = f"{self._file} changed on the servers: discard what was written, and run the command again"
            return [self._fail(SourceError(f"{event.error}: {advice}"))]
        if event.progressed:
            self._failed_at = None
        is_first = self._failed_at is None
        self._count_failure(now)
        self.waiting_reason = f"{self._file} changed on the servers: waiting until they have indexed it"
        if is_first:
            # The new version may be there already.
            return [self._look_up()]
        if self._waited >= self._indexing_time:
            return [
                self._fail(
                    SourceError(
                        f"{event.error}: {self._file} changed on the servers, and they did not index it within"
                        f" {self._waited:.0f} s: run the command again when it no longer changes"
                    )
                )
            ]
        return self._pause(now)

    def _count_failure(self, now: float) -> None:
        if self._failed_at is None:
            self._waited = 0.0
        else:
            self._waited += min(now - self._failed_at, MAX_COUNTED_S)
        self._failed_at = now

    def _look_up(self) -> LookUp:
        self._enter(FollowState.LOOKING_UP)
        return LookUp()

    def _pause(self, now: float) -> list[Action]:
        self._enter(FollowState.PAUSED)
        self._retry_at = now + LOOKUP_INTERVAL_S
        return []

    def _fail(self, error: MsdError) -> Fail:
        self._enter(FollowState.FAILED)
        return Fail(error)
