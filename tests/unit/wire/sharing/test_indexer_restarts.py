"""When the indexer is restarted, and which of its exits cause a note."""

from __future__ import annotations

from msd.wire.sharing.indexer_restarts import (
    MAX_BACKOFF_S,
    MIN_BACKOFF_S,
    IndexerExited,
    IndexerRestarts,
    RestartIndexer,
    ShowNote,
)
from msd.wire.support.core import TimePassed


class Scenario:
    """An indexer that was started at time 1000."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.restarts = IndexerRestarts(self.now)

    def exit(self, reason: str, uptime: float = 0.0) -> tuple[float, list[str]]:
        """The indexer exits after ``uptime`` and is restarted. Returns the delay before the restart, and the notes."""
        self.now += uptime
        actions = self.restarts.handle(IndexerExited(reason), self.now)
        self.restarts.check_invariants()
        deadline = self.restarts.next_deadline(self.now)
        assert deadline is not None
        delay, self.now = deadline - self.now, deadline
        assert self.restarts.handle(TimePassed(), deadline - 0.01) == []
        assert self.restarts.handle(TimePassed(), deadline) == [RestartIndexer()]
        assert self.restarts.handle(TimePassed(), deadline) == []
        assert self.restarts.next_deadline(deadline) is None
        return delay, [action.text for action in actions if isinstance(action, ShowNote)]


def test_the_delay_doubles_up_to_the_maximum() -> None:
    scenario = Scenario()
    assert [scenario.exit("killed by SIGKILL", 1.0)[0] for _ in range(8)] == [2, 4, 8, 16, 32, 60, 60, 60]
    assert (MIN_BACKOFF_S, MAX_BACKOFF_S) == (2, 60)


def test_only_a_changed_reason_has_a_note() -> None:
    scenario = Scenario()
    notes = [scenario.exit(reason)[1] for reason in ("a", "a", "b", "b", "a")]
    assert notes == [
        ["indexer exited (a): restarting in 2 s"],
        [],
        ["indexer exited (b): restarting in 8 s"],
        [],
        ["indexer exited (a): restarting in 32 s"],
    ]


def test_a_long_run_resets_the_delay_and_the_reason() -> None:
    scenario = Scenario()
    for _ in range(3):
        scenario.exit("a")
    assert scenario.exit("a", MAX_BACKOFF_S - 1.0) == (8 * MIN_BACKOFF_S, [])
    assert scenario.exit("a", MAX_BACKOFF_S) == (MIN_BACKOFF_S, ["indexer exited (a): restarting in 2 s"])
