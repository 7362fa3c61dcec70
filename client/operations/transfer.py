"""The transfer of one file: connects the scheduler to the connection pool and the output.

Hashes and writes received segments in one thread, while ZeroMQ's threads receive the next ones. The scheduler makes
the decisions; this loop handles replies before timeouts.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping

from msd.client.events import (
    MIN_SPAN_S,
    FileChanged,
    OnEvent,
    Progress,
    Retried,
    WorkerChanged,
    WorkerProgress,
    WorkerReport,
)
from msd.client.network.pool import ConnectionPool
from msd.client.network.progress_timeout import ProgressMade
from msd.client.network.waiting_reason import other_version
from msd.client.network_events import (
    Ban,
    ConnectionClosed,
    ConnectionOpened,
    NetworkEvent,
    ReplyReceived,
    SnapshotReceived,
    Unban,
)
from msd.client.operations.source_error import source_error
from msd.client.operations.unit_parts import UnitParts
from msd.client.report.rate_meter import RATE_WINDOW_S, RateMeter
from msd.client.scheduling import scheduler_events
from msd.client.scheduling.scheduler import Scheduler
from msd.client.storage.output import Output
from msd.client.storage.stream_output import StreamOutput
from msd.wire.protocol.messages import Get, Refusal, Status, new_rid
from msd.wire.protocol.segments import Manifest, digest
from msd.wire.protocol.states import ConnectionRefusal, RefusalReason, WorkerState
from msd.wire.support.core import Stalled, TimePassed
from msd.wire.support.units import format_count

#: Seconds between two ``Progress`` events.
PROGRESS_INTERVAL_S = 0.1


class Transfer:
    """Downloads one version of a file from the workers of ``pool`` into ``output``.

    ``catalogue`` is the digest of the catalogue that server 5 published when the manifest was found; empty if unknown.
    ``memory`` limits the outstanding bytes and, for a stream, those that wait to be written. ``max_rate`` limits the
    rate of the requests, in bytes per second.
    ``received`` counts the bytes received over the network, ``wasted`` those of them that were duplicate or corrupt,
    ``outdated`` those that were verified in an earlier version and are not in this one, ``reused`` the bytes found on
    the disk, and ``zeros`` those of them that a new file has from the beginning. ``previous`` is the transfer of the
    version that this one replaces; its counts are continued.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        manifest: Manifest,
        output: Output,
        *,
        catalogue: bytes,
        memory: int,
        max_rate: int | None,
        previous: Transfer | None = None,
        on_event: OnEvent,
    ) -> None:
        self.received = self.wasted = self.outdated = self.reused = self.zeros = 0
        self.workers: dict[int, WorkerReport] = {number: WorkerReport() for number in pool.worker_numbers}
        #: The time of the first request and, once all segments are verified, the time after it.
        self.started = time.monotonic()
        self.seconds = 0.0
        #: The number of versions before this one, and the bytes on the disk that this version contains.
        self.changes = 0
        self._kept = 0
        #: Each worker's state in the last snapshot from server 5.
        self._last_states: dict[int, WorkerState] = {}
        self._meters: defaultdict[int, RateMeter] = defaultdict(RateMeter)
        self._pool = pool
        self.manifest = manifest
        self.output = output
        self._stream = output if isinstance(output, StreamOutput) else None
        self._on_event = on_event
        self._candidates = iter(output.candidates())
        self._zero_segments = [*output.zero_segments()]
        self._parts = UnitParts()
        lengths = manifest.lengths
        self._scheduler = Scheduler(
            pool.worker_numbers,
            catalogue=catalogue,
            memory=memory,
            max_ahead=max(1, memory // max(lengths, default=1)) if self._stream else None,
            max_rate=max_rate,
        )
        #: The workers that use another version of the protocol, each with that version.
        self._other_versions: dict[int, int | None] = {}
        self._finished = False
        #: False until the caller knows that this is a new version: what is verified may have become less.
        self._is_announced = previous is None
        #: True if the version was lost and no segment has arrived since. Then events would only repeat what is known.
        self._is_retry = False
        #: True once all data on the disk is checked and, if needed, copied.
        self._reuse_finished = False
        self._next_progress_at = self.started + PROGRESS_INTERVAL_S
        if previous is not None:
            self.changes = previous.changes + 1
            self.received, self.outdated = previous.received, previous.fetched
            self.wasted = previous.wasted + previous._parts.size
            self.workers, self.started = previous.workers, previous.started
            self._last_states, self._meters = previous._last_states, previous._meters
            self._other_versions = previous._other_versions
            for worker in previous._scheduler.workers.values():
                if worker.ban_reason:
                    pool.handle_ban(Unban(worker.number))
        # The units are the segments of the file.
        unchecked = [*output.candidates(), *self._zero_segments]
        self._schedule(scheduler_events.UnitsAdded(lengths, unchecked))
        self._schedule(scheduler_events.AllUnitsAdded())

    @property
    def fetched(self) -> int:
        """Verified bytes of all versions that the workers have sent."""
        return sum(report.bytes for report in self.workers.values())

    @property
    def verified(self) -> int:
        """Verified bytes of the file, received or reused, except those that are not in the output yet."""
        uncopied = 0 if self._reuse_finished else self.output.uncopied_bytes
        return self.fetched - self.outdated + self.reused - uncopied

    def lift_bans(self) -> None:
        """After a ``VersionLostError``, allows connections to the workers that did not have this version."""
        self._schedule(scheduler_events.Resumed())

    def run(self) -> None:
        """Runs until every segment is verified and written. Raises ``MsdError``."""
        while self._zero_segments:
            index = self._zero_segments.pop()
            self.zeros += self.manifest.span(index)[1]
            self._on_segment_checked(index, matches=True)
        for event in self._pool.current_state():
            self._on_network_event(event)
        deadline = self._pass_time()
        while not self._finished or (self._stream and self._stream.uncopied_bytes):
            is_busy = self._reuse_next()
            self._pool.wait(0.0 if is_busy else deadline)
            if self._pool.stalled_seconds:
                self._schedule(Stalled(self._pool.stalled_seconds))
            for event in self._pool.events():
                self._on_network_event(event)
            if self._stream is not None:
                self._flush(self._stream)
                self._watch_reader(self._stream)
            deadline = self._pass_time()
        while self._reuse_next():
            self._pass_time()
        self._reuse_finished = True
        now = time.monotonic()
        self.seconds = now - self.started
        self._emit_progress(now, is_complete=True)

    # Network events.

    def _on_network_event(self, event: NetworkEvent) -> None:
        match event:
            case ReplyReceived(worker, Get(index=index, start=start), Refusal(reason=reason, detail=detail)):
                if not self._is_retry:
                    self._on_event(Retried(str(worker), index, reason.value, detail))
                if reason is RefusalReason.SLEEPING:
                    self._meters[worker].stop()
                self._schedule(scheduler_events.UnitRefused(worker, index, reason, start))
            case ReplyReceived(worker, Get(index=index, start=start), _, payload) if payload is not None:
                self._on_data(worker, index, start, payload.buffer)
            case ReplyReceived(worker, Get(index=index, start=start)):
                self._schedule(scheduler_events.UnitRefused(worker, index, RefusalReason.BAD_REQUEST, start))
            case SnapshotReceived(status):
                self._schedule(event)
                self._emit_worker_changes(status)
            case ConnectionOpened(worker):
                self.workers.setdefault(worker, WorkerReport())
                now = time.monotonic()
                # At the start, all workers are measured from the first request on, as the average is.
                is_first = now - self.started < RATE_WINDOW_S
                self._meters[worker].start(self.started if is_first else now, is_first_request=is_first)
                if not self._is_retry:
                    self._on_event(WorkerChanged(str(worker), "ready"))
                self._schedule(event)
            case ConnectionClosed(worker, ConnectionRefusal.VERSION, version):
                # The worker had no connection that the scheduler knows of. Each further attempt finds the same.
                if self._other_versions.get(worker) != version:
                    self._other_versions[worker] = version
                    self._on_event(WorkerChanged(str(worker), "lost", other_version(version)))
            case ConnectionClosed(worker) if worker in self._scheduler.workers:
                outstanding = len(self._scheduler.outstanding(worker))
                self._schedule(event)
                self._meters[worker].stop()
                detail = f"{format_count(outstanding, 'segment')} reassigned" if outstanding else ""
                self.workers[worker].failures += bool(outstanding)
                self._on_event(WorkerChanged(str(worker), "lost", detail, outstanding))

    def _emit_worker_changes(self, status: Status) -> None:
        """Emits an event for each worker that, according to server 5, became unavailable or is no longer silent."""
        for worker in status.workers:
            before, self._last_states[worker.number] = self._last_states.get(worker.number), worker.state
            if worker.state not in (before, WorkerState.AWAKE, WorkerState.STARTING):
                if worker.state is not WorkerState.SILENT:
                    self._meters[worker.number].stop()
                self._on_event(WorkerChanged(str(worker.number), worker.state.value, worker.reason))
            elif worker.state is WorkerState.AWAKE and before is WorkerState.SILENT:
                self._on_event(WorkerChanged(str(worker.number), "ready"))

    def _on_data(self, worker: int, unit: int, start: int, data: memoryview) -> None:
        self.received += len(data)
        size = self.manifest.span(unit)[1]
        missing = self._scheduler.missing_bytes(unit, start, len(data))
        if not missing:
            self.wasted += len(data)
            self._schedule(scheduler_events.UnitDuplicate(worker, unit, start))
        elif len(data) < size:
            self.wasted += len(data) - missing
            self._parts.add(worker, unit, size, start, data, new=missing)
            self._count_arrival(worker, missing)
            self._schedule(scheduler_events.PartReceived(worker, unit, start, len(data)))
        else:
            self.wasted += self._parts.discard(unit)
            if digest(data) == self.manifest.digest(unit):
                self._count_arrival(worker, size)
                self._write(worker, unit, data, {worker: size})
                self._schedule(scheduler_events.UnitWritten(worker, unit))
            else:
                self._on_corrupt([worker], unit)
                self._schedule(scheduler_events.UnitCorrupt(worker, unit))
        if self._stream is not None:
            self._flush(self._stream)

    def _check_unit(self, action: scheduler_events.CheckUnit) -> None:
        """Verifies and writes a unit that has arrived in parts."""
        worker, unit = action.worker, action.unit
        parts = self._parts.take(unit)
        data = memoryview(parts.data)
        is_valid = digest(data) == self.manifest.digest(unit)
        if is_valid:
            self._write(worker, unit, data, parts.senders)
        else:
            self._on_corrupt(sorted(action.senders), unit)
        self._schedule(scheduler_events.PartsChecked(worker, unit, is_valid))

    def _write(self, worker: int, unit: int, data: memoryview, senders: Mapping[int, int]) -> None:
        """Writes a verified unit that ``worker`` completed; ``senders`` is the number of bytes from each worker."""
        self.output.write(unit, data)
        self.workers[worker].segments += 1
        for sender, size in senders.items():
            self.workers[sender].bytes += size
        if self._is_retry:
            self._end_retry()

    def _on_corrupt(self, senders: list[int], unit: int) -> None:
        """Reports a corrupt unit. If it has several senders, it is not known which one is to blame."""
        self.wasted += self.manifest.span(unit)[1]
        self._on_event(Retried(" or ".join(map(str, senders)), unit, "corrupt"))
        if len(senders) == 1:
            self.workers[senders[0]].corrupt += 1
            if (control := self._pool.control) is not None:
                self._pool.transport.report_corrupt(control, senders[0], self.manifest.id, unit)

    def _count_arrival(self, worker: int, size: int) -> None:
        now = time.monotonic()
        self._meters[worker].count(size, now)
        self._pool.progress_timeout.handle(ProgressMade(), now)

    def _end_retry(self) -> None:
        """The version is available again: reports the workers that are ready."""
        self._is_retry = False
        for worker in self._pool.ready:
            self._on_event(WorkerChanged(str(worker), "ready"))

    def _flush(self, stream: StreamOutput) -> None:
        """Writes what the reader takes now."""
        position, written_bytes = stream.position, stream.written_bytes
        stream.flush()
        if stream.written_bytes > written_bytes:
            self._pool.progress_timeout.handle(ProgressMade(), time.monotonic())
        if stream.position > position:
            self._schedule(scheduler_events.OutputAdvanced(stream.position))

    def _watch_reader(self, output: StreamOutput) -> None:
        """Makes the next poll notice what the reader does. While it does not read, the servers are not the problem."""
        is_full = output.waits_for_reader
        self._pool.transport.watch_output(output.stream.fd, is_full=is_full)
        self._pool.local_reason = f"{output.stream.path} is full: its reader does not read" if is_full else ""

    def _reuse_next(self) -> bool:
        """Hashes one segment that may be on the disk, or copies one from an existing output; False if none is left."""
        index = next(self._candidates, None)
        if index is None:
            self._announce()
            copied = self.output.copy_next()
            if copied:
                self._pool.progress_timeout.handle(ProgressMade(), time.monotonic())
            return copied
        self._on_segment_checked(index, matches=self.output.holds(index))
        return True

    def _on_segment_checked(self, index: int, *, matches: bool) -> None:
        if matches:
            length = self.manifest.span(index)[1]
            # Data of an earlier version that this one contains, too, is not outdated.
            received_before = min(length, self.outdated)
            self.outdated -= received_before
            self.reused += length - received_before
            self._kept += length
        self._pool.progress_timeout.handle(ProgressMade(), time.monotonic())
        self._schedule(scheduler_events.UnitChecked(index, matches))

    # Scheduling.

    def _schedule(self, event: scheduler_events.Event) -> None:
        """Passes an event to the scheduler and performs the returned actions."""
        for action in self._scheduler.handle(event, time.monotonic()):
            match action:
                case scheduler_events.RequestUnit(worker, unit, start, length):
                    is_whole = length == self.manifest.span(unit)[1]
                    request = Get(
                        rid=new_rid(),
                        id=self.manifest.id,
                        index=unit,
                        start=start,
                        length=None if is_whole else length,
                    )
                    self._pool.request(worker, request)
                case scheduler_events.CheckUnit():
                    self._check_unit(action)
                case Ban(worker, reason):
                    self._meters[worker].stop()
                    if not self._is_retry:
                        self._on_event(WorkerChanged(str(worker), "set aside", reason.value))
                    self._pool.handle_ban(action)
                case Unban():
                    self._pool.handle_ban(action)
                case scheduler_events.Finish():
                    self._finished = True
                case scheduler_events.GiveUp():
                    # Report that nothing is in flight any more.
                    self._emit_progress(time.monotonic())
                    self._is_retry = True
                    raise source_error(action, self.manifest.name)

    def _announce(self) -> None:
        """Reports a new version, once the data on the disk is compared with it."""
        if not self._is_announced:
            self._is_announced = True
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

    def _pass_time(self) -> float:
        """Performs the actions that are due, and returns the time at which the next one may be due."""
        self._schedule(TimePassed())
        now = time.monotonic()
        if self._scheduler.waits_for_rate_limit(now):
            # This wait is intended: report no lack of progress.
            self._pool.progress_timeout.handle(ProgressMade(), now)
        # ``run`` itself emits the final ``Progress``, once the file is complete.
        if now >= self._next_progress_at and self.verified < self.manifest.size and self._is_announced:
            self._emit_progress(now)
        return min(self._next_progress_at, self._scheduler.next_deadline(now) or math.inf)

    @property
    def rate(self) -> float:
        """The average rate of received and verified bytes until the last segment was verified, in bytes per second."""
        return self.fetched / max(self.seconds, MIN_SPAN_S)

    def _emit_progress(self, now: float, *, is_complete: bool = False) -> None:
        self._next_progress_at = now + PROGRESS_INTERVAL_S
        workers = []
        for number, report in sorted(self.workers.items()):
            assigned = report.bytes + self._parts.bytes_from(number) + self._scheduler.outstanding_bytes(number)
            rate = self._meters[number].rate(now, is_complete=is_complete)
            workers.append(WorkerProgress(str(number), report.bytes, assigned, rate))
        seconds = now - self.started
        reused = max(0, self.verified - (self.fetched - self.outdated))
        progress = Progress(
            bytes=self.verified,
            total=self.manifest.size,
            reused_bytes=reused,
            wasted_bytes=self.wasted + self.outdated,
            seconds=seconds,
            rate=self.fetched / max(seconds, MIN_SPAN_S),
            workers=tuple(workers),
            zero_bytes=min(self.zeros, reused),
        )
        self._on_event(progress)
