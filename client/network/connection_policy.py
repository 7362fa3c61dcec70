"""Decides when to connect to which worker. Pure.

Combines the snapshots of server 5 with the outcome of each connection. Snapshots are hints: they show when an attempt
to connect makes sense. A snapshot never closes a working connection, and without snapshots the client tries to connect
to every worker.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from msgspec import Struct

from msd.client.network_events import Ban, ConnectionClosed, ConnectionOpened, SnapshotReceived, StatusRefused, Unban
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint
from msd.wire.protocol.messages import Status
from msd.wire.protocol.states import ConnectionRefusal, WorkerState
from msd.wire.security.keys import KEY_SIZE
from msd.wire.support.backoff import backoff
from msd.wire.support.core import Core, TimePassed

#: Seconds to wait for the first snapshot before connecting to the workers without one.
FIRST_SNAPSHOT_TIMEOUT_S = 0.2
#: Seconds between two new subscriptions while server 5 is silent.
RESUBSCRIBE_INTERVAL_S = 5.0
#: Seconds before a failed connection is retried. Each failure doubles the delay, from the minimum up to the maximum.
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.25, 4.0
#: Seconds for which every attempt must fail before a refusal is considered definitive. The period is longer if the
#: connections are closed during the handshake without a reason: a dying server may close one connection, but only a
#: server with a different key closes every one.
REFUSAL_PERIOD_S, HANDSHAKE_REFUSAL_PERIOD_S = 0.1, 1.0
#: The same if last known workers refuse while server 5 is silent: it may answer late, and learns of a new key first.
UNCONFIRMED_REFUSAL_PERIOD_S = 2.0
#: A refusal more than this many seconds after the previous one is considered unrelated.
MAX_REFUSAL_GAP_S = 5.0
#: States of a worker in which the client tries to connect to it.
REACHABLE_STATES = (WorkerState.AWAKE, WorkerState.SILENT)


#: A connection on which no packet has arrived for this many seconds is renewed: another one is opened beside it, which
#: replaces it if it opens first. Packets arrive each second, even from a stopped process or on a slow link, but not
#: after this machine's address, the other one's, or a translated one has changed.
RENEWAL_SILENCE_S = 2.5
#: Seconds after which a renewal that has not opened is replaced by another one.
RENEWAL_INTERVAL_S = 10.0


class AddressesChanged(Struct, frozen=True):
    """The host names of server 5 and of configured workers have other addresses now."""

    server5: Endpoint
    workers: Mapping[int, Endpoint]


class PathsChecked(Struct, frozen=True):
    """For how many seconds no packet has arrived on each open connection, by worker, and on that to server 5."""

    silent_seconds: Mapping[int, float]
    server5_silent_seconds: float = 0.0


Event = (
    SnapshotReceived
    | StatusRefused
    | ConnectionOpened
    | ConnectionClosed
    | AddressesChanged
    | PathsChecked
    | Ban
    | Unban
    | TimePassed
)


# Actions.


class OpenConnection(Struct, frozen=True):
    """Connect to the worker on a new socket. ``key`` is its own public key; empty if it has that of server 5."""

    worker: int
    endpoint: Endpoint
    key: bytes = b""


class CloseConnection(Struct, frozen=True):
    """Close the worker's socket."""

    worker: int


class RenewConnection(Struct, frozen=True):
    """Connect to the worker on a new socket, beside the one that is open. Close the one that is open when the new one
    opens.
    """

    worker: int
    endpoint: Endpoint
    key: bytes = b""


class EndRenewal(Struct, frozen=True):
    """Close the new socket: the connection that is open works again."""

    worker: int


class Resubscribe(Struct, frozen=True):
    """No snapshot or packet has arrived for too long, or server 5 has other addresses: subscribe on a new socket."""


class ReportRefusal(Struct, frozen=True):
    """The servers definitively refuse this client."""

    refusal: ConnectionRefusal


Action = OpenConnection | CloseConnection | RenewConnection | EndRenewal | Resubscribe | ReportRefusal


class ConnectionState(enum.StrEnum):
    """The state of the connection to a worker."""

    CLOSED = "closed"  #: no socket; one is opened when the worker is reachable and the backoff is over
    CONNECTING = "connecting"  #: a socket, but no ``welcome`` yet
    OPEN = "open"  #: the worker answered
    BANNED = "banned"  #: no socket; none is opened before the ban is lifted


#: The changes in a connection's state, and the events and actions that cause them. Any other event or action leaves
#: the state unchanged.
TRANSITIONS: dict[tuple[ConnectionState, ConnectionState], tuple[type[Event] | type[Action], ...]] = {
    (ConnectionState.CLOSED, ConnectionState.CONNECTING): (OpenConnection,),
    (ConnectionState.CONNECTING, ConnectionState.OPEN): (ConnectionOpened,),
    (ConnectionState.CONNECTING, ConnectionState.CLOSED): (ConnectionClosed, CloseConnection),
    (ConnectionState.OPEN, ConnectionState.CLOSED): (ConnectionClosed,),
    (ConnectionState.OPEN, ConnectionState.BANNED): (Ban,),
    (ConnectionState.BANNED, ConnectionState.CLOSED): (Unban,),
}
_NEXT_STATES = {(start, cause): end for (start, end), causes in TRANSITIONS.items() for cause in causes}


class KnownWorker(Struct):
    """The state of one worker and of the connection to it."""

    endpoint: Endpoint
    #: False if only server 5 or a guess names the worker. Such a worker is dropped when server 5 lists it no more.
    is_given: bool = False
    #: The worker's own public key; empty if it uses that of server 5, or if no snapshot has named it.
    key: bytes = b""
    #: The state in the latest snapshot; None while server 5 is silent.
    reported_state: WorkerState | None = None
    epoch: int = 0
    #: Set only by ``change_state``.
    state: ConnectionState = ConnectionState.CLOSED
    #: The number of failures since the last success.
    failures: int = 0
    retry_at: float = 0.0
    #: When the current renewal of the open connection began; None if there is none.
    renewal_began: float | None = None
    #: True if the open connection leads to an address, or to a process with a key, that is not the worker's any more.
    is_moved: bool = False

    def change_state(self, cause: type[Event] | type[Action]) -> None:
        """Changes the state according to the table ``TRANSITIONS``."""
        self.state = _NEXT_STATES.get((self.state, cause), self.state)

    def end_renewal(self) -> None:
        """There is no renewal any more: the connection that was open, or the renewal itself, has taken its place."""
        self.renewal_began = None
        self.is_moved = False

    def retry_now(self, now: float) -> None:
        """Ends the backoff: the worker is probably reachable."""
        self.retry_at, self.failures = now, 0


class ConnectionPolicy(Core[Event, Action]):
    """Decides which connections are open.

    If ``pinned``, endpoints in snapshots are ignored. If ``guessed``, ``workers`` are dropped unless server 5 lists
    them. If the first snapshot is late, they are replaced by the ``last_known`` workers, of which the last snapshot of
    an earlier client named the endpoints, the keys and the epochs (0 if any process will do). The host of ``server5``
    replaces the wildcard in endpoints.
    """

    def __init__(
        self,
        workers: Mapping[int, Endpoint],
        server5: Endpoint,
        *,
        pinned: bool,
        guessed: bool = False,
        last_known: Mapping[int, tuple[str, bytes, int]] | None = None,
        now: float,
    ) -> None:
        super().__init__()
        self.workers = {number: KnownWorker(endpoint, is_given=not guessed) for number, endpoint in workers.items()}
        #: The latest snapshot; None while server 5 is silent.
        self.status: Status | None = None
        #: True if server 5 has sent the latest snapshot, False if it has refused this client since; None while it is
        #: silent.
        self.is_admitted: bool | None = None
        self._server5 = server5
        self._pinned = pinned
        self._last_known = last_known or {}
        #: True while ``last_known`` workers take the place of a snapshot.
        self.uses_last_known = False
        #: Epoch and sequence number of the latest snapshot.
        self._last_snapshot: tuple[int, int] = (0, 0)
        #: The time of the first refusal since a connection was last open; None if there was none.
        self._refused_since: float | None = None
        self._last_refusal_at = now
        self._refusal = ConnectionRefusal.HANDSHAKE
        #: The time after which server 5 counts as silent, unless a snapshot arrives first.
        self._status_deadline = now + FIRST_SNAPSHOT_TIMEOUT_S
        #: The earliest of ``_deadlines``, computed after each event.
        self._next_deadline = self._status_deadline
        #: True if no snapshot has arrived since ``_status_deadline`` last passed.
        self._status_timed_out = False

    @property
    def awaits_first_snapshot(self) -> bool:
        """True until the first snapshot arrives or the timeout for it expires."""
        return self.status is None and not self._status_timed_out

    @property
    def refusal(self) -> ConnectionRefusal | None:
        """The reason for the current refusals, even if they are not definitive yet.

        None if no connection has been refused since one was last open.
        """
        return self._refusal if self._refused_since is not None else None

    @property
    def expected_workers(self) -> dict[int, Endpoint]:
        """The workers that should answer: those that server 5 does not report as unreachable, unless banned."""
        return {
            number: worker.endpoint
            for number, worker in self.workers.items()
            if worker.state is not ConnectionState.BANNED and _is_reachable(worker)
        }

    def is_another_process(self, number: int, epoch: int) -> bool:
        """True if a process with this epoch is not the last known worker: another program may have its port now."""
        if not self.uses_last_known or number not in self._last_known or self.workers[number].is_given:
            return False
        return self._last_known[number][2] not in (0, epoch)

    def next_deadline(self, now: float) -> float:  # noqa: ARG002
        return self._next_deadline

    def _decide(self, event: Event, now: float) -> list[Action]:
        actions: list[Action] = []
        match event:
            # Checked first for speed: every poll ends with this event.
            case TimePassed() if now < self._next_deadline:
                return []
            case SnapshotReceived(status):
                actions += self._on_snapshot(status, now)
            case ConnectionOpened(number):
                worker = self.workers[number]
                worker.change_state(ConnectionOpened)
                worker.failures = 0
                worker.end_renewal()
                self._refused_since = None
            case ConnectionClosed(number, is_renewed=True):
                # The renewal is the connection now; it is not open yet.
                worker = self.workers[number]
                worker.change_state(ConnectionClosed)
                worker.change_state(OpenConnection)
                worker.end_renewal()
            case ConnectionClosed(number, refusal):
                worker = self.workers[number]
                # A worker with a key of its own speaks only for itself while server 5 admits this client.
                if not worker.key or not self.is_admitted:
                    self._record_refusal(refusal, now)
                worker.change_state(ConnectionClosed)
                worker.end_renewal()
                worker.failures += 1
                worker.retry_at = now + backoff(worker.failures, MIN_BACKOFF_S, MAX_BACKOFF_S)
            case StatusRefused(refusal):
                self.is_admitted = False
                self._record_refusal(refusal, now)
            case AddressesChanged(server5, workers):
                actions += self._change_addresses(server5, workers, now)
            case PathsChecked(silent_seconds, server5_silent_seconds):
                actions += self._renew(silent_seconds, now)
                if server5_silent_seconds >= RENEWAL_SILENCE_S:
                    actions.append(Resubscribe())
            # What arrived from a worker may be found corrupt after the worker was dropped.
            case Ban(number) | Unban(number) if number not in self.workers:
                pass
            case Ban(number):
                self.workers[number].change_state(Ban)
                self.workers[number].end_renewal()
                actions.append(CloseConnection(number))
            case Unban(number):
                self.workers[number].change_state(Unban)
                self.workers[number].retry_now(now)
        # Only ``TimePassed`` may decide that server 5 is silent: while another event is handled, a snapshot that
        # arrived in time may still be unread.
        due = self._deadlines(now) if isinstance(event, TimePassed) else self._connection_deadlines()
        actions += [action for deadline, act in due if now >= deadline for action in act()]
        self._next_deadline = min(deadline for deadline, _ in self._deadlines(now))
        return actions

    def _assert_invariants(self) -> None:
        for number, worker in self.workers.items():
            assert worker.state is not ConnectionState.OPEN or not self.refusal, (number, worker)
            assert worker.state is not ConnectionState.OPEN or not worker.failures, (number, worker)
            assert worker.state is ConnectionState.OPEN or worker.renewal_began is None, (number, worker)
            assert worker.renewal_began is not None or not worker.is_moved, (number, worker)

    def _deadlines(self, now: float) -> Iterator[tuple[float, Callable[[], list[Action]]]]:
        """Yields each deadline and the function to call then. A call may change the deadlines that follow."""
        yield self._status_deadline, partial(self._on_status_timeout, now)
        yield from self._connection_deadlines()
        if (refused_at := self._refusal_deadline()) is not None:
            yield refused_at, lambda: [ReportRefusal(self._refusal)]

    def _connection_deadlines(self) -> Iterator[tuple[float, Callable[[], list[Action]]]]:
        for number, worker in self.workers.items():
            if self._may_open(worker):
                yield worker.retry_at, partial(self._open_connection, number)

    def _refusal_deadline(self) -> float | None:
        """Returns when the refusal becomes definitive; None without a refusal, or if a further refusal is needed."""
        if self._refused_since is None:
            return None
        if self._refusal is not ConnectionRefusal.HANDSHAKE:
            is_confirmed = self.is_admitted is not None or not self.uses_last_known
            return self._refused_since + (REFUSAL_PERIOD_S if is_confirmed else UNCONFIRMED_REFUSAL_PERIOD_S)
        deadline = self._refused_since + HANDSHAKE_REFUSAL_PERIOD_S
        return deadline if self._last_refusal_at >= deadline else None

    def _record_refusal(self, refusal: ConnectionRefusal | None, now: float) -> None:
        if refusal is None or any(worker.state is ConnectionState.OPEN for worker in self.workers.values()):
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
        self._status_timed_out = self.uses_last_known = False
        if not self.is_admitted:
            # Refusals of workers so far do not count: server 5 admits this client, and they may not know that yet.
            self._refused_since = None
        self.status, self.is_admitted = status, True
        actions: list[Action] = []
        for reported in status.workers:
            worker = self.workers.get(reported.number)
            endpoint = self._reachable(reported.endpoint) if not self._pinned else worker.endpoint if worker else None
            if endpoint is None or len(reported.key) not in (0, KEY_SIZE):
                continue
            if worker is None:
                worker = self.workers[reported.number] = KnownWorker(endpoint, key=reported.key)
            is_elsewhere = _is_elsewhere(worker, endpoint, reported.key)
            if worker.key != reported.key:
                # The refusals so far were an answer to another key.
                self._refused_since = None
            worker.endpoint, worker.key = endpoint, reported.key
            woke_up = reported.state is WorkerState.AWAKE and worker.reported_state is not WorkerState.AWAKE
            is_another_process = is_elsewhere or reported.epoch != worker.epoch
            if woke_up or is_another_process:
                worker.retry_now(now)
            worker.reported_state, worker.epoch = reported.state, reported.epoch
            # The old socket may be in a long backoff of ZeroMQ; a new socket connects at once.
            is_outdated = woke_up or is_another_process or reported.state not in REACHABLE_STATES
            if worker.state is ConnectionState.CONNECTING and is_outdated:
                worker.change_state(CloseConnection)
                actions.append(CloseConnection(reported.number))
            elif worker.state is ConnectionState.OPEN and is_elsewhere:
                worker.is_moved, worker.renewal_began = True, now
                actions.append(RenewConnection(reported.number, endpoint, reported.key))
        return [*actions, *self._drop_unlisted(status)]

    def _drop_unlisted(self, status: Status) -> Iterator[Action]:
        """Forgets the workers that server 5 does not list, unless they were given or have a connection that works."""
        listed = {reported.number for reported in status.workers}
        for number, worker in [*self.workers.items()]:
            is_in_use = worker.state in (ConnectionState.OPEN, ConnectionState.BANNED)
            if number in listed or worker.is_given or is_in_use:
                continue
            if worker.state is ConnectionState.CONNECTING:
                worker.change_state(CloseConnection)
                yield CloseConnection(number)
            del self.workers[number]

    def _recall(self) -> None:
        """Replaces the guessed workers with the last known ones."""
        endpoints = {
            number: self._reachable(endpoint)
            for number, (endpoint, key, _) in self._last_known.items()
            if len(key) in (0, KEY_SIZE)
        }
        for number, endpoint in endpoints.items():
            if endpoint is not None:
                self.uses_last_known = True
                is_given = number in self.workers and self.workers[number].is_given
                self.workers[number] = KnownWorker(endpoint, is_given=is_given, key=self._last_known[number][1])
        if self.uses_last_known:
            for number in [n for n, worker in self.workers.items() if not worker.is_given and not endpoints.get(n)]:
                del self.workers[number]

    def _reachable(self, text: str) -> Endpoint | None:
        """Returns an endpoint of a snapshot as this client reaches it; None if it is malformed."""
        try:
            endpoint = Endpoint.parse(text)
        except UsageError:
            return None
        if endpoint.host in ANY_HOSTS:
            return self._server5.at_port(endpoint.port)
        return endpoint.with_scope_of(self._server5.host)

    def _change_addresses(self, server5: Endpoint, workers: Mapping[int, Endpoint], now: float) -> Iterator[Action]:
        for number, worker in self.workers.items():
            is_on_server5 = worker.endpoint.name == server5.name and number not in workers
            endpoint = server5.at_port(worker.endpoint.port) if is_on_server5 else workers.get(number, worker.endpoint)
            if not worker.endpoint.name or endpoint == worker.endpoint:
                continue
            worker.endpoint = endpoint
            if worker.state is ConnectionState.OPEN:
                worker.end_renewal()  # If it is silent, renew it at the new address.
                continue
            worker.retry_now(now)
            if worker.state is ConnectionState.CONNECTING:
                worker.change_state(CloseConnection)
                yield CloseConnection(number)
        is_elsewhere = {*server5.addresses} != {*self._server5.addresses}
        self._server5 = server5
        if self.status is None or is_elsewhere:
            yield Resubscribe()

    def _renew(self, silent_seconds: Mapping[int, float], now: float) -> Iterator[Action]:
        for number, seconds in silent_seconds.items():
            worker = self.workers[number]
            if worker.state is not ConnectionState.OPEN:
                continue
            if seconds < RENEWAL_SILENCE_S and not worker.is_moved:
                if worker.renewal_began is not None:
                    worker.renewal_began = None
                    yield EndRenewal(number)
            elif worker.renewal_began is None or now >= worker.renewal_began + RENEWAL_INTERVAL_S:
                worker.renewal_began = now
                yield RenewConnection(number, worker.endpoint, worker.key)

    def _on_status_timeout(self, now: float) -> list[Action]:
        """Server 5 is silent: treats the states of all workers as unknown and tries to connect to them."""
        # A socket that only receives cannot detect that its peer is gone, so subscribe again; but not at the first
        # timeout, when the socket is new.
        is_first = self.awaits_first_snapshot
        if is_first:
            self._recall()
        self._status_deadline = now + RESUBSCRIBE_INTERVAL_S
        self._status_timed_out = True
        self.status, self.is_admitted = None, None
        for worker in self.workers.values():
            worker.reported_state = None
        return [] if is_first else [Resubscribe()]

    def _open_connection(self, number: int) -> list[Action]:
        worker = self.workers[number]
        worker.change_state(OpenConnection)
        return [OpenConnection(number, worker.endpoint, worker.key)]

    def _may_open(self, worker: KnownWorker) -> bool:
        if worker.state is not ConnectionState.CLOSED or self.awaits_first_snapshot:
            return False
        return _is_reachable(worker)


def _is_reachable(worker: KnownWorker) -> bool:
    """False if server 5 reports a state in which the worker accepts no connections."""
    return worker.reported_state is None or worker.reported_state in REACHABLE_STATES


def _is_elsewhere(worker: KnownWorker, endpoint: Endpoint, key: bytes) -> bool:
    """True if a connection to the worker as it was known does not lead to ``endpoint`` with this ``key``."""
    return worker.key != key or {*worker.endpoint.addresses}.isdisjoint(endpoint.addresses)
