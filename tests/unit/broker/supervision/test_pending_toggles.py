"""When an operator's toggle is answered, and with which reply."""

from __future__ import annotations

from msd.broker.supervision.pending_toggles import MAX_PENDING, TOGGLE_TIMEOUT_S, PendingToggles
from msd.broker.supervision.supervisor import (
    CatalogueReady,
    HeartbeatReceived,
    QuitReceived,
    Spawned,
    Supervisor,
    ToggleReceived,
)
from msd.wire.protocol.messages import Load, Toggled
from msd.wire.protocol.states import ReportedState, WantedState, WorkerState

NOW = 1000.0


def awake(workers: int = 2) -> Supervisor:
    supervisor = Supervisor(range(1, workers + 1), hang_limit=60)
    supervisor.handle(CatalogueReady(1), NOW)
    for number in supervisor.workers:
        supervisor.handle(Spawned(number, 100 + number), NOW)
        heartbeat(supervisor, number, ReportedState.AWAKE)
    return supervisor


def heartbeat(supervisor: Supervisor, number: int, state: ReportedState) -> None:
    supervisor.handle(HeartbeatReceived(number, 100 + number, 7, state, 1, Load(), frozenset()), NOW)


def reply_to_sleep(rid: int, state: WorkerState, number: int = 1) -> Toggled:
    """The reply to an operator's order to put worker ``number`` to sleep."""
    return Toggled(rid=rid, number=number, state=state, reached=state is WorkerState.ASLEEP)


def test_a_toggle_is_answered_once_its_worker_is_in_the_wanted_state() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    supervisor = awake()
    supervisor.handle(ToggleReceived(1, WantedState.ASLEEP), NOW)
    toggles.add(b"operator", 5, 1, NOW)
    assert toggles.pop_replies(supervisor, NOW) == []
    assert toggles.next_deadline() == NOW + TOGGLE_TIMEOUT_S
    heartbeat(supervisor, 1, ReportedState.ASLEEP)
    assert toggles.pop_replies(supervisor, NOW + 1) == [(b"operator", reply_to_sleep(5, WorkerState.ASLEEP))]
    assert toggles.pop_replies(supervisor, NOW + 9) == []
    assert toggles.next_deadline() is None


def test_a_toggle_is_answered_at_once_if_the_worker_is_in_the_wanted_state() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    toggles.add(b"operator", 5, 2, NOW)
    ((peer, reply),) = toggles.pop_replies(awake(), NOW)
    assert (peer, reply.state, reply.reached) == (b"operator", WorkerState.AWAKE, True)


def test_a_toggle_is_answered_after_a_timeout_if_the_worker_does_not_react() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    supervisor = awake()
    supervisor.handle(ToggleReceived(1, WantedState.ASLEEP), NOW)
    toggles.add(b"operator", 5, 1, NOW)
    assert toggles.pop_replies(supervisor, NOW + TOGGLE_TIMEOUT_S - 0.01) == []
    assert toggles.pop_replies(supervisor, NOW + TOGGLE_TIMEOUT_S) == [
        (b"operator", reply_to_sleep(5, WorkerState.AWAKE))
    ]


def test_toggles_are_answered_independently() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    supervisor = awake()
    for number in (1, 2):
        supervisor.handle(ToggleReceived(number, WantedState.ASLEEP), NOW)
        toggles.add(b"operator %d" % number, number, number, NOW + number)
    heartbeat(supervisor, 2, ReportedState.ASLEEP)
    assert toggles.pop_replies(supervisor, NOW) == [(b"operator 2", reply_to_sleep(2, WorkerState.ASLEEP, 2))]
    assert toggles.next_deadline() == NOW + 1 + TOGGLE_TIMEOUT_S


def test_all_toggles_are_answered_during_a_shutdown() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    supervisor = awake()
    supervisor.handle(ToggleReceived(1, WantedState.ASLEEP), NOW)
    toggles.add(b"operator", 5, 1, NOW)
    supervisor.handle(QuitReceived(), NOW)
    assert toggles.pop_replies(supervisor, NOW) == [(b"operator", reply_to_sleep(5, WorkerState.AWAKE))]


def test_toggles_beyond_the_limit_are_answered_at_once() -> None:
    toggles: PendingToggles[bytes] = PendingToggles()
    supervisor = awake()
    supervisor.handle(ToggleReceived(1, WantedState.ASLEEP), NOW)
    for rid in range(MAX_PENDING + 10):
        toggles.add(b"operator", rid, 1, NOW)
    assert [reply.rid for _, reply in toggles.pop_replies(supervisor, NOW)] == list(
        range(MAX_PENDING, MAX_PENDING + 10)
    )
