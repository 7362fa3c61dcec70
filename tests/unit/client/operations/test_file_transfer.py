"""The transfer of one version of a file; the data on the disk, streams and progress: test_transfer.py."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from msd.client.events import Event, FileChanged
from msd.client.operations.file_transfer import FileTransfer
from msd.client.storage.part_file import PartFile
from msd.wire.errors import SourceError
from tests.unit.client.operations.test_transfer import FakePool, transfer_of
from tests.unit.client.storage.test_part_file import DATA, MANIFEST, MIB, SIZE, segment_of


def test_a_whole_segment_is_requested_without_a_length(tmp_path: Path) -> None:
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        run = transfer_of(FakePool(), part)
        file = run.start()
        whole, some = file.request(3, 0, MIB), file.request(3, 5, 7)
        assert (whole.id, whole.index, whole.start, whole.length) == (MANIFEST.id, 3, 0, None)
        assert (some.index, some.start, some.length) == (3, 5, 7)
        assert file.find_corrupt(3, segment_of(DATA, 3)) is None
        assert file.find_corrupt(3, segment_of(DATA, 4)) == (MANIFEST.id, 3)


def test_a_new_version_continues_the_counts_and_keeps_what_is_on_the_disk(tmp_path: Path) -> None:
    """Of the earlier version, two segments arrived; the part file holds them and one more."""
    (tmp_path / ".film.mp4.msd-part").write_bytes(DATA[: 3 * MIB])
    events: list[Event] = []
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        run = transfer_of(FakePool(), part, on_event=events.append)
        previous = run.start()
        previous.fetched = 2 * MIB
        file = FileTransfer(
            run.session,
            run.transfer,
            MANIFEST,
            part,
            catalogue=b"",
            memory=MIB,
            previous=previous,
            on_event=events.append,
        )
        assert (file.changes, file.fetched, file.outdated, file.is_announced) == (1, 2 * MIB, 2 * MIB, False)
        while not file.is_announced:
            file.pass_time()
    assert (file.outdated, file.reused, file.verified) == (0, MIB, 3 * MIB)
    [changed] = [event for event in events if isinstance(event, FileChanged)]
    assert (changed.changes, changed.kept_bytes, changed.bytes) == (1, 3 * MIB, SIZE)


def test_a_lost_file_reports_nothing_twice_until_a_segment_arrives(tmp_path: Path) -> None:
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        file = transfer_of(FakePool(), part).start()
        error = SourceError("no worker has it")
        file.lose(error)
        assert (file.lost, file.is_retry) == (error, True)
        file.write(0, segment_of(DATA, 0))
        assert not file.is_retry
