"""The table of state transitions of a unit."""

from __future__ import annotations

from msd.client.scheduling.scheduler_events import TRANSITIONS, GroupRemoved, UnitState

MISSING = {UnitState.UNCHECKED, UnitState.UNREQUESTED, UnitState.STARTED, UnitState.SUSPECT}


def reachable(start: UnitState) -> set[UnitState]:
    """Returns all states that a unit can reach from the state ``start``."""
    found: set[UnitState] = set()
    new = {start}
    while new:
        found |= new
        new = {end for begin, end in TRANSITIONS if begin in found} - found
    return found


def test_a_verified_reused_or_removed_unit_never_becomes_missing() -> None:
    assert {start for start, _ in TRANSITIONS} == MISSING


def test_every_missing_unit_can_be_verified() -> None:
    assert all(UnitState.VERIFIED in reachable(state) for state in MISSING)


def test_every_missing_unit_can_be_removed_and_only_with_its_group() -> None:
    causes = {start: by for (start, end), by in TRANSITIONS.items() if end is UnitState.REMOVED}
    assert causes == dict.fromkeys(MISSING, (GroupRemoved,))


def test_an_unchecked_unit_can_reach_every_state() -> None:
    assert reachable(UnitState.UNCHECKED) == {*UnitState}
