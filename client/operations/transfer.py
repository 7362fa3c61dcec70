"""The transfer of units: connects the scheduler to the connections of a session.

Hashes received units in one thread, while ZeroMQ's threads receive the next ones. The scheduler decides which worker is
asked for what; ``client/operations/unit_group.py`` says what the units are, and takes their data.
"""

from __future__ import annotations

import math
import os
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

from msd.client.events import MIN_SPAN_S, OnEvent, Progress, Retried, WorkerChanged, WorkerProgress, WorkerReport
from msd.client.network.progress_timeout import ProgressMade
from msd.client.network.session import Session, Task
from msd.client.network.waiting_reason import other_version
from msd.client.network_events import (
    Ban,
    BanReason,
    ConnectionClosed,
    ConnectionOpened,
    NetworkEvent,
    ReplyReceived,
    SnapshotReceived,
    Unban,
    is_peer,
    sender_name,
)
from msd.client.operations.source_error import BAN_TEXTS, source_error
from msd.client.operations.unit_group import UnitGroup
from msd.client.operations.unit_parts import UnitParts
from msd.client.report.rate_meter import RATE_WINDOW_S, RateMeter
from msd.client.scheduling import scheduler_events
from msd.client.scheduling.scheduler import Scheduler
from msd.client.scheduling.scheduler_events import RequestUnit
from msd.wire.protocol.messages import Bundle, Held, Holds, Refusal, Segment, Status, new_rid
from msd.wire.protocol.states import ConnectionRefusal, RefusalReason, WorkerState
from msd.wire.support.core import Stalled, TimePassed
from msd.wire.support.units import format_count

#: The replies that contain a unit or a part of it.
DATA_REPLIES = (Segment, Bundle)
#: Seconds between two ``Progress`` events.
PROGRESS_INTERVAL_S = 0.1
#: When a peer says what it has, it may send this many bytes more than the units of the plan take, because it may round
#: up. They are ignored. Without this limit, only the size of a frame would limit what is kept for each peer.
HELD_RESERVE = 64


def _choose(count: int) -> int:
    """Returns a random number from 0 to below ``count``. Importing ``random`` would take time at each start."""
    return int.from_bytes(os.urandom(8), "big") % count


class Transfer(Task):
    """Fetches the units of any number of groups from the workers of ``session``.

    ``memory`` limits the outstanding bytes, and ``max_rate`` the rate of the requests, in bytes per second.
    ``total`` is the number of bytes that are to be fetched or found on the disk, as far as the caller knows.
    ``received`` counts the bytes received over the network, ``wasted`` those of them that were duplicate or corrupt.
    """

    takes_peers = True

    def __init__(self, session: Session, *, memory: int, max_rate: int | None, on_event: OnEvent) -> None:
        self.total = self.received = self.wasted = 0
        #: True while groups may be added: then progress is reported although nothing more is to be fetched at present.
        self.expects_groups = False
        self.workers: dict[int, WorkerReport] = {number: WorkerReport() for number in session.pool.worker_numbers}
        #: The time of the first request and, once all units are verified, the time after it.
        self.started = time.monotonic()
        self.seconds = 0.0
        self._session = session
        self._pool = session.pool
        self._on_event = on_event
        self._scheduler = Scheduler(session.pool.worker_numbers, memory=memory, max_rate=max_rate, choose=_choose)
        #: All groups, those that are not replaced, the first unit of each, and the number of all units.
        self._groups: list[UnitGroup] = []
        self._active: list[UnitGroup] = []
        self._first_units: list[int] = []
        self._units = 0
        self._units_follow = False
        #: The groups of the plan that are not complete, the id of the plan, and the bits of the units of it that each
        #: peer has.
        self._passed_groups: list[UnitGroup] = []
        self._plan = b""
        self._held: dict[int, int] = {}
        #: The requests that have no reply yet, by worker and request id; each with the group and the index of the unit.
        self._requests: defaultdict[int, dict[int, tuple[RequestUnit, UnitGroup, int]]] = defaultdict(dict)
        self._parts = UnitParts()
        #: Each worker's state in the last snapshot from server 5.
        self._last_states: dict[int, WorkerState] = {}
        #: The workers whose bans were reported, each with the reason: bans from further groups are not.
        self._reported_bans: dict[int, str] = {}
        #: Why workers could not read a file, last.
        self._unreadable: dict[int, str] = {}
        self._meters: defaultdict[int, RateMeter] = defaultdict(RateMeter)
        #: The workers that use another version of the protocol, each with that version.
        self._other_versions: dict[int, int | None] = {}
        self._next_progress_at = self.started + PROGRESS_INTERVAL_S
        #: True once an arrival was reported as progress since the last ``pass_time``: the others need not be.
        self._has_reported_progress = False

    # Called by the owner of the transfer, and by its groups.

    def add(
        self,
        group: UnitGroup,
        *,
        catalogue: bytes = b"",
        limit: int | None = None,
        replaces: UnitGroup | None = None,
    ) -> None:
        """Adds the units of a group.

        ``catalogue`` is the digest of the catalogue that server 5 published when the group was found; empty if unknown.
        With ``limit`` only the units before this index are requested for now. ``replaces`` is a group of which nothing
        more is needed.
        """
        group.number, group.remaining = len(self._groups), len(group.sizes)
        self._groups.append(group)
        self._active.append(group)
        self._first_units.append(self._units)
        if limit is not None:
            self.limit_requests(group, limit)
        unchecked = [self._units + index for index in group.unchecked]
        if group.plan_unit is not None:
            self._passed_groups.append(group)
            # Before there are requests for the units.
            for peer, held in self._held.items():
                if units := self._translate(held, group):
                    known = self._scheduler.workers[peer].held or 0
                    self._schedule(scheduler_events.UnitsHeld(peer, known | units))
        self._units += len(group.sizes)
        if replaces is not None:
            self.remove(replaces)
        self._schedule(scheduler_events.UnitsAdded(group.sizes, unchecked, catalogue))

    def remove(self, group: UnitGroup) -> None:
        """Removes a group of which nothing more is needed."""
        self._active.remove(group)
        if group in self._passed_groups:
            self._passed_groups.remove(group)
        first = self._first_units[group.number]
        self.wasted += sum(map(self._parts.discard, range(first, first + len(group.sizes))))
        self._schedule(scheduler_events.GroupRemoved(group.number))

    def resume(self, group: UnitGroup) -> None:
        """Continues after ``group`` was lost: some workers may have its units now."""
        self._schedule(scheduler_events.Resumed(group.number))

    def mark_checked(self, group: UnitGroup, index: int, *, matches: bool) -> None:
        """Reports whether the data on the disk for an unchecked unit is valid."""
        group.remaining -= matches
        self._pool.progress_timeout.handle(ProgressMade(), time.monotonic())
        self._schedule(scheduler_events.UnitChecked(self._first_units[group.number] + index, matches))

    def limit_requests(self, group: UnitGroup, index: int) -> None:
        """Allows requests only for the units of the group before ``index``. It never decreases."""
        self._schedule(scheduler_events.LimitMoved(self._first_units[group.number] + index))

    def expect_units(self, follow: bool) -> None:
        """Says whether further groups follow soon: see ``UnitsFollow``."""
        if follow != self._units_follow:
            self._units_follow = follow
            self._schedule(scheduler_events.UnitsFollow(follow))

    @property
    def remaining(self) -> int:
        """The number of units that are neither written nor found on the disk."""
        return self._scheduler.remaining

    @property
    def fetched(self) -> int:
        """Verified bytes that the workers have sent."""
        return sum(report.bytes for report in self.workers.values())

    @property
    def rate(self) -> float:
        """The average rate of received and verified bytes until the last unit was verified, in bytes per second."""
        return self.fetched / max(self.seconds, MIN_SPAN_S)

    @property
    def verified(self) -> int:
        """Bytes that are verified and in the output."""
        return sum(group.verified for group in self._active)

    @property
    def outdated(self) -> int:
        """Bytes that the workers have sent of earlier versions of files, and that the new ones do not contain."""
        return sum(group.outdated for group in self._active)

    @property
    def reused(self) -> int:
        """Verified bytes that the workers have not sent."""
        return max(0, self.verified - (self.fetched - self.outdated))

    @property
    def zeros(self) -> int:
        """Those of the reused bytes that a new file has from the beginning."""
        return min(sum(group.zeros for group in self._active), self.reused)

    def useless_peers(self, now: float) -> list[int]:
        """Returns the peers that send nothing, those that have sent nothing for the longest time first."""
        return self._scheduler.useless_holders(now)

    def pass_on(self, plan: bytes, units: int) -> None:
        """Other receivers get from this one what it has of ``plan``, which has so many ``units``."""
        self._plan = plan
        self._scheduler.plan_units = units

    def remove_peer(self, peer: int) -> None:
        """The connection to a peer was closed, and is not opened again."""
        self._requests.pop(peer, None)
        self._held.pop(peer, None)
        if peer in self._scheduler.workers:
            self._meters[peer].stop()
            self._schedule(scheduler_events.WorkerRemoved(peer))

    # Events.

    def handle(self, event: NetworkEvent | Stalled) -> None:
        match event:
            # First, because it is by far the most frequent event.
            case ReplyReceived():
                self._on_reply(event)
            case SnapshotReceived(status):
                self._schedule(event)
                self._emit_worker_changes(status)
            case ConnectionOpened(worker):
                self._requests.pop(worker, None)
                self.workers.setdefault(worker, WorkerReport())
                now = time.monotonic()
                # At the start, all workers are measured from the first request on, as the average is.
                is_first = now - self.started < RATE_WINDOW_S
                self._meters[worker].start(self.started if is_first else now, is_first_request=is_first)
                self._emit_worker(worker, "ready")
                self._schedule(event)
            case ConnectionClosed(worker, ConnectionRefusal.VERSION, version):
                # The worker had no connection that the scheduler knows of. Each further attempt finds the same.
                if self._other_versions.get(worker) != version:
                    self._other_versions[worker] = version
                    self._emit_worker(worker, "lost", other_version(version))
            case ConnectionClosed(worker) if worker in self._scheduler.workers:
                self._requests.pop(worker, None)
                was_ready = self._scheduler.workers[worker].ready
                outstanding = len(self._scheduler.outstanding(worker))
                self._schedule(event)
                self._meters[worker].stop()
                detail = f"{format_count(outstanding, 'segment')} reassigned" if outstanding else ""
                self.workers[worker].failures += bool(outstanding)
                # Otherwise an attempt to connect has failed, perhaps one of many.
                if was_ready:
                    self._emit_worker(worker, "lost", detail, outstanding)
            case Stalled():
                self._schedule(event)

    def pass_time(self) -> float:
        self._has_reported_progress = False
        self._schedule(TimePassed())
        now = time.monotonic()
        if self._scheduler.waits_for_rate_limit(now) and not self._pool.read_error:
            # This wait is intended: report no lack of progress.
            self._pool.progress_timeout.handle(ProgressMade(), now)
        # The owner emits the final ``Progress``, once the output is complete.
        if now >= self._next_progress_at:
            self._next_progress_at = now + PROGRESS_INTERVAL_S
            is_unfinished = self.verified < self.total and all(group.is_announced for group in self._active)
            if self.expects_groups or is_unfinished:
                self.emit_progress()
        return min(self._next_progress_at, self._scheduler.next_deadline(now) or math.inf)

    def _emit_worker(self, worker: int, state: str, detail: str = "", segments: int = 0) -> None:
        if state == "set aside":
            if self._reported_bans.get(worker) == detail:
                return
            self._reported_bans[worker] = detail
        else:
            self._reported_bans.pop(worker, None)
        place = self._pool.places.get(worker, "")
        self._on_event(WorkerChanged(sender_name(worker), state, detail, segments, place))

    def _emit_worker_changes(self, status: Status) -> None:
        """Emits an event for each worker that, according to server 5, became unavailable or is no longer silent."""
        for worker in status.workers:
            before, self._last_states[worker.number] = self._last_states.get(worker.number), worker.state
            if worker.state not in (before, WorkerState.AWAKE, WorkerState.STARTING):
                if worker.state is not WorkerState.SILENT:
                    self._meters[worker.number].stop()
                self._emit_worker(worker.number, worker.state.value, worker.reason)
            elif worker.state is WorkerState.AWAKE and before is WorkerState.SILENT:
                self._emit_worker(worker.number, "ready")

    # Replies.

    def _locate(self, unit: int) -> tuple[UnitGroup, int]:
        """Returns the group of a unit, and the index of the unit in it."""
        number = bisect_right(self._first_units, unit) - 1
        return self._groups[number], unit - self._first_units[number]

    def _on_reply(self, event: ReplyReceived) -> None:
        if isinstance(event.request, Holds):
            self._on_held(event)
            return
        part, group, index = self._requests[event.worker].pop(event.request.rid)
        reply = event.reply
        if type(reply) is Bundle and (reason := group.refusal_of(reply, of_peer=is_peer(event.worker))) is not None:
            self._schedule(scheduler_events.UnitRefused(event.worker, part.unit, reason, part.start))
        elif isinstance(reply, DATA_REPLIES):
            payload = event.payload.buffer if event.payload is not None else memoryview(b"")
            self._on_data(group, index, part, group.data_of(part.start, part.length, reply, payload), len(payload))
        elif isinstance(reply, Refusal):
            match reply.reason:
                case RefusalReason.UNAVAILABLE:
                    self._on_unavailable(event.worker, reply.detail)
                case RefusalReason.UNREADABLE:
                    self._unreadable[event.worker] = reply.detail
            if not group.is_retry and reply.reason is not RefusalReason.UNAVAILABLE:
                self._on_event(Retried(sender_name(event.worker), index, reply.reason.value, reply.detail))
            if reply.reason is RefusalReason.SLEEPING:
                self._meters[event.worker].stop()
            self._schedule(scheduler_events.UnitRefused(event.worker, part.unit, reply.reason, part.start))

    def _on_held(self, event: ReplyReceived) -> None:
        """Translates what a peer has of the plan into units."""
        payload = event.payload.buffer if event.payload is not None else memoryview(b"")
        # The peer may have another plan, with more units: for example, it has another version of the file.
        if not isinstance(event.reply, Held) or event.reply.plan != self._plan:
            payload = memoryview(b"")
        length = -(-self._scheduler.plan_units // 8)
        if len(payload) > length + HELD_RESERVE:
            self._ban(Ban(event.worker, BanReason.MALFORMED))
            return
        held = int.from_bytes(payload[:length], "little")
        self._held[event.worker] = held
        self._passed_groups = [group for group in self._passed_groups if group.remaining]
        units = sum(self._translate(held, group) for group in self._passed_groups)
        self._schedule(scheduler_events.UnitsHeld(event.worker, units))

    def _translate(self, held: int, group: UnitGroup) -> int:
        """Returns the bits of the units of the group, which are those of the plan from ``plan_unit`` on."""
        assert group.plan_unit is not None
        return (held >> group.plan_unit & (1 << len(group.sizes)) - 1) << self._first_units[group.number]

    def _on_unavailable(self, worker: int, reason: str) -> None:
        """Reports once that a worker cannot read its files for a reason that may pass."""
        if self._pool.read_errors.get(worker) != reason:
            self._pool.read_errors[worker] = reason
            self._meters[worker].stop()
            self._emit_worker(worker, "unavailable", reason)

    def _on_data(self, group: UnitGroup, index: int, part: RequestUnit, data: memoryview, received: int) -> None:
        """Handles the ``data`` of a part, for which ``received`` bytes were received: none for refused files."""
        worker, unit, size = part.worker, part.unit, group.sizes[index]
        if worker in self._pool.read_errors:
            del self._pool.read_errors[worker]
            self._emit_worker(worker, "ready")
        self.received += received
        missing = self._scheduler.missing_bytes(unit, part.start, part.length)
        if not missing:
            self.wasted += received
            self._schedule(scheduler_events.UnitDuplicate(worker, unit, part.start))
        elif part.length == size:
            if missing < size:
                # What has arrived in parts was not needed.
                self.wasted += self._parts.discard(unit)
            if (corrupt := group.find_corrupt(index, data)) is None:
                self._count_arrival(worker, received)
                self._write(group, index, worker, data, ((worker, received),))
                self._schedule(scheduler_events.UnitWritten(worker, unit))
            else:
                self._on_corrupt([worker], index, received, *corrupt)
                self._schedule(scheduler_events.UnitCorrupt(worker, unit))
        elif len(data) == part.length:
            new = max(0, missing - group.refused_bytes(part.start, part.length))
            self.wasted += received - new
            self._parts.add(worker, unit, size, part.start, data, new=new)
            self._count_arrival(worker, new)
            self._schedule(scheduler_events.PartReceived(worker, unit, part.start, part.length))
        else:
            self.wasted += received
            self._schedule(scheduler_events.UnitRefused(worker, unit, RefusalReason.BAD_REQUEST, part.start))
        group.flush()

    def _check_unit(self, action: scheduler_events.CheckUnit) -> None:
        """Verifies and writes a unit that has arrived in parts."""
        worker, unit = action.worker, action.unit
        group, index = self._locate(unit)
        parts = self._parts.take(unit)
        data = memoryview(parts.data)
        if (corrupt := group.find_corrupt(index, data)) is None:
            self._write(group, index, worker, data, parts.senders.items())
        else:
            self._on_corrupt(sorted(action.senders), index, parts.senders.total(), *corrupt)
        self._schedule(scheduler_events.PartsChecked(worker, unit, corrupt is None))

    def _write(
        self, group: UnitGroup, index: int, worker: int, data: memoryview, senders: Iterable[tuple[int, int]]
    ) -> None:
        """Writes a verified unit that ``worker`` completed; ``senders`` are the workers that sent the bytes, each with
        the number of bytes.
        """
        group.write(index, data)
        group.remaining -= 1
        self.workers[worker].segments += 1
        for sender, size in senders:
            group.fetched += size
            self.workers[sender].bytes += size

    def _on_corrupt(self, senders: list[int], index: int, size: int, id: bytes, segment: int) -> None:
        """Reports a corrupt unit. If it has several senders, it is not known which one is to blame."""
        self.wasted += size
        self._on_event(Retried(" or ".join(map(sender_name, senders)), index, "corrupt"))
        if len(senders) == 1:
            self.workers[senders[0]].corrupt += 1
            if not is_peer(senders[0]) and (control := self._pool.control) is not None:
                self._pool.transport.report_corrupt(control, senders[0], id, segment)

    def _count_arrival(self, worker: int, size: int) -> None:
        now = time.monotonic()
        self._meters[worker].count(size, now)
        if not self._has_reported_progress:
            self._has_reported_progress = True
            self._pool.progress_timeout.handle(ProgressMade(), now)

    # Scheduling.

    def _schedule(self, event: scheduler_events.Event) -> None:
        """Passes an event to the scheduler and performs the returned actions."""
        self._scheduler.read_until = self._pool.read_until
        for action in self._scheduler.handle(event, time.monotonic()):
            # First, because it is by far the most frequent action.
            if isinstance(action, RequestUnit):
                group, index = self._locate(action.unit)
                request = group.request(index, action.start, action.length)
                self._requests[action.worker][request.rid] = action, group, index
                self._session.request(self, action.worker, request)
                continue
            match action:
                case scheduler_events.CheckUnit():
                    self._check_unit(action)
                case scheduler_events.RequestHolds(worker):
                    self._session.request(self, worker, Holds(rid=new_rid()))
                case Ban():
                    self._ban(action)
                case Unban():
                    self._pool.handle_ban(action)
                # Not if the worker may serve other groups: then only the retry is reported.
                case scheduler_events.GroupBan(worker, number, reason) if len(self._active) == 1:
                    self._meters[worker].stop()
                    if not self._groups[number].is_retry:
                        self._emit_worker(worker, "set aside", BAN_TEXTS[reason])
                case scheduler_events.GroupUnban(worker, number) if not self._groups[number].is_retry:
                    self._emit_worker(worker, "ready")
                case scheduler_events.GroupLost(number, bans, unit):
                    # Report that nothing is in flight any more.
                    self.emit_progress()
                    group, index = self._groups[number], unit - self._first_units[number]
                    if group.lose(source_error(bans, index, group.name, self._pool.places, self._unreadable)):
                        self.remove(group)

    def _ban(self, ban: Ban) -> None:
        self._meters[ban.worker].stop()
        self._emit_worker(ban.worker, "set aside", BAN_TEXTS[ban.reason])
        self._pool.handle_ban(ban)

    # Progress.

    def emit_progress(self, *, is_complete: bool = False) -> None:
        """Emits a ``Progress`` event. ``is_complete`` is True for the last one."""
        now = time.monotonic()
        self._next_progress_at = now + PROGRESS_INTERVAL_S
        if is_complete:
            self.seconds = now - self.started
        workers = []
        for number, report in sorted(self.workers.items()):
            # The scheduler has forgotten the peers to which the connection was closed.
            is_known = number in self._scheduler.workers
            outstanding = self._scheduler.outstanding_bytes(number) if is_known else 0
            assigned = report.bytes + self._parts.bytes_from(number) + outstanding
            rate = self._meters[number].rate(now, is_complete=is_complete)
            workers.append(WorkerProgress(sender_name(number), report.bytes, assigned, rate))
        seconds = now - self.started
        progress = Progress(
            bytes=self.verified,
            total=self.total,
            reused_bytes=self.reused,
            wasted_bytes=self.wasted + self.outdated,
            seconds=seconds,
            rate=self.fetched / max(seconds, MIN_SPAN_S),
            workers=tuple(workers),
            zero_bytes=self.zeros,
            received_bytes=self.received,
        )
        self._on_event(progress)
