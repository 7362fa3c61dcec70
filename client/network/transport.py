"""A client's sockets: a DEALER and its monitor for each worker, and a SUB for server 5.

Converts frames into events and requests into frames. Does not decide which connections to open
(``client/network/connection_policy.py``) or what to request (``client/scheduling/scheduler.py``).
"""

from __future__ import annotations

import itertools
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import zmq

from msd.client.network.connection import Connection
from msd.client.network.control_connection import ControlConnection
from msd.client.network_events import (
    ConnectionClosed,
    NetworkEvent,
    SnapshotReceived,
    StatusRefused,
)
from msd.wire.config.servers import Servers
from msd.wire.errors import ProtocolError
from msd.wire.net.contacts import Probed
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.probe import Prober
from msd.wire.net.sockets import receive
from msd.wire.net.status_subscriber import OtherVersion, StatusSubscriber
from msd.wire.protocol.messages import (
    Announce,
    Complaint,
    Correlated,
    Done,
    DownloadProgress,
    new_rid,
)
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials

#: Milliseconds for which ZeroMQ may still send queued messages after ``close``.
LINGER_MS = 200
#: The maximum number of ZeroMQ's I/O threads if connections are encrypted. Decryption takes about a second of processor
#: time per GiB, and a connection uses only one thread. Without encryption, a second thread costs more than it gains
#: (measured on two processors).
MAX_IO_THREADS = 4
#: The maximum number of replies read from one connection before the next poll.
MAX_REPLIES_PER_POLL = 8

T = TypeVar("T")


def round_robin(sources: Iterable[Iterator[T]]) -> Iterator[T]:
    """Yields one item from each source in turn until all are exhausted."""
    remaining = deque(sources)
    while remaining:
        source = remaining.popleft()
        for item in source:
            yield item
            remaining.append(source)
            break


class Transport:
    """All sockets of one client of ``servers``. The caller must ``close()`` it.

    ``session`` identifies the client to the workers and server 5; it is 0 unless the client is a download.
    ``features`` are those of its ``hello``.
    """

    def __init__(self, servers: Servers, *, session: int, features: Sequence[str] = ()) -> None:
        self._session = session
        self._features = features
        self._credentials = servers.credentials
        threads = min(MAX_IO_THREADS, len(os.sched_getaffinity(0))) if servers.credentials else 1
        self._context = zmq.Context(threads)
        self._poller = zmq.Poller()
        #: The endpoint of server 5 for the next subscription.
        self.status_endpoint = servers.status
        self._connections: dict[int, Connection] = {}
        #: The connections that will replace those of the same workers once they open.
        self._renewals: dict[int, Connection] = {}
        #: The sockets that were readable at the last poll.
        self._readable: set[object] = set()
        self._status = self._subscribe()
        self._control = ControlConnection(self._context, self._poller, self._credentials)
        self._prober = Prober()
        self._poller.register(self._prober.fd, zmq.POLLIN)

    def wait(self, timeout: float) -> None:
        """Polls all sockets for up to ``timeout`` seconds."""
        self._readable = {source for source, _ in self._poller.poll(math.ceil(max(0.0, timeout) * 1000))}

    def read(self) -> Iterator[NetworkEvent]:
        """Yields the events that were ready when ``wait`` returned. The caller must exhaust the iterator.

        Reads each reply just before yielding it, so that the caller finds the data in the processor's caches. Takes the
        replies from the connections in turn, so that the next request to any worker is never delayed for long.
        """
        readable = self._readable
        if not readable.isdisjoint(self._status.sources):
            for event in self._status.read_connection():
                if isinstance(event, ConnectionRefusal):
                    yield StatusRefused(event)
            for snapshot in self._status.read_snapshots():
                if isinstance(snapshot, OtherVersion):
                    yield StatusRefused(ConnectionRefusal.VERSION, snapshot.version)
                else:
                    yield SnapshotReceived(snapshot)
        if self._prober.fd in readable:
            yield from self._prober.read()
        if self._control.source in readable:
            yield from self._control.read()
        yield from round_robin(
            self._read_connection(worker, connection)
            for worker, connection in self._connections.items()
            if connection.monitor.socket in readable or connection.dealer in readable
        )
        for worker, renewal in [*self._renewals.items()]:
            if renewal.monitor.socket in readable or renewal.dealer in readable:
                yield from self._read_renewal(worker, renewal)

    def open_connection(self, worker: int, endpoint: Endpoint, key: bytes = b"") -> None:
        """Connects to a worker on a new socket. ``ConnectionOpened`` or ``ConnectionClosed`` follows.

        ``key`` is the worker's own public key; empty if it has that of server 5, or no keys are used.
        """
        self.close_connection(worker)
        self._connections[worker] = self._connect(worker, endpoint, key)

    def close_connection(self, worker: int) -> None:
        """Closes the connection to a worker and its renewal, if there are any. No event follows."""
        self._disconnect(self._connections.pop(worker, None))
        self.end_renewal(worker)

    def renew_connection(self, worker: int, endpoint: Endpoint, key: bytes = b"") -> None:
        """Connects to a worker on a new socket beside the open one. If the new one opens, ``ConnectionClosed`` and
        ``ConnectionOpened`` follow. If the open one is closed first, the new one takes its place.
        """
        self.end_renewal(worker)
        self._renewals[worker] = self._connect(worker, endpoint, key)

    def end_renewal(self, worker: int) -> None:
        """Closes the renewal of the connection to a worker, if there is one. No event follows."""
        self._disconnect(self._renewals.pop(worker, None))

    def silent_seconds(self) -> dict[int, float]:
        """Returns for how long no packet has arrived on each connection, by worker."""
        return {worker: connection.silent_seconds for worker, connection in self._connections.items()}

    @property
    def server5_silent_seconds(self) -> float:
        """For how long no packet has arrived from server 5."""
        return self._status.silent_seconds

    def request(self, worker: int, request: Correlated) -> None:
        """Sends a request, or drops it if there is no connection. The request's ``rid`` must be from ``new_rid()``."""
        if (connection := self._connections.get(worker)) is not None:
            connection.send(request)

    def watch_output(self, fd: int, *, is_full: bool) -> None:
        """Makes ``wait`` return when the reader of the stream ``fd`` closes it, and if it ``is_full``, when it is
        writable again.
        """
        self._poller.register(fd, zmq.POLLOUT if is_full else zmq.POLLERR)

    def watch(self, fd: int) -> None:
        """Makes ``wait`` return when the descriptor is readable."""
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Ends ``watch``."""
        self._poller.unregister(fd)

    @property
    def server5(self) -> Endpoint:
        """Server 5's endpoint, with the address that answers once one does."""
        return self._status.endpoint

    def resubscribe(self) -> None:
        """Subscribes to server 5 on a new connection."""
        for source in self._status.sources:
            self._poller.unregister(source)
        self._status.close()
        self._status = self._subscribe()
        self._control.close()

    def start_probe(self, endpoint: Endpoint) -> Iterator[Probed]:
        """Probes an endpoint with plain TCP. ``Probed`` follows, or is yielded if the attempt fails at once."""
        return self._prober.start(endpoint)

    def stop_probes(self) -> list[Probed]:
        """Ends the probes and returns the results of those that had none."""
        return self._prober.stop()

    def report_done(self, control: Endpoint, timeout: float) -> bool:
        """Reports to server 5 that the download is complete; True if it replies within ``timeout`` seconds."""
        return self._control.request(control, Done(rid=new_rid(), session=self._session), timeout)

    def report_corrupt(self, control: Endpoint, worker: int, id: bytes, index: int) -> None:
        """Sends server 5 a complaint about a corrupt segment, without waiting for an answer."""
        self._control.send(control, Complaint(rid=new_rid(), number=worker, id=id, index=index))

    def report_progress(self, control: Endpoint, progress: DownloadProgress) -> None:
        """Reports the progress of the download to server 5; there is no answer."""
        self._control.send(control, progress)

    def announce(self, control: Endpoint, announce: Announce) -> None:
        """Announces this receiver to server 5. ``AnnounceAnswered`` and ``KeysAdmitted`` may follow."""
        self._control.send(control, announce)

    def close(self) -> None:
        """Sends ``bye`` to the workers and closes all sockets."""
        for connection in (*self._connections.values(), *self._renewals.values()):
            connection.send_bye(self._session)
            connection.close(LINGER_MS)
        self._status.close()
        self._control.close()
        self._prober.close()
        # Also closes a socket whose setup was interrupted by a signal: a single open socket would block termination.
        self._context.destroy(LINGER_MS)

    def _subscribe(self) -> StatusSubscriber:
        status = StatusSubscriber(self._context, self.status_endpoint, self._credentials)
        for source in status.sources:
            self._poller.register(source, zmq.POLLIN)
        return status

    def _read_connection(self, worker: int, connection: Connection) -> Iterator[NetworkEvent]:
        if self._connections.get(worker) is not connection:
            return  # The caller closed this connection while handling an event from another one.
        # Read the monitor first: its events are older than the messages read after it.
        dead = connection.read_monitor(self._session, self._features)
        # Messages from a dead connection are still valid: read them all.
        for _ in itertools.count() if dead else range(MAX_REPLIES_PER_POLL):
            frames = receive(connection.dealer)
            if frames is None:
                break
            try:
                event = connection.handle_message(frames)
            except ProtocolError:
                dead = True
                break
            if event is not None:
                yield event
            if self._connections.get(worker) is not connection:
                return  # The caller closed this connection while handling the event.
        if dead:
            renewal = self._renewals.get(worker)
            self._replace(worker, renewal)
            yield ConnectionClosed(worker, connection.refusal, connection.other_version, is_renewed=renewal is not None)

    def _read_renewal(self, worker: int, renewal: Connection) -> Iterator[NetworkEvent]:
        if self._renewals.get(worker) is not renewal:
            return  # It has become the connection, or the caller ended it.
        opened = None
        dead = renewal.read_monitor(self._session, self._features)
        try:
            if (frames := receive(renewal.dealer)) is not None:
                opened = renewal.handle_message(frames)
        except ProtocolError:
            dead = True
        if opened is not None:
            self._replace(worker, renewal)
            yield ConnectionClosed(worker, is_renewed=True)
            yield opened
        elif dead:
            self.end_renewal(worker)

    def _replace(self, worker: int, renewal: Connection | None) -> None:
        """Closes the connection to a worker; its renewal, if there is one, takes its place."""
        self._renewals.pop(worker, None)
        self._disconnect(self._connections.pop(worker, None))
        if renewal is not None:
            self._connections[worker] = renewal

    def _connect(self, worker: int, endpoint: Endpoint, key: bytes) -> Connection:
        credentials = self._credentials
        if credentials is not None and key:
            credentials = Credentials(credentials.own, key)
        connection = Connection(self._context, worker, endpoint, credentials)
        self._poller.register(connection.monitor.socket, zmq.POLLIN)
        self._poller.register(connection.dealer, zmq.POLLIN)
        return connection

    def _disconnect(self, connection: Connection | None) -> None:
        if connection is not None:
            self._poller.unregister(connection.monitor.socket)
            self._poller.unregister(connection.dealer)
            # Otherwise the worker would count this client as being served for half a minute.
            connection.send_bye(self._session)
            connection.close(LINGER_MS)
