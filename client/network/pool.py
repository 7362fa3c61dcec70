"""Manages all connections of one client: tracks the connected workers and server 5, and yields the received events.

Applies the decisions of ``client/network/connection_policy.py`` to the sockets of ``client/network/transport.py``.
Makes no decisions about segments.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from msd.client.events import OnEvent, Waiting, WorkerChanged
from msd.client.network import connection_policy
from msd.client.network.progress_timeout import ProgressTimeout, TimeoutExpired, WaitingFor
from msd.client.network.transport import Transport
from msd.client.network.waiting_reason import SERVER_5, other_version, waiting_reason
from msd.client.network_events import (
    AnnounceAnswered,
    Ban,
    ConnectionClosed,
    ConnectionOpened,
    KeysAdmitted,
    NetworkEvent,
    ReplyReceived,
    SnapshotReceived,
    StatusRefused,
    Unban,
    is_peer,
)
from msd.wire.config.servers import Servers
from msd.wire.errors import NoAnswerError, UsageError
from msd.wire.net.contacts import Contacts, Expecting, Probed, Refused, StartProbe, StopProbes
from msd.wire.net.contacts import Event as ContactEvent
from msd.wire.net.diagnosis import Outcome, refused_error, statement
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.name_lookup import NameLookup
from msd.wire.protocol.messages import (
    PASSES_ON,
    PROGRESS_FEATURE,
    PROTOCOL_VERSION,
    Correlated,
    DownloadProgress,
    Status,
)
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.support.core import Stalled, TimePassed
from msd.wire.support.stall_detector import StallDetector

if TYPE_CHECKING:
    from msd.client.network.last_workers import LastWorkers

#: Seconds between two checks of the open connections for silence.
PATH_CHECK_INTERVAL_S = 0.5
#: Seconds between two checks whether a look-up of names is complete.
LOOKUP_CHECK_INTERVAL_S = 0.1


class PeerOwner(Protocol):
    """What connects to peers."""

    def on_ban(self, ban: Ban) -> None:
        """The peer is not to be used any more."""


class ConnectionPool:
    """All connections of one client. The caller must ``close()`` it.

    ``download`` is True for a download, which waits for servers that are not running; the servers count only downloads
    as clients, and only if ``is_counted``. ``passes_on`` is True if it passes on what it receives. ``timeout`` is the
    maximum time without progress in seconds; with None, there is no limit. The caller reports progress to
    ``progress_timeout``. ``on_event`` receives the changes in the state of server 5, and the reasons for a lack of
    progress.
    """

    def __init__(
        self,
        servers: Servers,
        *,
        download: bool,
        is_counted: bool = True,
        passes_on: bool = False,
        timeout: float | None = None,
        on_event: OnEvent = lambda event: None,
    ) -> None:
        servers = servers.resolved(timeout, lambda reason, seconds: on_event(Waiting(reason, seconds)))
        self._is_download = download
        #: Identifies the client to the servers; 0 if they do not count it.
        self.session = int.from_bytes(os.urandom(8), "big") >> 2 if download and is_counted else 0
        features = [PASSES_ON] if passes_on else []
        self.transport = Transport(servers, session=self.session, features=features)
        #: The connected workers, and the event that opened each connection.
        self.ready: dict[int, ConnectionOpened] = {}
        #: Seconds for which this process did not run, as measured by the last ``wait``.
        self.stalled_seconds = 0.0
        #: When the last ``wait`` ended. Messages that arrived later are unread, so timeouts are evaluated at this time.
        self._last_poll_at = time.monotonic()
        #: All messages that had arrived by this time have been read.
        self.read_until = self._last_poll_at
        self._stall_detector = StallDetector(self._last_poll_at)
        self.progress_timeout = ProgressTimeout(timeout, self._last_poll_at)
        #: Why there is no progress if the servers are not the reason. The wait then does not count towards the timeout.
        self.local_reason = ""
        #: Why a file cannot be fetched although workers are reachable, for each task that waits for its file.
        self.file_reasons: dict[object, str] = {}
        #: Why workers cannot read any file at the moment.
        self.read_errors: dict[int, str] = {}
        #: What is told of the bans of peers; None if this client has none.
        self.peers: PeerOwner | None = None
        self._on_event = on_event
        #: Whether server 5 was reachable at the last poll.
        self._last_reachable = True
        #: The version of server 5's last snapshot, if it is another one than the client's.
        self._server5_version: int | None = None
        self._servers = servers
        #: The workers that are reported as unreachable since they were last connected.
        self._unreachable: set[int] = set()
        #: The endpoint of the control socket, as given in the last snapshot; empty before the first one.
        self._control = ""
        #: True if server 5 takes reports of the progress, as it said in the last snapshot.
        self._takes_progress = False
        #: None if the ports are pinned: then the endpoints in snapshots do not matter.
        self._last_workers: LastWorkers | None = None
        if not servers.pinned:
            from msd.client.network.last_workers import LastWorkers  # Not needed with explicit ports.

            self._last_workers = LastWorkers(servers)
        last_known = self._last_workers.workers if self._last_workers is not None else {}
        #: The name and the host of each worker that has joined from another host, the address of each peer, as text.
        self.places = {number: worker.place for number, worker in last_known.items()}
        self._policy = connection_policy.ConnectionPolicy(
            servers.workers,
            servers.status,
            pinned=servers.pinned,
            guessed=servers.guessed,
            # With keys, no other process can answer in the place of a worker.
            last_known={
                number: (worker.endpoint, worker.key, worker.epoch if servers.credentials is None else 0)
                for number, worker in last_known.items()
            },
            now=time.monotonic(),
        )
        #: The look-up of the servers' names that is in progress.
        self._lookup: NameLookup | None = None
        #: When the open connections are checked for silence.
        self._next_path_check = self._last_poll_at + PATH_CHECK_INTERVAL_S
        #: When the last snapshot arrived.
        self._snapshot_at = -math.inf
        #: When a worker was last connected.
        self._last_ready_at = -math.inf
        self._contacts = Contacts(encrypted=servers.credentials is not None)
        #: When the addresses that have not answered are examined again while workers are connected.
        self._contacts_due = -math.inf
        self._update_contacts()

    def close(self) -> None:
        """Closes all connections."""
        if self._lookup is not None:
            self._lookup.cancel()
        self.transport.close()

    @property
    def status(self) -> Status | None:
        """The latest snapshot of server 5; None while server 5 is silent."""
        return self._policy.status

    @property
    def uses_keys(self) -> bool:
        return self._servers.credentials is not None

    @property
    def control(self) -> Endpoint | None:
        """The broker's control endpoint: the port from the last snapshot, on the host of server 5; None if unknown."""
        try:
            return self.transport.server5.at_port(Endpoint.parse(self._control).port)
        except UsageError:
            return None

    @property
    def worker_numbers(self) -> list[int]:
        """The numbers of all known workers, sorted."""
        return sorted(self._policy.workers)

    def wait(self, deadline: float | None) -> None:
        """Waits for a message until the first deadline: ``deadline``, if it is not None, or one of the connections.
        Measures stalls of this process.
        """
        start = time.monotonic()
        cores = (self._policy, self._contacts, self.progress_timeout)
        lookup_due = start + LOOKUP_CHECK_INTERVAL_S if self._lookup is not None else None
        path_check_due = self._next_path_check if self.ready else None
        due = (deadline, lookup_due, path_check_due, *(core.next_deadline(start) for core in cores))
        until = max(start, min(time for time in due if time is not None))
        self.transport.wait(until - start)
        self._last_poll_at = time.monotonic()
        self.stalled_seconds = self._stall_detector.after_wait(start, until, self._last_poll_at)
        self.progress_timeout.handle(Stalled(self.stalled_seconds), self._last_poll_at)

    def events(self) -> Iterator[NetworkEvent]:
        """Yields the events that were ready when ``wait`` returned, and opens and closes connections accordingly.

        The caller must exhaust the iterator. Raises ``NotAllowedError`` if the servers refuse this client, and
        ``NoAnswerError`` once the timeout expires or, unless this is a download, if nothing of msd listens at the
        addresses.
        """
        for event in self.transport.read():
            # First, because it is by far the most frequent event.
            if isinstance(event, ReplyReceived):
                yield event
                continue
            if isinstance(event, ConnectionOpened | ConnectionClosed) and is_peer(event.worker):
                yield event
                continue
            self._contacts_due = -math.inf
            match event:
                case AnnounceAnswered() | KeysAdmitted():
                    yield event
                    continue
                case Probed():
                    self._apply_contacts(event)
                    continue
                case SnapshotReceived(status):
                    self._control, self._server5_version = status.control, None
                    self._snapshot_at = self._last_poll_at
                    self._takes_progress = PROGRESS_FEATURE in status.features
                    peers = {number: place for number, place in self.places.items() if is_peer(number)}
                    self.places = {worker.number: worker.place for worker in status.workers} | peers
                    if self._last_workers is not None:
                        self._last_workers.keep(status)
                    if self._servers.pinned:
                        workers = [w for w in status.workers if w.number in self._servers.workers]
                        event = SnapshotReceived(replace(status, workers=workers))
                case ConnectionOpened(worker, welcome) if self._policy.is_another_process(worker, welcome.epoch):
                    self.transport.close_connection(worker)
                    event = ConnectionClosed(worker)
                case ConnectionOpened(worker):
                    self.ready[worker] = event
                    self._unreachable.discard(worker)
                case ConnectionClosed(worker, refusal, version):
                    self.ready.pop(worker, None)
                    if refusal is not None:
                        endpoint = self._policy.workers[worker].endpoint
                        if not self._is_refused(Refused(_worker_name(worker), endpoint, refusal, version)):
                            event = ConnectionClosed(worker)
                case StatusRefused(refusal, version):
                    self._server5_version = version
                    if not self._is_refused(Refused(SERVER_5, self._servers.status, refusal, version)):
                        continue
            self._apply(event)
            yield event
        self.read_until = self._last_poll_at
        # Use the time when ``wait`` ended: messages that arrived later are unread, so a peer could wrongly seem silent.
        self._update_contacts()
        self._apply(TimePassed(), self._last_poll_at)
        if self.ready and self._last_poll_at >= self._next_path_check:
            self._next_path_check = self._last_poll_at + PATH_CHECK_INTERVAL_S
            transport = self.transport
            silent = {n: seconds for n, seconds in transport.silent_seconds().items() if not is_peer(n)}
            self._apply(connection_policy.PathsChecked(silent, transport.server5_silent_seconds))
        self._finish_lookup()
        self._emit_server5_change()
        if not self._is_download and self._contacts.is_msd_absent:
            raise NoAnswerError(self.waiting_reason())
        addresses = () if self.ready or self.local_reason else self._contacts.current()
        waiting = WaitingFor(self.local_reason or self.waiting_reason(), addresses, is_timed=not self.local_reason)
        for action in self.progress_timeout.handle(waiting, self._last_poll_at):
            if isinstance(action, TimeoutExpired):
                raise NoAnswerError(action.message)
            self._on_event(action)

    def request(self, worker: int, request: Correlated) -> None:
        """Sends a request, if the worker is connected. The request's ``rid`` must be from ``new_rid()``."""
        self.transport.request(worker, request)

    def report_progress(self, progress: DownloadProgress) -> None:
        """Reports the progress of the download to server 5, if its address is known and it takes such reports."""
        if self._takes_progress and (control := self.control) is not None:
            self.transport.report_progress(control, progress)

    def current_state(self) -> list[NetworkEvent]:
        """Returns the events that explain the current state: the latest snapshot, and each open connection."""
        return [*([SnapshotReceived(self.status)] if self.status else []), *self.ready.values()]

    def handle_ban(self, event: Ban | Unban) -> None:
        """Closes the connection to a banned worker, or connects to it again as soon as it is reachable."""
        if is_peer(event.worker):
            if self.peers is not None and isinstance(event, Ban):
                self.peers.on_ban(event)
            return
        self._contacts_due = -math.inf
        self.ready.pop(event.worker, None)
        self._apply(event)

    def _emit_server5_change(self) -> None:
        """Emits an event if server 5 was lost or is reachable again since the last poll."""
        reachable = self.status is not None or self._policy.awaits_first_snapshot or self._policy.refusal is not None
        # Without any connection the client does not continue: the reason for waiting says what server 5 answers.
        if not reachable and not self.ready and not self._control:
            return
        if reachable != self._last_reachable:
            self._last_reachable = reachable
            detail = ""
            if self._server5_version is not None:
                detail = other_version(self._server5_version)
            elif not reachable and self._policy.uses_last_known:
                detail = "it does not answer; using the workers that it listed last"
            elif not reachable:
                detail = "it does not answer; continuing without its status"
            self._on_event(WorkerChanged(SERVER_5, "ready" if reachable else "lost", detail))

    @property
    def read_error(self) -> str:
        """Why no connected worker can read its files at the moment; empty if one may be able to."""
        errors = [self.read_errors.get(worker, "") for worker in self.ready]
        return errors[0] if errors and all(errors) else ""

    def waiting_reason(self) -> str:
        """Returns why there is no progress, as text for the user."""
        contacts = () if self.ready else self._contacts.current()
        return waiting_reason(
            self.status,
            contacts,
            ready=len(self.ready),
            workers=len(self.worker_numbers),
            file_reasons=[*self.file_reasons.values()],
            read_error=self.read_error,
        )

    def _is_refused(self, event: Refused) -> bool:
        """Records a refusal. Returns False if it was only a guess and a probe disproves it: another program, too, may
        close every connection.
        """
        self._apply_contacts(event)
        is_guess = event.refusal is ConnectionRefusal.HANDSHAKE
        return not is_guess or any(refusal.name == event.name for refusal in self._contacts.refusals())

    def _look_up_again(self) -> None:
        """Looks up the servers' names, because an address may be another one now."""
        if self._lookup is None and (names := self._servers.names):
            self._lookup = NameLookup(names)

    def _finish_lookup(self) -> None:
        if self._lookup is None or not self._lookup.wait(0.0):
            return
        lookup, self._lookup = self._lookup, None
        try:
            servers = self._servers.with_addresses(lookup.result())
        except UsageError:
            return  # The name does not exist at present: keep its last addresses.
        # Name servers change the order of addresses to distribute clients.
        if _addresses(servers) != _addresses(self._servers):
            self._servers = servers
            self.transport.status_endpoint = servers.status
            self._apply(connection_policy.AddressesChanged(servers.status, servers.workers))

    def _update_contacts(self) -> None:
        """Tells which servers have not answered: they are probed. Server 5 is not, if a worker is connected."""
        if self.ready:
            self._last_ready_at = self._last_poll_at
        # Rarely, for the sake of a running download.
        if self.ready and self._last_poll_at < self._contacts_due:
            return
        expected = self._policy.expected_workers
        server5 = {SERVER_5: self._servers.status}
        unanswered = {_worker_name(number) for number in expected.keys() - self.ready.keys()}
        due: frozenset[str] = frozenset()
        if not self.ready and not self._policy.is_admitted:
            unanswered |= server5.keys()
        elif not self.ready and self._is_snapshot_due():
            due = frozenset(server5)
        workers = {_worker_name(number): endpoint for number, endpoint in expected.items()}
        self._apply_contacts(Expecting(server5 | workers, frozenset(unanswered), due))
        deadline = self._contacts.next_deadline(self._last_poll_at)
        self._contacts_due = math.inf if deadline is None else deadline
        if self.ready:
            self._emit_unreachable_workers()

    def _is_snapshot_due(self) -> bool:
        """True if server 5 has sent no snapshot since the last worker was lost, or for longer than its interval: it may
        have ended, too.
        """
        interval = self.status.interval if self.status is not None else 0.0
        return self._snapshot_at < max(self._last_ready_at, self._last_poll_at - interval)

    def _emit_unreachable_workers(self) -> None:
        """Emits an event for each worker to which the client cannot connect, unlike to others."""
        contacts = {contact.name: contact for contact in self._contacts.unreachable(self._last_poll_at)}
        for number in {*self.worker_numbers} - self._unreachable:
            contact = contacts.get(_worker_name(number))
            # The version of a worker is reported by its connection.
            if contact is not None and contact.outcome is not Outcome.VERSION:
                self._unreachable.add(number)
                detail = f"{contact.endpoint} {statement(contact, PROTOCOL_VERSION)}"
                place = self.places.get(number, "")
                self._on_event(WorkerChanged(str(number), "unreachable", detail, place=place))

    def _apply_contacts(self, event: ContactEvent) -> None:
        """Passes an event to the core that finds out why no server answers, and performs its actions."""
        for action in self._contacts.handle(event, time.monotonic()):
            match action:
                case StartProbe(endpoint):
                    results = [*self.transport.start_probe(endpoint)]
                case StopProbes():
                    results = self.transport.stop_probes()
            for result in results:
                self._apply_contacts(result)

    def _apply(self, event: connection_policy.Event, now: float | None = None) -> None:
        """Passes an event to the policy, by default with the current time, and performs its actions."""
        for action in self._policy.handle(event, time.monotonic() if now is None else now):
            match action:
                case connection_policy.OpenConnection(worker, endpoint, key):
                    self.transport.open_connection(worker, endpoint, key)
                case connection_policy.CloseConnection(worker):
                    self.transport.close_connection(worker)
                case connection_policy.RenewConnection(worker, endpoint, key):
                    self.transport.renew_connection(worker, endpoint, key)
                    self._look_up_again()
                case connection_policy.EndRenewal(worker):
                    self.transport.end_renewal(worker)
                case connection_policy.Resubscribe():
                    self.transport.resubscribe()
                    self._look_up_again()
                case connection_policy.ReportRefusal():
                    raise refused_error(self._contacts.refusals(), PROTOCOL_VERSION)


def _worker_name(number: int) -> str:
    return f"worker {number}"


def _addresses(servers: Servers) -> list[frozenset[Endpoint]]:
    return [frozenset(endpoint.addresses) for endpoint in (servers.status, *servers.workers.values())]
