"""The delay before a retry."""

from __future__ import annotations

from msd.wire.support.backoff import backoff


def test_the_delay_doubles_up_to_its_maximum() -> None:
    assert [backoff(failures, 0.25, 4.0) for failures in range(1, 8)] == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_any_number_of_failures_has_a_delay() -> None:
    assert backoff(10**9, 0.25, 4.0) == 4.0
