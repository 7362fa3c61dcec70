"""When an operator's toggle is answered, and with which reply."""

from __future__ import annotations

from msd.broker.supervision.pending_toggles import (
    MAX_PENDING,
    TOGGLE_TIMEOUT_S,
    AnswerToggle,
    PendingToggles,
    ToggleRequested,
)
from msd.broker.supervision.supervisor import LOST_AFTER_S, Supervisor
from msd.broker.supervision.supervisor_events import CatalogueReady, QuitReceived, Spawned, ToggleReceived
from msd.wire.protocol.messages import Toggled
from msd.wire.protocol.states import ReportedState, WantedState, WorkerState
from msd.wire.support.core import TimePassed
from tests.unit.snapshots import heard, joined

NOW = 1000.0


def awake(workers: int = 2) -> Supervisor:
    supervisor = Supervisor([""] * workers, hang_limit=60)
    supervisor.handle(CatalogueReady(1), NOW)
    for number in supervisor.workers:
        supervisor.handle(Spawned(number, 100 + number), NOW)
        supervisor.handle(joined(number, 100 + number), NOW)
        heartbeat(supervisor, number, ReportedState.AWAKE)
    return supervisor


def heartbeat(supervisor: Supervisor, number: int, state: ReportedState) -> None:
    supervisor.handle(heard(number, 100 + number, state), NOW)


class Scenario:
    """Two awake workers, and the toggles requested by operators."""

    def __init__(self) -> None:
        self.supervisor = awake()
        self.toggles: PendingToggles[bytes] = PendingToggles(self.supervisor)

    def order_sleep(self, rid: int, number: int = 1, now: float = NOW) -> None:
        self.supervisor.handle(ToggleReceived(number, WantedState.ASLEEP), now)
        self.request(rid, number, now)

    def request(self, rid: int, number: int = 1, now: float = NOW) -> None:
        assert self.toggles.handle(ToggleRequested(b"operator %d" % rid, rid, number), now) == []
        self.toggles.check_invariants()

    def answers(self, now: float = NOW) -> list[AnswerToggle[bytes]]:
        return self.toggles.handle(TimePassed(), now)


def test_a_toggle_of_a_lost_worker_is_answered_at_once() -> None:
    scenario = Scenario()
    event = joined(3, 9, name="attic", host="10.0.0.7", token=b"attic's own token")
    scenario.supervisor.handle(event, NOW)
    scenario.supervisor.handle(TimePassed(), NOW + LOST_AFTER_S)
    scenario.order_sleep(5, 3, NOW + LOST_AFTER_S)
    assert scenario.answers(NOW + LOST_AFTER_S) == [answer_to_sleep(5, WorkerState.LOST, 3)]


def test_a_toggle_of_a_worker_that_is_not_listed_any_more_is_answered() -> None:
    """The worker left a minute ago, and is forgotten while the toggle is on its way."""
    scenario = Scenario()
    scenario.toggles.handle(ToggleRequested(b"operator 5", 5, 7), NOW)
    assert scenario.answers() == [answer_to_sleep(5, WorkerState.LOST, 7)]


def answer_to_sleep(rid: int, state: WorkerState, number: int = 1) -> AnswerToggle[bytes]:
    """The answer to an operator's order to put worker ``number`` to sleep."""
    reply = Toggled(rid=rid, number=number, state=state, reached=state is WorkerState.ASLEEP)
    return AnswerToggle(b"operator %d" % rid, reply)


def test_a_toggle_is_answered_once_its_worker_is_in_the_wanted_state() -> None:
    scenario = Scenario()
    scenario.order_sleep(5)
    assert scenario.answers() == []
    assert scenario.toggles.next_deadline(NOW) == NOW + TOGGLE_TIMEOUT_S
    heartbeat(scenario.supervisor, 1, ReportedState.ASLEEP)
    assert scenario.answers(NOW + 1) == [answer_to_sleep(5, WorkerState.ASLEEP)]
    assert scenario.answers(NOW + 9) == []
    assert scenario.toggles.next_deadline(NOW) is None


def test_a_toggle_is_answered_at_once_if_the_worker_is_in_the_wanted_state() -> None:
    scenario = Scenario()
    scenario.request(5, 2)
    (answer,) = scenario.answers()
    assert (answer.peer, answer.reply.state, answer.reply.reached) == (b"operator 5", WorkerState.AWAKE, True)


def test_a_toggle_is_answered_after_a_timeout_if_the_worker_does_not_react() -> None:
    scenario = Scenario()
    scenario.order_sleep(5)
    assert scenario.answers(NOW + TOGGLE_TIMEOUT_S - 0.01) == []
    assert scenario.answers(NOW + TOGGLE_TIMEOUT_S) == [answer_to_sleep(5, WorkerState.AWAKE)]


def test_toggles_are_answered_independently() -> None:
    scenario = Scenario()
    for number in (1, 2):
        scenario.order_sleep(number, number, NOW + number)
    heartbeat(scenario.supervisor, 2, ReportedState.ASLEEP)
    assert scenario.answers() == [answer_to_sleep(2, WorkerState.ASLEEP, 2)]
    assert scenario.toggles.next_deadline(NOW) == NOW + 1 + TOGGLE_TIMEOUT_S


def test_all_toggles_are_answered_during_a_shutdown() -> None:
    scenario = Scenario()
    scenario.order_sleep(5)
    scenario.supervisor.handle(QuitReceived(), NOW)
    assert scenario.answers() == [answer_to_sleep(5, WorkerState.AWAKE)]


def test_toggles_beyond_the_limit_are_answered_at_once() -> None:
    scenario = Scenario()
    for rid in range(MAX_PENDING + 10):
        scenario.order_sleep(rid)
    assert [answer.reply.rid for answer in scenario.answers()] == [*range(MAX_PENDING, MAX_PENDING + 10)]
