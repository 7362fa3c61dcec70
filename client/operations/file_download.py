"""Downloads one file that may change on the servers: carries out what ``client/manifest/file_follower.py`` decides.

Makes no decisions itself. ``client/manifest/look_up.py`` looks up each version, and ``client/operations/transfer.py``
fetches it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from msd.client.manifest import file_follower
from msd.client.manifest.awaited_workers import Majority
from msd.client.manifest.file_follower import FileFollower, LookUpFailed, VersionFound, VersionLost
from msd.client.manifest.look_up import LookUp
from msd.client.network.session import Session, Task
from msd.client.network_events import NetworkEvent, SnapshotReceived
from msd.client.operations.file_transfer import FileTransfer
from msd.client.operations.source_error import VersionLostError
from msd.wire.errors import DiskError, MsdError, UsageError
from msd.wire.protocol.segments import Manifest
from msd.wire.support.core import Stalled, TimePassed
from msd.wire.support.presentable_names import presentable

#: Opens the output for a version and starts its transfer. The arguments are the manifest, the catalogue that server 5
#: published when the version was found, and the transfer of the version before, if there was one.
StartTransfer = Callable[[Manifest, bytes, FileTransfer | None], FileTransfer]


class FileDownload(Task):
    """Downloads the file ``name`` or, without a name, the only shared file.

    ``id`` is the version to begin with; None stands for the current one. ``pinned_by`` is the argument that names one
    version, None if the download follows the file. ``on_warning`` is called once if server 5 does not vouch for a
    version.
    """

    def __init__(
        self,
        session: Session,
        name: str | None,
        id: bytes | None,
        *,
        pinned_by: str | None,
        start_transfer: StartTransfer,
        on_warning: Callable[[str], None] = lambda text: None,
    ) -> None:
        #: The transfer of the latest version; None until a version is found.
        self.transfer: FileTransfer | None = None
        #: Why the download failed.
        self.error: MsdError | None = None
        self._session = session
        self._name = name
        self._id = id
        self._start_transfer = start_transfer
        self._on_warning = on_warning
        self._has_warned = False
        self._follower = FileFollower(name, pinned_by)
        self._look_up: LookUp | None = None
        #: The manifest that the last look-up found, and the catalogue that server 5 published then.
        self._found: tuple[Manifest, bytes] | None = None
        self._majority: Majority | None = None
        #: The bytes of the latest version that had arrived when the transfer was started or continued.
        self._fetched = 0
        self._perform([file_follower.LookUp()])

    @property
    def is_waiting(self) -> bool:
        """True while no version can be fetched."""
        return bool(self._follower.waiting_reason)

    @property
    def result(self) -> FileTransfer:
        """The transfer of the complete version. Raises the ``MsdError`` of a download that failed."""
        if self.error is not None:
            raise self.error
        assert self.transfer is not None, "the download is not done"
        return self.transfer

    def handle(self, event: NetworkEvent | Stalled) -> None:
        if isinstance(event, SnapshotReceived):
            self._handle(event)

    def pass_time(self) -> float:
        if self._look_up is not None and self._look_up.is_done:
            look_up, self._look_up = self._look_up, None
            self._handle(self._result_of(look_up))
        transfer = self.transfer
        if transfer is not None and transfer.disk_error is not None:
            self.error, self.is_done = transfer.disk_error, True
        elif transfer is not None and transfer.is_done:
            self.is_done = True
        elif transfer is not None and transfer.lost is not None:
            lost, transfer.lost = transfer.lost, None
            if isinstance(lost, VersionLostError):
                self._handle(VersionLost(lost, transfer.fetched > self._fetched, transfer.output.can_restart))
            else:
                self.error, self.is_done = lost, True
        now = time.monotonic()
        self._handle(TimePassed())
        self._update_reason()
        deadline = self._follower.next_deadline(now)
        return math.inf if deadline is None else deadline

    def _handle(self, event: file_follower.Event) -> None:
        self._perform(self._follower.handle(event, time.monotonic()))

    def _update_reason(self) -> None:
        """Tells the pool why this download waits, or that it does not."""
        reasons = self._session.pool.file_reasons
        if self.is_waiting and not self.is_done:
            reasons[self] = self._follower.waiting_reason
        else:
            reasons.pop(self, None)

    def _perform(self, actions: list[file_follower.Action]) -> None:
        for action in actions:
            match action:
                case file_follower.LookUp():
                    known = self.transfer.manifest if self.transfer is not None else None
                    self._look_up = LookUp(self._session, self._name, self._id, known=known)
                    self._session.start(self._look_up)
                case file_follower.Fetch(is_new):
                    assert self._found is not None
                    if is_new or self.transfer is None:
                        if self.transfer is not None:
                            # Its output is closed before the new one is opened.
                            self.transfer.is_done = True
                        try:
                            self.transfer = self._start_transfer(*self._found, self.transfer)
                        except (DiskError, UsageError) as error:
                            self.error, self.is_done = error, True
                            return
                        self._warn_once(self.transfer.manifest)
                    else:
                        self.transfer.resume()
                    self._fetched = self.transfer.fetched
                case file_follower.Fail(error):
                    self.error, self.is_done = error, True

    def _warn_once(self, manifest: Manifest) -> None:
        if self._majority is not None and not self._has_warned:
            self._has_warned = True
            self._on_warning(self._majority.warning(presentable(manifest.name), manifest.id))

    def _result_of(self, look_up: LookUp) -> VersionFound | LookUpFailed:
        try:
            manifest, catalogue = self._found = look_up.result
        except MsdError as error:
            status = self._session.pool.status
            return LookUpFailed(error, status.catalogue if status else b"")
        self._name, self._majority = manifest.name, look_up.majority
        return VersionFound(manifest.name, manifest.id, manifest.size, catalogue)
