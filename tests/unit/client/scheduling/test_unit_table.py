"""The state of each unit, and the order in which units are requested."""

from __future__ import annotations

from collections.abc import Set

import pytest

from msd.client.scheduling.scheduler_events import UnitState
from msd.client.scheduling.unit_table import UnitTable


def accept(senders: Set[int]) -> bool:
    return True


def reject(senders: Set[int]) -> bool:
    return False


def request(table: UnitTable, worker: int, limit: int = 99) -> int | None:
    """Requests the next unit from the worker and returns its index, None if no unit is left below ``limit``."""
    index = table.take_unrequested(accept, limit)
    if index is not None:
        table.add_request(index, worker)
    table.check_invariants()
    return index


def test_segments_are_requested_in_order_and_each_once() -> None:
    table = UnitTable(3)
    assert [request(table, 1) for _ in range(4)] == [0, 1, 2, None]
    assert table.state_of(2) is UnitState.OUTSTANDING


def test_segments_from_the_limit_on_are_requested_once_it_rises() -> None:
    table = UnitTable(4)
    assert [request(table, 1, limit=2) for _ in range(3)] == [0, 1, None]
    table.drop_request(0, 1)
    assert [request(table, 2, limit=2) for _ in range(2)] == [0, None]
    assert [request(table, 2, limit=3) for _ in range(2)] == [2, None]
    assert [request(table, 2, limit=9) for _ in range(2)] == [3, None]


def test_unchecked_segments_are_skipped() -> None:
    table = UnitTable(4, unchecked=[0, 2])
    assert [request(table, 1) for _ in range(3)] == [1, 3, None]
    assert table.state_of(0) is UnitState.UNCHECKED


def test_a_checked_segment_is_reused_or_requested() -> None:
    table = UnitTable(2, unchecked=[0, 1])
    assert request(table, 1) is None
    table.mark_checked(0, valid=True)
    table.mark_checked(1, valid=False)
    assert (table.state_of(0), table.state_of(1)) == (UnitState.REUSED, UnitState.UNREQUESTED)
    assert table.remaining == 1
    assert request(table, 1) == 1


def test_a_second_check_of_a_segment_changes_nothing() -> None:
    table = UnitTable(1, unchecked=[0])
    table.mark_checked(0, valid=True)
    table.mark_checked(0, valid=False)
    assert (table.state_of(0), table.remaining) == (UnitState.REUSED, 0)


def test_dropped_requests_come_first_in_their_order() -> None:
    table = UnitTable(4)
    for _ in range(3):
        request(table, 1)
    for index in (2, 1, 0):
        table.drop_request(index, 1)
    assert [request(table, 2) for _ in range(4)] == [0, 1, 2, 3]


def test_a_segment_with_a_second_request_is_not_requeued() -> None:
    table = UnitTable(1)
    request(table, 1)
    table.add_request(0, 2)
    table.drop_request(0, 1)
    assert table.requested_from == {0: [2]}
    assert request(table, 3) is None


def test_a_request_that_does_not_exist_is_not_dropped() -> None:
    table = UnitTable(1)
    request(table, 1)
    table.drop_request(0, 2)
    assert table.requested_from == {0: [1]}


def test_a_written_segment_belongs_to_its_worker() -> None:
    table = UnitTable(2)
    request(table, 1)
    table.mark_written(0, 1)
    assert table.state_of(0) is UnitState.VERIFIED
    assert not table.is_missing(0)
    assert (table.delivered_by(1), table.remaining, table.first_missing()) == ([0], 1, 1)


def test_the_first_verified_copy_of_a_segment_counts() -> None:
    table = UnitTable(1)
    request(table, 1)
    table.mark_written(0, 1)
    table.mark_written(0, 2)
    assert (table.delivered_by(1), table.delivered_by(2), table.remaining) == ([0], [], 0)


def test_the_reply_to_a_dropped_request_removes_the_segment_from_the_queue() -> None:
    table = UnitTable(2)
    request(table, 1)
    table.drop_request(0, 1)
    table.mark_written(0, 1)
    assert [request(table, 2) for _ in range(2)] == [1, None]


@pytest.mark.parametrize("dropped", [False, True])
def test_a_corrupt_segment_waits_for_an_acceptable_worker(dropped: bool) -> None:
    table = UnitTable(1)
    request(table, 1)
    if dropped:
        table.drop_request(0, 1)
    table.mark_corrupt(0, 1)
    table.check_invariants()
    assert table.state_of(0) is UnitState.SUSPECT
    assert table.corrupt_senders(0) == {1}
    assert table.take_unrequested(reject, 99) is None
    assert request(table, 2) == 0


def test_a_corrupt_copy_of_a_verified_segment_is_ignored() -> None:
    table = UnitTable(1)
    request(table, 1)
    table.mark_written(0, 1)
    table.mark_corrupt(0, 2)
    assert table.state_of(0) is UnitState.VERIFIED
    assert table.corrupt_senders(0) == set()


def test_the_first_missing_segment_is_not_an_unchecked_one() -> None:
    table = UnitTable(3, unchecked=[0])
    assert table.first_missing() == 1
    assert UnitTable(1, unchecked=[0]).first_missing() is None
