"""Sets of integers as ranges: units that are unrequested, or bytes of a unit that have arrived. Pure.

A set is a list of bounds: the start and end of each half-open range, in strictly ascending order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right


def add_range(bounds: list[int], start: int, end: int) -> None:
    """Adds the numbers from ``start`` to before ``end``, which must be larger."""
    low, high = bisect_left(bounds, start), bisect_right(bounds, end)
    # An even number of bounds before a number means that it is outside of all ranges. So a new range begins at
    # ``start`` if ``low`` is even, and ends at ``end`` if ``high`` is even; otherwise the range beside it grows.
    bounds[low:high] = [*[start][low % 2 :], *[end][high % 2 :]]


def remove_range(bounds: list[int], start: int, end: int) -> None:
    """Removes the numbers from ``start`` to before ``end``, which must be larger."""
    if bounds and bounds[0] == start and end < bounds[1]:
        bounds[0] = end  # By far the most frequent case: the next unit of many.
        return
    low, high = bisect_left(bounds, start), bisect_right(bounds, end)
    bounds[low:high] = [*[start][: low % 2], *[end][: high % 2]]


def is_in_ranges(bounds: list[int], number: int) -> bool:
    return bisect_right(bounds, number) % 2 == 1


def first_in_ranges(bounds: list[int], start: int) -> int | None:
    """Returns the first number of the set from ``start`` on, None if there is none."""
    if bounds and start <= bounds[0]:
        return bounds[0]
    position = bisect_right(bounds, start)
    if position % 2:
        return start
    return bounds[position] if position < len(bounds) else None


def end_of_range(bounds: list[int], number: int) -> int | None:
    """Returns the end of the range that contains the number, None if the number is not in the set."""
    position = bisect_right(bounds, number)
    return bounds[position] if position % 2 else None


def numbers_in_ranges(bounds: list[int]) -> set[int]:
    """Returns the set itself. Takes time proportional to its size."""
    return {number for first, end in zip(bounds[::2], bounds[1::2], strict=True) for number in range(first, end)}


def count_in_ranges(bounds: list[int], start: int, end: int) -> int:
    """Returns how many of the numbers from ``start`` to before ``end`` are in the set."""
    ranges = zip(bounds[::2], bounds[1::2], strict=True)
    return sum(max(0, min(last, end) - max(first, start)) for first, last in ranges)
