"""When an indexer that has ended is started again, what is said of it, and that its words arrive."""

from __future__ import annotations

from pathlib import Path

import pytest

from msd.broker.supervision import indexer_supervisor
from msd.broker.supervision.indexer_supervisor import BACKOFF_FIRST, BACKOFF_LAST, IndexerBackoff, IndexerSupervisor
from msd.wire.errors import MsdError, NotFoundError
from msd.wire.protocol.child_messages import Indexed, IndexLine

# The decision.


def test_each_restart_waits_twice_as_long_as_the_one_before() -> None:
    restarts = IndexerBackoff()
    delays = [restarts.ended("killed by SIGKILL", 1.0)[0] for _ in range(8)]
    assert delays == [min(BACKOFF_FIRST * 2**count, BACKOFF_LAST) for count in range(8)]
    assert (delays[0], delays[-1]) == (2.0, 60.0)


def test_the_same_reason_is_said_once_and_another_one_is_news() -> None:
    restarts = IndexerBackoff()
    said = [restarts.ended(why, 0.0)[1] for why in ("a", "a", "b", "b", "a")]
    assert said == [True, False, True, False, True]


def test_one_that_ran_for_long_counts_as_mended() -> None:
    restarts = IndexerBackoff()
    for _ in range(4):
        restarts.ended("a", 0.0)
    assert restarts.ended("a", BACKOFF_LAST - 1.0) == (16 * BACKOFF_FIRST, False)
    assert restarts.ended("a", BACKOFF_LAST) == (BACKOFF_FIRST, True)


# The shell.


class FakeIndexer:
    """Stands for the process: says what the test has it say, and ends with what it is told to."""

    says: list[IndexLine | MsdError]
    started = 0

    def __init__(self, root: Path, folder: Path) -> None:
        FakeIndexer.started += 1

    def fileno(self) -> int:
        return 77

    def lines(self) -> list[IndexLine]:
        said = FakeIndexer.says.pop(0)
        if isinstance(said, MsdError):
            raise said
        return [said]

    def nudge(self) -> None: ...

    def close(self) -> None: ...


class Scene:
    def __init__(self, *says: IndexLine | MsdError) -> None:
        FakeIndexer.says, FakeIndexer.started = [*says], 0
        self.notes: list[str] = []
        self.listening: set[int] = set()
        self.indexing = IndexerSupervisor(
            Path("root"),
            Path("folder"),
            note=self.notes.append,
            listen=self.listening.add,
            ignore=self.listening.remove,
        )
        self.now = self.indexing._started_at

    def wait(self, seconds: float) -> int:
        """How many indexers have been started so far."""
        self.now += seconds
        self.indexing.pass_time(self.now)
        return FakeIndexer.started


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer_supervisor, "IndexerProcess", FakeIndexer)


EDITION = Indexed(files=1, size=2, hashed=2, catalogue="ab", edition=1)


def test_an_indexer_that_ends_before_its_first_edition_is_the_end() -> None:
    scene = Scene(NotFoundError("no such file"))
    with pytest.raises(NotFoundError):
        scene.indexing.read(scene.now)


def test_an_indexer_that_ends_later_is_started_again_ever_later_and_its_reason_said_once() -> None:
    scene = Scene(EDITION, *[MsdError("no room")] * 3)
    assert scene.indexing.read(scene.now) == [EDITION]
    scene.notes.clear()
    for started, delay in enumerate((BACKOFF_FIRST, 2 * BACKOFF_FIRST, 4 * BACKOFF_FIRST), 1):
        assert scene.indexing.read(scene.now) == []
        assert scene.listening == set()
        assert scene.indexing.next_deadline() == scene.now + delay
        assert scene.wait(delay - 0.5) == started
        assert scene.wait(0.5) == started + 1
        assert scene.indexing.next_deadline() is None
        assert scene.listening == {77}
    assert scene.notes == ["the indexer has ended (no room) and is started again in 2 s"]
    assert scene.indexing.latest == EDITION


def test_an_indexer_that_cannot_be_started_again_is_tried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(EDITION, MsdError("killed by SIGKILL"))
    scene.indexing.read(scene.now)
    scene.indexing.read(scene.now)

    def fail(root: Path, folder: Path) -> FakeIndexer:
        raise OSError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as short:
        short.setattr(indexer_supervisor, "IndexerProcess", fail)
        assert scene.wait(BACKOFF_FIRST) == 1
    assert "Resource temporarily unavailable" in scene.notes[-1]
    assert scene.wait(2 * BACKOFF_FIRST) == 2
