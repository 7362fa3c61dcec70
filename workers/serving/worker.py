"""The serving process of one worker: an event loop around ``answer``, ``FairQueue`` and a ``Source``.

Sends heartbeats from the same loop that serves requests, so a worker whose loop hangs becomes silent.

Does not decide when the port is open (``workers/serving/worker_life.py``), how requests are answered
(``workers/serving/answer.py``) or in which order they are answered (``workers/serving/fair_queue.py``). Sends to
clients only through ``workers/serving/router.py``.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import zmq
from msgspec import Struct

from msd.wire.errors import MsdError, ProtocolError
from msd.wire.net.accepted_connections import AcceptedConnections
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.child_messages import WorkerSettings
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import (
    FILE_OK,
    PASSES_ON,
    PROTOCOL_VERSION,
    READS_STORE,
    Admitted,
    Bundle,
    Bye,
    DataReply,
    DataRequest,
    Describe,
    Described,
    DigestPage,
    Digests,
    Heartbeat,
    Held,
    Hello,
    Holds,
    Join,
    Joined,
    JoinOrder,
    List,
    Load,
    Order,
    QuitOrder,
    Reached,
    Rejected,
    Segment,
    SuspectSegment,
    new_rid,
)
from msd.wire.protocol.states import RefusalReason, ReportedState, WantedState
from msd.wire.security.keys import KEY_ROLES, KeyPair, Role
from msd.wire.security.zap import Admission, ZapHandler
from msd.wire.support.core import TimePassed
from msd.wire.support.presentable_names import presentable
from msd.workers.serving.answer import (
    QUEUED_REQUESTS,
    BundleJob,
    DigestsJob,
    Identity,
    Job,
    QueuedRequest,
    SegmentJob,
    answer,
    compact_request,
    refusal,
)
from msd.workers.serving.broker_connection import BrokerConnection
from msd.workers.serving.client_sessions import ClientSessions
from msd.workers.serving.fair_queue import FairQueue
from msd.workers.serving.piece_reads import JobArrived, JobReady, PieceReads, ReadEnded, StartRead
from msd.workers.serving.read_threads import ReadThreads
from msd.workers.serving.router import ClientKey, Router
from msd.workers.serving.scope import narrowed
from msd.workers.serving.send_completions import SendCompletions
from msd.workers.serving.worker_life import (
    ClosePort,
    EditionLoaded,
    Event,
    GiveUp,
    HeartbeatDropped,
    JoinAccepted,
    JoinOrdered,
    JoinRejected,
    OpenPort,
    OrderReceived,
    PortBound,
    PortBusy,
    RefuseQueued,
    SendHeartbeat,
    SendJoin,
    WorkerLife,
)
from msd.workers.source.catalogue import Catalogue, SharedFile, open_edition
from msd.workers.source.indexed_data import IndexedData
from msd.workers.source.listing import Listings
from msd.workers.source.share import Share
from msd.workers.source.source import NOTHING_READ, Piece, PieceOrder, ReadRefused, Source, read_pieces
from msd.workers.source.source_of import source_of

#: Requests decoded per iteration of the event loop, so that a flood cannot block everything else.
READS_PER_TURN = 256
#: Messages received per iteration, including messages that are dropped without decoding them. Higher than
#: ``READS_PER_TURN``, because another client's request may be queued behind a flood; bounded, because no queued request
#: is answered until all these messages have been received.
RECEIVES_PER_TURN = 512
#: Large replies sent per iteration; only one if more requests are waiting to be received.
REPLIES_PER_TURN = 8
#: No further reply is begun in an iteration after this many seconds: reading 512 small files may take much longer than
#: reading a segment, and heartbeats must not wait for several bundles.
MAX_TURN_S = 0.05
#: Minimum seconds between two "busy" refusals, over all clients; excess requests in between are dropped without
#: decoding them.
BUSY_REFUSAL_INTERVAL_S = 0.01

#: Seconds between two checks for completed sends while replies are in flight but no request is queued. The checks
#: release memory; ZeroMQ releases the replies to a disconnected client only when one of its functions is called.
IDLE_COLLECT_INTERVAL_S = 0.1

#: Maximum numbers of open and of newly served sessions in a heartbeat, which must fit into ``MAX_REQUEST_FRAME``: a
#: served session takes up to 56 bytes.
MAX_SESSIONS_REPORTED, MAX_SERVED_REPORTED = 1024, 512
#: The requests that a receiver does not answer: what is right, only workers and server 5 say.
SOURCE_REQUESTS = (List, Describe, Digests)
#: Requests of all clients together above which those that pass on are refused as busy: at workers and at receivers.
MAX_UNFINISHED = 8
#: Why a piece is refused if its source is to blame and not a change of the file, and the length of the text about it.
TROUBLES, MAX_TROUBLE = (RefusalReason.UNAVAILABLE, RefusalReason.UNREADABLE), 200
#: Seconds after which a file that is not read is closed; it may stay open for up to twice as long.
CLOSE_UNREAD_INTERVAL_S = 2.0


class _WaitingReply(Struct, frozen=True):
    """A job of a client that waits for pieces. ``size`` in bytes counts as in flight until the reply is released."""

    client: ClientKey
    job: Job
    size: int


class Holdings(Protocol):
    """What a receiver that passes on has of its plan."""

    @property
    def plan(self) -> bytes:
        """The id of the plan."""

    @property
    def bitmap(self) -> bytes:
        """The payload of ``Held``."""


class PortBusyError(MsdError):
    """The worker's port cannot be bound."""


class Worker:
    """One worker process. ``run()`` serves until it is told to end. ``context`` and ``broker`` remain the caller's.

    The content of the files is read from ``source``; None stands for what the broker shares. A receiver that passes on
    what it has says with ``holdings`` what that is.

    ``show`` is called with each line for the operator, ``on_stale`` if a shared file may no longer be the version that
    was indexed, with a suspect segment if there is one: a worker that the broker has started tells the broker instead.
    ``on_turn`` is called with the time in each iteration of the event loop.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: WorkerSettings,
        broker: BrokerConnection,
        poll_loop: PollLoop,
        *,
        source: Source | None = None,
        holdings: Holdings | None = None,
        show: Callable[[str], None] = lambda text: None,
        on_stale: Callable[[SuspectSegment | None], None] = lambda suspect: None,
        on_turn: Callable[[float], None] = lambda now: None,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._show = show
        self._on_stale = on_stale
        self._on_turn = on_turn
        self._is_child = settings.parent != 0
        self._editions = Path(settings.catalogue)
        # If this opens a newer edition instead, the broker's order to switch to that edition will follow.
        self._edition, self._catalogue = open_edition(self._editions, settings.edition)
        self._listings = Listings(self._catalogue.listing)
        cache, features = 0, [PASSES_ON] if holdings is not None else []
        if source is None:
            share = Share.read(self._editions)
            source, cache = source_of(share), share.cache
            features += [READS_STORE] if share.stores else []
        self._source = source
        self._data = IndexedData(self._source, self._catalogue)
        self._piece_reads: PieceReads[_WaitingReply] = PieceReads(cache)
        self._read_threads = ReadThreads(lambda orders: read_pieces(self._source, orders))
        #: Why the last read that had to wait failed; empty if it did not.
        self._trouble = ""
        #: The number is 0 until the broker chooses it; the port is closed until then.
        self._identity = Identity(settings.number or 0, 1 + secrets.randbits(62), tuple(features))
        self._holdings = holdings
        limit = MAX_UNFINISHED if holdings is not None else None
        self._queue: FairQueue[ClientKey, QueuedRequest] = FairQueue(settings.rate, limit)
        self._sessions: ClientSessions[ClientKey] = ClientSessions()
        self._poll_loop = poll_loop
        self._endpoint = Endpoint.parse(settings.bind)
        self._own = KeyPair.from_secret(settings.secret) if settings.secret else None
        self._zap = ZapHandler(context, self._own, Path(settings.keys) if settings.keys else None)
        #: The digest of the keys that the broker has sent to a worker on its own; empty before.
        self._admitted = b""
        #: Used only if the servers use keys.
        self._connections: AcceptedConnections[ClientKey] = AcceptedConnections(self._zap)
        self._send_completions: SendCompletions[tuple[ClientKey, int]] = SendCompletions()
        self._router = Router(
            context,
            self._endpoint,
            self._send_completions,
            protect=self._zap.protect,
            on_disconnected=self._on_disconnected,
        )
        self._life = WorkerLife()
        self._life_deadline = 0.0
        self._wanted = settings.wanted
        self._bytes_sent = 0
        self._malformed_messages = 0
        #: When the next "busy" refusal may be sent.
        self._next_busy_refusal = 0.0
        #: True if no more requests are waiting to be received.
        self._all_read = True
        #: True if the last ``_serve`` stopped at its limit: more replies may be sent without waiting.
        self._may_serve_more = False
        #: When the files that were not read lately are closed.
        self._close_unread_at = 0.0
        #: The last line about joining, which is not repeated.
        self._last_shown = ""
        self._running = True

    def run(self) -> None:
        """Serves until the broker orders the worker to quit, or ``stop()`` is called. Raises ``PortBusyError``."""
        # Before the connections of peers: the admitted keys may have arrived together with the first of them.
        self._broker.start(self._poll_loop, self._handle_orders)
        self._poll_loop.register(self._zap.socket, self._zap.handle)
        self._poll_loop.register(self._read_threads.fileno(), self._on_pieces_read)
        polls_completions = False
        try:
            self._handle(OrderReceived(self._wanted) if self._wanted is not None else TimePassed())
            while self._running:
                now = time.monotonic()
                broker_deadline = self._broker.pass_time(now)
                self._on_turn(now)
                if now >= self._life_deadline:
                    self._handle(TimePassed())
                if now >= (self._piece_reads.next_deadline(now) or math.inf):
                    self._handle_reads(TimePassed(), now)
                # Poll send completions only while a request waits for one: each costs an iteration of this loop.
                # Otherwise they are collected with the next request, or after ``IDLE_COLLECT_INTERVAL_S``.
                if polls_completions != (self._queue.queued > 0):
                    polls_completions = not polls_completions
                    if polls_completions:
                        self._poll_loop.register(self._send_completions.socket, lambda: None)
                    else:
                        self._poll_loop.unregister(self._send_completions.socket)
                self._all_read = True
                self._poll_loop.wait((self._deadline(), broker_deadline))
                self._poll_loop.dispatch()
                # Each large reply delays the requests that are still waiting to be received.
                self._serve(REPLIES_PER_TURN if self._all_read else 1)
        finally:
            if not self._is_child:
                self._broker.send(self._heartbeat(ReportedState.LEAVING, time.monotonic()))
            self._close_port()
            self._zap.close()
            self._broker.close()
            self._poll_loop.unregister(self._read_threads.fileno())
            self._read_threads.close()
            self._source.close()
            self._catalogue.close()

    def stop(self) -> None:
        """Ends ``run()`` after the present iteration."""
        self._running = False

    def close(self) -> None:
        """Frees what ZeroMQ may use until its context has ended. Call this after that."""
        self._send_completions.close()

    # The port.

    def _handle(self, event: Event) -> None:
        """Passes an event to the worker's life and carries out the actions, which may cause further events."""
        now = time.monotonic()
        for action in self._life.handle(event, now):
            match action:
                case OpenPort():
                    self._handle(self._open_port())
                case ClosePort():
                    self._close_port()
                case RefuseQueued():
                    for client, request in self._queue.clear():
                        self._router.send(client, refusal(request.rid, self._identity, RefusalReason.SLEEPING))
                case SendHeartbeat() | SendJoin():
                    self._listings.expire(now)
                    self._close_unread_files(now)
                    message = self._join() if isinstance(action, SendJoin) else self._heartbeat(action.state, now)
                    if not self._broker.send(message):
                        self._handle(HeartbeatDropped())
                    elif isinstance(message, Heartbeat):
                        self._sessions.on_reported(message.served)
                    if not self._is_child and self._data.is_stale(now):
                        self._on_stale(self._data.suspect(now))
                    if self._zap.reload():
                        self._close_revoked()
                case GiveUp(reason):
                    raise PortBusyError(f"cannot listen on {self._endpoint}: {reason}")
        self._life_deadline = self._life.next_deadline(now)

    def _open_port(self) -> PortBound | PortBusy:
        try:
            self._router.open()
        except (OSError, zmq.ZMQError) as error:
            return PortBusy(os.strerror(error.errno or 0))
        assert self._router.socket is not None
        self._poll_loop.register(self._router.socket, self._on_requests_readable)
        return PortBound()

    def _close_unread_files(self, now: float) -> None:
        if now >= self._close_unread_at:
            self._close_unread_at = now + CLOSE_UNREAD_INTERVAL_S
            self._source.close_unread()

    def _close_port(self) -> None:
        self._source.close()
        if self._router.socket is not None:
            self._queue.clear()
            self._sessions.clear()
            self._connections.clear()
            self._poll_loop.unregister(self._router.socket)
            self._router.close()

    # The broker.

    def _join(self) -> Join:
        settings = self._settings
        return Join(
            rid=new_rid(),
            name=settings.name,
            epoch=self._identity.epoch,
            token=settings.token,
            pid=os.getpid(),
            endpoint=settings.endpoint,
            key=self._own.public if self._own is not None and not self._is_child else b"",
            number=self._identity.number or None,
            wanted=self._wanted or WantedState.AWAKE,
        )

    def _heartbeat(self, state: ReportedState, now: float) -> Heartbeat:
        sessions = self._sessions.current(now)
        return Heartbeat(
            number=self._identity.number,
            epoch=self._identity.epoch,
            state=state,
            edition=self._edition,
            catalogue=self._catalogue.id,
            files=self._catalogue.file_count,
            admitted=self._admitted,
            load=Load(
                rejected_connections=self._zap.rejected_connections,
                bytes_sent=self._bytes_sent,
                clients=len(sessions),
                malformed_messages=self._malformed_messages,
                stale=self._data.is_stale(now),
                trouble=self._trouble,
            ),
            sessions=sessions[:MAX_SESSIONS_REPORTED],
            served=self._sessions.unreported(MAX_SERVED_REPORTED),
            suspect=self._data.suspect(now),
        )

    def _handle_orders(self) -> None:
        newest: Order | Joined | None = None
        for message in self._broker.receive():
            match message:
                case QuitOrder():
                    self.stop()
                case JoinOrder():
                    self._handle(JoinOrdered())
                case Rejected(message=reason):
                    self._say(f"server 5 does not let this worker join: {reason}")
                    self._handle(JoinRejected())
                case Admitted():
                    self._admit(message)
                case Reached(endpoint=endpoint, reason=reason):
                    self._say(f"clients cannot reach {endpoint}: {reason}" if reason else f"serving at {endpoint}")
                case Order() | Joined() as newest:
                    pass
        if newest is not None:
            self._wanted = newest.wanted
            if self._is_child and newest.edition != self._edition:
                self.switch_to(newest.edition)
            if isinstance(newest, Joined):
                self._identity = Identity(newest.number, self._identity.epoch, self._identity.features)
                self._say(f"joined as worker {newest.number} ({self._settings.name})")
                self._handle(JoinAccepted(newest.wanted))
            else:
                self._handle(OrderReceived(newest.wanted))

    def _say(self, text: str) -> None:
        """Shows a line, unless it is the same as the last one."""
        if text != self._last_shown:
            self._last_shown = text
            self._show(text)

    def _admit(self, admitted: Admitted) -> None:
        """Admits the keys that the broker admits, and no others."""
        self._admitted = admitted.digest
        now = time.monotonic()
        admissions = {}
        for key in admitted.keys:
            if key.role in KEY_ROLES:
                until = math.inf if key.seconds is None else now + key.seconds
                admissions[key.hash] = Admission(Role(key.role), until=until, scope=key.scope)
        is_revoked = self._zap.admit(admissions)
        if is_revoked:
            self._close_revoked()

    def _close_revoked(self) -> None:
        for client in self._connections.close_revoked():
            self._on_disconnected(client)

    def switch_to(self, edition: int) -> None:
        """Switches to another edition of the catalogue."""
        try:
            catalogue = Catalogue(self._editions / str(edition))
        except FileNotFoundError:
            return  # Already deleted: newer editions exist, and an order to switch to one of them will follow.
        self._catalogue.close()
        self._catalogue, self._edition = catalogue, edition
        self._data.replace_catalogue(catalogue)
        self._listings.replace(catalogue.listing, time.monotonic())
        # Close files that may no longer be shared.
        self._source.close()
        self._handle(EditionLoaded())

    # The clients.

    def _deadline(self) -> float:
        """Returns when the loop must go on even if nothing arrives."""
        now = time.monotonic()
        if self._may_serve_more:
            return now
        collect_at = now + IDLE_COLLECT_INTERVAL_S if self._send_completions else math.inf
        queue_deadline = self._queue.next_deadline(now) or math.inf
        return min(self._life_deadline, queue_deadline, collect_at, self._piece_reads.next_deadline(now) or math.inf)

    def _on_requests_readable(self) -> None:
        self._all_read = self._read_requests()

    def _read_requests(self) -> bool:
        """Receives requests up to the limits per iteration; returns True if no more are waiting."""
        now = time.monotonic()
        awake = self._life.is_awake
        decoded = 0
        for number in range(RECEIVES_PER_TURN):
            if decoded >= READS_PER_TURN:
                break
            if number == 1 and not self._router.is_readable:
                return True  # Usually only one message is waiting, and this check is cheaper than a failing receive.
            try:
                received = self._router.receive()
                if received is None:
                    return True
                client, frame = received
                scope = ""
                if self._zap.uses_keys:
                    if (connection := self._connections.sender(frame, client)) is None:
                        continue  # Its key is revoked.
                    scope = self._zap.scope_of(connection.key)
                if now < self._next_busy_refusal and self._queue.is_full(client):
                    continue  # The client floods the worker: drop the request without decoding it.
                decoded += 1
            except ProtocolError:
                self._malformed_messages += 1
                continue
            try:
                request = decode(frame.buffer, DataRequest)
            except ProtocolError as error:
                self._malformed_messages += 1
                if error.rid is not None:
                    reason = RefusalReason.BAD_REQUEST
                    self._router.send(client, refusal(error.rid, self._identity, reason, str(error)))
                continue
            if scope:
                narrow = narrowed(request, scope, self._catalogue)
                if narrow is None:
                    detail = f"this invitation is for {scope} only"
                    self._router.send(client, refusal(request.rid, self._identity, RefusalReason.UNKNOWN, detail))
                    continue
                request = narrow
            if isinstance(request, Hello):
                if request.version == PROTOCOL_VERSION:
                    passes_on = PASSES_ON in request.features
                    self._sessions.open(client, request.session, now, self._zap.key_of(frame), passes_on=passes_on)
            elif isinstance(request, Bye):
                self._sessions.close(client)
            else:
                self._sessions.touch(client, now)
            if self._holdings is not None and isinstance(request, SOURCE_REQUESTS):
                detail = "a receiver passes on data only: ask a worker"
                self._router.send(client, refusal(request.rid, self._identity, RefusalReason.BAD_REQUEST, detail))
                continue
            if awake and isinstance(request, QUEUED_REQUESTS):
                # What waits for long is passed on late: such a client asks another one at once.
                is_late = self._queue.unfinished >= MAX_UNFINISHED and self._sessions.passes_on(client)
                compacted = compact_request(request, self._catalogue, self._listings, scope)
                if is_late or not self._queue.add(client, compacted):
                    if not is_late:
                        self._next_busy_refusal = now + BUSY_REFUSAL_INTERVAL_S
                    self._router.send(client, refusal(request.rid, self._identity, RefusalReason.BUSY))
                continue
            if isinstance(request, Holds) and awake and self._holdings is not None:
                held = Held(rid=request.rid, epoch=self._identity.epoch, plan=self._holdings.plan)
                self._router.send(client, held, self._holdings.bitmap)
                continue
            reply = answer(request, self._identity, self._catalogue, self._listings, awake=awake)
            if reply is not None:
                assert not isinstance(reply, Job)
                self._router.send(client, reply)
                if isinstance(reply, Described) and not reply.size:
                    self._sessions.on_served(client)
        return False

    def _serve(self, max_replies: int) -> None:
        """Collects completed sends, then reads and sends up to ``max_replies`` large replies."""
        for client, size in self._send_completions.collect():
            self._queue.on_completed(client, size)
        self._may_serve_more = False
        now = time.monotonic()
        until = now + MAX_TURN_S
        for _ in range(max_replies):
            queued = self._queue.next(now)
            if queued is None:
                return
            client, request = queued
            reply = answer(request, self._identity, self._catalogue, self._listings, awake=True)
            assert reply is not None
            payload = b""
            if isinstance(reply, Job):
                if orders := self._orders(reply):
                    # The reply counts as in flight from now on, so that several pieces are read at once.
                    waiting = _WaitingReply(client, reply, sum(order.length for order in orders))
                    self._queue.on_sent(client, waiting.size, now)
                    self._handle_reads(JobArrived(waiting, orders), now)
                    now = time.monotonic()
                    continue
                reply, payload = self._read(reply, now)
            if size := self._send(client, reply, payload):
                self._queue.on_sent(client, size, now)
            else:
                self._queue.on_dropped(client)
            now = time.monotonic()
            if now > until:
                break
        self._may_serve_more = True

    def _send(self, client: ClientKey, reply: DataReply, payload: bytes, counted: int = 0) -> int:
        """Sends a large reply. Returns its size, or 0 if it was dropped. ``counted`` is the size that counts for the
        client's share if that was decided before.
        """
        head = encode(reply)
        size = counted or len(head) + len(payload)
        if not self._router.send_large(client, head, payload, size):
            return 0
        self._bytes_sent += len(payload)
        if payload or isinstance(reply, Bundle):
            self._sessions.on_served(client)
        return size

    # What has to be waited for.

    def _orders(self, job: Job) -> tuple[PieceOrder, ...]:
        """Returns the orders for the pieces that a job needs, if they have to be waited for."""
        match job:
            case SegmentJob(_, file, index):
                wanted = [self._data.order(file, index)]
            case DigestsJob(_, file):
                wanted = [self._data.order(file, 0)] if file.is_small else []
            case BundleJob(_, ranges):
                wanted = [self._data.order(range[0], 0) for range in ranges if range is not None]
        return tuple(order for order in wanted if order is not None)

    def _on_pieces_read(self) -> None:
        for event in self._read_threads.collect():
            if not any(isinstance(data, ReadRefused) for data in event.pieces.values()):
                self._trouble = ""
            self._handle_reads(event, time.monotonic())

    def _handle_reads(self, event: JobArrived[_WaitingReply] | ReadEnded | TimePassed, now: float) -> None:
        for action in self._piece_reads.handle(event, now):
            match action:
                case StartRead(orders):
                    self._read_threads.start(orders)
                case JobReady(waiting, pieces):
                    for data in pieces.values():
                        if isinstance(data, ReadRefused) and data.reason in TROUBLES:
                            self._trouble = presentable(data.detail)[:MAX_TROUBLE]
                    reply, payload = self._read(waiting.job, now, pieces)
                    if not self._send(waiting.client, reply, payload, waiting.size):
                        self._queue.on_completed(waiting.client, waiting.size)

    def _read(
        self, job: Job, now: float, pieces: Mapping[Piece, bytes | ReadRefused] = NOTHING_READ
    ) -> tuple[DataReply, bytes]:
        """Returns the reply to a job, and its payload. ``pieces`` are those that the job has waited for."""
        rid, epoch = job.rid, self._identity.epoch
        match job:
            case SegmentJob(_, file, index, start, offset, length):
                data = self._data.read(file, offset, length, now, pieces)
                if isinstance(data, ReadRefused):
                    return refusal(rid, self._identity, data.reason, data.detail), b""
                return Segment(rid=rid, epoch=epoch, index=index, start=start), data
            case DigestsJob(_, file, start):
                data = self._data.digests(file, start, now, pieces)
                if isinstance(data, ReadRefused):
                    return refusal(rid, self._identity, data.reason, data.detail), b""
                return DigestPage(rid=rid, epoch=epoch, start=start), data
            case BundleJob(_, ranges):
                read = [self._read_range(range, now, pieces) for range in ranges]
                for data in read:
                    if isinstance(data, ReadRefused) and data.reason is RefusalReason.UNAVAILABLE:
                        # The client asks for the whole bundle again, instead of for each file.
                        return refusal(rid, self._identity, data.reason, data.detail), b""
                files = [b"" if isinstance(data, ReadRefused) else data for data in read]
                statuses = [str(data.reason) if isinstance(data, ReadRefused) else FILE_OK for data in read]
                return Bundle(rid=rid, epoch=epoch, statuses=statuses, lengths=[*map(len, files)]), b"".join(files)

    def _read_range(
        self, range: tuple[SharedFile, int, int] | None, now: float, pieces: Mapping[Piece, bytes | ReadRefused]
    ) -> bytes | ReadRefused:
        """Returns the bytes of a file in a bundle."""
        if range is None:
            return ReadRefused(RefusalReason.UNKNOWN)
        file, offset, length = range
        return self._data.read(file, offset, length, now, pieces) if length else b""

    def _on_disconnected(self, client: ClientKey) -> None:
        self._queue.discard(client)
        self._sessions.close(client)
