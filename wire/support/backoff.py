"""The delay before a retry. Pure: the caller counts the failures and knows the time."""

from __future__ import annotations

#: Number of doublings after which a delay stays the same; 2.0 to the power of a large number would overflow.
MAX_DOUBLINGS = 64


def backoff(failures: int, first: float, maximum: float) -> float:
    """Returns the delay in seconds after ``failures`` failures in a row (1 or more): ``first`` after the first one,
    doubled after each further one, but at most ``maximum``.
    """
    return min(first * 2.0 ** min(failures - 1, MAX_DOUBLINGS), maximum)
