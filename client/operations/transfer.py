"""The transfer of one file: joins the scheduler to the connections and the part file.

What arrives is hashed and written here, in this one thread; ZeroMQ's own threads receive the next
segments meanwhile. Decides nothing but the order in which things are looked at: what has arrived
first, time after it.
"""

from __future__ import annotations

import time

import zmq
from msgspec import Struct, field

from msd.client.events import OnEvent, Progress, Retried, Sampled, WorkerChanged, WorkerProgress, WorkerReport
from msd.client.network.connection import new_rid
from msd.client.network.pool import ConnectionPool
from msd.client.network.progress_timeout import ProgressTimeout
from msd.client.network.transport import LinkClosed, LinkOpened, ReplyReceived, SnapshotReceived, TransportEvent
from msd.client.scheduling import events
from msd.client.scheduling.events import Fault, GiveUp
from msd.client.scheduling.scheduler import Scheduler
from msd.client.scheduling.worker_pace import MAX_WINDOW
from msd.client.storage.part_file import PartFile
from msd.wire.errors import SourceError
from msd.wire.protocol.messages import Get, Refusal, Status
from msd.wire.protocol.segments import Manifest, digest
from msd.wire.protocol.states import RefusalReason, WorkerState
from msd.wire.support.time_passed import TimePassed

#: Seconds between two samples.
SAMPLE = 0.1


class _Mark(Struct):
    """When progress was told last, and the bytes of each worker then."""

    at: float
    bytes: dict[int, int] = field(default_factory=dict)


class Transfer:
    """One file on its way from ``peers`` into ``part``.

    ``catalogue`` is what server 5 vouched for when the manifest was found, empty if it had not said;
    ``interval`` is the time between two ``Progress`` events in seconds, ``memory`` bounds the bytes
    outstanding. The counts of bytes are public: ``received`` over the network, ``wasted`` of these,
    ``reused`` from the disk.
    """

    def __init__(
        self,
        peers: ConnectionPool,
        manifest: Manifest,
        part: PartFile,
        *,
        catalogue: bytes,
        timeout: float | None,
        interval: float,
        memory: int,
        on_event: OnEvent,
    ) -> None:
        self.received = self.wasted = self.reused = 0
        self.workers: dict[int, WorkerReport] = {number: WorkerReport() for number in peers.numbers}
        self.started = time.monotonic()
        self._peers = peers
        self._manifest = manifest
        self._part = part
        self._interval = interval
        self._on_event = on_event
        self._patience = ProgressTimeout(timeout, self.started)
        self._candidates = iter(part.candidates())
        self._zeros = [*part.zeros()]
        share = memory // max(1, len(peers.numbers) * (manifest.span(0)[1] if manifest.size else 1))
        self._scheduler = Scheduler(
            manifest.segments,
            peers.numbers,
            window=max(1, min(MAX_WINDOW, share)),
            unchecked=[*part.candidates(), *self._zeros],
        )
        self._catalogue = catalogue
        #: What server 5 said last of each worker.
        self._said: dict[int, WorkerState] = {}
        self._finished = False
        #: True once nothing is left to do for what the disk held.
        self._settled = False
        self._told = _Mark(self.started)
        self._sampled = _Mark(self.started)

    @property
    def verified(self) -> int:
        """Bytes of the file that are here, as they were shared."""
        unsettled = 0 if self._settled else self._part.unsettled
        return sum(report.bytes for report in self.workers.values()) + self.reused - unsettled

    def run(self) -> None:
        """Returns when every segment is verified and written. Raises ``MsdError``."""
        self._feed(events.CatalogueVouched(self._catalogue))
        if self._peers.status is not None:
            self._feed(events.CatalogueVouched(self._peers.status.catalogue))
        while self._zeros:
            self._checked(self._zeros.pop(), good=True)
        for opened in self._peers.ready.values():
            self._ready(opened)
        self._feed(TimePassed())
        while not self._finished:
            checking = self._check_one()
            now = time.monotonic()
            self._peers.wait(now if checking else self._deadline(now))
            if self._peers.stalled:
                self._feed(events.ClientStalled(self._peers.stalled))
                self._patience.excuse(self._peers.stalled)
            for event in self._peers.events():
                self._take(event)
            self._feed(TimePassed())
            self._tell()
        while self._check_one():
            self._tell()
        self._settled = True
        now = time.monotonic()
        self._on_event(Sampled(self._progress(now, self._sampled)))
        self._on_event(self._progress(now, self._told))

    # What arrives.

    def _take(self, event: TransportEvent) -> None:
        match event:
            case ReplyReceived(worker, Get(index=index), Refusal(reason=reason, detail=detail)):
                self._on_event(Retried(str(worker), index, reason.value, detail))
                self._feed(events.SegmentRefused(worker, index, reason))
            case ReplyReceived(worker, Get(index=index), _, payload) if payload is not None:
                self._receive(worker, index, payload)
            case ReplyReceived(worker, Get(index=index)):
                self._feed(events.SegmentRefused(worker, index, RefusalReason.BAD_REQUEST))
            case SnapshotReceived(status):
                self._hear(status)
            case LinkOpened():
                self._ready(event)
            case LinkClosed(worker):
                owed = len(self._scheduler.y(worker)) if worker in self._scheduler.workers else 0
                if owed:
                    self.workers[worker].failures += 1
                if worker in self._scheduler.workers:
                    self._feed(events.WorkerLost(worker))
                    detail = f"{owed} segments go to others" if owed else ""
                    self._on_event(WorkerChanged(str(worker), "lost", detail, owed))

    def _hear(self, status: Status) -> None:
        """Tells what server 5 says of workers that are not well; the scheduler has no need of that."""
        self._feed(events.CatalogueVouched(status.catalogue))
        for worker in status.workers:
            before, self._said[worker.number] = self._said.get(worker.number), worker.state
            if worker.state not in (before, WorkerState.AWAKE, WorkerState.STARTING):
                self._on_event(WorkerChanged(str(worker.number), worker.state.value, worker.reason))
            elif worker.state is WorkerState.AWAKE and before is WorkerState.SILENT:
                self._on_event(WorkerChanged(str(worker.number), "ready"))

    def _ready(self, opened: LinkOpened) -> None:
        self.workers.setdefault(opened.worker, WorkerReport())
        self._on_event(WorkerChanged(str(opened.worker), "ready"))
        welcome = opened.welcome
        self._feed(events.WorkerReady(opened.worker, welcome.epoch, opened.round_trip, welcome.catalogue))

    def _receive(self, worker: int, index: int, payload: zmq.Frame) -> None:
        data = payload.buffer
        self.received += len(data)
        if not self._scheduler.is_missing(index):
            self.wasted += len(data)
            self._feed(events.SegmentLate(worker, index))
        elif digest(data) != self._manifest.digest(index):
            self.wasted += len(data)
            self.workers[worker].corrupt += 1
            self._on_event(Retried(str(worker), index, "corrupt"))
            if (control := self._peers.control) is not None:
                self._peers.transport.complain(control, worker, self._manifest.id, index)
            self._feed(events.SegmentCorrupt(worker, index))
        else:
            self._part.write(index, data)
            report = self.workers[worker]
            report.bytes += len(data)
            report.segments += 1
            self._patience.moved(time.monotonic())
            self._feed(events.SegmentWritten(worker, index))

    def _check_one(self) -> bool:
        """Hashes one segment that the disk may hold; False if nothing of that kind is left to do."""
        index = next(self._candidates, None)
        if index is None:
            settled = self._part.settle()
            if settled:
                self._patience.moved(time.monotonic())
            return settled
        self._checked(index, good=self._part.holds(index))
        return True

    def _checked(self, index: int, *, good: bool) -> None:
        if good:
            self.reused += self._manifest.span(index)[1]
        self._patience.moved(time.monotonic())
        self._feed(events.SegmentChecked(index, good))

    # What is to be done.

    def _feed(self, event: events.Event) -> None:
        for action in self._scheduler.handle(event, time.monotonic()):
            match action:
                case events.RequestSegment(worker, index):
                    rid = new_rid()
                    self._peers.request(worker, Get(rid=rid, id=self._manifest.id, index=index))
                case events.Ban(worker, fault):
                    self._on_event(WorkerChanged(str(worker), "set aside", fault.value))
                    self._peers.ban(worker)
                case events.Unban(worker):
                    self._peers.unban(worker)
                case events.Finish():
                    self._finished = True
                case events.GiveUp():
                    raise _no_source(action)

    def _deadline(self, now: float) -> float:
        due = [self._told.at + self._interval, self._sampled.at + SAMPLE, self._patience.next_deadline()]
        if (deadline := self._scheduler.next_deadline(now)) is not None:
            due.append(deadline)
        return min(due)

    # What is told.

    def _tell(self) -> None:
        now = time.monotonic()
        if news := self._peers.news():
            self._on_event(news)
        # Not by ``now``: this process may have been stopped since.
        if waiting := self._patience.check(self._peers.looked_at, self._peers.why_waiting()):
            self._on_event(waiting)
        if now >= self._sampled.at + SAMPLE:
            self._on_event(Sampled(self._progress(now, self._sampled)))
        if now >= self._told.at + self._interval:
            self._on_event(self._progress(now, self._told))

    def _progress(self, now: float, since: _Mark) -> Progress:
        """How far it is; the workers' rates are those since the mark, which is moved to now."""
        span = max(now - since.at, 1e-6)
        since.at = now
        workers = []
        for number, report in sorted(self.workers.items()):
            owed = sum(self._manifest.span(index)[1] for index in self._scheduler.y(number))
            rate = (report.bytes - since.bytes.get(number, 0)) / span
            since.bytes[number] = report.bytes
            workers.append(WorkerProgress(str(number), report.bytes, report.bytes + owed, rate))
        received = sum(report.bytes for report in self.workers.values())
        seconds = now - self.started
        return Progress(
            bytes=self.verified,
            total=self._manifest.size,
            reused_bytes=self.verified - received,
            seconds=seconds,
            rate=received / max(seconds, 1e-6),
            workers=tuple(workers),
            wasted_bytes=self.wasted,
        )


def _no_source(given_up: GiveUp) -> SourceError:
    faults = set(given_up.faults.values())
    named = ", ".join(f"worker {number} {fault}" for number, fault in sorted(given_up.faults.items()))
    if faults & {Fault.CHANGED, Fault.UNKNOWN}:
        advice = "the file changed on the servers, or is not shared any more: run this again in a moment"
    elif Fault.CORRUPT in faults:
        advice = f"no worker sends segment {given_up.segment} as it was shared: check the file there"
    else:
        advice = "check the file on the servers"
    return SourceError(f"every worker has failed ({named}): {advice}")
