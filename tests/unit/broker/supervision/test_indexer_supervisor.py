"""Restarts of the indexer, the notes that are shown, and the editions that are read from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from msd.broker.supervision import indexer_supervisor
from msd.broker.supervision.indexer_supervisor import MAX_BACKOFF_S, MIN_BACKOFF_S, IndexerBackoff, IndexerSupervisor
from msd.wire.errors import MsdError, NotFoundError
from msd.wire.protocol.child_messages import Indexed, IndexLine

# The backoff.


def test_the_delay_doubles_up_to_the_maximum() -> None:
    backoff = IndexerBackoff()
    delays = [backoff.on_exit("killed by SIGKILL", 1.0)[0] for _ in range(8)]
    assert delays == [min(MIN_BACKOFF_S * 2**count, MAX_BACKOFF_S) for count in range(8)]
    assert (delays[0], delays[-1]) == (2.0, 60.0)


def test_only_a_changed_reason_is_news() -> None:
    backoff = IndexerBackoff()
    is_news = [backoff.on_exit(reason, 0.0)[1] for reason in ("a", "a", "b", "b", "a")]
    assert is_news == [True, False, True, False, True]


def test_a_long_run_resets_the_delay() -> None:
    backoff = IndexerBackoff()
    for _ in range(4):
        backoff.on_exit("a", 0.0)
    assert backoff.on_exit("a", MAX_BACKOFF_S - 1.0) == (16 * MIN_BACKOFF_S, False)
    assert backoff.on_exit("a", MAX_BACKOFF_S) == (MIN_BACKOFF_S, True)


# The supervisor.


class FakeIndexer:
    """Replaces the indexer process: ``read_lines`` returns the lines in ``outputs`` and raises the errors in it."""

    outputs: list[IndexLine | MsdError]
    starts = 0

    def __init__(self, root: Path, folder: Path) -> None:
        FakeIndexer.starts += 1

    def fileno(self) -> int:
        return 77

    def read_lines(self) -> list[IndexLine]:
        output = FakeIndexer.outputs.pop(0)
        if isinstance(output, MsdError):
            raise output
        return [output]

    def request_rescan(self) -> None: ...

    def close(self) -> None: ...


class Scenario:
    def __init__(self, *outputs: IndexLine | MsdError) -> None:
        FakeIndexer.outputs, FakeIndexer.starts = [*outputs], 0
        self.notes: list[str] = []
        self.registered: set[int] = set()
        self.indexer = IndexerSupervisor(
            Path("root"),
            Path("folder"),
            note=self.notes.append,
            register=self.registered.add,
            unregister=self.registered.remove,
        )
        self.now = self.indexer._started_at

    def wait(self, seconds: float) -> int:
        """Advances the clock by ``seconds``; returns the number of indexers started so far."""
        self.now += seconds
        self.indexer.pass_time(self.now)
        return FakeIndexer.starts


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer_supervisor, "IndexerProcess", FakeIndexer)


EDITION = Indexed(files=1, size=2, hashed=2, catalogue="ab", edition=1)


def test_an_exit_before_the_first_edition_raises_its_reason() -> None:
    scenario = Scenario(NotFoundError("no such file"))
    with pytest.raises(NotFoundError):
        scenario.indexer.read_editions(scenario.now)


def test_an_exit_after_the_first_edition_leads_to_restarts_with_backoff_and_one_note() -> None:
    scenario = Scenario(EDITION, *[MsdError("no room")] * 3)
    assert scenario.indexer.read_editions(scenario.now) == [EDITION]
    scenario.notes.clear()
    for starts, delay in enumerate((MIN_BACKOFF_S, 2 * MIN_BACKOFF_S, 4 * MIN_BACKOFF_S), 1):
        assert scenario.indexer.read_editions(scenario.now) == []
        assert scenario.registered == set()
        assert scenario.indexer.next_deadline() == scenario.now + delay
        assert scenario.wait(delay - 0.5) == starts
        assert scenario.wait(0.5) == starts + 1
        assert scenario.indexer.next_deadline() is None
        assert scenario.registered == {77}
    assert scenario.notes == ["indexer exited (no room): restarting in 2 s"]
    assert scenario.indexer.latest == EDITION


def test_a_restart_that_fails_is_retried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(EDITION, MsdError("killed by SIGKILL"))
    scenario.indexer.read_editions(scenario.now)
    scenario.indexer.read_editions(scenario.now)

    def fail(root: Path, folder: Path) -> FakeIndexer:
        raise OSError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(indexer_supervisor, "IndexerProcess", fail)
        assert scenario.wait(MIN_BACKOFF_S) == 1
    assert "Resource temporarily unavailable" in scenario.notes[-1]
    assert scenario.wait(2 * MIN_BACKOFF_S) == 2
