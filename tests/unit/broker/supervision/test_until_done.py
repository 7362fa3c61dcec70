"""When ``--until-done`` may end the servers: not while somebody still needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msd.broker.supervision.until_done import GONE_AFTER, MOST, SETTLE, UntilDone

START = 1000.0
#: Seconds between two turns of the broker's loop.
TURN = 0.25
A, B = 1, 2


class Scene:
    """UntilDone, and a broker's loop that the test lets run."""

    def __init__(self) -> None:
        self.sessions = UntilDone()
        self.now = START
        self.sessions.pass_time(self.now, awake=True)

    def wait(self, seconds: float, *reported: int, awake: bool = True) -> None:
        """The loop runs for so long; a worker reports these sessions in every turn."""
        for _ in range(round(seconds / TURN)):
            self.now += TURN
            self.sessions.reported(reported)
            self.sessions.pass_time(self.now, awake=awake)

    def done(self, session: int) -> None:
        self.sessions.done(session, self.now)

    @property
    def may_end(self) -> bool:
        return self.sessions.may_end(self.now)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.sessions.check_invariants()


def test_nothing_ends_before_somebody_is_done(scene: Scene) -> None:
    scene.wait(1, A)
    scene.wait(10 * GONE_AFTER)
    assert not scene.may_end
    assert scene.sessions.next_deadline() is None


def test_the_only_client_ends_it_once_others_had_time_to_be_reported(scene: Scene) -> None:
    scene.wait(1, A)
    scene.done(A)
    assert not scene.may_end
    assert scene.sessions.next_deadline() == scene.now + SETTLE
    scene.wait(SETTLE, A)
    assert scene.may_end


def test_a_client_that_no_worker_has_reported_yet_ends_it_too(scene: Scene) -> None:
    scene.done(A)
    scene.wait(SETTLE, A)
    assert scene.may_end


def test_another_client_keeps_it_until_it_is_done(scene: Scene) -> None:
    scene.wait(1, A, B)
    scene.done(A)
    scene.wait(100, A, B)
    assert not scene.may_end
    assert scene.sessions.next_deadline() is None, "nothing is due while it depends on a client"
    scene.done(B)
    scene.wait(SETTLE, A, B)
    assert scene.may_end


def test_a_client_that_waits_for_sleeping_workers_keeps_it_for_ever(scene: Scene) -> None:
    """Asleep or crashed, workers report no sessions."""
    scene.wait(1, A, B)
    scene.done(A)
    scene.wait(1000, awake=False)
    assert not scene.may_end
    scene.wait(5, B)
    scene.done(B)
    scene.wait(SETTLE)
    assert scene.may_end


def test_a_client_that_was_last_seen_long_before_has_its_time_when_a_worker_wakes(scene: Scene) -> None:
    scene.wait(1, A, B)
    scene.done(A)
    scene.wait(1000, awake=False)
    scene.wait(GONE_AFTER - 1)
    assert not scene.may_end
    scene.wait(1.25)
    assert scene.may_end


def test_a_client_that_nobody_reports_is_gone_in_the_end(scene: Scene) -> None:
    scene.wait(1, A, B)
    scene.done(A)
    scene.wait(GONE_AFTER - 2 * TURN)
    assert not scene.may_end
    scene.wait(2 * TURN)
    assert scene.may_end


def test_a_client_that_comes_later_is_waited_for(scene: Scene) -> None:
    scene.done(A)
    scene.wait(SETTLE - TURN)
    scene.wait(60, B)
    assert not scene.may_end


def test_a_late_report_does_not_open_a_session_that_is_done(scene: Scene) -> None:
    """A worker that was frozen when the client said goodbye reports it for a while."""
    scene.wait(1, A)
    scene.done(A)
    scene.wait(10 * GONE_AFTER, A)
    assert scene.may_end


def test_a_stall_of_the_broker_makes_nobody_gone(scene: Scene) -> None:
    scene.wait(1, A, B)
    scene.done(A)
    scene.now += 1000
    scene.sessions.stalled(1000)
    scene.sessions.pass_time(scene.now, awake=True)
    assert not scene.may_end


def test_a_stall_said_too_long_does_not_turn_time_back(scene: Scene) -> None:
    scene.wait(1, B)
    scene.sessions.stalled(5)
    scene.sessions.pass_time(scene.now, awake=True)
    scene.wait(1, A)


def test_it_remembers_a_bounded_number(scene: Scene) -> None:
    scene.sessions.reported(range(10, 3 * MOST))
    for session in range(3 * MOST):
        scene.done(-session)
    scene.sessions.check_invariants()


def test_a_flood_of_done_forgets_nobody_who_is_served(scene: Scene) -> None:
    scene.wait(1, B)
    for session in range(10, MOST + 100):
        scene.done(session)
    scene.wait(1)
    assert not scene.may_end


def test_what_is_over_is_forgotten(scene: Scene) -> None:
    """Also without --until-done, over years."""
    for session in range(1000):
        scene.wait(TURN, session)
        scene.done(session)
    scene.wait(GONE_AFTER + TURN)
    assert not scene.sessions._done
    assert not scene.sessions._open


@settings(max_examples=100, deadline=None)
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
def test_in_any_order_the_invariants_hold(steps: list[tuple[str, int]]) -> None:
    scene = Scene()
    for what, number in steps:
        match what:
            case "reported":
                scene.sessions.reported([number])
            case "done":
                scene.done(number)
            case "stalled":
                scene.sessions.stalled(number)
            case _:
                scene.wait(number, awake=what == "awake")
        scene.sessions.check_invariants()
