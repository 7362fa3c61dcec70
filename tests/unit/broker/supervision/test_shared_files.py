"""The files that the broker's own workers share. tests/unit/wire/sharing tests the indexer's process itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from msd.broker.supervision import shared_files
from msd.broker.supervision.shared_files import SharedFiles
from msd.wire.protocol.child_messages import EDITION_FILES, SHARE_FILE, Indexed, ShareSettings
from msd.wire.protocol.messages import SuspectSegment
from tests.unit.fake_poll_loop import FakePollLoop

SHARE = ShareSettings(roots={"": b"/films"})


class FakeIndexer:
    """Completes an edition when the test calls ``on_edition``."""

    def __init__(
        self, folder: Path, poll_loop: FakePollLoop, *, on_edition: Callable[[Indexed], None], **_: object
    ) -> None:
        self.latest = Indexed(files=0, size=0, hashed=0, catalogue="")
        self.progress, self.pids = 7, [101]
        self.on_edition = on_edition
        self.rescans: list[SuspectSegment | None] = []

    def request_rescan(self, suspect: SuspectSegment | None) -> None:
        self.rescans.append(suspect)

    def pass_time(self, now: float) -> None: ...

    def next_deadline(self, now: float) -> float:
        return now + 5.0

    def close(self) -> None: ...


def shared(folder: Path, share: ShareSettings | None, editions: list[Indexed]) -> SharedFiles:
    (folder / "catalogue").mkdir()
    return SharedFiles(
        folder,
        share,
        FakePollLoop(),
        note=lambda note: None,
        on_edition=editions.append,
        on_left_out=lambda line: None,
    )


def test_a_broker_that_shares_nothing_has_no_indexer(tmp_path: Path) -> None:
    with closing(shared(tmp_path, None, [])) as files:
        assert (files.latest, files.progress, files.pids, files.next_deadline(1.0)) == (None, None, [], None)
        files.pass_time(1.0)
        files.request_rescan(None)
        assert not files.restore()
        assert files.segment_counts(0) == {}
        assert not (tmp_path / "catalogue" / SHARE_FILE).exists()


def test_the_files_of_the_last_edition_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_files, "IndexerSupervisor", FakeIndexer)
    editions: list[Indexed] = []
    with closing(shared(tmp_path, SHARE, editions)) as files:
        indexer = files._indexer
        assert isinstance(indexer, FakeIndexer)
        assert files.latest is None
        edition = tmp_path / "catalogue" / "1"
        edition.mkdir()
        for name in EDITION_FILES:
            (edition / name).write_bytes(name.encode())
        indexed = Indexed(files=1, size=9, hashed=9, catalogue="ab" * 32, edition=1)
        indexer.latest = indexed
        indexer.on_edition(indexed)
        assert (files.latest, editions) == (indexed, [indexed])
        assert (files.progress, files.pids, files.next_deadline(1.0)) == (7, [101], 6.0)
        files.request_rescan(SuspectSegment(bytes(32), 0))
        assert indexer.rescans == [SuspectSegment(bytes(32), 0)]
        for path in (edition / EDITION_FILES[0], tmp_path / "catalogue" / SHARE_FILE):
            path.unlink()
        assert files.restore()
        assert (edition / EDITION_FILES[0]).read_bytes() == EDITION_FILES[0].encode()
        assert not files.restore()


def test_each_edition_is_read_once_for_complaints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def read_counts(edition: Path) -> dict[bytes, int]:
        read.append(edition.name)
        if edition.name == "3":
            raise FileNotFoundError
        return {bytes(32): int(edition.name)}

    monkeypatch.setattr(shared_files, "read_segment_counts", read_counts)
    with closing(shared(tmp_path, None, [])) as files:
        assert [files.segment_counts(edition)[bytes(32)] for edition in (1, 1, 2, 3)] == [1, 1, 2, 2]
    assert read == ["1", "2", "3"]
