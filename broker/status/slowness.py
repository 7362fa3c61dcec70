"""Decides which workers and hosts are slow, each compared with the others. Pure.

A worker that sends less than others may only be asked for less. Clients request parts from all workers that have a
file, so a worker is compared with those that serve the same files, and only if it serves at least as many clients as
they do (their median). A worker that is idle, or that has just become awake, is not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

from msgspec import Struct

from msd.broker.status.steady_rate import RATE_WINDOW_S
from msd.wire.protocol.messages import WorkerStatus
from msd.wire.protocol.segments import SEGMENT_LIMIT
from msd.wire.protocol.states import WantedState, WorkerState

#: A worker is slow if it sends less than this part of what the others send (their median).
SLOW = 0.5
#: It must also send this much less, in bytes a second: if clients request little, two segments more or less are chance.
MIN_DIFFERENCE = 2 * SEGMENT_LIMIT / RATE_WINDOW_S
#: A worker must be that slow for this many seconds in a row. The rate of each second is itself a mean of some seconds.
SLOW_S = 5


class SenderRates(Struct, frozen=True):
    """What a worker or a host sends: its rate in each of the last ``SLOW_S`` seconds, the present one last, in bytes a
    second; to how many clients; and from which catalogues.
    """

    rates: Sequence[float]
    clients: int
    catalogues: frozenset[bytes]


def worker_rates(worker: WorkerStatus, recent: Sequence[float]) -> SenderRates | None:
    """Returns the rates of a worker; None if it is not compared. ``recent`` are its rates before the present one."""
    rates = [*recent, worker.rate][-SLOW_S:]
    serves = worker.state is WorkerState.AWAKE and worker.wanted is WantedState.AWAKE and worker.clients
    return (
        SenderRates(rates, worker.clients, frozenset((worker.catalogue,))) if serves and len(rates) == SLOW_S else None
    )


def mean_rates(workers: Sequence[SenderRates | None]) -> SenderRates | None:
    """Returns the rates of a host for each of its workers; None if it is not compared."""
    compared = [worker for worker in workers if worker is not None]
    if not compared:
        return None
    rates = [mean(worker.rates[second] for worker in compared) for second in range(SLOW_S)]
    catalogues = frozenset().union(*(worker.catalogues for worker in compared))
    return SenderRates(rates, max(worker.clients for worker in compared), catalogues)


def rates_of_others(senders: Sequence[SenderRates | None]) -> Sequence[float]:
    """Returns, for each sender that is slow, the present rate of those with which it is compared (their median), and 0
    for any other sender.
    """
    compared = [sender for sender in senders if sender is not None]
    return [_rate_of_others(sender, compared) if sender is not None else 0.0 for sender in senders]


def _rate_of_others(sender: SenderRates, compared: Sequence[SenderRates]) -> float:
    others = [other for other in compared if other is not sender and other.catalogues == sender.catalogues]
    if not others or sender.clients < median(other.clients for other in others):
        return 0.0
    rate = 0.0
    for second in range(SLOW_S):
        rate, own = median(other.rates[second] for other in others), sender.rates[second]
        if own >= SLOW * rate or rate - own < MIN_DIFFERENCE:
            return 0.0
    return rate
