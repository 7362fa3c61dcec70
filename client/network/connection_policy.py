"""Decides when to connect to which worker. Pure.

Combines the snapshots of server 5 with the outcome of each connection. Snapshots are hints: they show when an attempt
to connect makes sense. They never close a working connection, and without snapshots every worker is tried.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from msd.client.network.network_events import ConnectionClosed, ConnectionOpened, SnapshotReceived, StatusRefused
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import Status
from msd.wire.protocol.states import ConnectionRefusal, WorkerState
from msd.wire.support.core import TimePassed

#: Seconds to wait for the first snapshot before connecting to the workers without one.
FIRST_SNAPSHOT_TIMEOUT_S = 0.2
#: Seconds between two new subscriptions while server 5 is silent.
RESUBSCRIBE_INTERVAL_S = 5.0
#: Seconds before a failed connection is retried: doubles from the minimum to the maximum.
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.25, 4.0
#: How long (seconds) every attempt must fail before a refusal is considered definitive. A handshake that is closed
#: without a reason needs longer: a dying server may close one, but only a server with a different key closes them all.
REFUSAL_PERIOD_S, HANDSHAKE_REFUSAL_PERIOD_S = 0.1, 1.0
#: A refusal more than this many seconds after the previous one is unrelated to it.
MAX_REFUSAL_GAP_S = 5.0
#: States of a worker in which connecting makes sense.
REACHABLE_STATES = (WorkerState.AWAKE, WorkerState.SILENT)


# Events, in addition to those of the network.


class WorkerBanned(Struct, frozen=True):
    """The worker is banned: do not connect to this run of its process until the ban is lifted."""

    worker: int


class WorkerUnbanned(Struct, frozen=True):
    """The ban on a worker is lifted."""

    worker: int


Event = (
    SnapshotReceived | StatusRefused | ConnectionOpened | ConnectionClosed | WorkerBanned | WorkerUnbanned | TimePassed
)


# Actions.


class OpenConnection(Struct, frozen=True):
    """Connect to the worker on a new socket."""

    worker: int
    endpoint: Endpoint


class CloseConnection(Struct, frozen=True):
    """Close the worker's socket."""

    worker: int


class Resubscribe(Struct, frozen=True):
    """No snapshot arrived for too long: subscribe to server 5 on a new connection."""


Action = OpenConnection | CloseConnection | Resubscribe


class KnownWorker(Struct):
    """The state of one worker and of the connection to it."""

    endpoint: Endpoint
    #: The state in the latest snapshot; None while server 5 is silent.
    reported_state: WorkerState | None = None
    epoch: int = 0
    #: True from ``OpenConnection`` until the connection is closed.
    has_socket: bool = False
    #: True from ``ConnectionOpened`` until the connection is closed.
    is_connected: bool = False
    is_banned: bool = False
    #: The number of failures since the last success, bounded.
    failures: int = 0
    retry_at: float = 0.0


class ConnectionPolicy:
    """Decides which connections are open.

    If ``pinned``, endpoints in snapshots are ignored. ``host`` replaces the wildcard address in endpoints.
    """

    def __init__(self, workers: Mapping[int, Endpoint], host: str, *, pinned: bool, now: float) -> None:
        self.workers = {number: KnownWorker(endpoint) for number, endpoint in workers.items()}
        #: The latest snapshot; None while server 5 is silent.
        self.status: Status | None = None
        self._host = host
        self._pinned = pinned
        #: Epoch and sequence number of the latest snapshot.
        self._last_snapshot: tuple[int, int] = (0, 0)
        #: The time of the first refusal since a connection was last open; None if there was none.
        self._refused_since: float | None = None
        self._last_refusal_at = now
        self._refusal = ConnectionRefusal.HANDSHAKE
        #: When server 5 counts as silent, unless a snapshot arrives first.
        self._status_deadline = now + FIRST_SNAPSHOT_TIMEOUT_S
        #: True if server 5 was silent at the last deadline.
        self._status_timed_out = False

    @property
    def awaits_first_snapshot(self) -> bool:
        """True at the start, until the first snapshot arrives or its timeout expires."""
        return self.status is None and not self._status_timed_out

    def handle(self, event: Event, now: float) -> list[Action]:
        """Updates the state and returns the actions to perform."""
        actions: list[Action] = []
        match event:
            case SnapshotReceived(status):
                actions += self._on_snapshot(status, now)
            case ConnectionOpened(number):
                worker = self.workers[number]
                worker.is_connected = True
                worker.failures = 0
                self._refused_since = None
            case ConnectionClosed(number, refusal):
                worker = self.workers[number]
                self._record_refusal(refusal, now)
                worker.has_socket = worker.is_connected = False
                worker.retry_at = now + min(MIN_BACKOFF_S * 2**worker.failures, MAX_BACKOFF_S)
                # Bounded: after a thousand failures the power of two would overflow a float.
                worker.failures = min(worker.failures + 1, 16)
            case StatusRefused(refusal):
                self._record_refusal(refusal, now)
            case WorkerBanned(number):
                worker = self.workers[number]
                worker.is_connected = False
                worker.is_banned = True
                actions.append(self._close_connection(number, worker))
            case WorkerUnbanned(number):
                worker = self.workers[number]
                worker.is_banned = False
                worker.retry_at, worker.failures = now, 0
            case TimePassed():
                if now >= self._status_deadline:
                    actions += self._on_status_timeout(now)
        actions += self._open_due_connections(now)
        return actions

    def next_deadline(self) -> float:
        """Returns when ``TimePassed`` may next have an effect, or ``refusal`` may return a different value."""
        times = [worker.retry_at for worker in self.workers.values() if self._may_open(worker)]
        if self._refused_since is not None and self._refusal is not ConnectionRefusal.HANDSHAKE:
            times.append(self._refused_since + REFUSAL_PERIOD_S)
        return min([self._status_deadline, *times])

    @property
    def is_refused(self) -> bool:
        """True if a connection was refused and none is open."""
        return self._refused_since is not None

    def refusal(self, now: float) -> ConnectionRefusal | None:
        """Returns why the servers refuse this client; None if there is no refusal or it is not definitive yet."""
        if self._refused_since is None:
            return None
        if self._refusal is ConnectionRefusal.HANDSHAKE:
            is_definitive = self._last_refusal_at >= self._refused_since + HANDSHAKE_REFUSAL_PERIOD_S
            return self._refusal if is_definitive else None
        return self._refusal if now >= self._refused_since + REFUSAL_PERIOD_S else None

    def _record_refusal(self, refusal: ConnectionRefusal | None, now: float) -> None:
        if refusal is None or any(worker.is_connected for worker in self.workers.values()):
            return
        if self._refused_since is None or now > self._last_refusal_at + MAX_REFUSAL_GAP_S:
            self._refused_since = now
            self._refusal = refusal
        if refusal is not ConnectionRefusal.HANDSHAKE:
            self._refusal = refusal
        self._last_refusal_at = now

    def _on_snapshot(self, status: Status, now: float) -> list[Action]:
        if status.epoch == self._last_snapshot[0] and status.seq <= self._last_snapshot[1]:
            return []
        self._last_snapshot = (status.epoch, status.seq)
        self._status_deadline = now + 3 * status.interval + 1
        self._status_timed_out = False
        self.status = status
        actions: list[Action] = []
        for reported in status.workers:
            worker = self.workers.get(reported.number)
            if not self._pinned:
                try:
                    endpoint = Endpoint.parse(reported.endpoint).replace_wildcard(self._host)
                except UsageError:
                    continue
                if worker is None:
                    worker = self.workers[reported.number] = KnownWorker(endpoint)
                worker.endpoint = endpoint
            if worker is None:
                continue
            woke_up = reported.state is WorkerState.AWAKE and worker.reported_state is not WorkerState.AWAKE
            if woke_up or reported.epoch != worker.epoch:
                worker.retry_at, worker.failures = now, 0
                worker.is_banned = worker.is_banned and reported.epoch == worker.epoch
                if worker.has_socket and not worker.is_connected:
                    # ZeroMQ may be in a long backoff of its own, but a new socket connects at once.
                    actions.append(self._close_connection(reported.number, worker))
            worker.reported_state, worker.epoch = reported.state, reported.epoch
            if worker.has_socket and not worker.is_connected and worker.reported_state not in REACHABLE_STATES:
                actions.append(self._close_connection(reported.number, worker))
        return actions

    def _on_status_timeout(self, now: float) -> list[Action]:
        """Server 5 is silent: treats the workers' states as unknown, not as dead."""
        # A socket that only receives cannot detect that its peer is gone, so subscribe again; but not at the first
        # timeout, when the socket is new.
        is_first = self.awaits_first_snapshot
        self._status_deadline = now + RESUBSCRIBE_INTERVAL_S
        self._status_timed_out = True
        self.status = None
        for worker in self.workers.values():
            worker.reported_state = None
        return [] if is_first else [Resubscribe()]

    def _open_due_connections(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for number, worker in self.workers.items():
            if self._may_open(worker) and now >= worker.retry_at:
                worker.has_socket = True
                actions.append(OpenConnection(number, worker.endpoint))
        return actions

    def _may_open(self, worker: KnownWorker) -> bool:
        if worker.has_socket or worker.is_banned or self.awaits_first_snapshot:
            return False
        return worker.reported_state is None or worker.reported_state in REACHABLE_STATES

    def _close_connection(self, number: int, worker: KnownWorker) -> CloseConnection:
        worker.has_socket = False
        return CloseConnection(number)
