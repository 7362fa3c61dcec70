"""When to connect to which worker: a pure core beside the scheduler.

Combines what server 5 says with what became of each connection. Server 5 is a hint: it says when
connecting makes sense and when it makes none, but a connection that works is never closed on its
word, and without any word every worker is tried.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import Status
from msd.wire.protocol.states import ConnectionRefusal, WorkerState
from msd.wire.support.time_passed import TimePassed

#: Seconds to wait for the first snapshot before the workers are tried without it.
FIRST_WORD = 0.2
#: Seconds before a failed connection is tried again: doubling from the first to the last.
BACKOFF_FIRST, BACKOFF_LAST = 0.25, 4.0
#: Seconds for which connections must have been refused, and none made, before that is taken for the
#: servers' answer. A server that dies may break off a handshake; only one with another key does so
#: again and again.
REFUSED_FOR, BROKEN_OFF_FOR = 0.1, 1.0
#: A refusal that comes later than so many seconds after the one before has nothing to do with it.
REFUSED_GAP = 5.0
#: States in which connecting makes sense.
REACHABLE = (WorkerState.AWAKE, WorkerState.SILENT)


# Events.


class SnapshotArrived(Struct, frozen=True):
    status: Status


class LinkUp(Struct, frozen=True):
    worker: int


class LinkDown(Struct, frozen=True):
    """The connection is gone, or none came about, for the reason ``refused`` where that is known."""

    worker: int
    refused: ConnectionRefusal | None = None


class StatusRefused(Struct, frozen=True):
    """Server 5 does not want to be subscribed to."""

    why: ConnectionRefusal


class WorkerBanned(Struct, frozen=True):
    """The worker was set aside: no connection to this run of its process, unless it is readmitted."""

    worker: int


class WorkerUnbanned(Struct, frozen=True):
    """A worker that was set aside gets another chance."""

    worker: int


Event = SnapshotArrived | StatusRefused | LinkUp | LinkDown | WorkerBanned | WorkerUnbanned | TimePassed


# Actions.


class OpenConnection(Struct, frozen=True):
    worker: int
    endpoint: Endpoint


class CloseConnection(Struct, frozen=True):
    worker: int


class Resubscribe(Struct, frozen=True):
    """Server 5 was not heard for too long: subscribe on a new connection."""


Action = OpenConnection | CloseConnection | Resubscribe


class KnownWorker(Struct):
    """One worker's connection, and what is known of the worker."""

    endpoint: Endpoint
    #: What server 5 says; None while it says nothing.
    said: WorkerState | None = None
    epoch: int = 0
    is_open: bool = False
    is_up: bool = False
    banned: bool = False
    failures: int = 0
    retry_at: float = 0.0


class ConnectionPolicy:
    """Decides which connections are open. ``pinned``: endpoints in snapshots are ignored."""

    def __init__(self, workers: Mapping[int, Endpoint], host: str, *, pinned: bool, now: float) -> None:
        self.links = {number: KnownWorker(endpoint) for number, endpoint in workers.items()}
        #: The latest snapshot; None while server 5 says nothing.
        self.status: Status | None = None
        self._host = host
        self._pinned = pinned
        self._last: tuple[int, int] = (0, 0)
        #: Since when, and why, connections have been refused while none was made.
        self._refused_at: float | None = None
        self._refused_again_at = now
        self._refused = ConnectionRefusal.HANDSHAKE
        self._silent_at = now + FIRST_WORD
        self._listening = True

    @property
    def knows(self) -> bool:
        """False during the first moments, while server 5 may still say something."""
        return self.status is not None or not self._listening

    def handle(self, event: Event, now: float) -> list[Action]:
        actions: list[Action] = []
        match event:
            case SnapshotArrived(status):
                actions += self._hear(status, now)
            case LinkUp(number):
                link = self.links[number]
                link.is_up = True
                link.failures = 0
                self._refused_at = None
            case LinkDown(number, refused):
                link = self.links[number]
                self._note_refusal(refused, now)
                link.is_open = link.is_up = False
                link.retry_at = now + min(BACKOFF_FIRST * 2**link.failures, BACKOFF_LAST)
                # Bounded: after a thousand failures the power would not be a float any more.
                link.failures = min(link.failures + 1, 16)
            case StatusRefused(why):
                self._note_refusal(why, now)
            case WorkerBanned(number):
                link = self.links[number]
                link.is_up = False
                link.banned = True
                actions.append(self._close(number, link))
            case WorkerUnbanned(number):
                link = self.links[number]
                link.banned = False
                link.retry_at, link.failures = now, 0
            case TimePassed():
                if now >= self._silent_at:
                    actions += self._fall_silent(now)
        actions += self._connect(now)
        return actions

    def next_deadline(self) -> float:
        """When ``TimePassed`` will next have an effect, or ``refusal`` another answer."""
        times = [link.retry_at for link in self.links.values() if self._may_open(link)]
        if self._refused_at is not None and self._refused is not ConnectionRefusal.HANDSHAKE:
            times.append(self._refused_at + REFUSED_FOR)
        return min([self._silent_at, *times])

    @property
    def is_refused(self) -> bool:
        """True while all that is known is that connections are refused."""
        return self._refused_at is not None

    def refusal(self, now: float) -> ConnectionRefusal | None:
        """Why the servers do not let this client in; None while they do, or may yet."""
        if self._refused_at is None:
            return None
        if self._refused is ConnectionRefusal.HANDSHAKE:
            return self._refused if self._refused_again_at >= self._refused_at + BROKEN_OFF_FOR else None
        return self._refused if now >= self._refused_at + REFUSED_FOR else None

    def _note_refusal(self, why: ConnectionRefusal | None, now: float) -> None:
        if why is None or any(link.is_up for link in self.links.values()):
            return
        if self._refused_at is None or now > self._refused_again_at + REFUSED_GAP:
            self._refused_at = now
            self._refused = why
        if why is not ConnectionRefusal.HANDSHAKE:
            self._refused = why
        self._refused_again_at = now

    def _hear(self, status: Status, now: float) -> list[Action]:
        if status.epoch == self._last[0] and status.seq <= self._last[1]:
            return []
        self._last = (status.epoch, status.seq)
        self._silent_at = now + 3 * status.interval + 1
        self._listening = True
        self.status = status
        actions: list[Action] = []
        for worker in status.workers:
            link = self.links.get(worker.number)
            if not self._pinned:
                try:
                    endpoint = Endpoint.parse(worker.endpoint).seen_from(self._host)
                except UsageError:
                    continue
                if link is None:
                    link = self.links[worker.number] = KnownWorker(endpoint)
                link.endpoint = endpoint
            if link is None:
                continue
            woken = worker.state is WorkerState.AWAKE and link.said is not WorkerState.AWAKE
            if woken or worker.epoch != link.epoch:
                link.retry_at, link.failures = now, 0
                link.banned = link.banned and worker.epoch == link.epoch
                if link.is_open and not link.is_up:
                    # It may be deep in ZeroMQ's own back-off: a new socket connects at once.
                    actions.append(self._close(worker.number, link))
            link.said, link.epoch = worker.state, worker.epoch
            if link.is_open and not link.is_up and link.said not in REACHABLE:
                actions.append(self._close(worker.number, link))
        return actions

    def _fall_silent(self, now: float) -> list[Action]:
        """Server 5 says nothing (any more): what it said counts as unknown, not as dead."""
        # A socket that only ever receives cannot notice that its peer is gone.
        first = self.status is None and self._listening
        self._silent_at = now + 5.0
        self._listening = False
        self.status = None
        for link in self.links.values():
            link.said = None
        return [] if first else [Resubscribe()]

    def _connect(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for number, link in self.links.items():
            if self._may_open(link) and now >= link.retry_at:
                link.is_open = True
                actions.append(OpenConnection(number, link.endpoint))
        return actions

    def _may_open(self, link: KnownWorker) -> bool:
        if link.is_open or link.banned or not self.knows:
            return False
        return link.said is None or link.said in REACHABLE

    def _close(self, number: int, link: KnownWorker) -> CloseConnection:
        link.is_open = False
        return CloseConnection(number)
