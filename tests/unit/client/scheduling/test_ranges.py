"""Sets of integers as ranges behave like sets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from msd.client.scheduling.ranges import (
    add_range,
    count_in_ranges,
    end_of_range,
    first_in_ranges,
    is_in_ranges,
    numbers_in_ranges,
    remove_range,
)

LARGEST = 12

ranges = st.tuples(st.integers(0, LARGEST), st.integers(0, LARGEST)).filter(lambda pair: pair[0] < pair[1])


@given(changes=st.lists(st.tuples(st.booleans(), ranges)), counted=ranges)
def test_ranges_behave_like_a_set(changes: list[tuple[bool, tuple[int, int]]], counted: tuple[int, int]) -> None:
    bounds: list[int] = []
    numbers: set[int] = set()
    for is_added, (start, end) in changes:
        if is_added:
            add_range(bounds, start, end)
            numbers |= {*range(start, end)}
        else:
            remove_range(bounds, start, end)
            numbers -= {*range(start, end)}
        assert bounds == sorted({*bounds}), "ranges overlap, or are adjacent"
        assert {number for number in range(LARGEST) if is_in_ranges(bounds, number)} == numbers
        assert numbers_in_ranges(bounds) == numbers
        for start in range(LARGEST + 1):
            first = min((number for number in numbers if number >= start), default=None)
            assert first_in_ranges(bounds, start) == first
            after = next(number for number in range(start, LARGEST + 2) if number not in numbers)
            assert end_of_range(bounds, start) == (after if after > start else None)
    assert count_in_ranges(bounds, *counted) == len(numbers & {*range(*counted)})
