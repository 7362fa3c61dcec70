"""Hashing the shared files into a catalogue, and reusing digests from earlier runs."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msd.wire.protocol.child_messages import Indexed, IndexLine, IndexProgress, IndexSkipped
from msd.wire.protocol.segments import digest, file_id, segment_count, span
from msd.workers.indexing import catalogue_writer
from msd.workers.indexing.catalogue_writer import CACHE_MAX_AGE_S, SETTLED_AFTER_S, DigestCache, write_catalogue
from msd.workers.source.catalogue import Catalogue, SharedFile, Version
from msd.workers.source.local_files import LocalFiles, open_shared
from msd.workers.source.scan import scan
from msd.workers.source.share import Share
from tests.unit.shares import share_of

NUMBERS = bytes(range(245))


def digests_of(data: bytes) -> bytes:
    spans = (span(len(data), index) for index in range(segment_count(len(data))))
    return b"".join(digest(data[offset : offset + length]) for offset, length in spans)


@dataclass
class Bench:
    """A shared folder, a catalogue folder, a cache, and the lines that the last run reported."""

    root: Path
    folder: Path
    cache: DigestCache
    cache_folder: Path
    lines: list[IndexLine] = field(default_factory=list)

    def put(self, name: str, data: bytes = NUMBERS) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def run(
        self,
        root: Path | None = None,
        meanwhile: Callable[[], object] = lambda: None,
        wanted: Mapping[str, Version] | None = None,
        previous: Catalogue | None = None,
    ) -> Indexed:
        """Indexes the ``wanted`` files, by default all files. Calls ``meanwhile`` after each progress line."""
        self.lines.clear()
        root = root or self.root

        def on_progress(line: IndexLine) -> None:
            assert msgspec.json.encode(line), "the line must be encodable"
            self.lines.append(line)
            if isinstance(line, IndexProgress):
                meanwhile()

        if wanted is None:
            wanted = scan(share_of(root)).files
        indexed, versions = write_catalogue(share_of(root), wanted, self.folder, self.cache, on_progress, previous)
        assert versions == {file.name: file.version for file in self.files()}
        return indexed

    @contextmanager
    def previous(self) -> Iterator[Catalogue]:
        """Yields a copy of the current catalogue, which the next run can use as its previous catalogue."""
        copy = self.folder.with_name("previous")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder, copy)
        catalogue = Catalogue(copy)
        yield catalogue
        catalogue.close()

    @property
    def skipped(self) -> dict[str, str]:
        return {line.name: line.reason for line in self.lines if isinstance(line, IndexSkipped)}

    def files(self) -> list[SharedFile]:
        catalogue = Catalogue(self.folder)
        catalogue.close()
        return catalogue.files

    def names(self) -> list[str]:
        return [file.name for file in self.files()]

    def digests(self, name: str) -> bytes:
        catalogue = Catalogue(self.folder)
        file = catalogue.find(name, None)
        assert file is not None
        digests = catalogue.digests(file, 0)
        assert file_id(file.size, digests) == file.id
        catalogue.close()
        return digests


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    root, folder = tmp_path / "shared", tmp_path / "catalogue"
    root.mkdir()
    folder.mkdir()
    cache_folder = tmp_path / "cache" / "digests"
    return Bench(root, folder, DigestCache(cache_folder), cache_folder)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every file count as old enough to be cached."""
    monkeypatch.setattr(catalogue_writer, "SETTLED_AFTER_S", -3600.0)


def wait_for_clock_tick(path: Path) -> None:
    """Waits until the file system's clock has advanced past the last change of ``path``."""
    probe = path.parent / ".tick"
    while True:
        probe.touch()
        if probe.stat().st_ctime_ns > path.stat().st_ctime_ns:
            break
    probe.unlink()


# The catalogue.


def test_245_bytes_become_twelve_digests(bench: Bench) -> None:
    path = bench.put("numbers")
    indexed = bench.run()
    expected = b"".join(digest(NUMBERS[start : start + 21]) for start in range(0, 245, 21))
    assert len(expected) == 12 * 32
    assert bench.digests("numbers") == expected
    (file,) = bench.files()
    mode = path.stat().st_mode & 0o777
    assert file == SharedFile("numbers", Version.of(path.stat()), file_id(245, expected), 0, mode)
    catalogue = Catalogue(bench.folder)
    assert indexed == Indexed(files=1, size=245, hashed=245, catalogue=catalogue.id.hex())
    catalogue.close()
    assert bench.skipped == {}


def test_a_single_file_is_shared_under_its_own_name(bench: Bench) -> None:
    path = bench.put("a b.txt")
    bench.put("not shared")
    assert bench.run(path).files == 1
    assert bench.names() == ["a b.txt"]
    assert bench.digests("a b.txt") == digests_of(NUMBERS)


def test_the_files_of_a_folder_are_sorted_by_name(bench: Bench) -> None:
    data = {
        "b/c": b"c" * 30,
        "a b": b"x",
        "ü/字 🙂": b"u" * 13,
        "B": b"B" * 500,
        "-x": b"h",
        "b.d": b"d",
    }
    for name, content in data.items():
        bench.put(name, content)
    indexed = bench.run()
    assert (indexed.files, indexed.size) == (len(data), sum(map(len, data.values())))
    assert bench.names() == sorted(data)
    for name, content in data.items():
        assert bench.digests(name) == digests_of(content)


def test_an_empty_file_is_shared(bench: Bench) -> None:
    bench.put("empty", b"")
    bench.put("one", b"1")
    indexed = bench.run()
    assert (indexed.files, indexed.size, indexed.hashed) == (2, 1, 1)
    assert bench.digests("empty") == b""
    assert bench.digests("one") == digest(b"1")


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_the_catalogue_matches_the_segments_that_a_worker_reads(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder, "root"), Path(folder, "out"), DigestCache(Path(folder, "cache")), Path(folder))
        bench.folder.mkdir()
        for number, data in enumerate(contents):
            bench.put(str(number), data)
        bench.run()
        local_files, catalogue = LocalFiles(share_of(bench.root)), Catalogue(bench.folder)
        for file, data in zip(catalogue.files, contents, strict=True):
            segments = [local_files.read(file, *span(file.size, number)) for number in range(file.segments)]
            assert b"".join(segment for segment in segments if isinstance(segment, bytes)) == data
            assert catalogue.digests(file, 0) == digests_of(data)
        local_files.close()
        catalogue.close()


def test_a_file_of_more_than_twelve_segments_is_indexed(bench: Bench) -> None:
    data = os.urandom((12 << 20) + 1)
    bench.put("big", data)
    bench.run()
    assert bench.digests("big") == digests_of(data)
    assert bench.files()[0].segments == 13


def test_progress_is_reported_every_three_seconds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    times = itertools.count(1000.0, 0.5)
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    for name in ("a", "b"):
        bench.put(name)
    bench.run()
    # The 24 segments take 12 s.
    assert [line.done for line in bench.lines if isinstance(line, IndexProgress)] == [21, 147, 266, 392]


def test_progress_is_reported_and_never_decreases(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_writer, "PROGRESS_INTERVAL_S", 0.0)
    for name in ("a", "b"):
        bench.put(name)
    bench.run()
    progress = [line for line in bench.lines if isinstance(line, IndexProgress)]
    assert [line.name for line in progress] == ["a"] * 12 + ["b"] * 12
    assert [line.done for line in progress[:2] + progress[11:13] + progress[-1:]] == [21, 42, 245, 266, 490]
    assert {line.total for line in progress} == {490}
    assert [line.done for line in progress] == sorted(line.done for line in progress)


# Unreadable files.


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission_is_skipped(bench: Bench) -> None:
    bench.put("numbers")
    bench.put("private").chmod(0)
    bench.run()
    assert bench.names() == ["numbers"]
    assert bench.skipped == {"private": "Permission denied"}


def test_a_file_replaced_by_a_link_out_of_the_folder_after_the_scan_is_skipped(bench: Bench, tmp_path: Path) -> None:
    bench.put("numbers")
    link = bench.put("link")
    wanted = scan(share_of(bench.root)).files
    link.unlink()
    (tmp_path / "secret").write_bytes(NUMBERS)
    link.symlink_to(tmp_path / "secret")
    bench.run(wanted=wanted)
    assert bench.names() == ["numbers"]
    assert bench.skipped == {"link": "not a regular file below a shared path"}


def test_an_empty_catalogue_can_be_written_and_read(bench: Bench) -> None:
    indexed = bench.run()
    catalogue = Catalogue(bench.folder)
    catalogue.close()
    assert catalogue.files == []
    assert indexed == Indexed(files=0, size=0, hashed=0, catalogue=catalogue.id.hex())


# Files that change during a run.


def test_a_file_that_changes_while_being_read_is_skipped_and_not_read_further(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_writer, "PROGRESS_INTERVAL_S", 0.0)
    busy = bench.put("busy")
    bench.put("numbers")

    def grow() -> None:
        with busy.open("ab") as file:
            file.write(b"more")

    indexed = bench.run(meanwhile=grow)
    assert bench.names() == ["numbers"]
    assert bench.skipped == {"busy": "changed while being read"}
    assert bench.digests("numbers") == digests_of(NUMBERS)
    assert indexed.hashed == 21 + 245


def test_a_file_that_is_rewritten_after_its_last_segment_was_read_is_skipped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_writer, "PROGRESS_INTERVAL_S", 0.0)
    path = bench.put("numbers")
    original = path.stat()
    wait_for_clock_tick(path)

    def rewrite() -> None:
        """Rewrites the file after its last segment was read, keeping its size and its modification time."""
        if len(bench.lines) == 12:
            path.write_bytes(bytes(245))
            os.utime(path, ns=(original.st_atime_ns, original.st_mtime_ns))

    assert bench.run(meanwhile=rewrite).files == 0
    assert not bench.cache_folder.exists()


def test_a_file_that_changes_while_being_read_keeps_its_previous_entry(bench: Bench) -> None:
    bench.put("a")
    path = bench.put("numbers")
    bench.run()
    before = bench.files()
    path.write_bytes(b"changed")
    with bench.previous() as previous:
        bench.run(meanwhile=path.touch, previous=previous)
    assert bench.files() == before
    assert bench.digests("numbers") == digests_of(NUMBERS)
    assert bench.skipped == {}


def test_a_file_that_is_deleted_during_the_run_is_skipped(bench: Bench) -> None:
    bench.put("a")
    path = bench.put("b")
    bench.run(meanwhile=lambda: path.unlink(missing_ok=True))
    assert bench.names() == ["a"]
    assert bench.skipped == {"b": "No such file or directory"}


# The previous catalogue.


def test_only_files_that_differ_from_the_previous_catalogue_are_opened(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def open_and_record(share: Share, name: str) -> tuple[int, os.stat_result]:
        opened.append(name)
        return open_shared(share, name)

    monkeypatch.setattr(catalogue_writer, "open_shared", open_and_record)
    contents = {"a": b"first", "b": NUMBERS, "c": b"", "d": b"last" * 20}
    for name, data in contents.items():
        bench.put(name, data)
    bench.run()
    assert opened == ["a", "b", "c", "d"]
    bench.put("a", b"another")
    bench.put("aa", b"new")
    (bench.root / "c").unlink()
    with bench.previous() as previous:
        assert bench.run(previous=previous).hashed == len(b"another" + b"new")
    assert opened[4:] == ["a", "aa"]
    assert bench.names() == ["a", "aa", "b", "d"]
    for name, data in {"a": b"another", "aa": b"new", "b": NUMBERS, "d": b"last" * 20}.items():
        assert bench.digests(name) == digests_of(data)


def test_a_file_wanted_in_its_old_version_keeps_its_previous_entry(bench: Bench) -> None:
    """While a file is being written, the rescan policy asks for the version that was indexed before."""
    path = bench.put("a")
    bench.run()
    before, wanted = bench.files(), scan(share_of(bench.root)).files
    path.write_bytes(b"half of it")
    with bench.previous() as previous:
        assert bench.run(wanted=wanted, previous=previous).hashed == 0
    assert bench.files() == before


# The cache.


@pytest.mark.usefixtures("settled")
def test_a_second_run_takes_all_digests_from_the_cache(bench: Bench) -> None:
    bench.put("a")
    bench.put("b/c", b"hello")
    bench.put("empty", b"")
    first = bench.run()
    written = (bench.folder / "digests").read_bytes(), (bench.folder / "files.jsonl").read_bytes()
    second = bench.run()
    assert (first.hashed, second.hashed) == (250, 0)
    assert second.catalogue == first.catalogue
    assert ((bench.folder / "digests").read_bytes(), (bench.folder / "files.jsonl").read_bytes()) == written


@pytest.mark.usefixtures("settled")
def test_only_a_file_that_changed_is_read_again(bench: Bench) -> None:
    path = bench.put("a")
    bench.put("b", b"hello")
    bench.run()
    path.write_bytes(b"changed")
    assert bench.run().hashed == len(b"changed")
    assert bench.digests("a") == digests_of(b"changed")
    assert bench.digests("b") == digests_of(b"hello")


@pytest.mark.usefixtures("settled")
def test_a_file_rewritten_with_the_same_size_and_modification_time_is_read_again(bench: Bench) -> None:
    path = bench.put("a")
    bench.run()
    before = path.stat()
    wait_for_clock_tick(path)
    path.write_bytes(bytes(245))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert bench.run().hashed == 245
    assert bench.digests("a") == digests_of(bytes(245))


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:31],
        lambda content: content[:32],
        lambda content: content[:-32],
        lambda content: content[:-1],
        lambda content: content + bytes(32),
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: bytes(len(content)),
    ],
)
def test_a_damaged_cache_entry_is_ignored_and_replaced(bench: Bench, damage: Callable[[bytes], bytes]) -> None:
    bench.put("a")
    bench.run()
    (entry,) = bench.cache_folder.iterdir()
    intact = entry.read_bytes()
    assert intact == bench.files()[0].id + digests_of(NUMBERS)
    entry.write_bytes(damage(intact))
    assert bench.run().hashed == 245
    assert bench.digests("a") == digests_of(NUMBERS)
    assert entry.read_bytes() == intact
    assert bench.run().hashed == 0


@pytest.mark.usefixtures("settled")
def test_a_cache_entry_with_the_digests_of_another_file_is_ignored(bench: Bench) -> None:
    bench.put("a")
    bench.run()
    (entry,) = bench.cache_folder.iterdir()
    bench.put("b", b"hello")
    bench.run()
    (other,) = set(bench.cache_folder.iterdir()) - {entry}
    entry.write_bytes(other.read_bytes())
    assert bench.run().hashed == 245
    assert bench.digests("a") == digests_of(NUMBERS)


def test_a_file_that_changed_recently_is_not_cached(bench: Bench) -> None:
    path = bench.put("a")
    future = time.time_ns() + 3600 * 10**9  # so that the change is recent even on a slow machine
    os.utime(path, ns=(future, future))
    assert bench.run().hashed == 245
    assert bench.run().hashed == 245
    assert not bench.cache_folder.exists()


@pytest.mark.parametrize(
    ("mtime_age", "ctime_age", "cached"), [(0, 99, False), (99, 0, False), (0, 0, False), (99, 99, True)]
)
def test_a_file_is_cached_only_if_both_of_its_timestamps_are_old(
    tmp_path: Path, mtime_age: int, ctime_age: int, cached: bool
) -> None:
    recent = time.time_ns() + 60 * 10**9
    past = time.time_ns() - int((SETTLED_AFTER_S + 1) * 1e9)
    version = Version(1, 2, 245, past if mtime_age else recent, past if ctime_age else recent)
    cache = DigestCache(tmp_path)
    cache.store(version, digests_of(NUMBERS), time.time())
    assert cache.load(version) == (digests_of(NUMBERS) if cached else None)


def test_a_file_is_cached_once_it_has_settled(tmp_path: Path) -> None:
    version = Version(1, 2, 245, 1000 * 10**9, 999 * 10**9)
    cache = DigestCache(tmp_path)
    cache.store(version, digests_of(NUMBERS), 1000 + SETTLED_AFTER_S - 0.01)
    assert cache.load(version) is None
    cache.store(version, digests_of(NUMBERS), 1000 + SETTLED_AFTER_S + 0.01)
    assert cache.load(version) == digests_of(NUMBERS)


def test_the_time_spent_hashing_does_not_let_a_file_settle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Only the age of the file at the start of the run counts. A file that had changed just before may have changed again
    within the same clock tick, with the same timestamps, however long hashing took.
    """
    path = bench.put("a")
    now = path.stat().st_ctime
    monkeypatch.setattr(time, "time", lambda: now)

    def pass_time() -> None:
        nonlocal now
        now += 10 * SETTLED_AFTER_S

    bench.run(meanwhile=pass_time)
    assert not bench.cache_folder.exists()
    assert bench.run(meanwhile=pass_time).hashed == 245
    assert len(list(bench.cache_folder.iterdir())) == 1, "the second run must cache the file, which has settled by then"


@pytest.mark.parametrize("key", ["device", "inode", "size", "mtime_ns", "ctime_ns"])
def test_a_cache_entry_belongs_to_exactly_one_version(tmp_path: Path, key: str) -> None:
    values = {"device": 1, "inode": 2, "size": 245, "mtime_ns": 3, "ctime_ns": 4}
    cache = DigestCache(tmp_path)
    cache.store(Version(**values), digests_of(NUMBERS), time.time())
    assert cache.load(Version(**values)) == digests_of(NUMBERS)
    assert cache.load(Version(**{**values, key: 246})) is None


def test_storing_leaves_no_temporary_file_behind(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path / "deep" / "cache")
    for _ in range(2):
        cache.store(Version(1, 2, 245, 3, 4), digests_of(NUMBERS), time.time())
    assert len(list((tmp_path / "deep" / "cache").iterdir())) == 1


@pytest.mark.usefixtures("settled")
def test_a_cache_folder_that_cannot_be_written_is_ignored(bench: Bench, tmp_path: Path) -> None:
    bench.put("a")
    (tmp_path / "file").touch()
    bench.cache = DigestCache(tmp_path / "file" / "digests")
    for _ in range(2):
        assert bench.run().hashed == 245
    bench.cache.expire([Version(1, 2, 245, 3, 4)])


def test_entries_not_used_for_long_are_removed(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path)
    old, loaded, indexed, new = (Version(1, inode, 245, 3, 4) for inode in range(4))
    long_ago = time.time() - CACHE_MAX_AGE_S - 60
    for version in (old, loaded, indexed):
        cache.store(version, digests_of(NUMBERS), time.time())
        for path in tmp_path.iterdir():
            os.utime(path, (long_ago, long_ago))
    cache.store(new, digests_of(NUMBERS), time.time())
    assert cache.load(loaded) is not None
    cache.expire([indexed])
    assert cache.load(old) is None
    assert cache.load(indexed) is not None
    assert cache.load(loaded) is not None
    assert cache.load(new) is not None


def test_entries_used_recently_are_kept(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path)
    version = Version(1, 2, 245, 3, 4)
    cache.store(version, digests_of(NUMBERS), time.time())
    (path,) = tmp_path.iterdir()
    last_use = time.time() - CACHE_MAX_AGE_S + 60
    os.utime(path, (last_use, last_use))
    cache.expire([])
    assert path.exists()
