"""When ``--until-done`` may end the servers: not while a client still needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msd.broker.supervision.until_done import (
    CLAIM_TIMEOUT_S,
    MAX_SESSIONS,
    SESSION_TIMEOUT_S,
    SETTLE_TIME_S,
    AwakeChanged,
    ClientDone,
    End,
    SessionsReported,
    SessionsServed,
    UntilDone,
    UntilDoneEvent,
)
from msd.wire.protocol.messages import ServedSession
from msd.wire.support.core import Stalled, TimePassed

START = 1000.0
#: Seconds per iteration of the broker's event loop.
ITERATION = 0.25
A, B = 1, 2


class Scenario:
    """An ``UntilDone`` in a simulation of the broker's event loop."""

    def __init__(self) -> None:
        self.until_done = UntilDone()
        self.now = START
        self.handle(AwakeChanged(True))
        self.handle(TimePassed())

    def handle(self, event: UntilDoneEvent) -> None:
        """Passes ``event`` to ``UntilDone``. After ``TimePassed``, ``may_end`` is True if the servers may end now."""
        actions = self.until_done.handle(event, self.now)
        if isinstance(event, TimePassed):
            self.may_end = actions == [End()]
        else:
            assert actions == []

    def wait(self, seconds: float, *reported: int, awake: bool = True) -> None:
        """Runs the loop for ``seconds``; in every iteration a worker reports the sessions ``reported``."""
        for _ in range(round(seconds / ITERATION)):
            self.now += ITERATION
            self.report(*reported)
            self.handle(AwakeChanged(awake))
            self.handle(TimePassed())

    def done(self, session: int) -> None:
        self.handle(ClientDone(ServedSession(session)))
        self.handle(TimePassed())

    def report(self, *sessions: int) -> None:
        self.handle(SessionsReported(sessions))
        self.handle(SessionsServed([ServedSession(session) for session in sessions]))


@pytest.fixture
def scenario() -> Iterator[Scenario]:
    scenario = Scenario()
    yield scenario
    scenario.until_done.check_invariants()


def test_the_servers_do_not_end_before_a_client_is_done(scenario: Scenario) -> None:
    scenario.wait(1, A)
    scenario.wait(10 * SESSION_TIMEOUT_S)
    assert not scenario.may_end
    assert scenario.until_done.next_deadline(scenario.now) is None


def test_the_servers_end_when_the_only_client_is_done_and_the_settle_time_has_passed(scenario: Scenario) -> None:
    scenario.wait(1, A)
    scenario.done(A)
    assert not scenario.may_end
    assert scenario.until_done.next_deadline(scenario.now) == scenario.now + SETTLE_TIME_S
    scenario.wait(SETTLE_TIME_S, A)
    assert scenario.may_end


def test_a_client_that_is_done_before_the_first_heartbeat_ends_the_servers(scenario: Scenario) -> None:
    scenario.done(A)
    scenario.now += CLAIM_TIMEOUT_S - ITERATION
    scenario.handle(TimePassed())
    scenario.wait(SETTLE_TIME_S + ITERATION, A)
    assert scenario.may_end


@pytest.mark.parametrize("reported", [(), (ServedSession(B),), (ServedSession(A, b"another key"),)])
def test_a_client_that_was_not_served_does_not_end_the_servers(
    scenario: Scenario, reported: tuple[ServedSession, ...]
) -> None:
    scenario.handle(SessionsServed(reported))
    scenario.done(A)
    scenario.wait(2 * CLAIM_TIMEOUT_S)
    assert not scenario.may_end
    scenario.report(A)
    scenario.wait(SETTLE_TIME_S)
    assert not scenario.may_end, "the client was served after its message had timed out"


def test_another_client_keeps_the_servers_running_until_it_is_done(scenario: Scenario) -> None:
    scenario.wait(1, A, B)
    scenario.done(A)
    scenario.wait(100, A, B)
    assert not scenario.may_end
    assert scenario.until_done.next_deadline(scenario.now) is None, "a deadline while a client is not done"
    scenario.done(B)
    scenario.wait(SETTLE_TIME_S, A, B)
    assert scenario.may_end


def test_a_client_that_waits_for_sleeping_workers_keeps_the_servers_running(scenario: Scenario) -> None:
    """Workers that are asleep or dead report no sessions."""
    scenario.wait(1, A, B)
    scenario.done(A)
    scenario.wait(1000, awake=False)
    assert not scenario.may_end
    scenario.wait(5, B)
    scenario.done(B)
    scenario.wait(SETTLE_TIME_S)
    assert scenario.may_end


def test_a_client_has_the_full_time_to_reconnect_after_a_worker_wakes(scenario: Scenario) -> None:
    scenario.wait(1, A, B)
    scenario.done(A)
    scenario.wait(1000, awake=False)
    scenario.wait(SESSION_TIMEOUT_S - 1)
    assert not scenario.may_end
    scenario.wait(1.25)
    assert scenario.may_end


def test_a_client_that_no_worker_reports_is_dropped_eventually(scenario: Scenario) -> None:
    scenario.wait(1, A, B)
    scenario.done(A)
    scenario.wait(SESSION_TIMEOUT_S - 2 * ITERATION)
    assert not scenario.may_end
    scenario.wait(2 * ITERATION)
    assert scenario.may_end


def test_a_client_that_connects_during_the_settle_time_keeps_the_servers_running(scenario: Scenario) -> None:
    scenario.done(A)
    scenario.wait(SETTLE_TIME_S - ITERATION)
    scenario.wait(60, B)
    assert not scenario.may_end


def test_a_late_report_does_not_reopen_a_session_that_is_done(scenario: Scenario) -> None:
    """A worker that was frozen when the client sent ``bye`` still reports the session for a while."""
    scenario.wait(1, A)
    scenario.done(A)
    scenario.wait(10 * SESSION_TIMEOUT_S, A)
    assert scenario.may_end


def test_a_stall_of_the_broker_drops_no_client(scenario: Scenario) -> None:
    scenario.wait(1, A, B)
    scenario.done(A)
    scenario.now += 1000
    scenario.handle(Stalled(1000))
    scenario.handle(TimePassed())
    assert not scenario.may_end


def test_an_overestimated_stall_does_not_move_the_clock_back(scenario: Scenario) -> None:
    scenario.wait(1, B)
    scenario.handle(Stalled(5))
    scenario.handle(TimePassed())
    scenario.wait(1, A)


def test_the_number_of_sessions_is_bounded(scenario: Scenario) -> None:
    scenario.report(*range(10, 3 * MAX_SESSIONS))
    for session in range(3 * MAX_SESSIONS):
        scenario.done(-session)
    scenario.until_done.check_invariants()


def test_a_flood_of_done_messages_does_not_drop_a_client_that_is_being_served(scenario: Scenario) -> None:
    scenario.wait(1, B)
    for session in range(10, MAX_SESSIONS + 100):
        scenario.done(session)
    scenario.wait(1)
    assert not scenario.may_end


def test_old_sessions_are_dropped(scenario: Scenario) -> None:
    """Servers may run for years before all clients are done, so the number of stored sessions must not grow."""
    for session in range(1000):
        scenario.wait(ITERATION, session)
        scenario.done(session)
    scenario.wait(SESSION_TIMEOUT_S + ITERATION)
    assert not scenario.until_done._done
    assert not scenario.until_done._open


@settings(max_examples=100)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("reported"), st.integers(0, 5)),
            st.tuples(st.just("done"), st.integers(0, 5)),
            st.tuples(st.just("awake"), st.integers(0, 40)),
            st.tuples(st.just("asleep"), st.integers(0, 40)),
            st.tuples(st.just("stalled"), st.integers(0, 40)),
        ),
        max_size=60,
    )
)
def test_the_invariants_hold_for_any_order_of_events(steps: list[tuple[str, int]]) -> None:
    scenario = Scenario()
    for step, number in steps:
        match step:
            case "reported":
                scenario.report(number)
            case "done":
                scenario.done(number)
            case "stalled":
                scenario.handle(Stalled(number))
            case _:
                scenario.wait(number, awake=step == "awake")
        scenario.until_done.check_invariants()
