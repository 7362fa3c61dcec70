"""When a client reports why there is no progress, and when it gives up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from msd.client.events import Waiting
from msd.client.network.progress_timeout import (
    WAITING_NOTICE_S,
    Action,
    ProgressMade,
    ProgressTimeout,
    TimeoutExpired,
    WaitingFor,
)
from msd.wire.support.core import Stalled

START = 1000.0


def wait(timeout: ProgressTimeout, now: float, reason: str = "why", *, is_timed: bool = True) -> Action | None:
    """Returns the action that the timeout requests at ``now``, None if there is none."""
    actions = timeout.handle(WaitingFor(reason, is_timed=is_timed), now)
    assert len(actions) <= 1
    return actions[0] if actions else None


def test_a_short_pause_is_not_reported() -> None:
    assert wait(ProgressTimeout(None, START), START + WAITING_NOTICE_S - 0.01) is None


def test_a_reason_is_reported_once() -> None:
    timeout = ProgressTimeout(None, START)
    assert wait(timeout, START + WAITING_NOTICE_S) == Waiting("why", WAITING_NOTICE_S)
    assert wait(timeout, START + WAITING_NOTICE_S + 100) is None


def test_a_new_reason_is_reported_with_the_whole_time() -> None:
    timeout = ProgressTimeout(None, START)
    wait(timeout, START + WAITING_NOTICE_S)
    assert wait(timeout, START + 7, "because") is None
    assert timeout.next_deadline(START + 7) == START + 7 + WAITING_NOTICE_S
    assert wait(timeout, START + 7 + WAITING_NOTICE_S, "because") == Waiting("because", 7 + WAITING_NOTICE_S)


def test_reasons_that_are_over_in_a_moment_are_not_reported() -> None:
    timeout = ProgressTimeout(None, START)
    wait(timeout, START + WAITING_NOTICE_S, "all workers are asleep")
    assert wait(timeout, START + 60, "none is reachable") is None
    assert wait(timeout, START + 60.9, "connected") is None
    timeout.handle(ProgressMade(), START + 61.5)
    assert wait(timeout, START + 61.9, "connected") is None


def test_the_same_reason_is_reported_again_after_progress() -> None:
    timeout = ProgressTimeout(None, START)
    wait(timeout, START + WAITING_NOTICE_S)
    timeout.handle(ProgressMade(), START + 5)
    assert wait(timeout, START + 5) is None
    assert wait(timeout, START + 5 + WAITING_NOTICE_S) == Waiting("why", WAITING_NOTICE_S)


def test_it_gives_up_when_the_timeout_expires() -> None:
    timeout = ProgressTimeout(2.5, START)
    wait(timeout, START + 2.49)
    assert wait(timeout, START + 2.5) == TimeoutExpired("gave up after 2.5 s without progress: why")


def test_a_timeout_shorter_than_the_notice_gives_up_without_one() -> None:
    assert isinstance(wait(ProgressTimeout(WAITING_NOTICE_S / 2, START), START + WAITING_NOTICE_S / 2), TimeoutExpired)


def test_without_a_timeout_it_never_gives_up() -> None:
    timeout = ProgressTimeout(None, START)
    wait(timeout, START + WAITING_NOTICE_S)
    assert wait(timeout, START + 1e9) is None
    assert timeout.next_deadline(START + 1e9) is None


def test_progress_resets_the_timeout() -> None:
    timeout = ProgressTimeout(2.0, START)
    for step in range(1, 10):
        timeout.handle(ProgressMade(), START + step)
    wait(timeout, START + 10.9)
    assert isinstance(wait(timeout, START + 11), TimeoutExpired)


def test_a_stall_of_this_process_extends_the_timeout() -> None:
    timeout = ProgressTimeout(2.0, START)
    timeout.handle(Stalled(60.0), START + 60)
    assert wait(timeout, START + 60 + WAITING_NOTICE_S - 0.01) is None
    assert isinstance(wait(timeout, START + 62), TimeoutExpired)


def test_a_wait_that_the_servers_do_not_cause_is_reported_but_does_not_count() -> None:
    timeout = ProgressTimeout(2.0, START)
    assert wait(timeout, START + WAITING_NOTICE_S, is_timed=False) == Waiting("why", WAITING_NOTICE_S)
    assert wait(timeout, START + 100, is_timed=False) is None
    assert timeout.next_deadline(START + 100) == START + 102
    wait(timeout, START + 101.9, "the servers")
    assert isinstance(wait(timeout, START + 102, "the servers"), TimeoutExpired)


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
        timeout.handle(ProgressMade(), now)
    while (deadline := timeout.next_deadline(now)) is not None:
        now = max(now, deadline)
        action = wait(timeout, now)
        assert action is not None
        if isinstance(action, TimeoutExpired):
            return
        after = timeout.next_deadline(now)
        assert after is None or after > now
    assert seconds is None
