"""When an operator's toggle is answered."""

from __future__ import annotations

from msd.broker.supervision.pending_toggles import MOST, PATIENCE, PendingToggles
from msd.broker.supervision.supervisor import (
    CatalogueReady,
    HeartbeatReceived,
    QuitReceived,
    Spawned,
    Supervisor,
    ToggleReceived,
)
from msd.wire.protocol.messages import Load, Toggled
from msd.wire.protocol.states import WantedState, WorkerState

NOW = 1000.0


def awake(number: int = 2) -> Supervisor:
    supervisor = Supervisor(range(1, number + 1), hang_limit=60)
    supervisor.handle(CatalogueReady(1), NOW)
    for worker in supervisor.workers:
        supervisor.handle(Spawned(worker, 100 + worker), NOW)
        beat(supervisor, worker, WorkerState.AWAKE)
    return supervisor


def beat(supervisor: Supervisor, number: int, state: WorkerState) -> None:
    supervisor.handle(HeartbeatReceived(number, 100 + number, 7, state, 1, Load(), frozenset()), NOW)


def asleep(rid: int, state: WorkerState, number: int = 1) -> Toggled:
    return Toggled(rid=rid, number=number, state=state, reached=state is WorkerState.ASLEEP)


def test_a_toggle_is_answered_when_its_worker_got_there() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    supervisor = awake()
    supervisor.handle(ToggleReceived(1, WantedState.ASLEEP), NOW)
    toggles.add(b"operator", 5, 1, NOW)
    assert toggles.answers(supervisor, NOW) == []
    assert toggles.next_deadline() == NOW + PATIENCE
    beat(supervisor, 1, WorkerState.ASLEEP)
    assert toggles.answers(supervisor, NOW + 1) == [(b"operator", asleep(5, WorkerState.ASLEEP))]
    assert toggles.answers(supervisor, NOW + 9) == []
    assert toggles.next_deadline() is None


def test_what_is_so_already_is_answered_at_once() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    toggles.add(b"operator", 5, 2, NOW)
    ((peer, answer),) = toggles.answers(awake(), NOW)
    assert (peer, answer.state, answer.reached) == (b"operator", WorkerState.AWAKE, True)


def test_a_worker_that_does_not_get_there_is_told_after_a_while() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    supervisor = awake()
    supervisor.handle(ToggleReceived(1, WantedState.ASLEEP), NOW)
    toggles.add(b"operator", 5, 1, NOW)
    assert toggles.answers(supervisor, NOW + PATIENCE - 0.01) == []
    assert toggles.answers(supervisor, NOW + PATIENCE) == [(b"operator", asleep(5, WorkerState.AWAKE))]


def test_each_operator_is_answered_in_its_turn() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    supervisor = awake()
    for number in (1, 2):
        supervisor.handle(ToggleReceived(number, WantedState.ASLEEP), NOW)
        toggles.add(b"operator %d" % number, number, number, NOW + number)
    beat(supervisor, 2, WorkerState.ASLEEP)
    assert toggles.answers(supervisor, NOW) == [(b"operator 2", asleep(2, WorkerState.ASLEEP, 2))]
    assert toggles.next_deadline() == NOW + 1 + PATIENCE


def test_all_are_answered_when_everything_ends() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    supervisor = awake()
    supervisor.handle(ToggleReceived(1, WantedState.ASLEEP), NOW)
    toggles.add(b"operator", 5, 1, NOW)
    supervisor.handle(QuitReceived(), NOW)
    assert toggles.answers(supervisor, NOW) == [(b"operator", asleep(5, WorkerState.AWAKE))]


def test_a_flood_does_not_pile_up() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    supervisor = awake()
    supervisor.handle(ToggleReceived(1, WantedState.ASLEEP), NOW)
    for rid in range(MOST + 10):
        toggles.add(b"operator", rid, 1, NOW)
    assert [answer.rid for _, answer in toggles.answers(supervisor, NOW)] == list(range(MOST, MOST + 10))
