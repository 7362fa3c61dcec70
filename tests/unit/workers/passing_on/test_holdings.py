"""Which units a receiver has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from msd.workers.passing_on.holdings import Holdings


@given(st.lists(st.integers(0, 5000)))
def test_the_bitmap_has_a_bit_for_each_unit(units: list[int]) -> None:
    holdings = Holdings(b"plan")
    for unit in units:
        holdings.add(unit)
    number = int.from_bytes(holdings.bitmap, "little")
    assert {unit for unit in range(number.bit_length()) if number >> unit & 1} == {*units}
    assert {unit for unit in range(6000) if holdings.has(unit)} == {*units}
    assert len(holdings.bitmap) == (max(units) // 8 + 1 if units else 0)
