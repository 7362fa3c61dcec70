"""How long the broker's own process did not look."""

from __future__ import annotations

import pytest

from msd.wire.support.stall_detector import STALL, StallDetector

NOW = 1000.0


def test_a_wait_that_ends_in_time_is_no_stall() -> None:
    stalls = StallDetector(NOW)
    assert stalls.after_wait(NOW, NOW + 60, NOW + 60 + STALL) == 0
    assert stalls.after_wait(NOW + 60 + STALL, NOW + 120, NOW + 61) == 0


def test_a_wait_that_lasted_too_long_is_a_stall_from_its_begin() -> None:
    assert StallDetector(NOW).after_wait(NOW, NOW + 1, NOW + 62) == 62


def test_work_that_took_too_long_is_a_stall() -> None:
    stalls = StallDetector(NOW)
    assert stalls.after_wait(NOW + 5, NOW + 6, NOW + 5.5) == 5
    assert stalls.after_wait(NOW + 5.6, NOW + 6, NOW + 6) == 0


def test_both_are_added() -> None:
    assert StallDetector(NOW).after_wait(NOW + 5, NOW + 6, NOW + 9) == pytest.approx(9)


def test_work_that_took_too_long_is_noticed_before_time_is_judged_by() -> None:
    stalls = StallDetector(NOW)
    assert stalls.after_work(NOW + STALL) == 0
    assert stalls.after_work(NOW + 5) == 5 - STALL
    assert stalls.after_wait(NOW + 5, NOW + 6, NOW + 6) == 0
