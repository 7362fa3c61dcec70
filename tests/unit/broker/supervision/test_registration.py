"""Which workers may join, and with which number."""

from __future__ import annotations

from typing import Any

import pytest

from msd.broker.supervision.registration import published_endpoint, register
from msd.broker.supervision.supervisor import Supervisor
from msd.broker.supervision.supervisor_events import CatalogueReady, HeartbeatReceived, Spawned, WorkerJoined
from msd.wire.config.toml_file import MAX_WORKERS
from msd.wire.errors import UsageError
from msd.wire.protocol.messages import Join
from msd.wire.support.core import TimePassed
from tests.unit.snapshots import heard

NOW = 1000.0
#: The token of the processes that the broker has started.
TOKEN = b"broker".ljust(16)


def join(name: str, epoch: int = 9, **values: Any) -> Join:
    return Join(rid=1, name=name, epoch=epoch, **{"token": bytes(16), **values})


def broker_with(*names: str, processes: int = 2) -> Supervisor:
    """A broker whose workers 1 and 2 are processes with the pids 101 and 102; workers of these names have joined."""
    supervisor = Supervisor([""] * processes, hang_limit=60)
    supervisor.handle(CatalogueReady(1), NOW)
    for number in supervisor.workers:
        supervisor.handle(Spawned(number, 100 + number), NOW)
    for name in names:
        add(supervisor, join(name))
    return supervisor


def add(supervisor: Supervisor, message: Join, now: float = NOW) -> None:
    number = register(message, supervisor.workers, TOKEN)
    assert isinstance(number, int), number
    supervisor.handle(WorkerJoined(number, message, host="192.0.2.7"), now)


def lose(supervisor: Supervisor, *, all_but: int = 0) -> None:
    """All workers that have joined are lost, except one."""
    for now in range(int(NOW), int(NOW) + 12):
        if all_but:
            supervisor.handle(HeartbeatReceived(heard(all_but, 0, epoch=9).heartbeat), now)
        supervisor.handle(TimePassed(), now)


def test_a_process_of_the_broker_joins_as_the_worker_that_it_was_started_for() -> None:
    workers = broker_with().workers
    assert register(join("2", token=TOKEN, pid=102), workers, TOKEN) == 2


@pytest.mark.parametrize(
    "values", [{"pid": 101}, {"pid": 0}, {"pid": 102, "token": bytes(16)}], ids=["old pid", "no pid", "wrong token"]
)
def test_another_process_may_not_join_as_a_worker_of_the_broker(values: dict[str, Any]) -> None:
    reason = register(join("2", **{"token": TOKEN, **values}), broker_with().workers, TOKEN)
    assert isinstance(reason, str)


def test_a_process_of_the_broker_has_one_run() -> None:
    supervisor = broker_with()
    supervisor.handle(WorkerJoined(2, join("2", 5, token=TOKEN, pid=102)), NOW)
    assert register(join("2", 5, token=TOKEN, pid=102), supervisor.workers, TOKEN) == 2
    assert isinstance(register(join("2", 6, token=TOKEN, pid=102), supervisor.workers, TOKEN), str)


def test_a_new_worker_has_the_number_that_it_wants_or_the_lowest_free_one() -> None:
    supervisor = broker_with("attic")
    assert supervisor.workers[3].name == "attic"
    assert register(join("cellar"), supervisor.workers, TOKEN) == 4
    assert register(join("cellar", number=9), supervisor.workers, TOKEN) == 9
    assert register(join("cellar", number=3), supervisor.workers, TOKEN) == 4


def test_a_name_is_refused_with_the_host_of_its_worker_until_that_one_is_lost() -> None:
    supervisor = broker_with("attic")
    taken = "the name attic is in use by a worker on 192.0.2.7: give another one with --name"
    assert register(join("attic", 10), supervisor.workers, TOKEN) == taken
    lose(supervisor)
    assert register(join("attic", 10), supervisor.workers, TOKEN) == 3


def test_with_keys_a_worker_needs_one_of_its_own() -> None:
    """Otherwise the broker would reach it without encryption, and clients would not."""
    workers = broker_with().workers
    assert isinstance(register(join("attic"), workers, TOKEN, admission=b"admitted"), str)
    assert register(join("attic", key=b"own".ljust(32)), workers, TOKEN, admission=b"admitted") == 3


def test_only_the_same_run_may_join_again_with_its_epoch() -> None:
    """The epoch of a worker is in every snapshot, its token is not."""
    supervisor = broker_with("attic")
    assert register(join("attic"), supervisor.workers, TOKEN) == 3
    assert isinstance(register(join("attic", token=b"guessed".ljust(16)), supervisor.workers, TOKEN), str)


def test_a_worker_of_the_maximum_number_takes_the_place_of_the_one_that_is_lost() -> None:
    supervisor = broker_with(*(f"host-{number}" for number in range(MAX_WORKERS - 2)))
    assert register(join("one-more"), supervisor.workers, TOKEN) == f"there are already {MAX_WORKERS} workers"
    lose(supervisor, all_but=3)
    assert register(join("one-more"), supervisor.workers, TOKEN) == 4


@pytest.mark.parametrize(
    ("advertised", "host", "published"),
    [
        ("tcp://192.0.2.9:21018", "192.0.2.7", "tcp://192.0.2.9:21018"),
        ("tcp://*:21018", "192.0.2.7", "tcp://192.0.2.7:21018"),
        ("tcp://*:21018", "127.0.0.1", "tcp://*:21018"),
        ("tcp://[fe80::9%eth1]:21018", "fe80::9%br0", "tcp://[fe80::9%br0]:21018"),
        ("tcp://[fe80::9%eth1]:21018", "2001:db8::9", "tcp://[fe80::9]:21018"),
        ("tcp://[2001:db8::9%no interface]:21018", "fe80::9%br0", "tcp://[2001:db8::9]:21018"),
    ],
)
def test_the_published_endpoint_is_one_that_the_broker_can_connect_to(
    advertised: str, host: str, published: str
) -> None:
    assert published_endpoint(advertised, host).url == published


@pytest.mark.parametrize(
    "advertised",
    ["", "tcp://attic:21018", "tcp://239.0.0.1:21018", "tcp://[::%0]:21018", "tcp://192.0.2.7:0", "ipc:///tmp/x:1"],
)
def test_an_endpoint_that_is_not_the_address_of_a_machine_is_refused(advertised: str) -> None:
    with pytest.raises(UsageError):
        published_endpoint(advertised, "192.0.2.7")
