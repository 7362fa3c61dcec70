"""Compares the hosts of the workers: how fast each one sends, and which one is slow. Pure.

A host that serves no client is not slow, only idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

from msgspec import Struct
from msgspec.structs import replace

from msd.broker.status.history import Row
from msd.wire.support.units import format_count, format_rate

#: What the host of the workers that the broker has started is called: "server 5" would look like one of them.
OWN_HOST = "the broker's host"
#: Seconds over which the rates are compared, and the part of the others' median rate below which a host is slow.
COMPARED_S, SLOW = 10, 0.5


class HostRate(Struct, frozen=True):
    """A host: its address (empty for that of server 5), how many of its ``workers`` are alive, its ``rate`` in bytes a
    second, and the same for each of its workers that is alive. ``others`` is the median of the latter of the other
    hosts, 0 if none of them serves clients.
    """

    host: str
    workers: int
    alive: int
    clients: int
    rate: float
    rate_per_worker: float
    others: float = 0.0

    @property
    def name(self) -> str:
        return self.host or OWN_HOST

    @property
    def is_slow(self) -> bool:
        return bool(self.clients and self.alive) and self.rate_per_worker < SLOW * self.others

    @property
    def text(self) -> str:
        counts = f"{self.alive} of {format_count(self.workers, 'worker')} alive, {format_rate(self.rate)}"
        slow = (
            f", slow: {format_rate(self.rate_per_worker)} for each worker, other hosts {format_rate(self.others)}"
            if self.is_slow
            else ""
        )
        return f"{self.name}: {counts}{slow}"


def host_rates(rows: Sequence[Row]) -> Sequence[HostRate]:
    """Returns the hosts of ``rows``: that of server 5 first, the others in the order of their first workers."""
    hosts = [_host_rate(host, [row for row in rows if row.worker.host == host]) for host in _hosts(rows)]
    rated = [each for each in hosts if each.clients and each.alive]
    return [_compared(each, [other.rate_per_worker for other in rated if other is not each]) for each in hosts]


def _hosts(rows: Sequence[Row]) -> Sequence[str]:
    return sorted(dict.fromkeys(row.worker.host for row in rows), key=bool)


def _host_rate(host: str, rows: Sequence[Row]) -> HostRate:
    alive = [row for row in rows if row.is_alive]
    lately = sum(mean(row.rates[-COMPARED_S:]) if row.rates else row.worker.rate for row in alive)
    clients = max((row.worker.clients for row in rows), default=0)
    rate = sum(row.worker.rate for row in rows)
    return HostRate(host, len(rows), len(alive), clients, rate, lately / max(1, len(alive)))


def _compared(host: HostRate, others: Sequence[float]) -> HostRate:
    return replace(host, others=median(others)) if others else host
