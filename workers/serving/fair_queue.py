"""Whose request is answered next: fair turns, bounded memory, and the rate limit.

A worker keeps requests, which are small, and reads a segment only when it may be handed to ZeroMQ.
Clients take turns; few replies of a client are inside ZeroMQ at a time, so one that never reads
holds little, and a budget of bytes bounds what all of them hold together. A client with nothing
inside may always have one reply, so that those who do not read cannot starve those who do. One
that asks for far more than anybody needs at once has to wait for those who do not.

Knows neither sockets nor files nor the clock: clients are opaque keys, ``now`` is an argument.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from msgspec import Struct, field

#: Replies of one client inside ZeroMQ. Eight of 1 MiB keep a connection of 4 GB/s busy for two milliseconds, in which
#: the loop may have others to serve.
REPLIES_INSIDE = 8
#: Requests of one client waiting for their turn; more are refused as busy.
MAX_QUEUED = 128
#: With more than so many waiting a client is greedy: no window of ours is as large. It may have one reply
#: inside; and while others wait, the greedy ones get one turn in ``GREEDY_SHARE``.
GREEDY, GREEDY_SHARE = 64, 10
#: A client is new until so many of its replies have left, and of no more than so many it is remembered
#: that they are not. While both wait, the new ones get every other turn: those who never read are stuck
#: before they are anything else, and many of them together must not stop those who do.
PROVEN, REMEMBERED = 32, 4096
#: Bytes of replies inside ZeroMQ, of all clients together that have more than one there.
BUDGET = 64 << 20
#: A rate limit catches up on at most this much (seconds) of unused time: the poll loop may be late
#: by a millisecond or two, but an idle worker saves nothing for a burst.
CATCH_UP = 0.005

_MODEST, _NEW, _GREEDY = 0, 1, 2
#: Whose turn it is before the others', by the number of the turn.
_ORDERS = ((_MODEST, _NEW, _GREEDY), (_NEW, _MODEST, _GREEDY), (_GREEDY, _MODEST, _NEW, _GREEDY))

K = TypeVar("K")
J = TypeVar("J")


class _Client(Generic[J], Struct):
    queue: deque[J] = field(default_factory=deque)
    #: Its replies inside ZeroMQ, and their bytes.
    inside: int = 0
    size: int = 0
    #: The line in which the client waits: all and only those that may have a turn are in one.
    line: int | None = None

    @property
    def is_greedy(self) -> bool:
        return len(self.queue) > GREEDY

    @property
    def may_have_a_turn(self) -> bool:
        waiting = len(self.queue)
        return waiting > 0 and self.inside < (1 if waiting > GREEDY else REPLIES_INSIDE)

    def count(self, replies: int, size: int) -> int:
        """Counts replies that went in, or out; by how much more of its bytes count against the budget now."""
        before = self.size if self.inside > 1 else 0
        self.inside += replies
        self.size += size
        return (self.size if self.inside > 1 else 0) - before


class FairQueue(Generic[K, J]):
    """The queues of all clients. ``rate`` is in bytes a second, 0 for no limit."""

    def __init__(self, rate: int = 0) -> None:
        self._rate = rate
        # Those with a queue or something inside, and no others: who has left is not remembered.
        self._clients: dict[K, _Client[J]] = {}
        self._lines: tuple[deque[K], deque[K], deque[K]] = (deque(), deque(), deque())
        #: How many replies have left, by client; the one that was served longest ago first.
        self._left: OrderedDict[K, int] = OrderedDict()
        self._turn = 0
        self._queued = 0
        self._counted = 0
        self._free_at = 0.0

    def add(self, key: K, job: J) -> bool:
        """Queues a job of client ``key``; False if too many of it are queued already."""
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client()
        if len(client.queue) >= MAX_QUEUED:
            return False
        client.queue.append(job)
        self._queued += 1
        self._enlist(key, client)
        return True

    def is_full(self, key: K) -> bool:
        """True if no more jobs of a client may be queued now."""
        client = self._clients.get(key)
        return client is not None and len(client.queue) >= MAX_QUEUED

    def next(self, now: float) -> tuple[K, J] | None:
        """Takes the job to be done now, if there is one. What becomes of its reply is announced by ``sent`` or
        ``dropped``.
        """
        if now < self._free_at or not any(self._lines):
            return None
        self._turn += 1
        for line in _ORDERS[self._turn % 2 if self._turn % GREEDY_SHARE else 2]:
            for _ in range(len(self._lines[line])):
                key = self._lines[line].popleft()
                client = self._clients[key]
                client.line = None
                grown = line != _GREEDY and client.is_greedy
                if grown or (client.inside and self._counted >= BUDGET):
                    self._enlist(key, client)
                    continue
                job = client.queue.popleft()
                self._queued -= 1
                self._counted += client.count(1, 0)
                self._settle(key, client)
                return key, job
        return None

    def sent(self, key: K, size: int, now: float) -> None:
        """A reply of ``size`` bytes was handed to ZeroMQ."""
        if self._rate:
            self._free_at = max(self._free_at, now - CATCH_UP) + size / self._rate
        self._counted += self._clients[key].count(0, size)

    def dropped(self, key: K) -> None:
        """A reply was not handed to ZeroMQ."""
        client = self._clients[key]
        self._counted += client.count(-1, 0)
        self._settle(key, client)

    def left(self, key: K, size: int) -> None:
        """A reply of ``size`` bytes has left ZeroMQ (to the network, or because the client is gone)."""
        client = self._clients[key]
        self._counted += client.count(-1, -size)
        self._left[key] = self._left.pop(key, 0) + 1
        if len(self._left) > REMEMBERED:
            self._left.popitem(last=False)
        self._settle(key, client)

    def forget(self, key: K) -> None:
        """The client is gone: so are its requests. What is inside is still announced by ``left``."""
        if client := self._clients.get(key):
            self._queued -= len(client.queue)
            client.queue.clear()
            self._delist(key, client)
            self._settle(key, client)

    def clear(self) -> list[tuple[K, J]]:
        """Takes all queued jobs, in no order that matters, and forgets all clients."""
        jobs = [(key, job) for key, client in self._clients.items() for job in client.queue]
        for key in list(self._clients):
            self.forget(key)
        return jobs

    @property
    def waits(self) -> bool:
        """True while jobs are queued: for the rate limit, or for replies to leave."""
        return self._queued > 0

    def next_deadline(self, now: float) -> float | None:
        """When the rate limit lets the next job pass, if one waits for that and nothing else."""
        return self._free_at if any(self._lines) and now < self._free_at else None

    def check_invariants(self) -> None:
        for key, client in self._clients.items():
            assert client.line is None or client.queue, key
            assert client.line is not None or not client.may_have_a_turn, key
            assert all((key in line) == (client.line == number) for number, line in enumerate(self._lines)), key
            assert 0 <= client.inside <= REPLIES_INSIDE, key
            assert client.queue or client.inside, key
            assert len(client.queue) <= MAX_QUEUED, key
        for line in self._lines:
            assert len(set(line)) == len(line)
            assert set(line) <= set(self._clients)
        assert self._queued == sum(len(client.queue) for client in self._clients.values())
        assert self._counted == sum(client.size for client in self._clients.values() if client.inside > 1)

    def _settle(self, key: K, client: _Client[J]) -> None:
        """Puts the client in the line if it may have a turn, and drops it if nothing of it is left."""
        if client.queue:
            self._enlist(key, client)
        elif not client.inside:
            del self._clients[key]

    def _enlist(self, key: K, client: _Client[J]) -> None:
        if client.may_have_a_turn and client.line is None:
            proven = self._left.get(key, 0) >= PROVEN
            client.line = _GREEDY if client.is_greedy else _MODEST if proven else _NEW
            self._lines[client.line].append(key)

    def _delist(self, key: K, client: _Client[J]) -> None:
        if client.line is not None:
            self._lines[client.line].remove(key)
            client.line = None
