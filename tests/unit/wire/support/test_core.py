"""The base class of all cores: its error for a failed invariant shows the latest decisions."""

from __future__ import annotations

import pytest

from msd.wire.support.core import MAX_DECISIONS, Core


class Counter(Core[int, str]):
    """A counter whose invariant fails when the total reaches 100."""

    def __init__(self, max_decisions: int = MAX_DECISIONS) -> None:
        super().__init__(max_decisions)
        self.total = 0

    def _decide(self, event: int, now: float) -> list[str]:
        self.total += event
        return [f"total {self.total}"]

    def _assert_invariants(self) -> None:
        assert self.total < 100, f"the total is {self.total}"


def test_a_failed_invariant_shows_the_last_decisions() -> None:
    counter = Counter()
    assert counter.handle(40, 1.0) == ["total 40"]
    counter.check_invariants()
    counter.handle(60, 2.5)
    with pytest.raises(AssertionError) as caught:
        counter.check_invariants()
    message = str(caught.value).splitlines()
    assert message[0].startswith("the total is 100")
    assert message[-2:] == ["  1.000000 40 -> ['total 40']", "  2.500000 60 -> ['total 100']"]


@pytest.mark.parametrize("max_decisions", [1, MAX_DECISIONS])
def test_the_history_is_bounded(max_decisions: int) -> None:
    counter = Counter(max_decisions)
    for number in range(MAX_DECISIONS + 10):
        counter.handle(2, float(number))
    with pytest.raises(AssertionError) as caught:
        counter.check_invariants()
    assert str(caught.value).count(" -> ") == max_decisions


def test_without_a_deadline_of_its_own_a_core_waits_for_events() -> None:
    assert Counter().next_deadline(1.0) is None
