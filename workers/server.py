"""The serving process of one worker: a poll loop around ``answer``, ``Turns`` and ``Library``.

Holds the ROUTER socket while awake and closes it to sleep, reports to the broker from the same
loop that serves (a worker whose loop hangs falls silent), and carries out the broker's orders.
Decides nothing about requests: see ``workers/answer.py`` and ``workers/turns.py``.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import zmq

from wire.codec import decode, encode
from wire.endpoints import Endpoint
from wire.errors import MsdError, ProtocolError
from wire.messages import (
    Bye,
    DataRequest,
    DigestPage,
    Heartbeat,
    Hello,
    Load,
    Message,
    Order,
    QuitOrder,
    Segment,
    WorkerOrder,
    WorkerSettings,
)
from wire.sockets import Frames, receive, tune
from wire.states import Reason, State, Wanted
from workers.answer import LARGE, Identity, Job, answer, refusal
from workers.catalogue import Catalogue
from workers.library import Library, Refused
from workers.sessions import Sessions
from workers.turns import Turns

#: Seconds between two heartbeats; the broker calls a worker silent after three missed ones.
HEARTBEAT = 0.25
#: Seconds for which a worker that goes to sleep still answers ("sleeping"). Without it, open
#: requests get no answer at all; 0.2 s was measured to be enough.
FAREWELL = 0.25
#: Milliseconds for which replies already handed to ZeroMQ may still leave after that.
LINGER_MS = 1000
#: Seconds for which a busy port is tried again; closing a ROUTER takes a moment to free its port.
BIND_PATIENCE = 5.0
BIND_RETRY = 0.01
#: How often to look whether a reply has left ZeroMQ, in seconds: from the first to the last.
LOOK_FIRST, LOOK_LAST = 0.001, 0.02
#: Requests read in one turn of the loop, so that a flood cannot keep it from anything else.
READS_PER_TURN = 64

#: A client: which of this process's ROUTER sockets it is connected to, and its id there. ZeroMQ
#: reuses ids, so one alone must not outlive its socket.
Client = tuple[int, bytes]


class PortBusyError(MsdError):
    """The worker's port cannot be bound."""


class Worker:
    """One worker. ``run()`` serves until it is told to end or its broker is gone."""

    def __init__(self, settings: WorkerSettings, catalogue: Catalogue, library: Library) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._library = library
        self._me = Identity(settings.number, secrets.randbits(62))
        self._turns: Turns[Client, DataRequest] = Turns(settings.rate)
        self._sessions: Sessions[Client] = Sessions()
        self._in_transit: deque[tuple[Client, int, zmq.MessageTracker]] = deque()
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._control = self._connect_control()
        self._router: zmq.Socket[bytes] | None = None
        self._generation = 0
        self._wanted = settings.wanted
        self._close_at: float | None = None
        self._bind_since = time.monotonic()
        self._next_heartbeat = 0.0
        self._look_after = LOOK_FIRST
        self._bytes_sent = 0
        self._garbage = 0
        self._running = True

    def run(self) -> None:
        """Serves until SIGTERM, the broker's order or the end of the broker."""
        wakeup, wakeup_write = socket.socketpair()
        wakeup_write.setblocking(False)
        signal.set_wakeup_fd(wakeup_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        for source in (self._control, wakeup.fileno(), sys.stdin.fileno()):
            self._poller.register(source, zmq.POLLIN)
        try:
            while self._running:
                self._settle()
                ready = dict(self._poller.poll(self._timeout_ms()))
                if wakeup.fileno() in ready or sys.stdin.fileno() in ready:
                    # SIGTERM, or the broker's end of our standard input is closed: it is gone.
                    break
                if self._control in ready:
                    self._take_orders()
                if self._router is not None and self._router in ready:
                    self._read_requests(self._router)
                self._serve()
        finally:
            self._close_router()
            self._control.close(0)
            self._context.term()
            wakeup.close()
            wakeup_write.close()

    # The state: awake, going to sleep, asleep.

    @property
    def _state(self) -> State:
        return State.AWAKE if self._router is not None and self._close_at is None else State.ASLEEP

    def _settle(self) -> None:
        """Moves towards what is wanted, and reports when it is time or something changed."""
        now = time.monotonic()
        before = self._state
        if self._wanted is Wanted.AWAKE:
            self._close_at = None
            if self._router is None:
                self._bind(now)
        elif self._router is not None:
            if self._close_at is None:
                self._close_at = now + FAREWELL
                for client, request in self._turns.clear():
                    reply = answer(request, self._me, self._catalogue, awake=False)
                    if reply is not None and not isinstance(reply, Job):
                        self._send(client, reply)
            elif now >= self._close_at:
                self._close_router()
                self._close_at = None
        if self._state is not before or now >= self._next_heartbeat:
            self._report(now)

    def _bind(self, now: float) -> None:
        endpoint = Endpoint.parse(self._settings.bind)
        router = self._context.socket(zmq.ROUTER)
        tune(router, ipv6=endpoint.is_ipv6)
        router.linger = LINGER_MS
        # Sends never block: EHOSTUNREACH says that a client is gone, EAGAIN that it is over its credit.
        router.router_mandatory = 1
        # Large replies take their turns; this many small ones a client may leave unread.
        router.sndhwm = 1024
        router.rcvhwm = 64
        router.maxmsgsize = 65536
        router.backlog = 512
        try:
            router.bind(endpoint.url)
        except zmq.ZMQError as error:
            router.close(0)
            if now - self._bind_since > BIND_PATIENCE:
                raise PortBusyError(f"cannot listen on {endpoint}: {error.strerror}") from None
            return
        self._router = router
        self._generation += 1
        self._poller.register(router, zmq.POLLIN)

    def _close_router(self) -> None:
        if self._router is not None:
            self._turns.clear()
            self._sessions.clear()
            self._poller.unregister(self._router)
            self._router.close()
            self._router = None
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
            load=Load(bytes_sent=self._bytes_sent, clients=len(sessions), garbage=self._garbage),
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
                case Order(wanted=wanted):
                    if wanted is not self._wanted:
                        self._bind_since = time.monotonic()
                    self._wanted = wanted
                case QuitOrder():
                    self._running = False

    # The clients.

    def _timeout_ms(self) -> int:
        """How long the loop may sleep."""
        now = time.monotonic()
        due = [self._next_heartbeat]
        if self._close_at is not None:
            due.append(self._close_at)
        if self._wanted is Wanted.AWAKE and self._router is None:
            due.append(now + BIND_RETRY)
        if (deadline := self._turns.next_deadline(now)) is not None:
            due.append(deadline)
        if self._in_transit:
            due.append(now + self._look_after)
        return max(0, math.ceil((min(due) - now) * 1000))

    def _read_requests(self, router: zmq.Socket[bytes]) -> None:
        now = time.monotonic()
        for _ in range(READS_PER_TURN):
            frames = receive(router)
            if frames is None:
                return
            try:
                client, request = self._parse(frames)
            except ProtocolError:
                self._garbage += 1
                continue
            if isinstance(request, Hello):
                self._sessions.open(client, request.session, now)
            elif isinstance(request, Bye):
                self._sessions.end(client)
            else:
                self._sessions.heard(client, now)
            awake = self._close_at is None
            if awake and isinstance(request, LARGE):
                if not self._turns.add(client, request):
                    self._send(client, refusal(request.rid, self._me, Reason.BUSY))
                continue
            reply = answer(request, self._me, self._catalogue, awake=awake)
            if reply is not None:
                assert not isinstance(reply, Job)
                self._send(client, reply)

    def _parse(self, frames: Frames) -> tuple[Client, DataRequest]:
        if len(frames) != 2:
            raise ProtocolError(f"{len(frames)} frames")
        return (self._generation, frames[0].bytes), decode(frames[1].buffer, DataRequest)

    def _serve(self) -> None:
        """Reads and sends what may be sent now, and notes what has left."""
        self._collect()
        for _ in range(READS_PER_TURN):
            now = time.monotonic()
            turn = self._turns.next(now)
            if turn is None:
                return
            client, request = turn
            reply = answer(request, self._me, self._catalogue, awake=True)
            assert reply is not None
            head, payload = self._read(reply) if isinstance(reply, Job) else (encode(reply), b"")
            tracker = self._send_large(client, head, payload)
            if tracker is not None:
                size = len(head) + len(payload)
                self._turns.sent(client, size, now)
                self._in_transit.append((client, size, tracker))
                self._bytes_sent += len(payload)

    def _read(self, job: Job) -> tuple[bytes, bytes]:
        """The header frame and the payload that answer a job."""
        if job.digests:
            page = DigestPage(rid=job.rid, epoch=self._me.epoch, start=job.index)
            return encode(page), self._catalogue.digests(job.file, job.index)
        refused = Refused(Reason.UNKNOWN, "")
        for file in self._catalogue.copies(job.file):
            try:
                data = self._library.read(file, job.index)
            except Refused as why:
                refused = why
            else:
                return encode(Segment(rid=job.rid, epoch=self._me.epoch, index=job.index)), data
        return encode(refusal(job.rid, self._me, refused.reason, refused.detail)), b""

    def _collect(self) -> None:
        """Tells ``Turns`` which replies have left ZeroMQ; looks less often while none does."""
        held = len(self._in_transit)
        for _ in range(held):
            client, size, tracker = self._in_transit.popleft()
            if tracker.done:
                self._turns.left(client, size)
            else:
                self._in_transit.append((client, size, tracker))
        moved = len(self._in_transit) < held
        self._look_after = LOOK_FIRST if moved else min(2 * self._look_after, LOOK_LAST)

    def _send(self, client: Client, reply: Message) -> None:
        """Sends a small reply, or drops it if the client is gone or reads none."""
        self._hand_over(client, [encode(reply)], track=False)

    def _send_large(self, client: Client, head: bytes, payload: bytes) -> zmq.MessageTracker | None:
        """Sends a large reply without copying it; what tells when it has left, or None if it was
        dropped.
        """
        *before, last = [head, payload] if payload else [head]
        # Also a short one, for the sake of its tracker.
        frame = zmq.Frame(last, track=True, copy=False, copy_threshold=0)
        return self._hand_over(client, [*before, frame], track=True)

    def _hand_over(self, client: Client, parts: list[Any], *, track: bool) -> zmq.MessageTracker | None:
        generation, ident = client
        if self._router is None or generation != self._generation:
            return None
        try:
            return self._router.send_multipart([ident, *parts], zmq.NOBLOCK, copy=not track, track=track)
        except zmq.Again:
            # It has a thousand replies to read; what it asked for beyond that it has to ask again.
            return None
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._turns.forget(client)
            self._sessions.end(client)
            return None


def run(settings: WorkerSettings) -> None:
    """Serves as these settings say, until told to end."""
    folder = Path(settings.catalogue)
    catalogue = Catalogue(folder)
    library = Library(Path(os.fsdecode((folder / "root").read_bytes())))
    try:
        Worker(settings, catalogue, library).run()
    finally:
        library.close()
        catalogue.close()
