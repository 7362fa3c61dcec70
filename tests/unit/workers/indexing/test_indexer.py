"""The indexing process, which writes an edition after each change to the shared files."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from msd.wire.errors import DiskError, MsdError, SourceError
from msd.wire.protocol.child_messages import (
    Indexed,
    IndexLeftOut,
    IndexLine,
    IndexNote,
    IndexSkipped,
    IndexSkips,
    RescanRequest,
)
from msd.wire.protocol.messages import SuspectSegment
from msd.workers.indexing import file_hasher
from msd.workers.indexing.digest_cache import DigestCache
from msd.workers.indexing.file_hasher import CHANGED, FileChangedError
from msd.workers.indexing.indexer import DAMAGED, KEPT_EDITIONS, MAX_NAMED_SKIPS, skips_text
from msd.workers.indexing.indexer import _Indexer as Indexer
from msd.workers.source.catalogue import Catalogue, Version
from msd.workers.source.file_systems import FileSystems
from msd.workers.source.object_store import ObjectStore, StoreError
from msd.workers.source.share import Share
from tests.local_stores import LocalStores, share_of_stores, stores
from tests.processes import TIMEOUT
from tests.unit.shares import share_of, write_share_of

__all__ = ["stores"]

WORKERS = [sys.executable, "-m", "msd.workers"]
#: Runs ``python -m msd.workers`` with an indexer that rescans only on request and pauses only briefly.
RESCAN_ON_REQUEST = """
import sys
from msd.workers.indexing import rescan_policy
rescan_policy.SCAN_INTERVAL_S, rescan_policy.CHECK_INTERVAL_S, rescan_policy.MIN_BACKOFF_S = 3600.0, 0.05, 0.05
from msd.workers.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


class IndexerProcess:
    """An indexing process, and the lines that it has printed."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._rest = b""
        self._lines: list[IndexLine] = []
        self.skipped: list[IndexSkipped] = []

    def next(self) -> Indexed:
        """Waits until the process reports the next edition, and returns that line."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            while self._lines:
                line = self._lines.pop(0)
                if isinstance(line, Indexed):
                    return line
                if isinstance(line, IndexSkipped):
                    self.skipped.append(line)
            self._read(deadline)

    @property
    def pid(self) -> int:
        return self._process.pid

    def request_rescan(self) -> None:
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), msgspec.json.encode(RescanRequest()) + b"\n")

    @property
    def is_quiet(self) -> bool:
        """True if the process prints nothing while several scans take place."""
        assert self._process.stdout is not None
        return not self._lines and not select.select([self._process.stdout], [], [], 0.25)[0]

    def end(self) -> int:
        """Closes standard input; returns the exit code. Asserts that the process prints nothing more, except how
        many files cannot be shared: it says that after an edition.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(TIMEOUT)
        assert self._process.stdout is not None
        rest = self._process.stdout.read().splitlines()
        assert all(isinstance(msgspec.json.decode(line, type=IndexLine), IndexSkips) for line in rest)
        return code

    def _read(self, deadline: float) -> None:
        assert self._process.stdout is not None
        stdout = self._process.stdout.fileno()
        assert select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0], "the process printed nothing"
        data = os.read(stdout, 65536)
        assert data, "the process has exited"
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += [msgspec.json.decode(line, type=IndexLine) for line in lines]


@contextmanager
def indexing(root: Path, folder: Path, *, only_on_request: bool = True) -> Iterator[IndexerProcess]:
    write_share_of(root, folder)
    command = [sys.executable, "-c", RESCAN_ON_REQUEST] if only_on_request else WORKERS
    with subprocess.Popen([*command, "index", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield IndexerProcess(process)
        finally:
            process.kill()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "shared"
    root.mkdir()
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    return folder


def put(path: Path, data: bytes) -> Path:
    """Creates or replaces a file atomically, so that no scan sees a partly written file."""
    path.parent.mkdir(exist_ok=True)
    new = path.parents[1] / "new"
    new.write_bytes(data)
    return new.rename(path)


def editions(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.iterdir() if path.is_dir()}


def shared(folder: Path, edition: Indexed) -> dict[str, int]:
    """Reads an edition as a worker does; returns the size of each file by name."""
    catalogue = Catalogue(folder / str(edition.edition))
    catalogue.close()
    sizes = {file.name: file.size for file in catalogue.files}
    assert catalogue.id.hex() == edition.catalogue
    assert (len(sizes), sum(sizes.values())) == (edition.files, edition.size)
    return sizes


def test_changes_are_indexed_until_standard_input_is_closed(root: Path, folder: Path) -> None:
    put(root / "numbers", bytes(range(245)))
    with indexing(root, folder, only_on_request=False) as process:
        first = process.next()
        assert (first.edition, first.hashed) == (1, 245)
        assert shared(folder, first) == {"numbers": 245}
        assert {path.name for path in folder.iterdir()} == {"1", "share"}
        put(root / "numbers", bytes(range(100)))
        process.request_rescan()
        second = process.next()
        assert (second.edition, second.hashed) == (2, 100)
        assert shared(folder, second) == {"numbers": 100}
        assert shared(folder, first) == {"numbers": 245}, (
            "the first edition must not change, because workers may still read it"
        )
        assert process.end() == 0


def test_each_change_adds_an_edition_and_only_the_latest_editions_are_kept(root: Path, folder: Path) -> None:
    put(root / "one", b"1")
    with indexing(root, folder) as process:
        assert shared(folder, process.next()) == {"one": 1}
        put(root / "sub" / "two", b"22")
        process.request_rescan()
        assert shared(folder, process.next()) == {"one": 1, "sub/two": 2}
        (root / "one").unlink()
        process.request_rescan()
        assert shared(folder, process.next()) == {"sub/two": 2}
        (root / "sub" / "two").rename(root / "two")
        process.request_rescan()
        last = process.next()
        assert shared(folder, last) == {"two": 2}
        assert (last.edition, editions(folder)) == (4, set(range(5 - KEPT_EDITIONS, 5)))
        assert process.end() == 0
        assert process.skipped == []


def test_a_restarted_indexer_continues_the_numbers_of_the_editions(root: Path, folder: Path) -> None:
    put(root / "one", b"1")
    for number in (1, 2, 3):
        with indexing(root, folder) as process:
            assert process.next().edition == number
            assert process.end() == 0
        assert editions(folder) == set(range(max(1, number - KEPT_EDITIONS + 1), number + 1))


def test_while_the_single_shared_file_is_missing_the_edition_is_empty(root: Path, folder: Path) -> None:
    path = put(root / "numbers", bytes(range(245)))
    times = path.stat()
    with indexing(path, folder) as process:
        first = process.next()
        path.unlink()
        process.request_rescan()
        second = process.next()
        assert (second.edition, shared(folder, second)) == (2, {})
        (skipped,) = process.skipped
        assert skipped.name == "numbers"
        assert "no such file or folder to share" in skipped.reason
        put(path, bytes(range(245)))
        os.utime(path, ns=(times.st_mtime_ns, times.st_mtime_ns))
        process.request_rescan()
        third = process.next()
        assert (third.edition, third.catalogue) == (3, first.catalogue)
        assert shared(folder, third) == {"numbers": 245}
        assert len(process.skipped) == 1
        assert process.end() == 0


def test_a_scan_without_changes_adds_no_edition(root: Path, folder: Path) -> None:
    put(root / "one", b"1")
    with indexing(root, folder) as process:
        process.next()
        process.request_rescan()
        assert process.is_quiet
        put(root / "two", b"22")
        process.request_rescan()
        assert shared(folder, process.next()) == {"one": 1, "two": 2}
        assert process.is_quiet
        assert process.end() == 0


def test_a_folder_that_is_empty_at_the_start_may_fill_later(root: Path, folder: Path) -> None:
    put(root / ".env", b"1")
    with indexing(root, folder) as process:
        assert shared(folder, process.next()) == {}
        put(root / "one", b"1")
        process.request_rescan()
        assert shared(folder, process.next()) == {"one": 1}
        assert process.end() == 0


def test_a_file_that_keeps_changing_does_not_delay_others(root: Path, folder: Path) -> None:
    put(root / "one", b"1")
    log = put(root / "log", b"0")
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.001):
            with log.open("ab") as file:
                file.write(b"more")

    with indexing(root, folder) as process:
        assert shared(folder, process.next()) == {"log": 1, "one": 1}
        writer = threading.Thread(target=write)
        writer.start()
        try:
            put(root / "two", b"22")
            process.request_rescan()
            second = process.next()
            assert shared(folder, second) == {"log": 1, "one": 1, "two": 2}
            assert second.hashed == 2
        finally:
            stop.set()
            writer.join()
        process.request_rescan()
        assert shared(folder, process.next()) == {"log": log.stat().st_size, "one": 1, "two": 2}
        assert process.skipped == []


def test_empty_folders_and_modes_and_times_are_part_of_an_edition(in_process: InProcessIndexer, root: Path) -> None:
    one, folder = root / "one", root / "empty"
    changes: list[tuple[Callable[[], None], dict[str, int]]] = [
        (folder.mkdir, {}),
        (lambda: one.chmod(0o700), {"one": 0o700}),
        (lambda: folder.chmod(0o700), {"one": 0o700, "empty/": 0o700}),
        (lambda: os.utime(one, (1, 1)), {"one": 0o700, "empty/": 0o700}),
        (folder.rmdir, {"one": 0o700}),
    ]
    digests = {in_process.editions[0].catalogue}
    for number, (change, modes) in enumerate(changes, 2):
        change()
        in_process.update()
        edition = in_process.editions[-1]
        assert (edition.edition, edition.files) == (number, 1)
        digests.add(edition.catalogue)
        with closing(Catalogue(in_process.folder / str(number))) as catalogue:
            found = {entry.name: entry.mode for entry in catalogue.listing.page(range(len(catalogue.listing)))[0]}
        assert modes.items() <= found.items()
        assert ("empty/" in found) == folder.exists()
    assert len(digests) == 1 + len(changes)


def test_what_is_left_out_is_reported_when_the_numbers_change(in_process: InProcessIndexer, root: Path) -> None:
    def reports() -> list[str]:
        return [line.text for line in in_process.lines if isinstance(line, IndexLeftOut)]

    assert reports() == []
    put(root / ".env", b"1")
    for _ in range(2):
        in_process.update()
        assert reports() == ["1 hidden (--hidden)"]
    put(root / ".film.msd-part", b"1")
    in_process.update()
    assert reports()[1:] == ["1 hidden, 1 unfinished download (--hidden)"]
    for name in (".env", ".film.msd-part"):
        (root / name).unlink()
    in_process.update()
    assert reports()[2:] == [""]


def test_a_skipped_file_is_reported_once_and_its_changes_add_no_edition(root: Path, folder: Path) -> None:
    put(root / "one", b"1")
    put(root / "tab\t", b"1")
    with indexing(root, folder) as process:
        assert shared(folder, process.next()) == {"one": 1}
        put(root / "tab\t", b"changed")
        process.request_rescan()
        assert process.is_quiet
        put(root / "two", b"22")
        process.request_rescan()
        assert shared(folder, process.next()) == {"one": 1, "two": 2}
        assert [line.name for line in process.skipped] == ["tab\\t"]


def test_nothing_to_share_after_a_restart_leads_to_an_empty_edition(root: Path, folder: Path) -> None:
    put(root / "one", b"1")
    with indexing(root, folder) as process:
        assert process.next().edition == 1
        assert process.end() == 0
    (root / "one").unlink()
    root.rmdir()
    with indexing(root, folder, only_on_request=False) as process:
        second = process.next()
        assert (second.edition, shared(folder, second)) == (2, {})
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(own + 10, 19), (
            "the indexer must have a lower priority than the workers"
        )
        (skipped,) = process.skipped
        assert "no such file or folder to share" in skipped.reason
        root.mkdir()
        put(root / "one", b"1")
        assert shared(folder, process.next()) == {"one": 1}
        assert process.end() == 0


class InProcessIndexer:
    """An indexer that runs in the test process and scans only during ``update``, and the lines it has reported."""

    def __init__(self, root: Path, folder: Path, cache: Path) -> None:
        self.lines: list[IndexLine] = []
        self.notes: list[str] = []
        self.cache = DigestCache(cache, self.notes.append)
        self.folder = folder
        self.indexer = Indexer(share_of(root), folder, self.cache, self.lines.append)

    def update(self, *, retry: bool = False) -> None:
        """Scans twice, so that changes are confirmed. ``retry`` makes all pending retries due at once."""
        policy = self.indexer.policy
        if retry:
            policy._failed = {name: (wait, 0.0) for name, (wait, _) in policy._failed.items()}
        self.indexer.update()
        self.indexer.update()
        self.indexer.write_cache()

    @property
    def editions(self) -> list[Indexed]:
        return [line for line in self.lines if isinstance(line, Indexed)]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        return [(line.name, line.reason) for line in self.lines if isinstance(line, IndexSkipped)]


@pytest.fixture
def in_process(root: Path, folder: Path, tmp_path: Path) -> InProcessIndexer:
    put(root / "one", b"1")
    in_process = InProcessIndexer(root, folder, tmp_path / "digests")
    in_process.indexer.update()
    in_process.indexer.write_cache()
    assert len(in_process.editions) == 1
    return in_process


def test_only_the_first_skipped_files_of_an_edition_are_reported_by_name(
    in_process: InProcessIndexer, root: Path
) -> None:
    for number in range(MAX_NAMED_SKIPS + 5):
        put(root / f"film-{number}\t", b"1")
    put(root / "two", b"22")
    in_process.update()
    assert len(in_process.skipped) == MAX_NAMED_SKIPS
    assert in_process.editions[-1].unnamed == 5
    put(root / "three", b"333")
    in_process.update()
    assert len(in_process.skipped) == MAX_NAMED_SKIPS
    assert [edition.unnamed for edition in in_process.editions] == [0, 5, 0]


def test_files_that_cannot_be_shared_are_counted_by_reason(in_process: InProcessIndexer, root: Path) -> None:
    put(root / "film\t", b"1")
    in_process.update()
    put(root / "moon\t", b"1")
    in_process.update()
    (root / "film\t").unlink()
    (root / "moon\t").unlink()
    in_process.update()
    reason = "its name contains control characters"
    assert [line.text for line in in_process.lines if isinstance(line, IndexSkips)] == [
        f"1 file: {reason} (1)",
        f"2 files: {reason} (2)",
        "",
    ]
    assert skips_text("abacdef") == "7 files: a (2), b (1), c (1), d (1), other reasons (2)"


def test_a_file_that_could_not_be_read_is_retried_and_reported_once(
    in_process: InProcessIndexer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "two", b"22")
    with monkeypatch.context() as broken_disk:

        def fail(share: Share, name: str) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        broken_disk.setattr(file_hasher, "open_shared", fail)
        for _ in range(3):
            in_process.update(retry=True)
    assert in_process.skipped == [("two", "Input/output error")]
    assert len(in_process.editions) == 1, "without changes, no edition must be written"
    in_process.update()
    assert len(in_process.editions) == 1, "the retry must not be due yet"
    in_process.update(retry=True)
    assert len(in_process.editions) == 2
    assert set(in_process.indexer.policy.indexed) == {"one", "two"}


def test_an_edition_that_could_not_be_written_is_retried_and_reported_once(
    in_process: InProcessIndexer, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "two", b"22")
    with monkeypatch.context() as full_disk:
        full_disk.setattr(Path, "write_bytes", fail_with_disk_full)
        for _ in range(3):
            in_process.update(retry=True)
    ((name, reason),) = in_process.skipped
    assert name == "the latest changes"
    assert reason.startswith(f"{folder}: cannot write the index: No space left on device: free some space there")
    assert [path.name for path in folder.iterdir()] == ["1"]
    in_process.update(retry=True)
    assert len(in_process.editions) == 2


def fail_with_disk_full(path: Path, data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_failing_to_write_the_first_edition_is_an_error(
    root: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "one", b"1")
    monkeypatch.setattr(Path, "write_bytes", fail_with_disk_full)
    with pytest.raises(DiskError) as caught:
        InProcessIndexer(root, folder, tmp_path / "digests").indexer.update()
    assert str(caught.value).startswith(f"{folder}: cannot write the index: No space left on device: free some space")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), DiskError),
        (FileChangedError(0, CHANGED), SourceError),
    ],
)
def test_failing_to_read_the_only_file_for_the_first_edition_is_an_error(
    root: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    expected: type[MsdError],
) -> None:
    path = put(root / "one", b"1")

    def fail(share: Share, name: str) -> None:
        raise error

    monkeypatch.setattr(file_hasher, "open_shared", fail)
    with pytest.raises(expected) as caught:
        InProcessIndexer(path, folder, tmp_path / "digests").indexer.update()
    assert str(caught.value) == f"{path}: cannot be shared: {error.strerror}"
    assert list(folder.iterdir()) == []


def test_a_folder_that_becomes_unreadable_leads_to_an_empty_edition(
    in_process: InProcessIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as unreadable:
        unreadable.setattr(os, "scandir", fail)
        in_process.update()
    assert in_process.indexer.policy.indexed == {}
    assert "cannot be shared: Permission denied" in in_process.skipped[0][1]
    in_process.update()
    assert set(in_process.indexer.policy.indexed) == {"one"}


def test_expired_digests_are_removed_once_a_day(
    in_process: InProcessIndexer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_use: list[int] = []
    monkeypatch.setattr(in_process.cache, "expire", lambda used: in_use.append(len(list(used))))
    put(root / "two", b"22")
    in_process.update()
    assert in_use == [], "the first update has already removed expired digests, so the next removal is due in a day"
    in_process.indexer._expire_at = 0.0
    for name in ("three", "four"):
        put(root / name, b"333")
        in_process.update()
    assert in_use == [3]


def test_a_scan_without_changes_keeps_one_copy_of_the_versions(in_process: InProcessIndexer, root: Path) -> None:
    put(root / "two", b"22")
    for _ in range(2):
        in_process.update()
        assert in_process.indexer.policy.indexed is in_process.indexer.policy._last_scan


# Files whose content changed although their times did not.


@pytest.fixture
def suspect(in_process: InProcessIndexer, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> SuspectSegment:
    """The first segment of the file ``one``, whose second one changes on a file system without times. A client that
    received the file in a bundle does not know which one it is.
    """
    put(root / "one", b"11")
    monkeypatch.setattr(Version, "of", lambda status: Version(status.st_dev, status.st_ino, status.st_size, 1, 1))
    in_process.update()
    catalogue = Catalogue(folder / str(in_process.editions[-1].edition))
    catalogue.close()
    (root / "one").write_bytes(b"12")
    in_process.update()
    assert len(in_process.editions) == 2, "the change must be invisible"
    return SuspectSegment(catalogue.files[0].id, 0)


def test_a_suspect_segment_makes_the_indexer_read_the_file_again(
    in_process: InProcessIndexer, suspect: SuspectSegment, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileSystems, "has_reliable_times", lambda self, device: False)
    in_process.indexer.check(suspect)
    in_process.indexer.update()
    assert in_process.editions[-1].edition == 3
    catalogue = Catalogue(folder / "3")
    catalogue.close()
    assert catalogue.files[0].id != suspect.id
    # Neither the old id, which is no longer shared, nor the new one causes another edition.
    for id in (suspect.id, catalogue.files[0].id):
        in_process.indexer.check(SuspectSegment(id, 0))
    in_process.update()
    assert len(in_process.editions) == 3
    # The cache has the new digests.
    (restarted := InProcessIndexer(in_process.indexer._share.roots[""], folder, in_process.cache._path)).update()
    assert restarted.editions[-1].catalogue == in_process.editions[-1].catalogue


def test_damaged_data_is_reported_and_not_indexed_where_times_are_reliable(
    in_process: InProcessIndexer, suspect: SuspectSegment
) -> None:
    in_process.indexer.check(suspect)
    in_process.update()
    assert in_process.skipped == [("one", DAMAGED)]
    assert len(in_process.editions) == 2


@pytest.mark.parametrize("content", [b"11", b"longer", None])
def test_a_segment_that_matches_or_belongs_to_a_changed_file_is_no_reason_to_read_the_file_again(
    in_process: InProcessIndexer, suspect: SuspectSegment, root: Path, content: bytes | None
) -> None:
    (root / "one").unlink()
    if content is not None:
        (root / "one").write_bytes(content)
    in_process.indexer.check(suspect)
    assert not in_process.indexer.policy._suspects
    assert in_process.skipped == []


# Stores.


@contextmanager
def store_indexer(share: Share, folder: Path, lines: list[IndexLine]) -> Iterator[Indexer]:
    """An indexer with an empty cache of its own, which writes editions to ``folder``."""
    folder.mkdir()
    with closing(DigestCache(folder / "digests.sqlite", lambda text: None)) as cache:
        yield Indexer(share, folder, cache, lines.append)


def hashed(lines: list[IndexLine]) -> int:
    return sum(line.hashed for line in lines if isinstance(line, Indexed))


def test_the_objects_of_a_store_are_indexed_and_a_new_version_of_one_again(stores: LocalStores, tmp_path: Path) -> None:
    stores.put("a", b"first")
    stores.put("b", bytes(2 << 20))
    lines: list[IndexLine] = []
    with store_indexer(share_of_stores("s3://films"), tmp_path / "1", lines) as indexer:
        indexer.update()
        assert hashed(lines) == 5 + (2 << 20)
        stores.put("a", b"second")
        indexer.update()
        indexer.check_versions({"a"})
        assert hashed(lines) == 5 + (2 << 20) + 6, "objects are replaced at once, so one look is enough"
        with indexer._latest_edition() as latest:
            assert latest is not None
            assert [(file.name, file.size) for file in latest.files] == [("a", 6), ("b", 2 << 20)]


def test_an_index_beside_the_objects_saves_other_hosts_from_reading_them(stores: LocalStores, tmp_path: Path) -> None:
    stores.put("new/a", b"first")
    stores.put("new/b", bytes(2 << 20))
    lines: list[IndexLine] = []
    share = share_of_stores("s3://films/new/")
    with store_indexer(structs.replace(share, keep_index=True), tmp_path / "1", lines) as indexer:
        indexer.update()
    assert hashed(lines) == 5 + (2 << 20)
    for number, url in enumerate(("s3://films/new/", "s3://films/new"), 2):
        lines.clear()
        with store_indexer(share_of_stores(url), tmp_path / str(number), lines) as indexer:
            indexer.update()
            with indexer._latest_edition() as latest:
                assert latest is not None
                assert {file.name for file in latest.files} == {"a", "b"}, "the index is not shared"
        assert hashed(lines) == 0
    stores.put("new/.msd/index", b"damaged")
    with store_indexer(share, tmp_path / "4", lines) as indexer:
        indexer.update()
    assert hashed(lines) == 5 + (2 << 20)
    (note,) = [line.text for line in lines if isinstance(line, IndexNote)]
    assert note == "cannot use the index that s3://films/new/ keeps: damaged, or of another version of msd"


def test_an_index_that_cannot_be_written_is_told(
    stores: LocalStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError(errno.EAGAIN, "403 Forbidden: AccessDenied")

    monkeypatch.setattr(ObjectStore, "write_whole", refuse)
    stores.put("film", b"film")
    lines: list[IndexLine] = []
    with store_indexer(share_of_stores("s3://films/film", keep_index=True), tmp_path / "1", lines) as indexer:
        indexer.update()
    (note,) = [line.text for line in lines if isinstance(line, IndexNote)]
    assert note == "cannot keep the index in s3://films/film: 403 Forbidden: AccessDenied"
