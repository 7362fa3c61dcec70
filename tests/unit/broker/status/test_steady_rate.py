"""A rate is a mean over some seconds: it does not jump with each segment, and it is right soon after a start."""

from __future__ import annotations

import random

import pytest

from msd.broker.status.steady_rate import MIN_SPAN_S, RATE_WINDOW_S, SteadyRate

MIB = 1 << 20
#: Seconds between two heartbeats.
INTERVAL = 0.25


def rates(*totals: float, interval: float = INTERVAL) -> list[float]:
    """The rates after these totals."""
    meter, found = SteadyRate(), []
    for step, total in enumerate(totals):
        meter.update(total, 1000.0 + step * interval)
        found.append(meter.rate)
    return found


def test_a_constant_rate_is_right_from_the_second_second_on() -> None:
    found = rates(*(step * INTERVAL * MIB for step in range(80)))
    assert found[0] == 0.0
    assert found[int(MIN_SPAN_S / INTERVAL) :] == pytest.approx([MIB] * (80 - int(MIN_SPAN_S / INTERVAL)))


@pytest.mark.parametrize("gap", [0.4, 1.0, 4.0])
def test_whole_segments_do_not_make_the_rate_jump(gap: float) -> None:
    """A segment of 1 MiB arrives every ``gap`` seconds, up to a tenth of that too early or too late."""
    chance = random.Random(0)
    arrivals = [(number + chance.uniform(-0.1, 0.1)) * gap for number in range(250)]
    totals = [MIB * sum(arrival <= step * INTERVAL for arrival in arrivals) for step in range(400)]
    found = rates(*totals)[int(max(10.0, 4 * gap) / INTERVAL) :]
    assert max(found) <= 1.25 * MIB / gap
    assert min(found) >= 0.75 * MIB / gap


def test_a_sender_that_was_idle_is_measured_from_when_it_begins() -> None:
    idle = [0.0] * 40
    busy = [(step + 1) * INTERVAL * MIB for step in range(20)]
    found = rates(*idle, *busy)[len(idle) :]
    assert found[int(MIN_SPAN_S / INTERVAL) - 1] == pytest.approx(MIB)


def test_a_burst_at_the_start_is_no_high_rate() -> None:
    assert rates(0.0, MIB)[-1] == MIB / MIN_SPAN_S


def test_the_rate_falls_as_soon_as_nothing_is_sent_and_is_0_after_the_window() -> None:
    steps = int(RATE_WINDOW_S / INTERVAL)
    busy = [step * INTERVAL * MIB for step in range(60)]
    found = rates(*busy, *[busy[-1]] * steps)[len(busy) :]
    assert found == sorted(found, reverse=True)
    assert found[steps // 2] == pytest.approx(MIB / 2, rel=0.2)
    assert found[-2] > 0
    assert found[-1] == 0


def test_a_total_that_becomes_smaller_starts_the_measurement_again() -> None:
    assert rates(0, 8 * MIB, MIB, 1.5 * MIB)[-2:] == [0.0, 0.5 * MIB / MIN_SPAN_S]


def test_time_that_goes_backwards_starts_the_measurement_again() -> None:
    meter = SteadyRate()
    for now, total in ((9.0, 0.0), (5.0, MIB), (7.0, 3 * MIB)):
        meter.update(total, now)
    assert meter.rate == MIB


def test_the_first_total_is_no_rate() -> None:
    assert SteadyRate().rate == 0
    assert rates(100 * MIB) == [0.0]
