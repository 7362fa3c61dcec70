"""The parts of incomplete units are kept, with the number of bytes from each worker."""

from __future__ import annotations

from msd.client.operations.unit_parts import UnitParts


def test_parts_are_joined_in_any_order() -> None:
    parts = UnitParts()
    parts.add(1, 7, 5, 3, memoryview(b"de"), new=2)
    parts.add(2, 7, 5, 0, memoryview(b"abc"), new=3)
    assert (parts.size, parts.bytes_from(1), parts.bytes_from(2), parts.bytes_from(3)) == (5, 2, 3, 0)
    unit = parts.take(7)
    assert (bytes(unit.data), dict(unit.senders)) == (b"abcde", {1: 2, 2: 3})
    assert parts.size == 0


def test_bytes_that_arrived_before_count_for_their_first_sender() -> None:
    parts = UnitParts()
    parts.add(1, 7, 5, 0, memoryview(b"abc"), new=3)
    parts.add(2, 7, 5, 1, memoryview(b"bcde"), new=2)
    unit = parts.take(7)
    assert (bytes(unit.data), dict(unit.senders)) == (b"abcde", {1: 3, 2: 2})


def test_discarded_parts_are_of_no_unit_any_more() -> None:
    parts = UnitParts()
    parts.add(1, 7, 5, 0, memoryview(b"abc"), new=3)
    assert [parts.discard(8), parts.discard(7), parts.discard(7), parts.size] == [0, 3, 0, 0]
