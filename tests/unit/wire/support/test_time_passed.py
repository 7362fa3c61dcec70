"""The event ``TimePassed``, which the pure cores accept."""

from __future__ import annotations

import pytest

from msd.wire.support.time_passed import TimePassed


def test_all_instances_are_equal_and_hashable() -> None:
    assert {TimePassed(), TimePassed()} == {TimePassed()}


def test_the_event_carries_no_time() -> None:
    """The pure cores receive the time as their argument ``now``; a time in the event could contradict it."""
    assert TimePassed.__struct_fields__ == ()
    with pytest.raises(TypeError):
        TimePassed(1.0)
