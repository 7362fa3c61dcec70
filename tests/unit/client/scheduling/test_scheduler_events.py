"""The table of state transitions of a segment."""

from __future__ import annotations

from msd.client.scheduling.scheduler_events import TRANSITIONS, SegmentState

MISSING = {SegmentState.UNCHECKED, SegmentState.UNREQUESTED, SegmentState.OUTSTANDING, SegmentState.SUSPECT}


def reachable(start: SegmentState) -> set[SegmentState]:
    """Returns all states that a segment can reach from the state ``start``."""
    found: set[SegmentState] = set()
    new = {start}
    while new:
        found |= new
        new = {end for begin, end in TRANSITIONS if begin in found} - found
    return found


def test_a_verified_or_reused_segment_never_becomes_missing() -> None:
    assert {start for start, _ in TRANSITIONS} == MISSING


def test_every_missing_segment_can_be_verified() -> None:
    assert all(SegmentState.VERIFIED in reachable(state) for state in MISSING)


def test_an_unchecked_segment_can_reach_every_state() -> None:
    assert reachable(SegmentState.UNCHECKED) == {*SegmentState}
