"""When a client reports why there is no progress, and when it gives up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.client.events import Waiting
from msd.client.network.progress_timeout import WAITING_NOTICE_S, ProgressTimeout
from msd.wire.errors import NoAnswerError

START = 1000.0


def test_a_short_pause_is_not_reported() -> None:
    assert ProgressTimeout(None, START).check(START + WAITING_NOTICE_S - 0.01, "why") is None


def test_a_reason_is_reported_once() -> None:
    timeout = ProgressTimeout(None, START)
    assert timeout.check(START + WAITING_NOTICE_S, "why") == Waiting("why", WAITING_NOTICE_S)
    assert timeout.check(START + WAITING_NOTICE_S + 100, "why") is None


def test_a_new_reason_is_reported_with_the_whole_time() -> None:
    timeout = ProgressTimeout(None, START)
    timeout.check(START + WAITING_NOTICE_S, "why")
    assert timeout.check(START + 7, "because") == Waiting("because", 7.0)


def test_the_same_reason_is_reported_again_after_progress() -> None:
    timeout = ProgressTimeout(None, START)
    timeout.check(START + WAITING_NOTICE_S, "why")
    timeout.reset(START + 5)
    assert timeout.check(START + 5, "why") is None
    assert timeout.check(START + 5 + WAITING_NOTICE_S, "why") == Waiting("why", WAITING_NOTICE_S)


def test_it_gives_up_when_the_timeout_expires() -> None:
    timeout = ProgressTimeout(2.5, START)
    timeout.check(START + 2.49, "why")
    with pytest.raises(NoAnswerError, match=r"^gave up after 2\.5 s without progress: why$"):
        timeout.check(START + 2.5, "why")


def test_a_timeout_shorter_than_the_notice_gives_up_without_one() -> None:
    with pytest.raises(NoAnswerError):
        ProgressTimeout(WAITING_NOTICE_S / 2, START).check(START + WAITING_NOTICE_S / 2, "why")


def test_without_a_timeout_it_never_gives_up() -> None:
    timeout = ProgressTimeout(None, START)
    timeout.check(START + WAITING_NOTICE_S, "why")
    assert timeout.check(START + 1e9, "why") is None
    assert timeout.next_deadline() == float("inf")


def test_progress_resets_the_timeout() -> None:
    timeout = ProgressTimeout(2.0, START)
    for step in range(1, 10):
        timeout.reset(START + step)
    timeout.check(START + 10.9, "why")
    with pytest.raises(NoAnswerError):
        timeout.check(START + 11, "why")


def test_a_stall_of_this_process_extends_the_timeout() -> None:
    timeout = ProgressTimeout(2.0, START)
    timeout.extend(60.0)
    assert timeout.check(START + 60 + WAITING_NOTICE_S - 0.01, "why") is None
    with pytest.raises(NoAnswerError):
        timeout.check(START + 62, "why")


@given(
    start=st.floats(0, 1e6),
    seconds=st.none() | st.floats(0.05, 1e5),
    pauses=st.lists(st.floats(0, 10), max_size=5),
)
def test_every_deadline_is_followed_by_a_later_one_or_the_end(
    start: float, seconds: float | None, pauses: list[float]
) -> None:
    timeout = ProgressTimeout(seconds, start)
    now = start
    for pause in pauses:
        now += pause
        timeout.reset(now)
    while (deadline := timeout.next_deadline()) < float("inf"):
        now = max(now, deadline)
        try:
            event = timeout.check(now, "why")
        except NoAnswerError:
            return
        assert event is not None
        assert timeout.next_deadline() > now
    assert seconds is None
