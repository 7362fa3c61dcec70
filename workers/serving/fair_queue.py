"""Decides which request is answered next: fair turns, bounded memory, and the rate limit.

A worker queues requests, which are small, and reads a segment from disk only when the segment can be handed to ZeroMQ.
Clients take turns. A client may have only a few replies in flight (handed to ZeroMQ and not yet released), so a client
that never reads ties up little memory, and a byte budget limits the replies in flight of all clients together. A client
with nothing in flight may always have one reply, so clients that do not read cannot starve those that do. A client that
queues far more requests than it needs is served after the others.

Does not use sockets, files or the clock: clients are opaque keys, and the caller passes ``now``.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from msgspec import Struct, field

#: Maximum number of replies in flight per client. Eight replies of 1 MiB keep a connection of 4 GB/s busy for two
#: milliseconds; during this time the event loop can serve other clients.
MAX_IN_FLIGHT = 8
#: Maximum number of queued requests per client; further requests are refused as busy.
MAX_QUEUED = 128
#: A client with more queued requests than this is greedy (our own client's windows are smaller). It may have one
#: reply in flight.
GREEDY_ABOVE = 64
#: While other clients wait, one turn in this many goes to the greedy clients.
GREEDY_TURN_INTERVAL = 10
#: A client counts as new until this many of its replies have completed. While both new and proven clients are waiting,
#: they are served alternately: clients that never read stay new, so even a large number of them cannot starve clients
#: that do read.
PROVEN_AFTER = 32
#: Maximum number of clients whose completed replies are counted. If there are more, the least recently served client
#: counts as new again.
MAX_TRACKED_CLIENTS = 4096
#: Maximum size in bytes of the replies in flight of all clients that have more than one reply in flight.
IN_FLIGHT_BUDGET = 64 << 20
#: Maximum unused time (seconds) that the rate limit lets a worker make up for: the event loop may be late by a
#: millisecond or two, but an idle worker does not accumulate credit for a burst.
MAX_CATCH_UP_S = 0.005

_PROVEN, _NEW, _GREEDY = 0, 1, 2
#: The order in which client classes are served on even turns, on odd turns, and on the turns of the greedy clients.
_SERVING_ORDERS = ((_PROVEN, _NEW, _GREEDY), (_NEW, _PROVEN, _GREEDY), (_GREEDY, _PROVEN, _NEW, _GREEDY))

K = TypeVar("K")
R = TypeVar("R")


class _Client(Generic[R], Struct):
    queue: deque[R] = field(default_factory=deque)
    #: The number of replies in flight, and their size in bytes.
    in_flight: int = 0
    in_flight_bytes: int = 0
    #: The class whose ready list contains the client; None if no ready list does, because the client may not be served.
    ready_as: int | None = None

    @property
    def is_greedy(self) -> bool:
        return len(self.queue) > GREEDY_ABOVE

    @property
    def may_be_served(self) -> bool:
        return bool(self.queue) and self.in_flight < (1 if self.is_greedy else MAX_IN_FLIGHT)

    def add_in_flight(self, replies: int, size: int) -> int:
        """Adds replies in flight, or removes them if ``replies`` is negative. Returns the change in the number of bytes
        that count towards the budget.
        """
        before = self.in_flight_bytes if self.in_flight > 1 else 0
        self.in_flight += replies
        self.in_flight_bytes += size
        return (self.in_flight_bytes if self.in_flight > 1 else 0) - before


class FairQueue(Generic[K, R]):
    """The request queues of all clients. ``rate`` is in bytes per second, 0 for no limit."""

    def __init__(self, rate: int = 0) -> None:
        self._rate = rate
        #: Clients with queued requests or replies in flight, and no others.
        self._clients: dict[K, _Client[R]] = {}
        #: A ready list for each class: the clients that may be served, in the order of their turns.
        self._ready: tuple[deque[K], deque[K], deque[K]] = (deque(), deque(), deque())
        #: The number of completed replies of each client; the least recently served client comes first.
        self._completed: OrderedDict[K, int] = OrderedDict()
        self._turn_number = 0
        #: The number of queued requests: they wait for the rate limit or for replies in flight to complete.
        self.queued = 0
        self._budget_used = 0
        self._next_send_at = 0.0

    def add(self, key: K, request: R) -> bool:
        """Queues a request of client ``key``; returns False if the client's queue is full."""
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client()
        if len(client.queue) >= MAX_QUEUED:
            return False
        client.queue.append(request)
        self.queued += 1
        self._mark_ready(key, client)
        return True

    def is_full(self, key: K) -> bool:
        """True if the client's queue is full."""
        client = self._clients.get(key)
        return client is not None and len(client.queue) >= MAX_QUEUED

    def next(self, now: float) -> tuple[K, R] | None:
        """Removes and returns the client and the request to answer now, None if there is none. From then on the reply
        counts as in flight: report the outcome with ``on_sent`` or ``on_dropped``.
        """
        if now < self._next_send_at or not any(self._ready):
            return None
        self._turn_number += 1
        for client_class in _SERVING_ORDERS[self._turn_number % 2 if self._turn_number % GREEDY_TURN_INTERVAL else 2]:
            for _ in range(len(self._ready[client_class])):
                key = self._ready[client_class].popleft()
                client = self._clients[key]
                client.ready_as = None
                became_greedy = client_class != _GREEDY and client.is_greedy
                if became_greedy or (client.in_flight and self._budget_used >= IN_FLIGHT_BUDGET):
                    self._mark_ready(key, client)
                    continue
                request = client.queue.popleft()
                self.queued -= 1
                self._budget_used += client.add_in_flight(1, 0)
                self._update(key, client)
                return key, request
        return None

    def on_sent(self, key: K, size: int, now: float) -> None:
        """A reply of ``size`` bytes was handed to ZeroMQ."""
        if self._rate:
            self._next_send_at = max(self._next_send_at, now - MAX_CATCH_UP_S) + size / self._rate
        self._budget_used += self._clients[key].add_in_flight(0, size)

    def on_dropped(self, key: K) -> None:
        """A reply could not be handed to ZeroMQ."""
        client = self._clients[key]
        self._budget_used += client.add_in_flight(-1, 0)
        self._update(key, client)

    def on_completed(self, key: K, size: int) -> None:
        """ZeroMQ released a reply of ``size`` bytes: it was transmitted, or the client disconnected."""
        client = self._clients[key]
        self._budget_used += client.add_in_flight(-1, -size)
        self._completed[key] = self._completed.pop(key, 0) + 1
        if len(self._completed) > MAX_TRACKED_CLIENTS:
            self._completed.popitem(last=False)
        self._update(key, client)

    def discard(self, key: K) -> None:
        """Drops the queued requests of a disconnected client. ``on_completed`` must still be called for each of the
        client's replies in flight.
        """
        if client := self._clients.get(key):
            self.queued -= len(client.queue)
            client.queue.clear()
            if client.ready_as is not None:
                self._ready[client.ready_as].remove(key)
                client.ready_as = None
            self._update(key, client)

    def clear(self) -> list[tuple[K, R]]:
        """Removes and returns all queued requests, in unspecified order. Replies in flight stay counted."""
        requests = [(key, request) for key, client in self._clients.items() for request in client.queue]
        for key in list(self._clients):
            self.discard(key)
        return requests

    def next_deadline(self, now: float) -> float | None:
        """Returns the time at which the rate limit permits the next reply, None if no reply waits for the rate limit
        alone.
        """
        return self._next_send_at if any(self._ready) and now < self._next_send_at else None

    def check_invariants(self) -> None:
        for key, client in self._clients.items():
            assert client.ready_as is None or client.queue, key
            assert client.ready_as is not None or not client.may_be_served, key
            assert all((key in ready) == (client.ready_as == number) for number, ready in enumerate(self._ready)), key
            assert 0 <= client.in_flight <= MAX_IN_FLIGHT, key
            assert client.queue or client.in_flight, key
            assert len(client.queue) <= MAX_QUEUED, key
        for ready in self._ready:
            assert len(set(ready)) == len(ready)
            assert set(ready) <= set(self._clients)
        assert self.queued == sum(len(client.queue) for client in self._clients.values())
        assert self._budget_used == sum(
            client.in_flight_bytes for client in self._clients.values() if client.in_flight > 1
        )

    def _update(self, key: K, client: _Client[R]) -> None:
        """Marks the client as ready if it may be served; removes the client if it has nothing queued or in flight."""
        if client.queue:
            self._mark_ready(key, client)
        elif not client.in_flight:
            del self._clients[key]

    def _mark_ready(self, key: K, client: _Client[R]) -> None:
        if client.may_be_served and client.ready_as is None:
            proven = self._completed.get(key, 0) >= PROVEN_AFTER
            client.ready_as = _GREEDY if client.is_greedy else _PROVEN if proven else _NEW
            self._ready[client.ready_as].append(key)
