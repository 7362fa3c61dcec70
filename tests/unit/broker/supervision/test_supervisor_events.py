"""The table of state transitions of a worker."""

from __future__ import annotations

from msd.broker.supervision.supervisor_events import TRANSITIONS, Exited
from msd.wire.protocol.states import WorkerState

#: The states that only a worker has that the broker started, and those of the others.
OF_PROCESSES = {WorkerState.DEAD, WorkerState.FAILED}
OF_JOINED = {WorkerState.LOST, WorkerState.UNREACHABLE}


def reachable(start: WorkerState) -> set[WorkerState]:
    """Returns all states that a worker can reach from the state ``start``."""
    found: set[WorkerState] = set()
    new = {start}
    while new:
        found |= new
        new = {end for begin, end in TRANSITIONS if begin in found} - found
    return found


def test_a_worker_can_reach_every_state_from_any_other() -> None:
    assert all(reachable(state) == {*WorkerState} for state in WorkerState)


def test_a_worker_is_either_a_process_of_the_broker_or_has_joined() -> None:
    assert not [change for change in TRANSITIONS if {*change} & OF_PROCESSES and {*change} & OF_JOINED]


def test_only_an_exit_ends_a_process() -> None:
    assert {by for (_, end), by in TRANSITIONS.items() if end in OF_PROCESSES} == {(Exited,)}


def test_a_process_that_has_ended_can_only_be_started_again() -> None:
    assert {end for start, end in TRANSITIONS if start in OF_PROCESSES} == {WorkerState.STARTING}
