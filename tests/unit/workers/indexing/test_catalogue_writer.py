"""Indexing the shared files into a catalogue, and reusing digests from earlier runs."""

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

from msd.wire.protocol.child_messages import (
    EDITION_FILES,
    Indexed,
    IndexingDone,
    IndexLine,
    IndexProgress,
    IndexSkipped,
)
from msd.wire.protocol.segments import content_id, cut, digest, span
from msd.workers.indexing import catalogue_writer, digest_cache, file_hasher
from msd.workers.indexing.catalogue_writer import write_catalogue
from msd.workers.indexing.digest_cache import DigestCache
from msd.workers.source.catalogue import AnyVersion, Catalogue, SharedFile, SharedFolder, Version
from msd.workers.source.local_files import LocalFiles, open_shared
from msd.workers.source.scan import scan
from msd.workers.source.share import Share
from tests.unit.shares import share_of

NUMBERS = bytes(range(245))
#: A large file.
FILM = bytes(range(256)) * 8192


def digests_of(data: bytes) -> bytes:
    return b"".join(map(digest, cut(memoryview(data))))


def id_of(data: bytes) -> bytes:
    return content_id(memoryview(data))


@dataclass
class Bench:
    """A shared folder, a catalogue folder, a cache, and the lines that the last run reported."""

    root: Path
    folder: Path
    cache: DigestCache
    lines: list[IndexLine] = field(default_factory=list)

    def put(self, name: str, data: bytes = NUMBERS) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def scan(self) -> dict[str, AnyVersion]:
        return scan(share_of(self.root)).versions

    def run(
        self,
        root: Path | None = None,
        meanwhile: Callable[[], object] = lambda: None,
        wanted: Mapping[str, AnyVersion] | None = None,
        previous: Catalogue | None = None,
        reread: frozenset[str] = frozenset(),
    ) -> Indexed:
        """Indexes the ``wanted`` files, by default all files. Calls ``meanwhile`` after each progress line."""
        self.lines.clear()
        share = share_of(root or self.root)

        def on_progress(line: IndexLine) -> None:
            assert msgspec.json.encode(line), "the line must be encodable"
            self.lines.append(line)
            if isinstance(line, IndexProgress):
                meanwhile()

        if wanted is None:
            wanted = scan(share).versions
        indexed, versions = write_catalogue(share, wanted, self.folder, self.cache, on_progress, previous, reread)
        self.cache.write()
        with self.catalogue() as catalogue:
            assert versions == catalogue.versions
            assert indexed.catalogue == catalogue.id.hex()
        return indexed

    @contextmanager
    def catalogue(self) -> Iterator[Catalogue]:
        catalogue = Catalogue(self.folder)
        yield catalogue
        catalogue.close()

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

    @property
    def progress(self) -> list[IndexProgress]:
        return [line for line in self.lines if isinstance(line, IndexProgress)]

    def files(self) -> list[SharedFile]:
        with self.catalogue() as catalogue:
            return catalogue.files

    def ids(self) -> dict[str, bytes]:
        return {file.name: file.id for file in self.files()}

    def digests(self, name: str) -> bytes:
        """The digests of a large file."""
        with self.catalogue() as catalogue:
            file = catalogue.find(name, None)
            assert file is not None
            return catalogue.digests(file, 0)

    def edition(self) -> list[bytes]:
        return [(self.folder / name).read_bytes() for name in EDITION_FILES]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    root, folder = tmp_path / "shared", tmp_path / "catalogue"
    root.mkdir()
    folder.mkdir()
    cache = DigestCache(tmp_path / "digests.sqlite", pytest.fail)
    yield Bench(root, folder, cache)
    cache.close()


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every file count as old enough to be cached."""
    monkeypatch.setattr(digest_cache, "SETTLED_AFTER_S", -3600.0)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened."""
    opened: list[str] = []

    def open_and_record(share: Share, name: str) -> tuple[int, os.stat_result]:
        opened.append(name)
        return open_shared(share, name)

    monkeypatch.setattr(file_hasher, "open_shared", open_and_record)
    return opened


def wait_for_clock_tick(path: Path) -> None:
    """Waits until the file system's clock has advanced past the last change of ``path``."""
    probe = path.parent / ".tick"
    while True:
        probe.touch()
        if probe.stat().st_ctime_ns > path.stat().st_ctime_ns:
            break
    probe.unlink()


# The catalogue.


def test_a_small_file_is_described_without_digests(bench: Bench) -> None:
    path = bench.put("numbers")
    indexed = bench.run()
    (file,) = bench.files()
    assert file == SharedFile("numbers", Version.of(path.stat()), id_of(NUMBERS))
    assert (bench.folder / "digests").read_bytes() == b""
    assert indexed == Indexed(files=1, size=245, hashed=245, catalogue=indexed.catalogue)
    assert bench.skipped == {}


def test_a_large_file_is_described_with_its_digests(bench: Bench) -> None:
    data = os.urandom((12 << 20) + 1)
    bench.put("a")
    bench.put("big", data)
    bench.put("film", FILM)
    bench.run()
    assert bench.ids() == {"a": id_of(NUMBERS), "big": id_of(data), "film": id_of(FILM)}
    assert bench.digests("big") == digests_of(data)
    assert bench.digests("film") == digests_of(FILM)
    assert bench.files()[1].segments == 13


def test_a_single_file_is_shared_under_its_own_name(bench: Bench) -> None:
    path = bench.put("a b.txt")
    bench.put("not shared")
    assert bench.run(path).files == 1
    assert bench.ids() == {"a b.txt": id_of(NUMBERS)}


def test_files_and_folders_are_sorted_by_name(bench: Bench) -> None:
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
    (bench.root / "empty").mkdir(mode=0o700)
    indexed = bench.run()
    assert (indexed.files, indexed.size) == (len(data), sum(map(len, data.values())))
    assert [*bench.ids()] == sorted(data)
    assert bench.ids() == {name: id_of(content) for name, content in data.items()}
    with bench.catalogue() as catalogue:
        assert [*catalogue.versions] == sorted([*data, "b/", "empty/", "ü/"])
        assert catalogue.versions["empty/"] == SharedFolder("empty/", 0o700)


def test_an_empty_file_is_shared(bench: Bench) -> None:
    bench.put("empty", b"")
    bench.put("one", b"1")
    indexed = bench.run()
    assert (indexed.files, indexed.size, indexed.hashed) == (2, 1, 1)
    assert bench.ids() == {"empty": id_of(b""), "one": id_of(b"1")}


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
@settings(max_examples=30)
def test_the_catalogue_matches_the_segments_that_a_worker_reads(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder, "root"), Path(folder, "out"), DigestCache(Path(folder, "cache"), pytest.fail))
        bench.folder.mkdir()
        for number, data in enumerate(contents):
            bench.put(str(number), data)
        bench.run()
        bench.cache.close()
        local_files = LocalFiles(share_of(bench.root))
        for file, data in zip(bench.files(), contents, strict=True):
            segments = [local_files.read(file, *span(file.size, number)) for number in range(file.segments)]
            assert b"".join(segment for segment in segments if isinstance(segment, bytes)) == data
            assert file.id == id_of(data)
        local_files.close()


def test_progress_is_reported_every_three_seconds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    times = itertools.count(1000.0, 0.5)
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    for number in range(14):
        bench.put(f"{number:02}")
    bench.run()
    assert [(line.name, line.done, line.files) for line in bench.progress] == [
        ("00", 245, 0),
        ("06", 7 * 245, 6),
        ("12", 13 * 245, 12),
    ]
    assert {(line.total, line.total_files) for line in bench.progress} == {(14 * 245, 14)}
    assert bench.lines[-1] == IndexingDone()


@pytest.mark.usefixtures("settled")
def test_progress_never_decreases_and_includes_what_need_not_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_writer, "PROGRESS_INTERVAL_S", 0.0)
    monkeypatch.setattr(catalogue_writer, "MAX_BATCH_FILES", 2)
    for name in ("a", "b", "c"):
        bench.put(name)
    bench.run()
    bench.put("d")
    with (bench.root / "film").open("wb") as film:
        film.truncate(2 << 20)
    bench.run()
    done = [(line.name, line.done, line.files) for line in bench.progress]
    assert done[0] == ("d", 3 * 245 + 245, 3)
    assert done[-1] == ("film", 4 * 245 + (2 << 20), 4)
    assert len(done) == 1 + 12
    assert sorted(done, key=lambda line: line[1]) == done


# Unreadable files.


@pytest.mark.usefixtures("settled")
def test_a_file_that_must_not_be_read_is_opened_although_the_cache_knows_it(
    bench: Bench, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening it fails with the reason, unless this user became root in between, as in this test."""
    for name, mode in (("numbers", 0o600), ("public", 0o644), ("secret", 0o600)):
        bench.put(name).chmod(mode)
    bench.run()
    opened.clear()
    monkeypatch.setattr(os, "access", lambda path, mode: not path.endswith("secret"))
    bench.run()
    assert opened == ["secret"]


def test_a_file_replaced_by_a_link_out_of_the_folder_after_the_scan_is_skipped(bench: Bench, tmp_path: Path) -> None:
    bench.put("numbers")
    link = bench.put("link")
    wanted = bench.scan()
    link.unlink()
    (tmp_path / "secret").write_bytes(NUMBERS)
    link.symlink_to(tmp_path / "secret")
    bench.run(wanted=wanted)
    assert [*bench.ids()] == ["numbers"]
    assert bench.skipped == {"link": "not a regular file below a shared path"}


def test_an_empty_catalogue_can_be_written_and_read(bench: Bench) -> None:
    indexed = bench.run()
    assert bench.files() == []
    assert indexed == Indexed(files=0, size=0, hashed=0, catalogue=indexed.catalogue)


# Files that change during a run.


def test_a_file_that_changes_while_being_read_is_skipped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_writer, "PROGRESS_INTERVAL_S", 0.0)
    monkeypatch.setattr(file_hasher, "MAX_THREADS", 1)
    busy = bench.put("busy", FILM)
    bench.put("numbers")

    def grow() -> None:
        with busy.open("ab") as file:
            file.write(b"more")

    indexed = bench.run(meanwhile=grow)
    assert bench.ids() == {"numbers": id_of(NUMBERS)}
    assert bench.skipped == {"busy": "changed while being read"}
    segment = -(-len(FILM) // 12)
    assert indexed.hashed == segment + 245, "nothing more must be read of the file"


def test_a_file_that_changes_while_being_read_keeps_its_previous_entry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_writer, "PROGRESS_INTERVAL_S", 0.0)
    bench.put("a")
    path = bench.put("film", FILM)
    bench.run()
    before = bench.files()
    path.write_bytes(FILM[::-1])
    with bench.previous() as previous:
        bench.run(meanwhile=path.touch, previous=previous)
    assert bench.files() == before
    assert bench.digests("film") == digests_of(FILM)
    assert bench.skipped == {}


def test_a_file_that_is_deleted_during_the_run_is_skipped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_hasher, "READ_AHEAD", 0)
    bench.put("a")
    path = bench.put("b")
    bench.run(meanwhile=lambda: path.unlink(missing_ok=True))
    assert [*bench.ids()] == ["a"]
    assert bench.skipped == {"b": "No such file or directory"}


# The previous catalogue.


def test_only_files_that_differ_from_the_previous_catalogue_are_opened(bench: Bench, opened: list[str]) -> None:
    contents = {"a": b"first", "b": NUMBERS, "c": b"", "d": b"last" * 20, "film": FILM, "movie": FILM[::-1]}
    for name, data in contents.items():
        bench.put(name, data)
    bench.run()
    assert opened == [*contents]
    opened.clear()
    bench.put("a", b"another")
    bench.put("aa", b"new")
    (bench.root / "c").unlink()
    (bench.root / "film").unlink()
    with bench.previous() as previous:
        assert bench.run(previous=previous).hashed == len(b"another" + b"new")
    assert opened == ["a", "aa"]
    expected = {"a": b"another", "aa": b"new", "b": NUMBERS, "d": b"last" * 20, "movie": FILM[::-1]}
    assert bench.ids() == {name: id_of(data) for name, data in expected.items()}
    assert bench.digests("movie") == digests_of(FILM[::-1]), "its digests are now the first"


def test_a_file_wanted_in_its_old_version_keeps_its_previous_entry(bench: Bench) -> None:
    """While a file is being written, the rescan policy asks for the version that was indexed before."""
    path = bench.put("a")
    bench.run()
    before, wanted = bench.files(), bench.scan()
    path.write_bytes(b"half of it")
    with bench.previous() as previous:
        assert bench.run(wanted=wanted, previous=previous).hashed == 0
    assert bench.files() == before


def test_a_change_of_permissions_is_a_new_version(bench: Bench) -> None:
    path = bench.put("a")
    bench.run()
    path.chmod(0o700)
    with bench.previous() as previous:
        bench.run(previous=previous)
    assert bench.files()[0].version.mode == 0o700


# Several names.


def test_a_file_with_several_names_is_read_once(bench: Bench, opened: list[str], tmp_path: Path) -> None:
    """In the cache of a model hub, snapshots are made of links to blobs."""
    for number in range(3):
        bench.put(f"blobs/{number}", FILM[number:])
        for snapshot in ("x", "y"):
            link = bench.root / "snapshots" / snapshot / f"weights-{number}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"../../blobs/{number}")
    os.link(bench.root / "blobs" / "0", bench.root / "hard link")
    indexed = bench.run()
    assert (indexed.files, indexed.hashed) == (10, sum(len(FILM) - number for number in range(3)))
    assert opened == ["blobs/0", "blobs/1", "blobs/2"]
    for name, id in bench.ids().items():
        number = 0 if name == "hard link" else int(name[-1])
        assert id == id_of(FILM[number:])
        assert bench.digests(name) == digests_of(FILM[number:])


def test_under_another_name_a_file_is_read_again_if_it_could_not_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("a")
    os.link(bench.root / "a", bench.root / "b")

    def fail_once(share: Share, name: str) -> tuple[int, os.stat_result]:
        if name == "a":
            raise PermissionError(13, "Permission denied")
        return open_shared(share, name)

    monkeypatch.setattr(file_hasher, "open_shared", fail_once)
    bench.run()
    assert bench.ids() == {"b": id_of(NUMBERS)}
    assert bench.skipped == {"a": "Permission denied"}


# The cache.


@pytest.mark.usefixtures("settled")
def test_a_second_run_takes_all_digests_from_the_cache(
    bench: Bench, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_writer, "MAX_BATCH_FILES", 2)
    bench.put("a")
    bench.put("b/c", b"hello")
    bench.put("empty", b"")
    bench.put("film", FILM)
    first = bench.run()
    edition = bench.edition()
    opened.clear()
    second = bench.run()
    assert (first.hashed, second.hashed) == (250 + len(FILM), 0)
    assert opened == []
    assert second.catalogue == first.catalogue
    assert bench.edition() == edition


@pytest.mark.usefixtures("settled")
def test_only_a_file_that_changed_is_read_again(bench: Bench) -> None:
    path = bench.put("a")
    bench.put("b", b"hello")
    bench.run()
    path.write_bytes(b"changed")
    assert bench.run().hashed == len(b"changed")
    assert bench.ids() == {"a": id_of(b"changed"), "b": id_of(b"hello")}


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
    assert bench.ids() == {"a": id_of(bytes(245))}


@pytest.mark.usefixtures("settled")
def test_a_file_whose_content_is_suspect_is_read_although_the_cache_knows_it(bench: Bench, opened: list[str]) -> None:
    bench.put("a")
    bench.put("b")
    bench.run()
    opened.clear()
    with bench.previous() as previous:
        bench.run(previous=previous, reread=frozenset("b"))
    assert opened == ["b"]


def test_the_time_spent_hashing_does_not_let_a_file_settle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Only the age of the file when it was opened counts. A file that had changed just before may have changed again
    within the same clock tick, with the same timestamps, however long hashing took.
    """
    path = bench.put("a")
    now = path.stat().st_ctime
    monkeypatch.setattr(time, "time", lambda: now)

    def pass_time() -> None:
        nonlocal now
        now += 10 * digest_cache.SETTLED_AFTER_S

    assert bench.run(meanwhile=pass_time).hashed == 245
    assert bench.run(meanwhile=pass_time).hashed == 245, "the first run must not cache the file"
    assert bench.run().hashed == 0, "the second run must cache the file, which has settled by then"
