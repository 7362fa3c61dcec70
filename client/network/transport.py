"""The sockets of a client: one DEALER and its monitor for each worker, one SUB for server 5.

FairQueue frames into events and requests into frames. Which connections to open is decided in
``client/network/connection_policy.py``, what to ask for in ``client/scheduling/scheduler.py``.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import zmq
from msgspec import Struct

from msd.client.network.connection import Answer, Connection, Opened, new_rid
from msd.wire.config.settings import Servers
from msd.wire.errors import ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import Monitor
from msd.wire.net.sockets import receive, tune
from msd.wire.protocol.codec import STATUS_TOPIC, decode, encode
from msd.wire.protocol.messages import Complaint, ControlReply, DataReply, Done, Message, Status, Welcome
from msd.wire.protocol.states import ConnectionRefusal

#: How long last messages may take to leave at the end, in milliseconds.
LINGER_MS = 200
#: ZeroMQ's threads decrypt what arrives, a second of a processor for each GiB; each has connections of its own.
#: Without encryption a second one costs more than it gains (measured on two processors).
DECRYPTING_THREADS = 4
#: Replies taken from a connection before anything else is looked at.
READS_PER_TURN = 8


class SnapshotReceived(Struct, frozen=True):
    status: Status


class LinkOpened(Struct, frozen=True):
    """The worker has said welcome, ``round_trip`` seconds after our ``hello``."""

    worker: int
    welcome: Welcome
    round_trip: float


class LinkClosed(Struct, frozen=True):
    """The connection is dead; everything asked on it is lost. ``refused`` says why there never was one,
    where that is known.
    """

    worker: int
    refused: ConnectionRefusal | None = None


class StatusRefused(Struct, frozen=True):
    """Server 5 does not want to be subscribed to."""

    why: ConnectionRefusal


class ReplyReceived(Struct, frozen=True):
    """A reply to ``request``; ``payload`` is the frame of its bytes, if it has one."""

    worker: int
    request: Message
    reply: DataReply
    payload: zmq.Frame | None


TransportEvent = SnapshotReceived | StatusRefused | LinkOpened | LinkClosed | ReplyReceived


T = TypeVar("T")


def in_turn(sources: Iterable[Iterator[T]]) -> Iterator[T]:
    """One item of each source in turn, until none has any more."""
    left = deque(sources)
    while left:
        source = left.popleft()
        for item in source:
            yield item
            left.append(source)
            break


class Transport:
    """All sockets of one download from ``servers``. ``close()`` it."""

    def __init__(self, servers: Servers, *, session: int) -> None:
        self._session = session
        self._credentials = servers.credentials
        threads = min(DECRYPTING_THREADS, len(os.sched_getaffinity(0))) if servers.credentials else 1
        self._context = zmq.Context(threads)
        self._poller = zmq.Poller()
        self._status_endpoint = servers.status
        self._links: dict[int, Connection] = {}
        #: The sockets on which something has happened.
        self._ready: set[object] = set()
        self._status, self._status_monitor = self._subscribe()

    def wait(self, timeout: float) -> None:
        """Waits up to ``timeout`` seconds for something to happen."""
        self._ready = {source for source, _ in self._poller.poll(math.ceil(max(0.0, timeout) * 1000))}

    def read(self) -> Iterator[TransportEvent]:
        """What has happened when ``wait`` returned, to be taken to its end. Each reply is read when it is its turn, for
        then it is still in the processor's caches; and one of each connection in turn, for then the next request to
        any of them is never far away.
        """
        ready = self._ready
        if self._status_monitor.socket in ready:
            for event in self._status_monitor.read():
                if isinstance(event, ConnectionRefusal):
                    yield StatusRefused(event)
        if self._status in ready:
            yield from self._read_status()
        yield from in_turn(
            self._read_link(number, link)
            for number, link in self._links.items()
            if link.monitor.socket in ready or link.dealer in ready
        )

    def open(self, worker: int, endpoint: Endpoint) -> None:
        """Connects to a worker on a new socket; ``LinkOpened`` or ``LinkClosed`` will tell."""
        self.close_link(worker)
        link = self._links[worker] = Connection(self._context, endpoint, self._credentials)
        self._poller.register(link.monitor.socket, zmq.POLLIN)
        self._poller.register(link.dealer, zmq.POLLIN)

    def close_link(self, worker: int) -> None:
        """Closes the connection to a worker, if there is one. No event follows."""
        link = self._links.pop(worker, None)
        if link is not None:
            self._poller.unregister(link.monitor.socket)
            self._poller.unregister(link.dealer)
            link.close()

    def request(self, worker: int, request: Message) -> None:
        """Sends a request whose ``rid`` came from ``new_rid()``, if the connection is still there."""
        if (link := self._links.get(worker)) is not None:
            link.send(request)

    def renew_status(self) -> None:
        """Subscribes to server 5 on a new connection."""
        self._poller.unregister(self._status)
        self._poller.unregister(self._status_monitor.socket)
        self._status_monitor.close()
        self._status.close(0)
        self._status, self._status_monitor = self._subscribe()

    def tell_done(self, control: Endpoint, patience: float) -> bool:
        """Tells server 5 that this client has everything; whether it has heard it."""
        return self._tell(control, Done(rid=new_rid(), session=self._session), patience)

    def complain(self, control: Endpoint, worker: int, id: bytes, index: int) -> None:
        """Tells server 5 of a corrupt segment, without waiting for an answer."""
        self._tell(control, Complaint(rid=new_rid(), number=worker, id=id, index=index), 0.0)

    def close(self) -> None:
        """Takes leave of the workers and closes everything."""
        for link in self._links.values():
            link.say_bye(self._session)
            link.close(LINGER_MS)
        self._status_monitor.close()
        self._status.close(0)
        # And what a signal may have left half made: one open socket, and ending the context hangs.
        self._context.destroy(LINGER_MS)

    def _subscribe(self) -> tuple[zmq.Socket[bytes], Monitor]:
        status = self._context.socket(zmq.SUB)
        tune(status, ipv6=self._status_endpoint.is_ipv6, credentials=self._credentials)
        # Only the latest snapshot counts; a slow reader would otherwise be shown old ones.
        status.conflate = 1
        status.maxmsgsize = 65536
        status.reconnect_ivl = 100
        status.reconnect_ivl_max = 1000
        status.linger = 0
        status.subscribe(STATUS_TOPIC)
        monitor = Monitor(status, encrypted=self._credentials is not None)
        status.connect(self._status_endpoint.url)
        self._poller.register(monitor.socket, zmq.POLLIN)
        self._poller.register(status, zmq.POLLIN)
        return status, monitor

    def _read_status(self) -> Iterator[TransportEvent]:
        while (frames := receive(self._status)) is not None:
            # What is no snapshot is passed over: the next one tells all.
            with contextlib.suppress(ProtocolError):
                header = frames[0].bytes.removeprefix(STATUS_TOPIC) if frames else b""
                yield SnapshotReceived(decode(header, Status))

    def _read_link(self, number: int, link: Connection) -> Iterator[TransportEvent]:
        if self._links.get(number) is not link:
            return  # The event of another one led to its being closed.
        # First: what a monitor announces is older than what is read after it.
        dead = link.read_monitor(self._session)
        # What a dying connection has brought is still good: it is read to the end.
        for _ in itertools.count() if dead else range(READS_PER_TURN):
            frames = receive(link.dealer)
            if frames is None:
                break
            try:
                said = link.take(frames)
            except ProtocolError:
                dead = True
                break
            match said:
                case Opened(welcome, round_trip):
                    yield LinkOpened(number, welcome, round_trip)
                case Answer(request, reply, payload):
                    yield ReplyReceived(number, request, reply, payload)
            if self._links.get(number) is not link:
                return  # The event led to its being closed.
        if dead:
            self.close_link(number)
            yield LinkClosed(number, link.refused)

    def _tell(self, control: Endpoint, message: Message, patience: float) -> bool:
        socket = self._context.socket(zmq.DEALER)
        tune(socket, ipv6=control.is_ipv6, credentials=self._credentials)
        socket.linger = 500
        socket.connect(control.url)
        try:
            socket.send(encode(message), zmq.NOBLOCK)
            if not socket.poll(int(patience * 1000)):
                return False
            frames = receive(socket) or []
            return len(frames) == 1 and bool(decode(frames[0].buffer, ControlReply))
        except (ProtocolError, zmq.Again):
            return False
        finally:
            socket.close()
