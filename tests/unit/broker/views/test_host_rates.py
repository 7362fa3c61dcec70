"""The hosts are described with their rates, and a slow one says than which other hosts it is slower."""

from __future__ import annotations

from msgspec.structs import replace

from msd.broker.status.history import Row
from msd.broker.views.host_rates import OWN_HOST, host_rates
from msd.wire.protocol.states import WorkerState
from tests.unit.snapshots import snapshot

MIB = 1 << 20


def row(number: int, host: str, rate: float, clients: int = 1, state: WorkerState = WorkerState.AWAKE) -> Row:
    worker = replace(snapshot(state).workers[0], number=number, host=host, rate=rate * MIB, clients=clients)
    return Row(worker, rates=[rate * MIB] * 30)


def slow_hosts(*rows: Row) -> list[str]:
    return [host.name for host in host_rates(rows) if host.is_slow]


def test_the_host_with_less_than_half_of_the_others_rate_is_slow() -> None:
    rows = [row(1, "", 9.0), row(2, "a", 10.0), row(3, "b", 4.0), row(4, "b", 4.0)]
    assert slow_hosts(*rows) == ["b"], "each worker counts, not their sum"
    (slow,) = [host for host in host_rates(rows) if host.is_slow]
    assert slow.text == "b: 2 of 2 workers alive, 8.0 MiB/s, slow: 4.0 MiB/s for each worker, other hosts 9.5 MiB/s"


def test_the_rate_for_each_worker_is_that_of_the_rows() -> None:
    """Three workers at present, each of which sent another rate before."""
    unsteady = [Row(each.worker, rates=[0.1 * MIB] * 30) for each in (row(n, "b", 1.0) for n in (2, 3, 4))]
    (slow,) = [host for host in host_rates([row(1, "", 9.0), *unsteady]) if host.is_slow]
    assert slow.text == "b: 3 of 3 workers alive, 3.0 MiB/s, slow: 1.0 MiB/s for each worker, other hosts 9.0 MiB/s"


def test_the_hosts_own_workers_come_first_and_are_named() -> None:
    hosts = host_rates([row(1, "b", 1.0), row(2, "", 1.0)])
    assert [host.name for host in hosts] == [OWN_HOST, "b"]
    assert hosts[0].text == "the broker's host: 1 of 1 worker alive, 1.0 MiB/s"


def test_a_host_without_a_worker_that_is_alive_is_not_slow() -> None:
    assert slow_hosts(row(1, "", 9.0), row(2, "a", 0.0, state=WorkerState.LOST)) == []


def test_a_single_host_is_not_slow() -> None:
    assert slow_hosts(row(1, "", 0.1), row(2, "", 9.0)) == []


def test_one_slow_second_does_not_make_a_host_slow() -> None:
    unlucky = row(2, "a", 9.0)
    assert slow_hosts(row(1, "", 9.0), Row(replace(unlucky.worker, rate=0.0), rates=[9.0 * MIB] * 29 + [0.0])) == []
