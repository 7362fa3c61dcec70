"""Decides which request is answered next: fair shares, bounded memory, and the rate limit.

A worker queues requests, which are small, and reads a segment from disk only when the segment can be handed to ZeroMQ.
Clients that always have requests get equal numbers of bytes, whether they ask for whole segments or for small parts. A
client may have only a few replies in flight (handed to ZeroMQ and not yet released), so a client that never reads ties
up little memory, and a byte budget limits the replies in flight of all clients together. A client with nothing in
flight may always have one reply, so clients that do not read cannot starve those that do. A client that queues far more
requests than it needs is served after the others.

Does not use sockets, files or the clock: clients are opaque keys, and the caller passes ``now``.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict, deque
from itertools import count
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
    #: Between ``FairQueue.next`` and the outcome: the class as which the client is served, and where its share begins.
    served_as: int | None = None
    share_start: int = 0
    #: The class whose ready list contains the client; None if no ready list does, because the client may not be served.
    ready_as: int | None = None

    @property
    def may_be_served(self) -> bool:
        queued = len(self.queue)
        limit = 1 if queued > GREEDY_ABOVE else MAX_IN_FLIGHT
        return queued > 0 and self.in_flight < limit and self.served_as is None

    def add_in_flight(self, replies: int, size: int) -> int:
        """Adds replies in flight, or removes them if ``replies`` is negative. Returns the change in the number of bytes
        that count towards the budget.
        """
        before = self.in_flight_bytes if self.in_flight > 1 else 0
        self.in_flight += replies
        self.in_flight_bytes += size
        return (self.in_flight_bytes if self.in_flight > 1 else 0) - before


class _History(Struct):
    """What is remembered of a client. ``completed`` is the number of its completed replies."""

    completed: int = 0
    #: Where the client's last share ended, in the ready list of this class.
    share_end: int = 0
    client_class: int = _NEW


_NO_HISTORY = _History()


class _ReadyList(Generic[K]):
    """The clients of one class that may be served (start-time fair queueing).

    The class has a line of bytes, of which each reply takes a share. A client's next share begins where its last one
    ended, or at ``position`` if that is later. The client whose share begins first is served next. So clients that
    always have requests get equal numbers of bytes. A client that had no request for a moment is served soon, but gets
    nothing for the time before.
    """

    def __init__(self) -> None:
        #: Where the share of the client that was served last begins.
        self.position = 0
        #: The clients in the order in which they will be served: where the next share begins, a number that keeps equal
        #: ones in the order in which they were added, and the client.
        self.entries: list[tuple[int, int, K]] = []
        self._numbers = count()

    def add(self, key: K, start: int) -> None:
        insort(self.entries, (max(self.position, start), next(self._numbers), key))

    def remove(self, key: K) -> None:
        self.entries = [entry for entry in self.entries if entry[2] != key]


class FairQueue(Generic[K, R]):
    """The request queues of all clients. ``rate`` is in bytes per second, 0 for no limit.

    ``max_unfinished`` limits the requests of all clients together that are queued or whose replies are in flight; None
    means no limit. A receiver that passes on what it has needs it: where every request waits for long, units are passed
    on late. A client that is refused asks another receiver at once.
    """

    def __init__(self, rate: int = 0, max_unfinished: int | None = None) -> None:
        self._rate = rate
        self._max_unfinished = max_unfinished
        #: The number of requests that were taken from a queue, and whose replies are not completed yet.
        self._taken = 0
        #: Clients with queued requests or replies in flight, and no others.
        self._clients: dict[K, _Client[R]] = {}
        self._ready: tuple[_ReadyList[K], _ReadyList[K], _ReadyList[K]] = (_ReadyList(), _ReadyList(), _ReadyList())
        #: The least recently served client comes first.
        self._histories: OrderedDict[K, _History] = OrderedDict()
        #: The number of the next turn.
        self._turn_number = 1
        #: The number of queued requests: they wait for the rate limit or for replies in flight to complete.
        self.queued = 0
        self._budget_used = 0
        self._next_send_at = 0.0

    def add(self, key: K, request: R) -> bool:
        """Queues a request of client ``key``; returns False if the client's queue is full, or if there are too many
        requests of all clients.
        """
        if self._max_unfinished is not None and self.queued + self._taken >= self._max_unfinished:
            return False
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client()
        if len(client.queue) >= MAX_QUEUED:
            return False
        client.queue.append(request)
        self.queued += 1
        if len(client.queue) == GREEDY_ABOVE + 1:
            self._mark_unready(key, client)
        self._mark_ready(key, client)
        return True

    @property
    def unfinished(self) -> int:
        """The number of requests of all clients that are queued, or whose replies are in flight."""
        return self.queued + self._taken

    def is_full(self, key: K) -> bool:
        """True if the client's queue is full."""
        client = self._clients.get(key)
        return client is not None and len(client.queue) >= MAX_QUEUED

    def next(self, now: float) -> tuple[K, R] | None:
        """Removes and returns the client and the request to answer now, None if there is none. Report the outcome with
        ``on_sent`` or ``on_dropped``. Until then the client is not served again, because the size of its share is
        unknown.
        """
        if not self.queued or now < self._next_send_at:
            return None
        turn = self._turn_number
        for client_class in _SERVING_ORDERS[turn % 2 if turn % GREEDY_TURN_INTERVAL else 2]:
            ready = self._ready[client_class]
            for index, (start, _, key) in enumerate(ready.entries):
                client = self._clients[key]
                if client.in_flight and self._budget_used >= IN_FLIGHT_BUDGET:
                    continue
                del ready.entries[index]
                ready.position = max(ready.position, start)
                client.ready_as, client.served_as, client.share_start = None, client_class, start
                self._turn_number += 1
                self.queued -= 1
                self._taken += 1
                return key, client.queue.popleft()
        return None

    def on_sent(self, key: K, size: int, now: float) -> None:
        """A reply of ``size`` bytes was handed to ZeroMQ."""
        if self._rate:
            self._next_send_at = max(self._next_send_at, now - MAX_CATCH_UP_S) + size / self._rate
        client = self._clients[key]
        self._budget_used += client.add_in_flight(1, size)
        assert client.served_as is not None
        history = self._remember(key)
        history.client_class, history.share_end = client.served_as, client.share_start + size
        self._end_turn(key, client)

    def on_dropped(self, key: K) -> None:
        """A reply could not be handed to ZeroMQ."""
        self._taken -= 1
        self._end_turn(key, self._clients[key])

    def on_completed(self, key: K, size: int) -> None:
        """ZeroMQ released a reply of ``size`` bytes: it was transmitted, or the client disconnected."""
        self._taken -= 1
        client = self._clients[key]
        self._budget_used += client.add_in_flight(-1, -size)
        if (history := self._histories.get(key)) is not None:
            history.completed += 1
        self._update(key, client)

    def discard(self, key: K) -> None:
        """Drops the queued requests of a disconnected client. ``on_completed`` must still be called for each of the
        client's replies in flight.
        """
        if client := self._clients.get(key):
            self.queued -= len(client.queue)
            client.queue.clear()
            self._mark_unready(key, client)
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
        is_limited = now < self._next_send_at and any(ready.entries for ready in self._ready)
        return self._next_send_at if is_limited else None

    def check_invariants(self) -> None:
        for key, client in self._clients.items():
            assert client.ready_as is None or client.queue, key
            assert client.ready_as is not None or not client.may_be_served, key
            places = [number for number, ready in enumerate(self._ready) for entry in ready.entries if entry[2] == key]
            assert places == ([client.ready_as] if client.ready_as is not None else []), key
            assert 0 <= client.in_flight <= MAX_IN_FLIGHT, key
            assert client.queue or client.in_flight or client.served_as is not None, key
            assert len(client.queue) <= MAX_QUEUED, key
        for ready in self._ready:
            assert ready.entries == sorted(ready.entries)
            assert {entry[2] for entry in ready.entries} <= set(self._clients)
        served = sum(client.in_flight + (client.served_as is not None) for client in self._clients.values())
        assert self._taken == served
        assert self._max_unfinished is None or self.queued + self._taken <= self._max_unfinished
        assert self.queued == sum(len(client.queue) for client in self._clients.values())
        assert self._budget_used == sum(
            client.in_flight_bytes for client in self._clients.values() if client.in_flight > 1
        )

    def _remember(self, key: K) -> _History:
        """Returns the history of a client that is being served; forgets the client that was served least recently."""
        history = self._histories.get(key)
        if history is None:
            history = self._histories[key] = _History()
            if len(self._histories) > MAX_TRACKED_CLIENTS:
                self._histories.popitem(last=False)
        else:
            self._histories.move_to_end(key)
        return history

    def _end_turn(self, key: K, client: _Client[R]) -> None:
        client.served_as = None
        self._update(key, client)

    def _update(self, key: K, client: _Client[R]) -> None:
        """Marks the client as ready if it may be served; removes the client if it has nothing queued or in flight."""
        if client.queue:
            self._mark_ready(key, client)
        elif not client.in_flight and client.served_as is None:
            del self._clients[key]

    def _mark_ready(self, key: K, client: _Client[R]) -> None:
        if client.ready_as is None and client.may_be_served:
            history = self._histories.get(key, _NO_HISTORY)
            proven = history.completed >= PROVEN_AFTER
            client_class = _GREEDY if len(client.queue) > GREEDY_ABOVE else _PROVEN if proven else _NEW
            client.ready_as = client_class
            self._ready[client_class].add(key, history.share_end if history.client_class == client_class else 0)

    def _mark_unready(self, key: K, client: _Client[R]) -> None:
        if client.ready_as is not None:
            self._ready[client.ready_as].remove(key)
            client.ready_as = None
