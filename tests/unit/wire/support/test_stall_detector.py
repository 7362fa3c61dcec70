"""Stalls of a poll loop, caused by long work, by a late wake-up, or by both."""

from __future__ import annotations

import pytest

from msd.wire.support.stall_detector import STALL_THRESHOLD_S, StallDetector

NOW = 1000.0


def test_a_wait_that_ends_in_time_is_not_a_stall() -> None:
    detector = StallDetector(NOW)
    assert detector.after_wait(NOW, NOW + 60, NOW + 60 + STALL_THRESHOLD_S) == 0
    assert detector.after_wait(NOW + 60 + STALL_THRESHOLD_S, NOW + 120, NOW + 61) == 0


def test_a_wait_that_overran_is_a_stall_of_its_whole_length() -> None:
    assert StallDetector(NOW).after_wait(NOW, NOW + 1, NOW + 62) == 62


def test_long_work_before_a_wait_is_a_stall() -> None:
    detector = StallDetector(NOW)
    assert detector.after_wait(NOW + 5, NOW + 6, NOW + 5.5) == 5
    assert detector.after_wait(NOW + 5.6, NOW + 6, NOW + 6) == 0


def test_stalls_by_work_and_by_a_wait_are_added() -> None:
    assert StallDetector(NOW).after_wait(NOW + 5, NOW + 6, NOW + 9) == pytest.approx(9)


def test_long_work_is_reported_after_it_and_not_again_after_the_wait() -> None:
    detector = StallDetector(NOW)
    assert detector.after_work(NOW + STALL_THRESHOLD_S) == 0
    assert detector.after_work(NOW + 5) == 5 - STALL_THRESHOLD_S
    assert detector.after_wait(NOW + 5, NOW + 6, NOW + 6) == 0
