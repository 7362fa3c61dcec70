"""What a group of units counts."""

from __future__ import annotations

from msd.client.operations.unit_group import UnitGroup


def test_what_is_verified_is_fetched_or_reused_and_not_outdated() -> None:
    group = UnitGroup()
    assert group.verified == 0
    group.fetched, group.outdated, group.reused = 10, 3, 5
    assert group.verified == 12
