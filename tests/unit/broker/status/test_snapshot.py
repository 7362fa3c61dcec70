"""The snapshots that server 5 publishes, and their JSON form."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from msd.broker.status.snapshot import MAX_REASON_BYTES, SnapshotBuilder, as_json
from msd.broker.status.steady_rate import RATE_WINDOW_S
from msd.broker.supervision.supervisor import SILENT_AFTER_S, Supervisor
from msd.broker.supervision.supervisor_events import CatalogueReady, ComplaintReceived, Exited, Spawned
from msd.broker.supervision.worker_record import Process, WorkerRecord
from msd.wire.config.settings import Config
from msd.wire.config.toml_file import MAX_WORKERS
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.codec import STATUS_TOPIC, decode, encode
from msd.wire.protocol.messages import PROTOCOL_VERSION, Complaint, Load, Status
from msd.wire.protocol.states import WantedState, WorkerState
from msd.wire.support.core import TimePassed
from tests.unit.snapshots import PORTS, heard, joined

NOW = 1000.0
MIB = 1 << 20
#: A worker that the broker has started.
OWN = WorkerRecord(1, "1", "tcp://127.0.0.1:21018", Process(), state=WorkerState.AWAKE)


def builder() -> SnapshotBuilder:
    return SnapshotBuilder(Config(interval=1.5))


def running(workers: int = 4, load: Load | None = None, endpoints: Sequence[str] = ()) -> Supervisor:
    """A supervisor of awake workers with the pids 101, 102 and so on."""
    supervisor = Supervisor(endpoints or [f"tcp://127.0.0.1:{port}" for port in PORTS[:workers]], hang_limit=60)
    supervisor.handle(CatalogueReady(1), NOW)
    for number in range(1, workers + 1):
        pid = 100 + number
        supervisor.handle(Spawned(number, pid), NOW)
        supervisor.handle(joined(number, pid, epoch=7000 + number), NOW)
        supervisor.handle(heard(number, pid, epoch=7000 + number, load=load or Load()), NOW)
    return supervisor


def test_a_snapshot_has_the_values_of_the_configuration_and_the_index() -> None:
    snapshots = builder()
    snapshots.catalogue, snapshots.files = b"c" * 32, 3
    status = snapshots.build(running(), NOW)
    assert (status.version, status.interval, status.control) == (PROTOCOL_VERSION, 1.5, "tcp://127.0.0.1:39224")
    assert (status.catalogue, status.files) == (b"c" * 32, 3)
    assert [w.endpoint for w in status.workers] == [f"tcp://127.0.0.1:{port}" for port in (21018, 27215, 35416, 19222)]


def test_a_snapshot_has_the_values_of_the_supervisor() -> None:
    supervisor = running(load=Load(bytes_sent=5 * MIB, clients=2, malformed_messages=3, rejected_connections=6))
    for _ in range(4):
        supervisor.handle(ComplaintReceived(2, "alice"), NOW)
    supervisor.handle(Exited(3, 103, "killed by SIGKILL"), NOW)
    status = builder().build(supervisor, NOW, malformed_messages=8, rejected_connections=9)
    workers = status.workers
    assert (status.malformed_messages, status.rejected_connections) == (8, 9)
    assert [w.number for w in workers] == [1, 2, 3, 4]
    second, third = workers[1], workers[2]
    assert (second.state, second.wanted, second.pid, second.epoch) == (WorkerState.AWAKE, WantedState.AWAKE, 102, 7002)
    assert (second.bytes_sent, second.clients, second.complaints) == (5 * MIB, 2, 4)
    assert (second.malformed_messages, second.rejected_connections) == (3, 6)
    assert (third.state, third.pid, third.epoch, third.reason) == (WorkerState.DEAD, 0, 0, "killed by SIGKILL")


def test_an_uptime_is_that_of_the_process_or_0() -> None:
    supervisor = running()
    supervisor.handle(Exited(2, 102, ""), NOW + 5)
    supervisor.handle(Exited(3, 103, ""), NOW + 5)
    supervisor.handle(Spawned(3, 203), NOW + 6)
    status = builder().build(supervisor, NOW + 10.5)
    assert [worker.uptime for worker in status.workers] == [10.5, 0.0, 4.5, 10.5]


def test_a_process_that_runs_for_a_year_has_an_uptime() -> None:
    status = builder().build(running(), NOW + 366 * 86400)
    assert decode(encode(status), Status).workers[0].uptime == 366 * 86400


def test_a_client_served_by_several_workers_counts_once() -> None:
    supervisor = running()
    for number, sessions in ((1, [7, 8]), (2, [8, 9]), (4, [7])):
        supervisor.handle(
            heard(number, 100 + number, epoch=7000 + number, load=Load(clients=len(sessions)), sessions=sessions), NOW
        )
    status = builder().build(supervisor, NOW)
    assert (status.clients, [worker.clients for worker in status.workers]) == (3, [2, 2, 0, 1])
    assert as_json(status)["clients"] == 3


def test_clients_whose_sessions_are_not_listed_count() -> None:
    supervisor = running()
    supervisor.handle(heard(2, 102, epoch=7002, load=Load(clients=1500), sessions=range(1024)), NOW)
    assert builder().build(supervisor, NOW).clients == 1500


def test_the_bytes_sent_are_those_since_the_broker_started() -> None:
    """Of a worker that has joined, what it sent before does not count: it may have run longer than the broker."""
    snapshots = builder()
    own, attic = replace(OWN, epoch=71), WorkerRecord(5, "attic", "tcp://192.0.2.7:21018", epoch=75)
    for worker, total in ((own, 3), (attic, 1000), (own, 5), (attic, 1010)):
        snapshots.on_bytes_sent(worker, total, NOW)
    assert snapshots.bytes_sent == 5 + 10
    own.epoch, attic.epoch = 81, 85
    for worker, total in ((own, 2), (own, 6), (attic, 2000), (attic, 2001)):
        snapshots.on_bytes_sent(worker, total, NOW)
    assert snapshots.bytes_sent == 5 + 10 + 6 + 1
    snapshots.forget(5)
    snapshots.on_bytes_sent(attic, 2001, NOW)
    assert snapshots.bytes_sent == 5 + 10 + 6 + 1


def test_a_total_that_becomes_smaller_takes_nothing_away() -> None:
    """A worker that has joined says itself how much it has sent."""
    snapshots, attic = builder(), WorkerRecord(5, "attic", "tcp://192.0.2.7:21018", epoch=75)
    for total in (1000, 1010, 0, 5):
        snapshots.on_bytes_sent(attic, total, NOW)
    assert snapshots.bytes_sent == 10 + 5


def test_each_snapshot_has_the_next_number_of_the_same_epoch() -> None:
    snapshots, supervisor = builder(), running()
    statuses = [snapshots.build(supervisor, NOW) for _ in range(3)]
    assert [status.seq for status in statuses] == [1, 2, 3]
    assert len({status.epoch for status in statuses}) == 1


def test_two_brokers_have_different_epochs() -> None:
    assert builder().build(running(), NOW).epoch != builder().build(running(), NOW).epoch


def test_a_snapshot_with_a_very_long_reason_can_be_sent_and_received() -> None:
    supervisor = running()
    supervisor.handle(Exited(1, 101, "é" * 5000), NOW)
    status = builder().build(supervisor, NOW)
    assert decode(encode(status), Status) == status


@pytest.mark.parametrize("letter", ["x", "é", "語", "😀", "\udce9"])
def test_the_largest_snapshot_is_within_the_limits_of_a_client(letter: str) -> None:
    """The snapshot has the maximum number of workers, the largest values and the longest texts."""
    largest = 2**63 - 1
    longest = "ffff:" * 7 + "ffff"
    snapshots = SnapshotBuilder(Config(host=longest, status_port=65535, control_port=65534, interval=86400.0))
    snapshots.catalogue, snapshots.files = b"c" * 32, largest
    supervisor = running(
        MAX_WORKERS,
        Load(bytes_sent=largest, clients=largest, malformed_messages=largest, rejected_connections=largest),
        [Endpoint(longest, 65535).url] * MAX_WORKERS,
    )
    for worker in supervisor.workers.values():
        assert worker.process is not None
        worker.name, worker.host = f"{worker.number}".ljust(64, "x"), longest
        worker.state = WorkerState.STARTING  # the longest state name
        worker.reason = letter * 1024
        worker.heartbeat = replace(worker.heartbeat, epoch=largest)
        worker.process.pid = worker.process.restarts = worker.complaints = largest
        for first in "abc":
            longest_name = first.ljust(64, "x")
            snapshots.complaints.is_new(longest_name, Complaint(rid=1, number=worker.number, id=bytes(32), index=0))
    status = snapshots.build(supervisor, NOW, malformed_messages=largest, rejected_connections=largest)
    assert len(STATUS_TOPIC + encode(status)) <= 65536
    assert decode(encode(status), Status) == status
    assert {len(worker.reason) for worker in status.workers} <= {*range(MAX_REASON_BYTES // 4, MAX_REASON_BYTES + 1)}


def test_a_rate_is_measured_over_its_window() -> None:
    snapshots, supervisor = builder(), running()
    for step in range(5):
        snapshots.on_bytes_sent(OWN, step * MIB, NOW + step * RATE_WINDOW_S / 4)
    assert snapshots.build(supervisor, NOW).workers[0].rate == 4 * MIB / RATE_WINDOW_S
    assert snapshots.build(supervisor, NOW).workers[1].rate == 0


def test_a_rate_is_zero_if_nothing_was_sent_in_its_window() -> None:
    snapshots = builder()
    for seconds, total in ((0, 0), (1, MIB), (1 + RATE_WINDOW_S, MIB)):
        snapshots.on_bytes_sent(OWN, total, NOW + seconds)
    assert snapshots.build(running(), NOW).workers[0].rate == 0


def test_the_time_for_which_a_worker_slept_does_not_lower_its_rate() -> None:
    snapshots, worker = builder(), replace(OWN)
    for second in range(10):
        worker.state = WorkerState.ASLEEP if second in range(3, 6) else WorkerState.AWAKE
        snapshots.on_bytes_sent(worker, MIB * (second if second < 3 else max(3, second - 3)), NOW + second)
    assert snapshots.build(running(), NOW).workers[0].rate == pytest.approx(MIB)


def test_a_dead_worker_has_no_rate() -> None:
    snapshots, supervisor = builder(), running()
    snapshots.on_bytes_sent(OWN, 0, NOW)
    snapshots.on_bytes_sent(OWN, MIB, NOW + RATE_WINDOW_S)
    supervisor.handle(Exited(1, 101, ""), NOW)
    assert snapshots.build(supervisor, NOW).workers[0].rate == 0


def test_a_silent_worker_has_no_rate() -> None:
    """The last rate measured before a worker froze is stale."""
    snapshots, supervisor = builder(), running()
    snapshots.on_bytes_sent(OWN, 0, NOW)
    snapshots.on_bytes_sent(OWN, MIB, NOW + RATE_WINDOW_S)
    assert snapshots.build(supervisor, NOW).workers[0].rate > 0
    supervisor.handle(TimePassed(), NOW + SILENT_AFTER_S)
    assert snapshots.build(supervisor, NOW).workers[0].rate == 0


def test_a_restarted_worker_does_not_inherit_a_rate() -> None:
    snapshots = builder()
    snapshots.on_bytes_sent(OWN, MIB, NOW)
    snapshots.on_bytes_sent(OWN, 3 * MIB, NOW + RATE_WINDOW_S)
    snapshots.on_bytes_sent(OWN, 0, NOW + RATE_WINDOW_S + 0.5)
    assert snapshots.build(running(), NOW).workers[0].rate == 0


def test_the_json_has_every_documented_key() -> None:
    snapshots = builder()
    snapshots.catalogue, snapshots.files, snapshots.indexing = b"\xab" * 32, 2, 7
    values = json.loads(
        json.dumps(as_json(snapshots.build(running(), NOW, malformed_messages=5, rejected_connections=6)))
    )
    assert (values["files"], values["catalogue"], values["indexing"]) == (2, "ab" * 32, 7)
    assert (values["garbage"], values["refused"]) == (5, 6)
    assert [worker["name"] for worker in values["workers"]] == ["1", "2", "3", "4"]
    documented = {"name", "endpoint", "state", "wanted", "pid", "epoch", "restarts", "clients", "bytes_sent", "rate"}
    assert all(documented | {"complaints"} <= set(worker) for worker in values["workers"])


def test_the_json_of_a_worker_has_the_values_of_the_snapshot() -> None:
    (worker,) = json.loads(json.dumps(as_json(builder().build(running(1), NOW))))["workers"]
    assert worker == {
        "number": 1,
        "name": "1",
        "host": "",
        "endpoint": "tcp://127.0.0.1:21018",
        "key": "",
        "catalogue": "",
        "files": 0,
        "state": "awake",
        "wanted": "awake",
        "pid": 101,
        "epoch": 7001,
        "restarts": 0,
        "clients": 0,
        "bytes_sent": 0,
        "rate": 0.0,
        "limit": 0,
        "complaints": 0,
        "complainants": [],
        "garbage": 0,
        "refused": 0,
        "uptime": 0.0,
        "reason": "",
    }
