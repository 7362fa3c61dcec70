"""Which workers are expected to answer, and what server 5 vouches for."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from msd.client.manifest.awaited_workers import AwaitedWorkers, Majority
from msd.client.network_events import ConnectionClosed, SnapshotReceived
from msd.wire.protocol.states import WorkerState
from tests.connections import opened
from tests.unit.snapshots import snapshot

OWN, OTHER = b"c" * 32, b"o" * 32


def joined(*workers: tuple[WorkerState, bytes], catalogue: bytes = b"") -> SnapshotReceived:
    """A snapshot of workers on other hosts, each with its state and its catalogue."""
    status = snapshot(*(state for state, _ in workers), catalogue=catalogue)
    hosts = [replace(w, host="192.0.2.1", catalogue=c) for w, (_, c) in zip(status.workers, workers, strict=True)]
    return SnapshotReceived(replace(status, workers=hosts))


def test_without_a_snapshot_all_workers_are_expected_unless_the_client_cannot_connect_to_them() -> None:
    workers = AwaitedWorkers([1, 2])
    workers.handle(ConnectionClosed(2))
    workers.handle(opened(3))
    assert (workers.known, workers.expected) == ({1, 2, 3}, {1})
    workers.handle(opened(2))
    assert workers.expected == {1, 2}


def test_a_worker_whose_connection_was_lost_is_expected_to_return() -> None:
    workers = AwaitedWorkers([1])
    workers.handle(opened(1))
    workers.handle(ConnectionClosed(1))
    assert workers.expected == {1}
    assert not workers.welcomes


def test_a_snapshot_says_which_workers_there_are() -> None:
    workers = AwaitedWorkers([8, 9])
    workers.handle(SnapshotReceived(snapshot(*WorkerState)))
    assert workers.known == {*range(1, len(WorkerState) + 1)}
    assert workers.expected == {[*WorkerState].index(state) + 1 for state in (WorkerState.AWAKE, WorkerState.SILENT)}


@pytest.mark.parametrize(
    ("catalogue", "of_worker", "is_unvouched"), [(b"", OTHER, True), (b"", b"", False), (OWN, OTHER, False)]
)
def test_server_5_vouches_for_nothing_if_only_workers_have_catalogues(
    catalogue: bytes, of_worker: bytes, is_unvouched: bool
) -> None:
    workers = AwaitedWorkers([])
    assert not workers.is_unvouched
    workers.handle(joined((WorkerState.AWAKE, of_worker), catalogue=catalogue))
    assert workers.is_unvouched is is_unvouched


def test_only_workers_of_other_hosts_have_other_files() -> None:
    workers = AwaitedWorkers([])
    awake = WorkerState.AWAKE
    workers.handle(joined((awake, OWN), (awake, OTHER), (WorkerState.LOST, OTHER), (awake, b""), catalogue=OWN))
    assert workers.with_other_catalogues == {2}
    own = [replace(worker, catalogue=OTHER) for worker in snapshot().workers]
    workers.handle(SnapshotReceived(snapshot(workers=own)))
    assert workers.with_other_catalogues == set()


def test_a_warning_counts_the_workers_that_have_the_version() -> None:
    text = "server 5 vouches for no version of film: 2 of 3 workers have this one (id 636363636363…)"
    assert Majority(2, 3).warning("film", OWN) == text
    assert "1 of 2 workers has this one" in Majority(1, 2).warning("film", OWN)
