"""Simulates workers with given rates, delays and faults on a virtual clock, around a real scheduler.

A worker serves its requests one after another, each at its own rate (times jitter) or at its share of a link. Requests
and replies each take ``delay`` seconds and keep their order. A run never sleeps, and its seed is the only source of
randomness, so the same seed repeats the run exactly.

Each file is a group of units. When a file changes, server 5 publishes a new catalogue, and the workers load it; the
client then replaces the group by one for the new version. A worker may also lack a file from the beginning.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from msd.client.network_events import Ban, ConnectionClosed, SnapshotReceived
from msd.client.scheduling import scheduler_events as core
from msd.client.scheduling.scheduler import Scheduler
from msd.client.scheduling.scheduler_events import RequestUnit, UnitState
from msd.wire.protocol.messages import READS_STORE, Status
from msd.wire.protocol.states import RefusalReason, WorkerState
from msd.wire.support.core import Stalled, TimePassed
from tests.connections import opened
from tests.unit.snapshots import snapshot, with_worker

MIB = 1 << 20
#: Seconds until the client detects that a connection was lost, and until it connects again after a reset.
LOSS_DETECTION_S, RECONNECTION_S = 0.002, 0.25
#: Seconds for which a worker that goes to sleep refuses requests before it closes its port.
REFUSAL_PERIOD_S = 0.25
#: Seconds until the client has found the new version of a changed file, or the old one again.
LOOKUP_S = 0.1
#: The states of units that the output has.
KEPT = (UnitState.VERIFIED, UnitState.REUSED)


@dataclass
class Link:
    """A link that several workers share equally: ``rate`` is in MiB per second."""

    rate: float
    #: The bytes that are left of each reply that is being sent, by worker, at the time ``updated_at``.
    sending: dict[int, float] = field(default_factory=dict)
    updated_at: float = 0.0
    #: The bytes that were sent, including those of replies that were lost.
    carried: float = 0.0
    #: Incremented whenever the scheduled end of a reply becomes invalid.
    generation: int = 0

    def update(self, now: float) -> None:
        sent = (now - self.updated_at) * self.rate * MIB
        self.updated_at = now
        if self.sending:
            self.carried += sent
            self.sending = {number: left - sent / len(self.sending) for number, left in self.sending.items()}


@dataclass
class Worker:
    """A simulated worker.

    ``rate`` is in MiB per second; with a ``link`` the rate is the worker's share of it. ``delay`` is the one-way delay
    in seconds, ``jitter`` the fraction by which service times vary, and ``corrupt`` the probability that a reply is
    corrupt. With ``quantiles``, pairs of a share and the seconds that this share of the replies takes at most, service
    times have this distribution instead.

    ``lacks`` are files that the worker refuses, each with the reason. It loads a new catalogue ``load_s`` seconds after
    the first worker; a worker of another broker (``is_foreign``) never does.
    """

    rate: float = 0.0
    delay: float = 0.0005
    jitter: float = 0.0
    corrupt: float = 0.0
    quantiles: tuple[tuple[float, float], ...] = ()
    link: Link | None = None
    lacks: Mapping[int, RefusalReason] = field(default_factory=dict)
    load_s: float = 0.0
    is_foreign: bool = False
    reads_store: bool = False
    up: bool = True
    frozen: bool = False
    asleep: bool = False
    epoch: int = 1
    #: Identifies the connection; it changes with the process, too.
    session: int = 1
    queue: deque[RequestUnit] = field(default_factory=deque)
    #: The request being served, None if the worker is idle.
    serving: RequestUnit | None = None
    #: When the worker finishes the request being served, if it has no link.
    finish_at: float = 0.0
    #: The work left on the request being served, while the worker is frozen: bytes with a link, otherwise seconds.
    work_left: float = 0.0
    #: Incremented whenever the scheduled ``finish_at`` becomes invalid.
    generation: int = 0
    #: When the latest reply arrives at the client; the next reply cannot arrive earlier.
    last_arrival: float = 0.0


@dataclass
class Reader:
    """The reader of a stream, which takes ``rate`` units per second in order. The client keeps at most ``ahead`` units
    that it has not taken.
    """

    rate: float
    ahead: int = 64
    paused: bool = False
    #: The number of units that it has taken, and whether it is taking the next one.
    position: int = 0
    is_reading: bool = False


@dataclass
class Outcome:
    """How a download ended: its duration in seconds, the MiB received and wasted, and why it failed, if it did."""

    seconds: float
    wasted: float
    received: float
    failure: core.GroupLost | None
    #: When something arrived, in seconds, and how much, in MiB.
    arrivals: list[tuple[float, float]]

    def arrived(self, begin: float, end: float) -> float:
        """Returns how many MiB arrived from ``begin`` to before ``end``."""
        return sum(size for time, size in self.arrivals if begin <= time < end)


class World:
    """One download from ``workers``, to files or to ``reader``. If ``check``, checks invariants after each event.

    ``units`` are the sizes of the units of the first file in bytes, or a number of units of 1 MiB, like those of each
    of ``further_files``. ``max_rate`` is in MiB per second. The client, which may be busy, notices each deadline of the
    scheduler ``lateness`` seconds late. With ``follows``, the client continues after ``GroupLost``, with the new
    version of the file if there is one. Otherwise it removes the file, or ends if it is the only one.
    """

    def __init__(
        self,
        units: int | Sequence[int],
        workers: list[Worker],
        seed: int = 0,
        *,
        further_files: Sequence[int | Sequence[int]] = (),
        follows: bool = False,
        check: bool = True,
        max_rate: float | None = None,
        reader: Reader | None = None,
        lateness: float = 0.0,
    ) -> None:
        self.now = 0.0
        self._lateness = lateness
        self.workers = dict(enumerate(workers, 1))
        self._files = [[MIB] * file if isinstance(file, int) else [*file] for file in (units, *further_files)]
        self._follows = follows
        #: The sizes of all units, in the order in which they were added.
        self.sizes: list[int] = []
        #: For each group its units, and the file of which it is a version.
        self.groups: list[tuple[range, int]] = []
        self._group_of: list[int] = []
        self.lost: list[core.GroupLost] = []
        #: The groups of which the servers no longer have the version.
        self._outdated: set[int] = set()
        #: The catalogue that server 5 publishes, the one before it, and the time of the change.
        self.catalogue, self._old_catalogue, self._changed_at = b"0", b"0", 0.0
        self.scheduler = Scheduler(
            self.workers,
            memory=64 * MIB,
            max_rate=max_rate * MIB if max_rate is not None else None,
        )
        self.reader = reader
        #: The verified units that the reader has not taken.
        self._pending: set[int] = set()
        #: The units of which a part that has arrived is corrupt.
        self._corrupt: set[int] = set()
        self._rng = random.Random(seed)
        self._check = check
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._stalled_until = 0.0
        self._inbox: list[Callable[[], None]] = []
        self._timer: float | None = None
        self.failure: core.GroupLost | None = None
        #: Bytes received from the workers, and those of them that were of no use.
        self.received = self.wasted = 0
        self.arrivals: list[tuple[float, float]] = []
        #: The latest events, each with its time.
        self._log: deque[tuple[float, core.Event]] = deque(maxlen=20)

    def at(self, time: float, callback: Callable[[], None]) -> None:
        """Schedules a call to ``callback`` at the virtual time ``time``."""
        heapq.heappush(self._events, (max(time, self.now), next(self._order), callback))

    def run(self, limit: float = 10_000.0) -> Outcome:
        """Runs the download to its end. Fails after ``limit`` virtual seconds, or if no event is left."""
        for number, worker in self.workers.items():
            if worker.up:
                self._connect(number)
        if self.reader is not None:
            self._feed(core.LimitMoved(self.reader.ahead))
        for file in range(len(self._files)):
            self._add_group(file)
        while self.scheduler.remaining and self.failure is None:
            assert self._events, f"deadlock: {self.describe_state()}"
            self.now, _, callback = heapq.heappop(self._events)
            assert self.now < limit, f"not finished after {limit} s: {self.describe_state()}"
            callback()
        return Outcome(self.now, self.wasted / MIB, self.received / MIB, self.failure, self.arrivals)

    def describe_state(self) -> str:
        """Describes the state and the latest events, for the message of a failed test."""
        states = [f"{n}: outstanding={self.scheduler.outstanding(n)} {w}" for n, w in self.workers.items()]
        log = [f"{time:.4f} {event}" for time, event in self._log]
        return "\n".join([f"t={self.now:.3f} remaining={self.scheduler.remaining}", *states, *log])

    # Faults of workers and of the client.

    def freeze(self, number: int) -> None:
        """Suspends the worker's process."""
        worker = self.workers[number]
        if worker.up and not worker.frozen:
            worker.frozen = True
            worker.work_left = self._interrupt(number)

    def thaw(self, number: int) -> None:
        """Resumes a frozen worker."""
        worker = self.workers[number]
        if worker.up and worker.frozen:
            worker.frozen = False
            if worker.serving is not None:
                self._work(number, worker.work_left)
            else:
                self._serve(number)

    def kill(self, number: int) -> None:
        """Kills the worker's process."""
        worker = self.workers[number]
        if worker.up:
            self._stop(number)
            worker.up = False
            worker.session += 1
            self._deliver(LOSS_DETECTION_S, lambda: self._feed(ConnectionClosed(number)))

    def reset(self, number: int) -> None:
        """Resets the connection to the worker; the client connects again."""
        worker = self.workers[number]
        if worker.up and not worker.asleep:
            self._stop(number)
            worker.session += 1
            self._deliver(LOSS_DETECTION_S, lambda: self._feed(ConnectionClosed(number)))
            self._connect(number, RECONNECTION_S)

    def start(self, number: int) -> None:
        """Starts a new process for a worker that was killed or whose port is closed."""
        worker = self.workers[number]
        if not worker.up:
            worker.up, worker.frozen, worker.asleep = True, False, False
            worker.epoch += 1
            worker.session += 1
            self._connect(number)

    def sleep(self, number: int) -> None:
        """Puts the worker to sleep: it refuses its pending requests, then closes its port."""
        worker = self.workers[number]
        if not worker.up or worker.asleep:
            return
        pending = [*([worker.serving] if worker.serving is not None else []), *worker.queue]
        self._stop(number)
        worker.asleep = True
        for request in pending:
            self._refuse(request, RefusalReason.SLEEPING)
        epoch = worker.epoch

        def close() -> None:
            if worker.asleep and worker.epoch == epoch:
                worker.up = False
                self._deliver(LOSS_DETECTION_S, lambda: self._feed(ConnectionClosed(number)))

        self.at(self.now + REFUSAL_PERIOD_S, close)

    def change(self, file: int) -> None:
        """Replaces the file by a new version."""
        self._outdated |= {number for number, (_, its_file) in enumerate(self.groups) if its_file == file}
        self._old_catalogue, self._changed_at = self.catalogue, self.now
        self.catalogue = b"%d" % (int(self.catalogue) + 1)
        self._deliver(LOSS_DETECTION_S, lambda: self._feed(SnapshotReceived(self._status())))

    def _status(self) -> Status:
        status = snapshot(*[WorkerState.AWAKE] * len(self.workers), catalogue=self.catalogue)
        for number, worker in self.workers.items():
            # Server 5 does not know the workers of other brokers: it reports its own worker of this number.
            status = with_worker(status, number, epoch=1 if worker.is_foreign else worker.epoch)
        return status

    def stall(self, seconds: float) -> None:
        """Suspends the client for this many seconds."""
        self._stalled_until = max(self._stalled_until, self.now + seconds)

        def resume() -> None:
            if self.now < self._stalled_until:
                return
            inbox, self._inbox = self._inbox, []
            self._feed(Stalled(seconds))
            for callback in inbox:
                callback()
            self._feed(TimePassed())

        self.at(self._stalled_until, resume)

    def pause_reader(self, seconds: float) -> None:
        """Makes the reader take nothing more for this many seconds."""
        if self.reader is None or self.reader.paused:
            return
        self.reader.paused = True

        def resume() -> None:
            assert self.reader is not None
            self.reader.paused = False
            self._read()

        self.at(self.now + seconds, resume)

    # Files.

    def _add_group(self, file: int, unchecked: Sequence[int] = ()) -> None:
        units = range(len(self.sizes), len(self.sizes) + len(self._files[file]))
        self.sizes += self._files[file]
        self._group_of += [len(self.groups)] * len(units)
        self.groups.append((units, file))
        self._feed(core.UnitsAdded(self._files[file], [units[index] for index in unchecked], self.catalogue))

    def _on_lost(self, action: core.GroupLost) -> None:
        number = action.group
        self.lost.append(action)
        if not self._follows:
            if len(self._files) == 1:
                self.failure = action
            else:
                self._deliver(0.0, lambda: self._feed(core.GroupRemoved(number)))
            return
        units, file = self.groups[number]

        def follow() -> None:
            if number not in self._outdated:
                self._feed(core.Resumed(number))
                return
            new = len(self.groups)
            verified = [i for i, unit in enumerate(units) if self.scheduler.state_of(unit) in KEPT]
            self._add_group(file, verified)
            self._feed(core.GroupRemoved(number))
            for index in verified:
                # Half of what is on the disk is in the new version, too.
                self._feed(core.UnitChecked(self.groups[new][0][index], self._rng.random() < 0.5))

        self._deliver(LOOKUP_S, follow)

    def _refusal(self, worker: Worker, unit: int) -> RefusalReason | None:
        number = self._group_of[unit]
        if (reason := worker.lacks.get(self.groups[number][1])) is not None:
            return reason
        if number in self._outdated:
            return RefusalReason.CHANGED
        is_new = number >= len(self._files) and self._catalogue_of(worker) != self.catalogue
        return RefusalReason.UNKNOWN if is_new else None

    def _catalogue_of(self, worker: Worker) -> bytes:
        """Returns the catalogue that the worker serves."""
        if worker.is_foreign:
            return b"theirs"
        return self.catalogue if self.now >= self._changed_at + worker.load_s else self._old_catalogue

    # Events in virtual time.

    def _read(self) -> None:
        """Begins to take the next segment, if it is there."""
        reader = self.reader
        if reader is None or reader.is_reading or reader.paused or reader.position not in self._pending:
            return
        reader.is_reading = True

        def taken() -> None:
            reader.is_reading = False
            self._pending.remove(reader.position)
            reader.position += 1
            self._feed(core.LimitMoved(reader.position + reader.ahead))
            self._read()

        self._deliver(1 / reader.rate, taken)

    def _stop(self, number: int) -> None:
        self._interrupt(number)
        worker = self.workers[number]
        worker.serving = None
        worker.queue.clear()

    def _connect(self, number: int, delay: float = 2 * LOSS_DETECTION_S) -> None:
        worker = self.workers[number]
        session = worker.session

        def open_connection() -> None:
            if worker.up and worker.session == session:
                catalogue = self._catalogue_of(worker)
                features = [READS_STORE] if worker.reads_store else []
                event = opened(
                    number, epoch=worker.epoch, catalogue=catalogue, round_trip=2 * worker.delay, features=features
                )
                self._feed(event)

        # The client connects again only after it has detected the loss of the old connection.
        self._deliver(max(2 * worker.delay, delay), open_connection)

    def _deliver(self, delay: float, callback: Callable[[], None]) -> None:
        """Calls ``callback`` after ``delay`` seconds, or when the client's stall ends if that is later."""

        def arrive() -> None:
            if self.now < self._stalled_until:
                self._inbox.append(callback)
            else:
                callback()

        self.at(self.now + delay, arrive)

    def _feed(self, event: core.Event) -> None:
        actions = self.scheduler.handle(event, self.now)
        self._log.append((self.now, event))
        for action in actions:
            match action:
                case RequestUnit():
                    self._request(action)
                case core.CheckUnit(number, unit):
                    self._check_unit(number, unit)
                case core.GroupLost():
                    self._on_lost(action)
                case Ban(number, _):
                    self._stop(number)
                    self.workers[number].session += 1
        if self._check:
            self.scheduler.check_invariants()
        due = self.scheduler.next_deadline(self.now)
        if due is not None and (self._timer is None or due < self._timer):
            self._timer = due
            self.at(due + self._lateness, self._tick)

    def _tick(self) -> None:
        if self._timer is not None and self.now >= self._timer:
            self._timer = None
            if self.now >= self._stalled_until:
                self._feed(TimePassed())

    def _request(self, request: RequestUnit) -> None:
        worker = self.workers[request.worker]
        session = worker.session
        if self.reader is not None:
            assert request.unit < self.reader.position + self.reader.ahead, f"too early: {request}"

        def arrive() -> None:
            if not worker.up or worker.session != session:
                return
            if worker.asleep:
                self._refuse(request, RefusalReason.SLEEPING)
            else:
                worker.queue.append(request)
                self._serve(request.worker)

        self.at(self.now + worker.delay, arrive)

    def _refuse(self, request: RequestUnit, reason: RefusalReason) -> None:
        worker = self.workers[request.worker]
        session = worker.session

        def arrive() -> None:
            if worker.session == session:
                self._feed(core.UnitRefused(request.worker, request.unit, reason, request.start))

        self._deliver(worker.delay, arrive)

    def _serve(self, number: int) -> None:
        worker = self.workers[number]
        while worker.serving is None and worker.queue and not worker.frozen:
            request = worker.queue.popleft()
            if (reason := self._refusal(worker, request.unit)) is not None:
                self._refuse(request, reason)
                continue
            worker.serving = request
            length = worker.serving.length
            self._work(number, length if worker.link is not None else self._service_time(worker, length))

    def _service_time(self, worker: Worker, length: int) -> float:
        if not worker.quantiles:
            return self._rng.uniform(1 - worker.jitter, 1 + worker.jitter) * length / MIB / worker.rate
        share = self._rng.random()
        (low, least), (high, most) = next(
            (before, after) for before, after in pairwise(worker.quantiles) if share <= after[0]
        )
        return least + (most - least) * (share - low) / (high - low)

    def _work(self, number: int, amount: float) -> None:
        """Continues with the request being served: ``amount`` is what is left, as in ``Worker.work_left``."""
        worker = self.workers[number]
        if worker.link is not None:
            worker.link.update(self.now)
            worker.link.sending[number] = amount
            self._schedule_link(worker.link)
            return
        worker.generation += 1
        worker.finish_at = self.now + amount
        generation = worker.generation

        def finish() -> None:
            if worker.generation == generation:
                self._reply(number)

        self.at(worker.finish_at, finish)

    def _interrupt(self, number: int) -> float:
        """Interrupts the work on the request being served, and returns what is left."""
        worker = self.workers[number]
        if worker.link is not None:
            worker.link.update(self.now)
            left = worker.link.sending.pop(number, 0.0)
            self._schedule_link(worker.link)
            return left
        worker.generation += 1
        return worker.finish_at - self.now

    def _schedule_link(self, link: Link) -> None:
        link.generation += 1
        if not link.sending:
            return
        generation = link.generation
        number = min(link.sending, key=lambda number: link.sending[number])

        def finish() -> None:
            if link.generation == generation:
                self._interrupt(number)
                self._reply(number)

        self.at(self.now + max(0.0, link.sending[number]) * len(link.sending) / link.rate / MIB, finish)

    def _reply(self, number: int) -> None:
        """Sends the reply to the request being served."""
        worker = self.workers[number]
        request, worker.serving = worker.serving, None
        assert request is not None
        delay = worker.delay * self._rng.uniform(1, 1 + worker.jitter)
        worker.last_arrival = max(worker.last_arrival, self.now + delay)
        session, is_corrupt = worker.session, self._rng.random() < worker.corrupt
        self._deliver(worker.last_arrival - self.now, lambda: self._arrive(request, session, is_corrupt))
        self._serve(number)

    def _arrive(self, request: RequestUnit, session: int, is_corrupt: bool) -> None:
        number, unit, start, length = request.worker, request.unit, request.start, request.length
        if session != self.workers[number].session:
            return  # The connection is closed.
        self.received += length
        self.arrivals.append((self.now, length / MIB))
        missing = self.scheduler.missing_bytes(unit, start, length)
        if not missing:
            self.wasted += length
            self._feed(core.UnitDuplicate(number, unit, start))
        elif length < self.sizes[unit]:
            self.wasted += length - missing
            if is_corrupt:
                self._corrupt.add(unit)
            self._feed(core.PartReceived(number, unit, start, length))
        else:
            # Parts of the unit that arrived before are of no use.
            self.wasted += length - missing
            self._corrupt.discard(unit)
            if is_corrupt:
                self.wasted += length
                self._feed(core.UnitCorrupt(number, unit))
            else:
                self._pending.add(unit)
                self._feed(core.UnitWritten(number, unit))
                self._read()

    def _check_unit(self, number: int, unit: int) -> None:
        is_valid = unit not in self._corrupt
        self._corrupt.discard(unit)
        if is_valid:
            self._pending.add(unit)
        else:
            self.wasted += self.sizes[unit]
        self._feed(core.PartsChecked(number, unit, is_valid))
        self._read()
