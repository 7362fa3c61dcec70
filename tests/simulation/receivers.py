"""Simulates receivers that pass on what they have, on a virtual clock, with the real cores: the scheduler and the peer
selection of each receiver, the queue of each sender, and the tracker of the broker.

Each machine sends at ``rate`` and receives at the same rate: replies leave one after the other, and arrive one after
the other. A message without data takes ``latency_s`` seconds. The sources have all units.
A run never sleeps, and its seed is the only source of randomness.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from msd.broker.tracking import tracker as tracking
from msd.broker.tracking.announcer import Announcer
from msd.broker.tracking.tracker import Tracker
from msd.client.network.peer_selection import (
    ClosePeer,
    HoldersReceived,
    OpenPeer,
    PeerSelection,
    PeersUseless,
    SendAnnounce,
)
from msd.client.network_events import Ban, ConnectionClosed, ConnectionOpened
from msd.client.scheduling import scheduler_events as core
from msd.client.scheduling.scheduler import Scheduler
from msd.client.scheduling.scheduler_events import RequestUnit
from msd.wire.protocol.messages import PASSES_ON, PROTOCOL_VERSION, Announce, Holder, Welcome
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import TimePassed
from msd.workers.serving.fair_queue import FairQueue

MIB = 1 << 20
PLAN = bytes(32)
KEY_SIZE = 32


@dataclass
class Settings:
    """How the receivers behave. ``waiting`` is the number of requests that may wait at a sender (None: any number)."""

    units: int = 256
    sources: int = 4
    #: MiB per second, each way.
    rate: float = 40.0
    latency_s: float = 0.001
    waiting: int | None = 8
    passes_on: bool = True
    memory: int = 64 * MIB


@dataclass(eq=False)
class Sender:
    """A machine that sends units: a source or a receiver."""

    name: str
    rate: float
    queue: FairQueue[Receiver, tuple[int, int, RequestUnit]]
    holder: Holder
    #: The units that it has, as bits.
    units: int = 0
    is_source: bool = False
    is_sending: bool = False
    #: What it has sent, in bytes.
    sent: int = 0
    frozen: bool = False
    gone: bool = False
    reachable: bool = True
    #: The probability that what it sends is wrong.
    lies: float = 0.0
    #: Its connections: the receiver, the number that it has there, and the connection.
    clients: dict[tuple[Receiver, int], int] = field(default_factory=dict)


@dataclass(eq=False)
class Receiver(Sender):
    scheduler: Scheduler = field(default_factory=lambda: Scheduler((), memory=0))
    selection: PeerSelection = field(default_factory=PeerSelection)
    #: The senders to which it is connected, by number, each with the connection.
    senders: dict[int, tuple[Sender, int]] = field(default_factory=dict)
    corrupt: set[int] = field(default_factory=set)
    downlink_free: float = 0.0
    joined_at: float = 0.0
    done_at: float | None = None
    timer: float | None = None
    selection_timer: float | None = None
    leaves_when_done: bool = False
    events: int = 0
    refused: int = 0
    wasted: int = 0

    @property
    def seconds(self) -> float:
        assert self.done_at is not None, self.name
        return self.done_at - self.joined_at


class Swarm:
    """The sources, the broker, and the receivers that ``add`` adds."""

    def __init__(self, settings: Settings, seed: int = 0) -> None:
        self.settings = settings
        self.now = 0.0
        self.rng = random.Random(seed)
        self.tracker = Tracker(self.rng.randrange)
        self.receivers: list[Receiver] = []
        self.every = (1 << settings.units) - 1
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._connections = itertools.count(1)
        self._by_holder: dict[Holder, Receiver] = {}
        self.sources = [
            Sender(f"source {number}", settings.rate, self._queue(), Holder(""), self.every, is_source=True)
            for number in range(1, settings.sources + 1)
        ]
        self.probes = self.answers = 0

    def _queue(self) -> FairQueue[Receiver, tuple[int, int, RequestUnit]]:
        return FairQueue(max_unfinished=self.settings.waiting)

    def add(self, join_at: float = 0.0, **values: Any) -> Receiver:
        """Adds a receiver that joins at this time."""
        number = len(self.receivers)
        host = f"10.0.{number >> 8}.{number & 255}"
        holder = Holder(f"tcp://{host}:4000", number.to_bytes(KEY_SIZE, "big"))
        receiver = Receiver(
            host,
            values.pop("rate", self.settings.rate),
            self._queue(),
            holder,
            scheduler=Scheduler(
                range(1, self.settings.sources + 1), memory=self.settings.memory, choose=self.rng.randrange
            ),
            joined_at=join_at,
            **values,
        )
        self.receivers.append(receiver)
        self._by_holder[holder] = receiver
        self.at(join_at, self._join, receiver)
        return receiver

    def at(self, time: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Schedules a call at a virtual time."""
        heapq.heappush(self._events, (time, next(self._order), callback, arguments))

    def run(self, limit: float = 1000.0) -> None:
        """Runs until all receivers that are neither frozen nor gone have everything."""
        waiting = set(self.receivers)
        finished: list[Receiver] = []
        self._on_done = finished.append
        while True:
            if finished:
                waiting.difference_update(finished)
                finished.clear()
            if not waiting or all(receiver.frozen or receiver.gone for receiver in waiting):
                return
            self.now, _, callback, arguments = heapq.heappop(self._events)
            assert self.now < limit, f"{len(waiting)} receivers hang, such as {next(iter(waiting)).name}"
            callback(*arguments)

    @property
    def copies(self) -> float:
        """How many copies of everything have left the sources."""
        return sum(source.sent for source in self.sources) / MIB / self.settings.units

    def state_of(self, receiver: Receiver) -> str | None:
        """The state of the receiver in the tracker, None if it is not known there."""
        record = self.tracker._records.get((PLAN, receiver.holder))
        return None if record is None else record.state

    # What happens to machines.

    def freeze(self, receiver: Receiver) -> None:
        """Stops the machine; its connections stay open."""
        receiver.frozen = True

    def leave(self, receiver: Receiver) -> None:
        """Ends the receiver's processes: its connections are closed."""
        receiver.gone = True
        for client, number in [*receiver.clients]:
            self._after(self._lost, client, number, receiver.clients[client, number])
        for number in [*receiver.senders]:
            self._disconnect(receiver, number)
        receiver.clients.clear()

    # Connections.

    def _after(self, callback: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + self.settings.latency_s, callback, *arguments)

    def _join(self, receiver: Receiver) -> None:
        for number, source in enumerate(self.sources, 1):
            self._after(self._connect, receiver, number, source)
        self._feed(receiver, core.UnitsAdded([MIB] * self.settings.units))
        if self.settings.passes_on:
            self._select(receiver, TimePassed())

    def _connect(self, receiver: Receiver, number: int, sender: Sender) -> None:
        if receiver.gone or sender.gone or sender.frozen:
            return
        if not sender.is_source and receiver.selection.holder_of(number) is None:
            return
        connection = next(self._connections)
        receiver.senders[number] = sender, connection
        sender.clients[receiver, number] = connection
        welcome = Welcome(
            rid=1,
            version=PROTOCOL_VERSION,
            epoch=1,
            number=1,
            files=1,
            catalogue=b"",
            features=[] if sender.is_source else [PASSES_ON],
        )
        event = ConnectionOpened(number, welcome, 2 * self.settings.latency_s)
        if not sender.is_source:
            self._select(receiver, event)
        self._feed(receiver, event)

    def _lost(self, receiver: Receiver, number: int, connection: int) -> None:
        """The connection was closed by the other side."""
        if receiver.senders.get(number, (None, 0))[1] == connection and not receiver.gone:
            sender, _ = receiver.senders[number]
            self._disconnect(receiver, number)
            self._select(receiver, ConnectionClosed(number))
            self._feed(receiver, core.WorkerRemoved(number))
            assert not sender.is_source

    def _disconnect(self, receiver: Receiver, number: int) -> None:
        sender, _ = receiver.senders.pop(number)
        sender.clients.pop((receiver, number), None)
        if not any(client is receiver for client, _ in sender.clients):
            sender.queue.discard(receiver)

    # The broker.

    def _select(self, receiver: Receiver, event: Any) -> None:
        if receiver.frozen or receiver.gone:
            return
        for action in receiver.selection.handle(event, self.now):
            match action:
                case SendAnnounce(silent):
                    announce = Announce(
                        rid=1,
                        plan=PLAN,
                        units=receiver.units.bit_count(),
                        endpoint="*:4000",
                        key=receiver.holder.key,
                        silent=[*silent],
                    )
                    self._after(self._track, tracking.Announced(announce, Announcer("key", receiver.name)), receiver)
                case OpenPeer(number, holder):
                    peer = self._by_holder[holder]
                    if peer.gone or peer.frozen or not peer.reachable:
                        if peer.gone:
                            self.at(self.now + 2 * self.settings.latency_s, self._refuse_connection, receiver, number)
                        continue
                    self.at(self.now + 4 * self.settings.latency_s, self._connect, receiver, number, peer)
                case ClosePeer(number):
                    if number in receiver.senders:
                        self._disconnect(receiver, number)
                    if number in receiver.scheduler.workers:
                        self._feed(receiver, core.WorkerRemoved(number))
        due = receiver.selection.next_deadline(self.now)
        assert due is not None
        if receiver.selection_timer is None or due < receiver.selection_timer:
            receiver.selection_timer = due
            self.at(due, self._tick_selection, receiver)

    def _refuse_connection(self, receiver: Receiver, number: int) -> None:
        self._select(receiver, ConnectionClosed(number))

    def _tick_selection(self, receiver: Receiver) -> None:
        if receiver.selection_timer is None or self.now < receiver.selection_timer:
            return
        receiver.selection_timer = None
        self._select(receiver, PeersUseless(tuple(receiver.scheduler.useless_holders(self.now))))

    def _track(self, event: tracking.Event, receiver: Receiver | None = None) -> None:
        for action in self.tracker.handle(event, self.now):
            match action:
                case tracking.Answer(holders, seconds):
                    self.answers += 1
                    assert receiver is not None
                    self._after(self._select, receiver, HoldersReceived(tuple(holders), seconds))
                case tracking.Probe(plan, holder, seconds):
                    self.probes += 1
                    peer = self._by_holder[holder]
                    answers = peer.reachable and not peer.frozen and not peer.gone
                    result = tracking.Probed(plan, holder, answers)
                    self.at(self.now + (6 * self.settings.latency_s if answers else seconds), self._track, result)

    # Units.

    def _feed(self, receiver: Receiver, event: core.Event) -> None:
        if receiver.frozen or receiver.gone:
            return
        receiver.events += 1
        scheduler = receiver.scheduler
        for action in scheduler.handle(event, self.now):
            if type(action) is RequestUnit:
                sender, connection = receiver.senders[action.worker]
                self._after(self._requested, sender, receiver, connection, action)
            elif type(action) is core.RequestHolds:
                sender, connection = receiver.senders[action.worker]
                self._after(self._asked, sender, receiver, connection, action.worker)
            elif type(action) is core.CheckUnit:
                self._check(receiver, action)
            elif type(action) is Ban:
                self._disconnect(receiver, action.worker)
                self._select(receiver, action)
                self._feed(receiver, core.WorkerRemoved(action.worker))
        if receiver.done_at is None:
            timer = receiver.timer
            if timer is None or timer > self.now + 0.02:
                due = scheduler.next_deadline(self.now)
                if due is not None and (timer is None or due < timer):
                    receiver.timer = due
                    self.at(due, self._tick, receiver, due)

    def _tick(self, receiver: Receiver, due: float) -> None:
        if receiver.timer == due:
            receiver.timer = None
            self._feed(receiver, TimePassed())

    def _asked(self, sender: Sender, receiver: Receiver, connection: int, number: int) -> None:
        if not sender.gone and not sender.frozen:
            self._after(self._told, receiver, connection, number, sender.units)

    def _told(self, receiver: Receiver, connection: int, number: int, units: int) -> None:
        if receiver.senders.get(number, (None, 0))[1] == connection:
            self._feed(receiver, core.UnitsHeld(number, units))

    def _requested(self, sender: Sender, receiver: Receiver, connection: int, request: RequestUnit) -> None:
        if sender.gone or sender.frozen:
            return
        if not sender.units >> request.unit & 1:
            self._after(self._refused, receiver, connection, request, RefusalReason.MISSING)
        elif not sender.queue.add(receiver, (connection, request.worker, request)):
            self._after(self._refused, receiver, connection, request, RefusalReason.BUSY)
        else:
            self._send_next(sender)

    def _refused(self, receiver: Receiver, connection: int, request: RequestUnit, reason: RefusalReason) -> None:
        if receiver.senders.get(request.worker, (None, 0))[1] == connection:
            receiver.refused += 1
            self._feed(receiver, core.UnitRefused(request.worker, request.unit, reason, request.start))

    def _send_next(self, sender: Sender) -> None:
        if sender.is_sending or sender.frozen or (entry := sender.queue.next(self.now)) is None:
            return
        receiver, (connection, _, request) = entry
        sender.is_sending = True
        sender.queue.on_sent(receiver, request.length, self.now)
        self.at(self.now + request.length / MIB / sender.rate, self._left, sender, receiver, connection, request)

    def _left(self, sender: Sender, receiver: Receiver, connection: int, request: RequestUnit) -> None:
        sender.is_sending = False
        if sender.frozen:
            return
        sender.queue.on_completed(receiver, request.length)
        sender.sent += request.length
        if not sender.gone and not receiver.gone:
            seconds = request.length / MIB / self.settings.rate
            receiver.downlink_free = max(self.now, receiver.downlink_free) + seconds
            is_wrong = sender.lies > 0 and self.rng.random() < sender.lies
            self.at(receiver.downlink_free, self._arrived, receiver, connection, request, is_wrong)
        self._send_next(sender)

    def _arrived(self, receiver: Receiver, connection: int, request: RequestUnit, is_wrong: bool) -> None:
        number, unit, start, length = request.worker, request.unit, request.start, request.length
        if receiver.senders.get(number, (None, 0))[1] != connection or receiver.frozen:
            return
        missing = receiver.scheduler.missing_bytes(unit, start, length)
        receiver.wasted += length - missing
        if not missing:
            self._feed(receiver, core.UnitDuplicate(number, unit, start))
        elif length < MIB:
            if is_wrong:
                receiver.corrupt.add(unit)
            self._feed(receiver, core.PartReceived(number, unit, start, length))
        elif is_wrong:
            receiver.corrupt.discard(unit)
            self._complain(receiver, number)
            self._feed(receiver, core.UnitCorrupt(number, unit))
        else:
            receiver.corrupt.discard(unit)
            self._got(receiver, unit)
            self._feed(receiver, core.UnitWritten(number, unit))
            self._finish(receiver)

    def _check(self, receiver: Receiver, action: core.CheckUnit) -> None:
        is_valid = action.unit not in receiver.corrupt
        receiver.corrupt.discard(action.unit)
        if is_valid:
            self._got(receiver, action.unit)
        elif len(action.senders) == 1:
            self._complain(receiver, min(action.senders))
        self._feed(receiver, core.PartsChecked(action.worker, action.unit, is_valid))
        self._finish(receiver)

    def _complain(self, receiver: Receiver, number: int) -> None:
        if (holder := receiver.selection.holder_of(number)) is not None:
            self._after(self._track, tracking.Complained(PLAN, holder, Announcer(receiver.name, receiver.name)))

    def _got(self, receiver: Receiver, unit: int) -> None:
        receiver.units |= 1 << unit

    def _finish(self, receiver: Receiver) -> None:
        if receiver.scheduler.remaining or receiver.done_at is not None:
            return
        receiver.done_at = self.now
        self._on_done(receiver)
        # It goes on to serve, but needs nothing more.
        for number in [*receiver.senders]:
            self._disconnect(receiver, number)
        if receiver.leaves_when_done:
            self.leave(receiver)
