"""The token bucket of a limited download. Its effect on a whole download: tests/simulation/."""

from __future__ import annotations

import pytest

from msd.client.scheduling.rate_limit import RateLimit

SIZE = 1000


def request_all(limit: RateLimit, now: float) -> int:
    """Sends as many requests of ``SIZE`` bytes as the limit allows at ``now``, and returns their number."""
    count = 0
    while limit.next_at <= now:
        limit.count_request(SIZE, now)
        count += 1
    return count


def test_requests_are_evenly_spaced() -> None:
    limit = RateLimit(4.0 * SIZE)
    times = []
    for _ in range(5):
        times.append(limit.next_at)
        limit.count_request(SIZE, limit.next_at)
    assert times == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_larger_request_is_followed_by_a_longer_wait() -> None:
    limit = RateLimit(4.0 * SIZE)
    limit.count_request(3 * SIZE, 0.0)
    assert limit.next_at == 0.75


@pytest.mark.parametrize(("rate", "burst"), [(0.5, 1), (20.0, 3), (100.0, 11)])
def test_an_idle_time_allows_a_short_burst_only(rate: float, burst: int) -> None:
    limit = RateLimit(rate * SIZE)
    request_all(limit, 0.0)
    assert request_all(limit, 1000.0) == burst


def test_late_requests_do_not_lower_the_rate() -> None:
    """The loop wakes up 30 ms late each time, and a request is due every 20 ms."""
    limit = RateLimit(50.0 * SIZE)
    now, count = 0.0, 0
    while now < 10.0:
        count += request_all(limit, now)
        now = limit.next_at + 0.03
    assert count == pytest.approx(500, abs=3)


def test_a_refused_request_does_not_count() -> None:
    limit = RateLimit(SIZE)
    limit.count_request(SIZE, 0.0)
    limit.refund(SIZE)
    assert limit.next_at == 0.0
    limit.refund(1000 * SIZE)
    assert request_all(limit, 0.0) == 1
