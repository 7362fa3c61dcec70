"""What the record of a worker says about its process."""

from __future__ import annotations

import pytest

from msd.broker.supervision.worker_record import Process, WorkerRecord
from msd.wire.protocol.states import WorkerState


def test_a_worker_of_the_broker_has_the_pid_and_the_start_of_its_process() -> None:
    worker = WorkerRecord(1, "1", "", Process(pid=101, started_at=5.0))
    assert (worker.pid, worker.started_at) == (101, 5.0)
    assert (WorkerRecord(1, "1", "", Process()).pid, WorkerRecord(1, "1", "", Process()).started_at) == (0, 0.0)


def test_a_worker_that_joined_has_no_pid_and_runs_since_it_joined_until_it_is_lost() -> None:
    worker = WorkerRecord(5, "attic", "", joined_at=7.0)
    assert (worker.pid, worker.started_at) == (0, 7.0)
    worker.state = WorkerState.LOST
    assert worker.started_at == 0.0


@pytest.mark.parametrize("state", WorkerState)
def test_dead_failed_and_lost_workers_are_down(state: WorkerState) -> None:
    is_down = state in (WorkerState.DEAD, WorkerState.FAILED, WorkerState.LOST)
    assert WorkerRecord(1, "1", "", state=state).is_down == is_down
