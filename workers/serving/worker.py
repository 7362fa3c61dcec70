"""The serving process of one worker: a poll loop around ``answer``, ``FairQueue`` and ``LocalFiles``.

Opens its port while awake and closes it to sleep, reports to the broker from the same loop that
serves (a worker whose loop hangs falls silent), and carries out the broker's orders. Decides nothing
about requests: see ``workers/serving/answer.py`` and ``workers/serving/fair_queue.py``. It meets its clients through
``workers/serving/router.py``.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path

import zmq

from msd.wire.errors import MsdError, ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.sockets import receive
from msd.wire.protocol.child_messages import WorkerSettings
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import (
    Bye,
    DataRequest,
    DigestPage,
    Heartbeat,
    Hello,
    Load,
    Order,
    QuitOrder,
    Segment,
    WorkerOrder,
)
from msd.wire.protocol.segments import digest
from msd.wire.protocol.states import RefusalReason, WantedState, WorkerState
from msd.wire.security.keys import KeyPair
from msd.wire.security.zap import ZapHandler
from msd.workers.serving.answer import LARGE, Identity, Job, answer, refusal, to_keep
from msd.workers.serving.client_sessions import ClientSessions
from msd.workers.serving.fair_queue import FairQueue
from msd.workers.serving.router import Client, Router
from msd.workers.serving.send_completions import SendCompletions
from msd.workers.source.catalogue import Catalogue, open_edition
from msd.workers.source.local_files import LocalFiles, Refused

#: Seconds between two heartbeats; the broker calls a worker silent after three missed ones.
HEARTBEAT = 0.25
#: Seconds for which a worker that goes to sleep still answers ("sleeping"). Without it, open
#: requests get no answer at all; 0.2 s was measured to be enough.
FAREWELL = 0.25
#: Seconds for which a busy port is tried again; closing a ROUTER takes a moment to free its port.
BIND_PATIENCE = 5.0
BIND_RETRY = 0.01
#: Requests read in one turn of the loop, so that a flood cannot keep it from anything else.
READS_PER_TURN = 256
#: The same, those included that are dropped unread: behind a flood of many stands the request of one, but
#: whoever waits to be served waits for all of them.
DROPS_PER_TURN = 512
#: Large replies sent in one turn, unless requests are left to be read.
SERVES_PER_TURN = 8
#: Seconds between two refusals as busy, to whomever: in between, what is too much is dropped unread.
BUSY_PAUSE = 0.01

#: Seconds between two looks at ZeroMQ while it holds replies and nobody waits for their leaving: what has left is
#: to be freed, and what a client that is gone left behind ZeroMQ frees only when it is called.
IDLE_LOOK = 0.1

#: Seconds for which heartbeats say that a file was met that is not the one of this edition. It may
#: stay so: an indexer that is asked for ever would look for ever.
STALE = 5.0


class PortBusyError(MsdError):
    """The worker's port cannot be bound."""


class Worker:
    """One worker. ``run()`` serves until it is told to end or its broker is gone."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._editions = Path(settings.catalogue)
        # If it is another one, the order to turn to that will come.
        self._edition, self._catalogue = open_edition(self._editions, settings.edition)
        self._library = LocalFiles(Path(os.fsdecode((self._editions / "root").read_bytes())))
        self._me = Identity(settings.number, secrets.randbits(62))
        self._turns: FairQueue[Client, DataRequest] = FairQueue(settings.rate)
        self._sessions: ClientSessions[Client] = ClientSessions()
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._control = self._connect_control()
        self._endpoint = Endpoint.parse(settings.bind)
        own = KeyPair.of(settings.secret) if settings.secret else None
        self._zap = ZapHandler(self._context, own, Path(settings.keys) if own else None)
        self._departures: SendCompletions[tuple[Client, int]] = SendCompletions()
        self._router = Router(
            self._context, self._endpoint, self._departures, protect=self._zap.protect, gone=self._forget
        )
        self._wanted = settings.wanted
        self._close_at: float | None = None
        self._bind_since = time.monotonic()
        self._next_heartbeat = 0.0
        self._bytes_sent = 0
        self._malformed_messages = 0
        #: When a request too many may next be refused as busy.
        self._busy_at = 0.0
        #: True while more may be sent at once.
        self._has_more = False
        #: Until when a file that was met and is not the one of this edition is worth a heartbeat.
        self._stale_until = 0.0
        self._running = True

    def run(self) -> None:
        """Serves until SIGTERM, the broker's order or the end of the broker."""
        wakeup, wakeup_write = socket.socketpair()
        wakeup_write.setblocking(False)
        signal.set_wakeup_fd(wakeup_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        # SIGTERM; or the broker's end of our standard input is closed: it is gone.
        ends = {wakeup.fileno(), sys.stdin.fileno()}
        for source in (self._control, self._zap.socket, *ends):
            self._poller.register(source, zmq.POLLIN)
        watches = False
        try:
            while self._running:
                self._settle()
                # Watch send completions only while a client waits for one, because each costs a turn of this loop.
                # Others are read with the next request, or after ``IDLE_LOOK``.
                if watches != self._turns.waits:
                    watches = not watches
                    self._poller.register(self._departures.socket, zmq.POLLIN if watches else 0)
                ready = dict(self._poller.poll(self._timeout_ms()))
                if not ends.isdisjoint(ready):
                    break
                if self._control in ready:
                    self._take_orders()
                if self._zap.socket in ready:
                    self._zap.handle()
                all_read = self._router.socket not in ready or self._read_requests()
                # Behind what is being sent may stand requests to be read, and each reply is a long wait.
                self._serve(SERVES_PER_TURN if all_read else 1)
        finally:
            self._close_router()
            self._zap.close()
            self._control.close(0)
            self._context.term()
            self._departures.close()
            self._library.close()
            self._catalogue.close()
            wakeup.close()
            wakeup_write.close()

    # The state: awake, going to sleep, asleep.

    @property
    def _state(self) -> WorkerState:
        return WorkerState.AWAKE if self._router.socket is not None and self._close_at is None else WorkerState.ASLEEP

    def _settle(self) -> None:
        """Moves towards what is wanted, and reports when it is time or something changed."""
        now = time.monotonic()
        before = self._state
        if self._wanted is WantedState.AWAKE:
            self._close_at = None
            if self._router.socket is None:
                self._bind(now)
        elif self._router.socket is not None:
            if self._close_at is None:
                self._close_at = now + FAREWELL
                for client, request in self._turns.clear():
                    reply = answer(request, self._me, self._catalogue, awake=False)
                    if reply is not None and not isinstance(reply, Job):
                        self._router.send(client, reply)
            elif now >= self._close_at:
                self._close_router()
                self._close_at = None
        if self._state is not before or now >= self._next_heartbeat:
            self._report(now)
            if self._zap.reload():
                # Whoever is still admitted comes back by himself.
                self._close_router()

    def _bind(self, now: float) -> None:
        try:
            self._router.open()
        except (OSError, zmq.ZMQError) as error:
            if now - self._bind_since > BIND_PATIENCE:
                raise PortBusyError(f"cannot listen on {self._endpoint}: {error.strerror}") from None
            return
        self._poller.register(self._router.socket, zmq.POLLIN)

    def _close_router(self) -> None:
        if self._router.socket is not None:
            self._turns.clear()
            self._sessions.clear()
            self._poller.unregister(self._router.socket)
            self._router.close()
        self._bind_since = time.monotonic()

    # The broker.

    def _connect_control(self) -> zmq.Socket[bytes]:
        control = self._context.socket(zmq.DEALER)
        control.linger = 0
        control.sndhwm = 8
        # Nothing may wait in a queue for a later incarnation of the broker.
        control.immediate = 1
        control.connect(self._settings.control)
        return control

    def _report(self, now: float) -> None:
        self._next_heartbeat = now + HEARTBEAT
        sessions = self._sessions.current(now)
        heartbeat = Heartbeat(
            token=self._settings.token,
            number=self._me.number,
            pid=os.getpid(),
            epoch=self._me.epoch,
            state=self._state,
            edition=self._edition,
            load=Load(
                rejected_connections=self._zap.rejected_connections,
                bytes_sent=self._bytes_sent,
                clients=len(sessions),
                malformed_messages=self._malformed_messages,
                stale=now < self._stale_until,
            ),
            sessions=sessions[:1024],
        )
        try:
            self._control.send(encode(heartbeat), zmq.NOBLOCK)
        except zmq.Again:
            # Not connected yet, or the broker does not read; try again soon, for this may be the
            # report it waits for.
            self._next_heartbeat = now + 0.01

    def _take_orders(self) -> None:
        while (frames := receive(self._control)) is not None:
            match decode(frames[0].buffer, WorkerOrder):
                case Order(wanted=wanted, edition=edition):
                    if wanted is not self._wanted:
                        self._bind_since = time.monotonic()
                    self._wanted = wanted
                    if edition != self._edition:
                        self._turn_to(edition)
                case QuitOrder():
                    self._running = False

    def _turn_to(self, edition: int) -> None:
        """Serves another edition of the catalogue from now on."""
        try:
            catalogue = Catalogue(self._editions / str(edition))
        except FileNotFoundError:
            return  # There is a newer one already, and the order to turn to that on its way.
        self._catalogue.close()
        self._catalogue, self._edition, self._stale_until = catalogue, edition, 0.0
        # What is not shared any more is not to be held open.
        self._library.close()
        self._next_heartbeat = 0.0

    # The clients.

    def _timeout_ms(self) -> int:
        """How long the loop may sleep."""
        if self._has_more:
            return 0
        now = time.monotonic()
        due = [self._next_heartbeat]
        if self._close_at is not None:
            due.append(self._close_at)
        if self._wanted is WantedState.AWAKE and self._router.socket is None:
            due.append(now + BIND_RETRY)
        if (deadline := self._turns.next_deadline(now)) is not None:
            due.append(deadline)
        if self._departures:
            due.append(now + IDLE_LOOK)
        return max(0, math.ceil((min(due) - now) * 1000))

    def _read_requests(self) -> bool:
        """Takes in what has arrived; True if that was all."""
        now = time.monotonic()
        looked_at = 0
        for number in range(DROPS_PER_TURN):
            if looked_at >= READS_PER_TURN:
                break
            if number == 1 and not self._router.has_more:
                return True  # Mostly it was one; to ask costs less than to try in vain.
            try:
                received = self._router.receive()
                if received is None:
                    return True
                client, frame = received
                if now < self._busy_at and self._turns.is_full(client):
                    continue  # A flood: not worth a look.
                looked_at += 1
                request = decode(frame.buffer, DataRequest)
            except ProtocolError:
                self._malformed_messages += 1
                continue
            if isinstance(request, Hello):
                self._sessions.open(client, request.session, now)
            elif isinstance(request, Bye):
                self._sessions.end(client)
            else:
                self._sessions.heard(client, now)
            awake = self._close_at is None
            if awake and isinstance(request, LARGE):
                if not self._turns.add(client, to_keep(request, self._catalogue)):
                    self._busy_at = now + BUSY_PAUSE
                    self._router.send(client, refusal(request.rid, self._me, RefusalReason.BUSY))
                continue
            reply = answer(request, self._me, self._catalogue, awake=awake)
            if reply is not None:
                assert not isinstance(reply, Job)
                self._router.send(client, reply)
        return False

    def _serve(self, most: int) -> None:
        """Notes what has left, then reads and sends what may be sent now, ``most`` replies at the most."""
        for client, size in self._departures.collect():
            self._turns.left(client, size)
        self._has_more = False
        for _ in range(most):
            now = time.monotonic()
            turn = self._turns.next(now)
            if turn is None:
                return
            client, request = turn
            reply = answer(request, self._me, self._catalogue, awake=True)
            assert reply is not None
            head, payload = self._read(reply) if isinstance(reply, Job) else (encode(reply), b"")
            if self._router.send_large(client, head, payload):
                self._turns.sent(client, len(head) + len(payload), now)
                self._bytes_sent += len(payload)
            else:
                self._turns.dropped(client)
        self._has_more = True

    def _read(self, job: Job) -> tuple[bytes, bytes]:
        """The header frame and the payload that answer a job."""
        if job.digests:
            page = DigestPage(rid=job.rid, epoch=self._me.epoch, start=job.index)
            return encode(page), self._catalogue.digests(job.file, job.index)
        # Not the exception itself: it would hold this frame, and so itself and a segment.
        reason, detail = RefusalReason.UNKNOWN, ""
        for file in self._catalogue.copies(job.file):
            try:
                data = self._library.read(file, job.index)
            except Refused as why:
                if why.reason is RefusalReason.CHANGED:
                    self._stale_until = time.monotonic() + STALE
                # Its times are other ones; that alone is no harm.
                if not why.data or digest(why.data) != self._catalogue.digest(file, job.index):
                    reason, detail = why.reason, why.detail
                    continue
                data = why.data
            return encode(Segment(rid=job.rid, epoch=self._me.epoch, index=job.index)), data
        return encode(refusal(job.rid, self._me, reason, detail)), b""

    def _forget(self, client: Client) -> None:
        """The client is gone."""
        self._turns.forget(client)
        self._sessions.end(client)
