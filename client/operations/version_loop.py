"""Fetches a file that may change on the servers: carries out what ``client/manifest/file_follower.py`` decides.

Makes no decisions itself. ``client/operations/transfer.py`` fetches each version.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from msd.client.manifest import file_follower
from msd.client.manifest.file_follower import FileFollower, LookUpFailed, VersionFound, VersionLost
from msd.client.manifest.look_up import find_manifest
from msd.client.network.session import Session
from msd.client.network_events import SnapshotReceived
from msd.client.operations.source_error import VersionLostError
from msd.client.operations.transfer import Transfer
from msd.wire.errors import MsdError
from msd.wire.protocol.segments import Manifest
from msd.wire.support.core import TimePassed

#: Opens the output for a version and returns its transfer. The arguments are the manifest, the catalogue that server 5
#: published when the version was found, and the transfer of the version before, if there was one.
StartTransfer = Callable[[Manifest, bytes, Transfer | None], Transfer]


class VersionLoop:
    """Fetches one file in a session.

    ``name`` and ``id`` select the file and, if ``id`` is not None, its version. ``pinned_by`` is the argument that
    names one version, None if the download follows the file.
    """

    def __init__(
        self,
        session: Session,
        name: str | None,
        id: bytes | None,
        *,
        pinned_by: str | None,
        start_transfer: StartTransfer,
    ) -> None:
        #: The transfer of the latest version; None until a version is found.
        self.transfer: Transfer | None = None
        self._session = session
        self._name = name
        self._id = id
        self._start_transfer = start_transfer
        self._follower = FileFollower(name, pinned_by)
        self._actions = deque[file_follower.Action]([file_follower.LookUp()])
        #: The manifest that the last look-up found, and the catalogue that server 5 published then.
        self._found: tuple[Manifest, bytes] | None = None

    def run(self) -> Transfer:
        """Runs until a version is complete, and returns its transfer. Raises ``MsdError``."""
        while True:
            match self._actions.popleft() if self._actions else None:
                case file_follower.LookUp():
                    self._handle(self._look_up())
                case file_follower.Fetch(is_new):
                    if is_new or self.transfer is None:
                        assert self._found is not None
                        self.transfer = self._start_transfer(*self._found, self.transfer)
                    if (lost := self._fetch(self.transfer)) is None:
                        return self.transfer
                    self._handle(lost)
                case file_follower.Fail(error):
                    raise error
                case None:
                    self._pause()

    def _handle(self, event: file_follower.Event) -> None:
        self._actions += self._follower.handle(event, time.monotonic())
        self._session.pool.file_reason = self._follower.waiting_reason

    def _look_up(self) -> VersionFound | LookUpFailed:
        known = None
        if self.transfer is not None:
            self.transfer.lift_bans()
            known = self.transfer.manifest
        try:
            manifest, catalogue = self._found = find_manifest(self._session, self._name, self._id, known=known)
        except MsdError as error:
            return LookUpFailed(error, self._session.pool.status.catalogue if self._session.pool.status else b"")
        self._name = manifest.name
        return VersionFound(manifest.name, manifest.id, manifest.size, catalogue)

    def _pause(self) -> None:
        if self._session.pool.status is not None:
            self._handle(SnapshotReceived(self._session.pool.status))
        if not self._actions:
            self._session.pool.poll(self._follower.next_deadline(time.monotonic()))
            self._handle(TimePassed())

    def _fetch(self, transfer: Transfer) -> VersionLost | None:
        """Continues the transfer. Returns None once it is complete."""
        fetched = transfer.fetched
        try:
            transfer.run()
        except VersionLostError as error:
            return VersionLost(error, transfer.fetched > fetched, transfer.output.can_restart)
        return None
