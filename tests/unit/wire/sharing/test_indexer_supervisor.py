"""Restarts of the indexer, the notes about its exits, and the editions that it reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from msd.wire.errors import MsdError, NotFoundError
from msd.wire.protocol.child_messages import (
    Indexed,
    IndexingDone,
    IndexLeftOut,
    IndexLine,
    IndexProgress,
    IndexSkips,
    NotShared,
)
from msd.wire.protocol.messages import SuspectSegment
from msd.wire.sharing import indexer_supervisor
from msd.wire.sharing.indexer_restarts import MIN_BACKOFF_S
from msd.wire.sharing.indexer_supervisor import IndexerSupervisor
from tests.unit.fake_poll_loop import FakePollLoop


class FakeIndexer:
    """Replaces the indexer process: ``read_lines`` returns or raises the next item of ``outputs``."""

    outputs: list[IndexLine | MsdError]
    starts = 0

    def __init__(self, folder: Path) -> None:
        FakeIndexer.starts += 1

    def fileno(self) -> int:
        return 77

    def read_lines(self) -> list[IndexLine]:
        output = FakeIndexer.outputs.pop(0)
        if isinstance(output, MsdError):
            raise output
        return [output]

    def request_rescan(self, suspect: SuspectSegment | None) -> None: ...

    def close(self) -> None: ...


class Scenario:
    def __init__(self, *outputs: IndexLine | MsdError) -> None:
        FakeIndexer.outputs, FakeIndexer.starts = [*outputs], 0
        self.notes: list[str] = []
        self.editions: list[Indexed] = []
        self.left_out: list[NotShared] = []
        self.poll_loop = FakePollLoop()
        self.indexer = IndexerSupervisor(
            Path("folder"),
            self.poll_loop,
            note=self.notes.append,
            on_edition=self.editions.append,
            on_left_out=self.left_out.append,
        )

    def wait(self, seconds: float) -> int:
        """Advances the clock by ``seconds``; returns the number of indexers started so far."""
        self.poll_loop.now += seconds
        self.indexer.pass_time(self.poll_loop.now)
        return FakeIndexer.starts

    @property
    def restart_in(self) -> float | None:
        """Seconds until the next restart, None if no restart is pending."""
        deadline = self.indexer.next_deadline(self.poll_loop.now)
        return None if deadline is None else deadline - self.poll_loop.now


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer_supervisor, "IndexerProcess", FakeIndexer)


EDITION = Indexed(files=1, size=2, hashed=2, catalogue="ab", edition=1)


def test_an_exit_before_the_first_edition_raises_its_reason() -> None:
    scenario = Scenario(NotFoundError("no such file"))
    with pytest.raises(NotFoundError):
        scenario.poll_loop.run_handler()


def test_an_exit_after_the_first_edition_leads_to_restarts_with_backoff_and_one_note() -> None:
    scenario = Scenario(EDITION, *[MsdError("no room")] * 3)
    scenario.poll_loop.run_handler()
    assert scenario.editions == [EDITION]
    scenario.notes.clear()
    for starts, delay in enumerate((MIN_BACKOFF_S, 2 * MIN_BACKOFF_S, 4 * MIN_BACKOFF_S), 1):
        scenario.poll_loop.run_handler()
        assert not scenario.poll_loop.handlers
        assert scenario.restart_in == delay
        assert scenario.wait(delay - 0.5) == starts
        assert scenario.wait(0.5) == starts + 1
        assert scenario.restart_in is None
        assert scenario.poll_loop.handlers.keys() == {77}
    assert scenario.notes == ["indexer exited (no room): restarting in 2 s"]
    assert scenario.editions == [scenario.indexer.latest] == [EDITION]


def test_a_restart_that_fails_is_retried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(EDITION, MsdError("killed by SIGKILL"))
    scenario.poll_loop.run_handler()
    scenario.poll_loop.run_handler()

    def fail(folder: Path) -> FakeIndexer:
        raise OSError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(indexer_supervisor, "IndexerProcess", fail)
        assert scenario.wait(MIN_BACKOFF_S) == 1
    assert "Resource temporarily unavailable" in scenario.notes[-1]
    assert scenario.wait(2 * MIN_BACKOFF_S) == 2


def test_what_is_left_out_is_noted_and_passed_on() -> None:
    lines = (IndexLeftOut(text="1 hidden (--hidden)"), IndexSkips(text="1 file"))
    scenario = Scenario(*lines)
    scenario.poll_loop.run_handler()
    scenario.poll_loop.run_handler()
    assert scenario.notes == ["not shared: 1 hidden (--hidden)"]
    assert scenario.left_out == [*lines]


def test_the_progress_is_known_until_the_indexing_is_done_or_the_indexer_exits() -> None:
    progress = IndexProgress(name="film", done=1, total=3, files=0, total_files=1)
    scenario = Scenario(progress, IndexingDone(), EDITION, progress, MsdError("killed by SIGKILL"))
    assert scenario.indexer.progress is None
    for expected in (33, None, None, 33, None):
        scenario.poll_loop.run_handler()
        assert scenario.indexer.progress == expected
