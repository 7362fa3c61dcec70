"""The transfer of one version of a file: verifies its segments, writes them, and reuses what is on the disk.

Does not request segments: ``client/operations/transfer.py`` does.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from msd.client.events import FileChanged, OnEvent, WorkerChanged
from msd.client.network.progress_timeout import ProgressMade
from msd.client.network.session import Session, Task
from msd.client.network_events import NetworkEvent
from msd.client.operations.transfer import Transfer
from msd.client.operations.unit_group import UnitGroup
from msd.client.storage.output import Output
from msd.client.storage.segments_on_disk import UnusableDiskError
from msd.client.storage.stream_output import StreamOutput
from msd.wire.errors import DiskError, SourceError
from msd.wire.protocol.messages import Bundle, Get, Segment, new_rid
from msd.wire.protocol.segments import Manifest, digest
from msd.wire.support.core import Stalled


class FileTransfer(UnitGroup, Task):
    """Fetches the version of a file that ``manifest`` describes into ``output``, with ``transfer``.

    ``previous`` is the transfer of the version that this one replaces; its counts are continued. ``catalogue`` is the
    digest of the catalogue that server 5 published when the manifest was found; empty if unknown. ``memory`` limits the
    bytes that wait to be written to a stream. ``passing`` is the first unit of the file in the plan that is
    passed on, and what is called with each unit of it that is verified and on the disk.
    """

    def __init__(
        self,
        session: Session,
        transfer: Transfer,
        manifest: Manifest,
        output: Output,
        *,
        catalogue: bytes,
        memory: int,
        previous: FileTransfer | None,
        on_event: OnEvent,
        passing: tuple[int, Callable[[int], None]] | None = None,
    ) -> None:
        super().__init__()
        self._passing = passing
        self.plan_unit = passing[0] if passing is not None else None
        self.manifest = manifest
        self.output = output
        self.name = manifest.name
        self.sizes = manifest.lengths
        #: Why the missing segments cannot be fetched; None while they can. The owner resets it before ``resume``.
        self.lost: SourceError | None = None
        #: Why the output cannot be written. Nothing more is done then.
        self.disk_error: DiskError | None = None
        #: The number of versions before this one.
        self.changes = 0
        self._pool = session.pool
        self.transfer = transfer
        self._on_event = on_event
        self._stream = output if isinstance(output, StreamOutput) else None
        self._candidates = iter(output.candidates())
        #: The bytes on the disk that this version contains.
        self._kept = 0
        #: False until the caller knows that this is a new version: what is verified may have become less.
        self.is_announced = previous is None
        #: True once all data on the disk is checked and, if needed, copied.
        self._is_reuse_finished = False
        if previous is not None:
            self.changes = previous.changes + 1
            self.fetched = self.outdated = previous.fetched
            if previous.is_retry:
                self._report_ready()
        zero_segments = [*output.zero_segments()]
        self.unchecked = [*output.candidates(), *zero_segments]
        self._max_ahead = max(1, memory // max(self.sizes, default=1))
        limit = self._max_ahead if self._stream else None
        transfer.add(self, catalogue=catalogue, limit=limit, replaces=previous)
        for index in zero_segments:
            self.zeros += self.sizes[index]
            self._on_checked(index, matches=True)
        session.start(self)

    @property
    def uncopied_bytes(self) -> int:
        return 0 if self._is_reuse_finished else self.output.uncopied_bytes

    def resume(self) -> None:
        """Continues after the segments were ``lost``: some workers may have them now."""
        self.transfer.resume(self)

    # The units.

    def request(self, index: int, start: int, length: int) -> Get:
        is_whole = length == self.sizes[index]
        return Get(rid=new_rid(), id=self.manifest.id, index=index, start=start, length=None if is_whole else length)

    def data_of(self, start: int, length: int, reply: Segment | Bundle, payload: memoryview) -> memoryview:  # noqa: ARG002
        return payload

    def find_corrupt(self, index: int, data: memoryview) -> tuple[bytes, int] | None:
        return None if digest(data) == self.manifest.digest(index) else (self.manifest.id, index)

    def write(self, index: int, data: memoryview) -> None:
        with self._disk_errors():
            self.output.write(index, data)
            self._pass_on(index)
        if self.is_retry:
            self._end_retry()

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Records an error that concerns only this file."""
        try:
            yield
        except UnusableDiskError:
            raise
        except DiskError as error:
            self.disk_error = self.disk_error or error

    def _end_retry(self) -> None:
        """The version is available again: reports the workers that are ready."""
        self.is_retry = False
        self._report_ready()

    def _report_ready(self) -> None:
        for worker in self._pool.ready:
            self._on_event(WorkerChanged(str(worker), "ready"))

    def flush(self) -> None:
        if self._stream is not None:
            self._flush(self._stream)

    def lose(self, error: SourceError) -> bool:
        self.lost = error
        self.is_retry = True
        return False

    # The output.

    def handle(self, event: NetworkEvent | Stalled) -> None:
        pass

    def pass_time(self) -> float:
        if self._stream is not None:
            self._flush(self._stream)
            self._watch_reader(self._stream)
        if self.disk_error is not None:
            return math.inf
        with self._disk_errors():
            if self._reuse_next():
                return -math.inf
        if self.disk_error is None and not self.remaining and not (self._stream and self._stream.uncopied_bytes):
            self._is_reuse_finished = True
            self.is_done = True
        return math.inf

    def _reuse_next(self) -> bool:
        """Hashes one segment that may be on the disk, or copies one from an existing output; False if none is left."""
        index = next(self._candidates, None)
        if index is not None:
            self._on_checked(index, matches=self.output.holds(index))
            return True
        self._announce()
        copied = self.output.copy_next()
        if copied:
            self._pool.progress_timeout.handle(ProgressMade(), time.monotonic())
        return copied

    def _on_checked(self, index: int, *, matches: bool) -> None:
        if matches:
            length = self.sizes[index]
            # Data of an earlier version that this one contains, too, is not outdated.
            received_before = min(length, self.outdated)
            self.outdated -= received_before
            self.reused += length - received_before
            self._kept += length
            self._pass_on(index)
        self.transfer.mark_checked(self, index, matches=matches)

    def _pass_on(self, index: int) -> None:
        if self._passing is not None:
            first_unit, on_verified = self._passing
            on_verified(first_unit + index)

    def _announce(self) -> None:
        """Reports a new version, once the data on the disk is compared with it."""
        if not self.is_announced:
            self.is_announced = True
            manifest = self.manifest
            self._on_event(
                FileChanged(
                    name=manifest.name,
                    changes=self.changes,
                    id=manifest.id.hex(),
                    bytes=manifest.size,
                    segments=manifest.segments,
                    kept_bytes=self._kept,
                )
            )

    def _flush(self, stream: StreamOutput) -> None:
        """Writes what the reader takes now."""
        position, written_bytes = stream.position, stream.written_bytes
        stream.flush()
        if stream.written_bytes > written_bytes:
            self._pool.progress_timeout.handle(ProgressMade(), time.monotonic())
        if stream.position > position:
            self.transfer.limit_requests(self, stream.position + self._max_ahead)

    def _watch_reader(self, output: StreamOutput) -> None:
        """Makes the next poll notice what the reader does. While it does not read, the servers are not the problem."""
        is_full = output.waits_for_reader
        self._pool.transport.watch_output(output.stream.fd, is_full=is_full)
        self._pool.local_reason = f"{output.stream.path} is full: its reader does not read" if is_full else ""
