"""The state of each unit, and what is to be requested next."""

from __future__ import annotations

from collections.abc import Sequence

from msd.client.scheduling.scheduler_events import RequestUnit, UnitState
from msd.client.scheduling.unit_table import UnitTable

SIZE = 100


def table_of(units: int, unchecked: Sequence[int] = ()) -> UnitTable:
    table = UnitTable()
    table.add([SIZE] * units)
    table.mark_unchecked(unchecked)
    table.check_invariants()
    return table


def request(table: UnitTable, worker: int, unit: int, start: int = 0, length: int = SIZE) -> None:
    table.add_request(RequestUnit(worker, unit, start, length))
    table.check_invariants()


def request_next(table: UnitTable, worker: int, limit: int = 99) -> int | None:
    """Requests the first unrequested unit from the worker and returns its number, None if there is none."""
    unit = table.first_unrequested(0, limit)
    if unit is not None:
        request(table, worker, unit, length=table.sizes[unit])
    return unit


def receive(table: UnitTable, worker: int, unit: int, start: int, length: int) -> None:
    table.mark_received(worker, unit, start, length)
    table.check_invariants()


def missing_parts(table: UnitTable, unit: int) -> list[tuple[int, int, list[int]]]:
    """The missing parts of a unit, each with the workers that were asked for it."""
    return [(start, end, [r.worker for r in requests]) for start, end, requests in table.started[unit].parts()]


# Whole units.


def test_units_are_requested_in_order_and_each_once() -> None:
    table = table_of(3)
    assert [request_next(table, 1) for _ in range(4)] == [0, 1, 2, None]
    assert table.state_of(2) is UnitState.STARTED
    assert not table.incomplete


def test_units_that_are_added_later_follow() -> None:
    table = table_of(1)
    assert [request_next(table, 1) for _ in range(2)] == [0, None]
    table.add([5, 6])
    assert [request_next(table, 1, limit=2), table.sizes[1], table.remaining] == [1, 5, 3]


def test_units_from_the_limit_on_are_requested_once_it_rises() -> None:
    table = table_of(4)
    assert [request_next(table, 1, limit=2) for _ in range(3)] == [0, 1, None]
    table.drop_request(1, 0, 0)
    assert [request_next(table, 2, limit=2) for _ in range(2)] == [0, None]
    assert [request_next(table, 2, limit=9) for _ in range(3)] == [2, 3, None]


def test_unchecked_units_are_skipped() -> None:
    table = table_of(4, unchecked=[0, 2])
    assert [request_next(table, 1) for _ in range(3)] == [1, 3, None]
    assert table.state_of(0) is UnitState.UNCHECKED


def test_a_checked_unit_is_reused_or_requested() -> None:
    table = table_of(2, unchecked=[0, 1])
    assert request_next(table, 1) is None
    table.mark_checked(0, valid=True)
    table.mark_checked(1, valid=False)
    assert (table.state_of(0), table.state_of(1)) == (UnitState.REUSED, UnitState.UNREQUESTED)
    assert table.remaining == 1
    assert request_next(table, 1) == 1


def test_a_second_check_of_a_unit_changes_nothing() -> None:
    table = table_of(1, unchecked=[0])
    table.mark_checked(0, valid=True)
    table.mark_checked(0, valid=False)
    assert (table.state_of(0), table.remaining) == (UnitState.REUSED, 0)


def test_dropped_requests_come_first() -> None:
    table = table_of(4)
    for _ in range(3):
        request_next(table, 1)
    for unit in (0, 2, 1):
        table.drop_request(1, unit, 0)
    assert [request_next(table, 2) for _ in range(4)] == [0, 1, 2, 3]


def test_a_unit_with_a_second_request_stays_started() -> None:
    table = table_of(1)
    request_next(table, 1)
    request(table, 2, 0)
    table.drop_request(1, 0, 0)
    assert missing_parts(table, 0) == [(0, SIZE, [2])]
    assert request_next(table, 3) is None


def test_a_request_that_does_not_exist_is_not_dropped() -> None:
    table = table_of(1)
    request_next(table, 1)
    table.drop_request(2, 0, 0)
    assert missing_parts(table, 0) == [(0, SIZE, [1])]


def test_a_written_unit_belongs_to_its_worker() -> None:
    table = table_of(2)
    request_next(table, 1)
    table.mark_written(1, 0)
    assert table.state_of(0) is UnitState.VERIFIED
    assert table.missing_bytes(0, 0, SIZE) == 0
    assert (table.delivered_by(1), table.remaining, table.first_missing(0, 2)) == ([0], 1, 1)


def test_the_first_verified_copy_of_a_unit_counts() -> None:
    table = table_of(1)
    request_next(table, 1)
    table.mark_written(1, 0)
    table.mark_written(2, 0)
    assert (table.delivered_by(1), table.delivered_by(2), table.remaining) == ([0], [], 0)


def test_the_reply_to_a_dropped_request_makes_the_unit_requested_no_more() -> None:
    table = table_of(2)
    request_next(table, 1)
    table.drop_request(1, 0, 0)
    table.mark_written(1, 0)
    assert [request_next(table, 2) for _ in range(2)] == [1, None]


def test_a_corrupt_unit_is_suspect_until_it_is_requested_again() -> None:
    table = table_of(1)
    request_next(table, 1)
    table.mark_corrupt(1, 0)
    table.check_invariants()
    assert table.state_of(0) is UnitState.SUSPECT
    assert table.started[0].corrupt_senders == {1}
    assert (request_next(table, 2), table.incomplete) == (None, {0})
    request(table, 2, 0)
    assert (table.state_of(0), table.incomplete) == (UnitState.STARTED, set())


def test_the_corrupt_reply_to_a_dropped_request_makes_a_unit_suspect() -> None:
    table = table_of(1)
    request_next(table, 1)
    table.drop_request(1, 0, 0)
    table.mark_corrupt(1, 0)
    table.check_invariants()
    assert table.state_of(0) is UnitState.SUSPECT


def test_a_corrupt_copy_of_a_verified_unit_is_ignored() -> None:
    table = table_of(1)
    request_next(table, 1)
    table.mark_written(1, 0)
    table.mark_corrupt(2, 0)
    table.check_invariants()
    assert table.state_of(0) is UnitState.VERIFIED


def test_the_first_missing_unit_of_a_range_is_not_an_unchecked_one() -> None:
    table = table_of(5, unchecked=[1])
    assert (table.first_missing(0, 5), table.first_missing(1, 5), table.first_missing(1, 2)) == (0, 2, None)
    table.mark_written(1, 2)
    assert table.first_missing(1, 5) == 3


def test_the_first_unrequested_unit_is_looked_for_from_a_unit_on() -> None:
    table = table_of(6, unchecked=[1, 2])
    assert [table.first_unrequested(start, 9) for start in range(7)] == [0, 3, 3, 3, 4, 5, None]
    assert [table.first_unrequested(1, limit) for limit in (2, 3, 4)] == [None, None, 3]
    request(table, 1, 3)
    assert table.first_unrequested(1, 9) == 4
    assert UnitTable().first_unrequested(0, 9) is None


def test_a_worker_has_delivered_of_the_ranges_in_which_it_completed_units() -> None:
    table = table_of(4)
    table.mark_written(1, 1)
    table.mark_written(2, 2)
    ranges = [(0, 4), (0, 1), (0, 2), (1, 2), (2, 4)]
    assert [table.has_delivered(1, *range_) for range_ in ranges] == [True, False, True, True, False]
    assert [table.has_delivered(2, *range_) for range_ in ranges] == [True, False, False, False, True]


# Units that are removed.


def test_removed_units_are_neither_missing_nor_requested() -> None:
    """Units 1 to 5 are removed: an unchecked, an unrequested, a started, a suspect and a verified one."""
    table = table_of(7, unchecked=[1])
    for unit in (3, 5):
        request(table, 1, unit)
    request(table, 1, 4, 0, 20)
    table.mark_corrupt(1, 4)
    table.mark_written(1, 5)
    table.remove(1, 6)
    table.check_invariants()
    states = [table.state_of(unit) for unit in range(1, 6)]
    assert states == [*[UnitState.REMOVED] * 4, UnitState.VERIFIED]
    assert (table.remaining, table.delivered_by(1), table.incomplete) == (2, [5], set())
    assert table.missing_bytes(1, 0, SIZE) == table.missing_bytes(3, 0, SIZE) == 0
    assert [request_next(table, 2) for _ in range(3)] == [0, 6, None]


def test_replies_for_a_removed_unit_change_nothing() -> None:
    table = table_of(2, unchecked=[1])
    request(table, 1, 0)
    table.remove(0, 2)
    table.mark_written(1, 0)
    table.mark_corrupt(1, 0)
    receive(table, 1, 0, 0, 20)
    table.drop_request(1, 0, 0)
    table.mark_checked(1, valid=False)
    table.check_invariants()
    assert {table.state_of(0), table.state_of(1)} == {UnitState.REMOVED}
    assert (table.remaining, table.delivered_by(1), table.started) == (0, [], {})


def test_a_range_without_units_can_be_removed() -> None:
    table = table_of(2)
    table.remove(1, 1)
    table.check_invariants()
    assert table.remaining == 2


# Parts of units.


def test_what_is_unrequested_follows_from_the_requests_and_from_what_has_arrived() -> None:
    table = table_of(1)
    request(table, 1, 0, 0, 20)
    request(table, 2, 0, 20, 30)
    assert missing_parts(table, 0) == [(0, 20, [1]), (20, 50, [2]), (50, SIZE, [])]
    receive(table, 2, 0, 20, 30)
    assert missing_parts(table, 0) == [(0, 20, [1]), (50, SIZE, [])]
    assert table.started[0].unrequested_part() == (50, SIZE)
    table.drop_request(1, 0, 0)
    assert table.started[0].unrequested_part() == (0, 20)


def test_a_unit_of_which_nothing_is_left_is_unrequested_again() -> None:
    table = table_of(2)
    request(table, 1, 0, 0, 20)
    assert table.incomplete == {0}
    table.drop_request(1, 0, 0)
    table.check_invariants()
    assert (table.incomplete, table.state_of(0)) == (set(), UnitState.UNREQUESTED)
    assert request_next(table, 2) == 0


def test_received_bytes_stay_when_their_sender_is_lost() -> None:
    table = table_of(1)
    for start in (0, 20):
        request(table, 1, 0, start, 20)
    receive(table, 1, 0, 0, 20)
    table.drop_request(1, 0, 20)
    assert missing_parts(table, 0) == [(20, SIZE, [])]
    assert (table.missing_bytes(0, 0, 20), table.missing_bytes(0, 10, 20)) == (0, 10)


def test_a_hedge_covers_a_part_of_a_request() -> None:
    table = table_of(1)
    request_next(table, 1)
    request(table, 2, 0, 0, 30)
    assert missing_parts(table, 0) == [(0, 30, [1, 2]), (30, SIZE, [1])]
    receive(table, 2, 0, 0, 30)
    assert missing_parts(table, 0) == [(30, SIZE, [1])]


def test_a_unit_is_received_once_all_of_its_bytes_are() -> None:
    table = table_of(1)
    request(table, 1, 0, 0, 60)
    request(table, 2, 0, 60, 40)
    receive(table, 2, 0, 60, 40)
    assert not table.started[0].is_received
    receive(table, 1, 0, 0, 60)
    assert table.started[0].is_received
    assert table.started[0].senders == {1, 2}
    assert table.state_of(0) is UnitState.STARTED


def test_a_corrupt_unit_with_one_sender_is_the_senders_fault() -> None:
    table = table_of(1)
    for start in (0, 50):
        request(table, 1, 0, start, 50)
        receive(table, 1, 0, start, 50)
    assert table.mark_parts_corrupt(0) == 1
    table.check_invariants()
    assert table.started[0].corrupt_senders == {1}
    assert not table.started[0].is_next_whole
    assert table.missing_bytes(0, 0, SIZE) == SIZE


def test_a_corrupt_unit_with_several_senders_blames_no_worker_and_is_requested_as_a_whole() -> None:
    table = table_of(1)
    for worker, start in ((1, 0), (2, 50)):
        request(table, worker, 0, start, 50)
        receive(table, worker, 0, start, 50)
    assert table.mark_parts_corrupt(0) is None
    table.check_invariants()
    assert (table.state_of(0), table.incomplete) == (UnitState.SUSPECT, {0})
    assert not table.started[0].corrupt_senders
    assert table.started[0].unrequested_part() == (0, SIZE)
    request(table, 2, 0)
    assert table.incomplete == set()
    # If that request is lost, parts are requested again.
    table.drop_request(2, 0, 0)
    assert table.state_of(0) is UnitState.UNREQUESTED


def test_a_corrupt_copy_discards_the_parts() -> None:
    table = table_of(1)
    request(table, 1, 0, 0, 50)
    receive(table, 1, 0, 0, 50)
    request(table, 2, 0, 0, SIZE)
    table.mark_corrupt(2, 0)
    table.check_invariants()
    assert missing_parts(table, 0) == [(0, SIZE, [])]


def test_a_part_of_a_verified_unit_is_ignored() -> None:
    table = table_of(1)
    request_next(table, 1)
    table.mark_written(1, 0)
    receive(table, 2, 0, 0, 50)
    assert not table.started
