"""The sockets of a client: one DEALER and its monitor for each worker, one SUB for server 5.

Turns frames into events and requests into frames. Which connections to open is decided in
``client/links.py``, what to ask for in ``client/scheduler.py``.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import zmq

from wire.codec import STATUS_TOPIC, decode, encode
from wire.endpoints import Endpoint
from wire.errors import ProtocolError
from wire.messages import (
    PROTOCOL_VERSION,
    Bye,
    Complaint,
    ControlReply,
    DataReply,
    Done,
    Get,
    Hello,
    Message,
    Status,
    Welcome,
)
from wire.segments import MAX_SEGMENT_SIZE
from wire.sockets import receive, tune

#: Replies taken from one connection before the others get their turn.
READS_PER_TURN = 8

_DEAD = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
#: Only these events, and always read: a monitor that nobody reads freezes ZeroMQ's I/O thread.
_WATCHED = _DEAD | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CLOSED


@dataclass(frozen=True, slots=True)
class SnapshotReceived:
    status: Status


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """The worker has said welcome, ``round_trip`` seconds after our ``hello``."""

    worker: int
    welcome: Welcome
    round_trip: float


@dataclass(frozen=True, slots=True)
class LinkClosed:
    """The connection is dead; everything asked on it is lost."""

    worker: int


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """A reply to ``request``; ``payload`` is the frame of its bytes, if it has one."""

    worker: int
    request: Message
    reply: DataReply
    payload: zmq.Frame | None


TransportEvent = SnapshotReceived | LinkOpened | LinkClosed | ReplyReceived


class Transport:
    """All sockets of one download. ``close()`` it."""

    def __init__(self, status: Endpoint) -> None:
        self.session = int.from_bytes(os.urandom(8), "big") >> 2
        self.garbage = 0
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._status_endpoint = status
        self._links: dict[int, _Link] = {}
        self._status = self._subscribe()

    def poll(self, timeout: float) -> Iterator[TransportEvent]:
        """What has happened, waiting up to ``timeout`` seconds for something to happen."""
        ready = {source for source, _ in self._poller.poll(math.ceil(max(0.0, timeout) * 1000))}
        if self._status in ready:
            yield from self._read_status()
        for number, link in list(self._links.items()):
            # A monitor is read first: what it announces is older than what is read after it.
            if link.monitor in ready or link.dealer in ready:
                yield from self._read_link(number, link)

    def open(self, worker: int, endpoint: Endpoint) -> None:
        """Connects to a worker on a new socket; ``LinkOpened`` or ``LinkClosed`` will tell."""
        self.close_link(worker)
        self._links[worker] = _Link(self._context, self._poller, endpoint)

    def close_link(self, worker: int) -> None:
        """Closes the connection to a worker, if there is one. No event follows."""
        link = self._links.pop(worker, None)
        if link is not None:
            link.close()

    def request(self, worker: int, request: Message) -> None:
        """Sends a request whose ``rid`` came from ``rid()``, if the connection is still there."""
        link = self._links.get(worker)
        if link is not None:
            link.send(request)

    def rid(self) -> int:
        """A new request id, unique among all of this client."""
        return next(_RIDS)

    def renew_status(self) -> None:
        """Subscribes to server 5 on a new connection."""
        self._poller.unregister(self._status)
        self._status.close(0)
        self._status = self._subscribe()

    def tell_done(self, control: Endpoint, patience: float) -> bool:
        """Says goodbye to the workers, and to server 5 that this client has everything."""
        for link in self._links.values():
            link.send(Bye(session=self.session))
        return self._tell(control, Done(rid=self.rid(), session=self.session), patience)

    def complain(self, control: Endpoint, worker: int, id: bytes, index: int) -> None:
        """Tells server 5 of a corrupt segment, without waiting for an answer."""
        self._tell(control, Complaint(rid=self.rid(), number=worker, id=id, index=index), 0.0)

    def close(self) -> None:
        for worker in list(self._links):
            self.close_link(worker)
        self._context.destroy(0)

    def _subscribe(self) -> zmq.Socket[bytes]:
        status = self._context.socket(zmq.SUB)
        tune(status, ipv6=self._status_endpoint.is_ipv6)
        # Only the latest snapshot counts; a slow reader would otherwise be shown old ones.
        status.conflate = 1
        status.maxmsgsize = 65536
        status.reconnect_ivl = 100
        status.reconnect_ivl_max = 1000
        status.linger = 0
        status.subscribe(STATUS_TOPIC)
        status.connect(self._status_endpoint.url)
        self._poller.register(status, zmq.POLLIN)
        return status

    def _read_status(self) -> Iterator[TransportEvent]:
        while (frames := receive(self._status)) is not None:
            try:
                if len(frames) != 1:
                    raise ProtocolError(f"{len(frames)} frames")
                yield SnapshotReceived(decode(frames[0].bytes.removeprefix(STATUS_TOPIC), Status))
            except ProtocolError:
                self.garbage += 1

    def _read_link(self, number: int, link: _Link) -> Iterator[TransportEvent]:
        dead = link.read_monitor(self.session)
        # What a dying connection has brought is still good: it is read to the end.
        for _ in itertools.count() if dead else range(READS_PER_TURN):
            frames = receive(link.dealer)
            if frames is None:
                break
            try:
                event = link.take(number, frames)
            except ProtocolError:
                # Whatever it was to answer will not be answered: better a new connection.
                self.garbage += 1
                dead = True
                break
            yield event
            if self._links.get(number) is not link:
                return  # The event led to its being closed.
        if dead:
            self.close_link(number)
            yield LinkClosed(number)

    def _tell(self, control: Endpoint, message: Message, patience: float) -> bool:
        socket = self._context.socket(zmq.DEALER)
        tune(socket, ipv6=control.is_ipv6)
        socket.linger = 500
        socket.connect(control.url)
        try:
            socket.send(encode(message), zmq.NOBLOCK)
            if not socket.poll(int(patience * 1000)):
                return False
            frames = receive(socket) or []
            return len(frames) == 1 and bool(decode(frames[0].buffer, ControlReply))
        except ProtocolError:
            return False
        finally:
            socket.close()


#: Request ids: unique in this process, so that no reply can be taken for another one's.
_RIDS = itertools.count(1)


class _Link:
    """One connection: a DEALER that is used from its handshake to its first fault, never again."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], poller: zmq.Poller, endpoint: Endpoint) -> None:
        self._poller = poller
        #: Requests without a reply.
        self._asked: dict[int, Message] = {}
        self._epoch: int | None = None
        self._is_up = False
        self._greeted_at = 0.0
        dealer = context.socket(zmq.DEALER)
        tune(dealer, ipv6=endpoint.is_ipv6)
        dealer.linger = 0
        # More than any window: ZeroMQ must never stop reading, or TCP would take the pause for a
        # dead peer.
        dealer.sndhwm = dealer.rcvhwm = 1024
        dealer.maxmsgsize = MAX_SEGMENT_SIZE + 4096
        # With 1, replies that are here but not read yet would be thrown away at a disconnect.
        dealer.immediate = 0
        dealer.reconnect_ivl = 250
        dealer.reconnect_ivl_max = 4000
        dealer.connect_timeout = 5000
        self.dealer = dealer
        self.monitor = dealer.get_monitor_socket(_WATCHED)
        dealer.connect(endpoint.url)
        poller.register(self.monitor, zmq.POLLIN)
        poller.register(dealer, zmq.POLLIN)

    def read_monitor(self, session: int) -> bool:
        """Follows the connection's state; True if it is dead."""
        dead = False
        while (frames := receive(self.monitor)) is not None:
            event, _ = struct.unpack("=HI", frames[0].bytes)
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._is_up = True
                self._greeted_at = time.monotonic()
                self.send(Hello(rid=next(_RIDS), version=PROTOCOL_VERSION, session=session))
            elif event & _DEAD or self._is_up:
                # CLOSED alone is normal while a refused port is tried again.
                dead = True
        return dead

    def send(self, request: Message) -> None:
        rid = getattr(request, "rid", None)
        if rid is not None:
            self._asked[rid] = request
        # If its queue is full nothing moves, and the connection's end will tell.
        with contextlib.suppress(zmq.Again):
            self.dealer.send(encode(request), zmq.NOBLOCK)

    def take(self, number: int, frames: list[zmq.Frame]) -> TransportEvent:
        """The event that a message is. Raises ``ProtocolError`` if it is none."""
        if not 1 <= len(frames) <= 2:
            raise ProtocolError(f"{len(frames)} frames")
        # Our own hello, come back by a TCP self-connect, is no reply either.
        reply: DataReply = decode(frames[0].buffer, DataReply)
        request = self._asked.get(reply.rid)
        if request is None or self._epoch not in (None, reply.epoch):
            raise ProtocolError("a reply that nobody asked for")
        if isinstance(request, Get) and getattr(reply, "index", request.index) != request.index:
            raise ProtocolError("another segment than the one asked for")
        del self._asked[reply.rid]
        if isinstance(reply, Welcome):
            self._epoch = reply.epoch
            return LinkOpened(number, reply, time.monotonic() - self._greeted_at)
        return ReplyReceived(number, request, reply, frames[1] if len(frames) == 2 else None)

    def close(self) -> None:
        self._poller.unregister(self.monitor)
        self._poller.unregister(self.dealer)
        self.dealer.disable_monitor()
        # Without this, terminating the context hangs for ever.
        self.monitor.close(0)
        self.dealer.close(0)
