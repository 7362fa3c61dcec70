"""When a client says why nothing moves, and when it gives up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.client.events import Waiting
from msd.client.network.progress_timeout import QUIET, ProgressTimeout
from msd.wire.errors import NoAnswerError

START = 1000.0


def test_a_short_pause_is_not_worth_a_word() -> None:
    assert ProgressTimeout(None, START).check(START + QUIET - 0.01, "why") is None


def test_a_reason_is_told_once() -> None:
    patience = ProgressTimeout(None, START)
    assert patience.check(START + QUIET, "why") == Waiting("why", QUIET)
    assert patience.check(START + QUIET + 100, "why") is None


def test_another_reason_is_told_with_the_whole_time() -> None:
    patience = ProgressTimeout(None, START)
    patience.check(START + QUIET, "why")
    assert patience.check(START + 7, "because") == Waiting("because", 7.0)


def test_the_same_reason_is_told_again_after_progress() -> None:
    patience = ProgressTimeout(None, START)
    patience.check(START + QUIET, "why")
    patience.moved(START + 5)
    assert patience.check(START + 5, "why") is None
    assert patience.check(START + 5 + QUIET, "why") == Waiting("why", QUIET)


def test_it_gives_up_when_the_time_is_up() -> None:
    patience = ProgressTimeout(2.5, START)
    patience.check(START + 2.49, "why")
    with pytest.raises(NoAnswerError, match=r"^gave up after 2\.5 s without progress: why$"):
        patience.check(START + 2.5, "why")


def test_it_gives_up_even_before_it_has_said_why() -> None:
    with pytest.raises(NoAnswerError):
        ProgressTimeout(QUIET / 2, START).check(START + QUIET / 2, "why")


def test_without_a_timeout_it_never_gives_up() -> None:
    patience = ProgressTimeout(None, START)
    patience.check(START + QUIET, "why")
    assert patience.check(START + 1e9, "why") is None
    assert patience.next_deadline() == float("inf")


def test_progress_puts_the_end_off() -> None:
    patience = ProgressTimeout(2.0, START)
    for step in range(1, 10):
        patience.moved(START + step)
    patience.check(START + 10.9, "why")
    with pytest.raises(NoAnswerError):
        patience.check(START + 11, "why")


def test_a_stall_of_this_process_is_not_held_against_the_others() -> None:
    patience = ProgressTimeout(2.0, START)
    patience.excuse(60.0)
    assert patience.check(START + 60 + QUIET - 0.01, "why") is None
    with pytest.raises(NoAnswerError):
        patience.check(START + 62, "why")


@given(
    start=st.floats(0, 1e6),
    timeout=st.none() | st.floats(0.05, 1e5),
    moves=st.lists(st.floats(0, 10), max_size=5),
)
def test_every_deadline_leads_to_a_later_one_or_to_the_end(
    start: float, timeout: float | None, moves: list[float]
) -> None:
    patience = ProgressTimeout(timeout, start)
    now = start
    for move in moves:
        now += move
        patience.moved(now)
    while (deadline := patience.next_deadline()) < float("inf"):
        now = max(now, deadline)
        try:
            told = patience.check(now, "why")
        except NoAnswerError:
            return
        assert told is not None
        assert patience.next_deadline() > now
    assert timeout is None
