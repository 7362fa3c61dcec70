"""The hosts of the workers: how fast each one sends, and that it is slow. Pure.

``broker/status/slowness.py`` decides which one is slow.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from msd.broker.status.history import Row
from msd.broker.status.slowness import mean_rates, rates_of_others
from msd.wire.support.units import format_count, format_rate

#: What the host of the workers that the broker has started is called: "server 5" would look like one of them.
OWN_HOST = "the broker's host"


class HostRate(Struct, frozen=True):
    """A host: its address (empty for that of server 5), how many of its ``workers`` are alive, and its ``rate`` in
    bytes a second. If it is slow, ``rate_per_worker`` is the mean rate of its workers that serve clients, and
    ``others`` the median of the mean rates of the other hosts; otherwise both are 0.
    """

    host: str
    workers: int
    alive: int
    rate: float
    rate_per_worker: float = 0.0
    others: float = 0.0

    @property
    def name(self) -> str:
        return self.host or OWN_HOST

    @property
    def is_slow(self) -> bool:
        return self.others > 0

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
    hosts = sorted(dict.fromkeys(row.worker.host for row in rows), key=bool)
    members = [[row for row in rows if row.worker.host == host] for host in hosts]
    senders = [mean_rates([row.sent for row in each]) for each in members]
    return [
        HostRate(
            host,
            len(each),
            sum(row.is_alive for row in each),
            sum(row.worker.rate for row in each),
            sender.rates[-1] if sender is not None and others else 0.0,
            others,
        )
        for host, each, sender, others in zip(hosts, members, senders, rates_of_others(senders), strict=True)
    ]
