"""Caching digests in a database, which may be damaged, locked, full, read-only or that of another program."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import asdict

from msd.wire.protocol.segments import digest, file_id, segment_count
from msd.workers.indexing import digest_cache
from msd.workers.indexing.digest_cache import (
    DAY_S,
    MARK_INTERVAL_DAYS,
    MAX_AGE_DAYS,
    MAX_UNWRITTEN_BYTES,
    SETTLED_AFTER_S,
    CachedDigests,
    DigestCache,
)
from msd.workers.source.catalogue import Version

MIB = 1 << 20
LARGEST = 2**64 - 1


def version(number: int, size: int = 245, **changes: int) -> Version:
    """A version of file ``number``."""
    return Version(**{**asdict(Version(1, number, size, 3, 4)), **changes})


def digests_of(version: Version) -> CachedDigests:
    """Some digests for a version."""
    digests = digest(str(version.inode).encode()) * segment_count(version.size)
    return CachedDigests(file_id(version.size, digests), digests if version.size > MIB else b"")


class Cache(DigestCache):
    """A cache and what it has reported."""

    def __init__(self, path: Path) -> None:
        self.failures: list[str] = []
        super().__init__(path, self.failures.append)

    def put(self, *versions: Version) -> None:
        """Stores digests for these versions and writes them to the database."""
        for each in versions:
            entry = digests_of(each)
            self.store(each, entry.id, entry.digests, time.time())
        self.write()

    def has(self, *versions: Version) -> list[bool]:
        """For each version, whether the database has its digests. Other digests fail the test."""
        found = self.load(versions)
        assert all(entry == digests_of(each) for each, entry in found.items())
        return [each in found for each in versions]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "msd" / "digests.sqlite"


@pytest.fixture
def cache(path: Path) -> Iterator[Cache]:
    with closing(Cache(path)) as cache:
        yield cache


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


# What is kept.


def test_digests_are_found_again_by_another_process(path: Path, cache: Cache) -> None:
    small, large, largest = version(1), version(2, 12 * MIB + 1), Version(LARGEST, LARGEST, 2**46, -(2**63) + 1, 2**62)
    cache.put(small, large)
    cache.store(largest, b"i" * 32, b"", time.time())
    with closing(Cache(path)) as other:
        assert other.has(small, large, version(3)) == [True, True, False]
        assert not other.load([largest]), "these digests cannot be those of the file"
        assert other.failures == []
    assert cache.failures == []


@pytest.mark.parametrize("key", ["device", "inode", "size", "mtime_ns", "ctime_ns"])
def test_an_entry_belongs_to_exactly_one_version(cache: Cache, key: str) -> None:
    cache.put(version(1))
    assert cache.has(version(1)) == [True]
    assert cache.has(version(1, **{key: 246})) == [False]


def test_permissions_do_not_matter_to_digests(cache: Cache) -> None:
    """On file systems without the time of the last change, a mount option may change them all."""
    cache.put(version(1, mode=0o644))
    assert cache.load([version(1, mode=0o600)])


def test_a_new_version_replaces_the_entry_of_the_old_one(path: Path, cache: Cache) -> None:
    cache.put(version(1), version(2))
    cache.put(version(1, mtime_ns=5))
    assert cache.has(version(1), version(1, mtime_ns=5), version(2)) == [False, True, True]
    assert rows(path, "SELECT count(*) FROM digests") == [(2,)]


@pytest.mark.parametrize(
    ("mtime_age", "ctime_age", "cached"), [(0, 99, False), (99, 0, False), (0, 0, False), (99, 99, True)]
)
def test_a_file_is_cached_only_if_both_of_its_timestamps_are_old(
    cache: Cache, mtime_age: int, ctime_age: int, cached: bool
) -> None:
    recent = time.time_ns() + 60 * 10**9
    past = time.time_ns() - int((SETTLED_AFTER_S + 1) * 1e9)
    each = version(1, mtime_ns=past if mtime_age else recent, ctime_ns=past if ctime_age else recent)
    cache.put(each)
    assert cache.has(each) == [cached]


def test_a_file_is_cached_once_it_has_settled(cache: Cache) -> None:
    each = version(1, mtime_ns=1000 * 10**9, ctime_ns=999 * 10**9)
    for opened_at, cached in ((1000 + SETTLED_AFTER_S - 0.01, False), (1000 + SETTLED_AFTER_S + 0.01, True)):
        cache.store(each, digests_of(each).id, b"", opened_at)
        cache.write()
        assert cache.has(each) == [cached]


def test_nothing_is_created_before_there_is_something_to_write(path: Path, cache: Cache) -> None:
    assert cache.has(version(1)) == [False]
    cache.write()
    cache.expire([version(1)])
    assert not path.parent.exists()
    cache.put(version(1))
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == [path.name]


def test_entries_are_written_together_after_some_seconds_or_megabytes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with closing(Cache(path)) as cache, closing(Cache(path)) as other:

        def store(number: int, size: int = 245) -> bool:
            """Stores an entry; returns whether it has been written."""
            entry = digests_of(each := version(number, size))
            cache.store(each, entry.id, entry.digests, time.time())
            return other.has(each) == [True]

        assert not store(1)
        now += digest_cache.WRITE_INTERVAL_S
        assert store(2)
        assert other.has(version(1)) == [True]
        assert not store(3)
        assert store(4, (MAX_UNWRITTEN_BYTES // 32 + 1) * MIB)
        assert other.has(version(3)) == [True]


# Use and age.


def test_entries_not_used_for_long_are_removed(path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    files = [version(number, 13 * MIB) for number in range(2000)]
    used, unused = files[:10], files[10:]
    cache.put(*files)
    size = path.stat().st_size
    for _ in range(3):
        now += (MAX_AGE_DAYS / 2) * DAY_S
        cache.put(new := version(5000))
        cache.expire(used)
    assert all(cache.has(*used, new))
    assert not any(cache.has(*unused[:900]))
    assert path.stat().st_size < size / 10, "the file must shrink with what is shared"


def test_using_entries_writes_nothing_more_often_than_once_a_week(
    path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.5 * DAY_S
    monkeypatch.setattr(time, "time", lambda: now)
    cache.put(version(1))
    now += MARK_INTERVAL_DAYS * DAY_S
    cache.expire([version(1)])
    assert rows(path, "SELECT used FROM digests") == [(1000,)]
    now += DAY_S
    cache.expire([version(1)])
    assert rows(path, "SELECT used FROM digests") == [(1000 + MARK_INTERVAL_DAYS + 1,)]


def test_entries_from_a_time_when_the_clock_was_wrong_are_removed(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 20_000.0 * DAY_S
    monkeypatch.setattr(time, "time", lambda: now)
    cache.put(version(1), version(2))
    now = 10_000.0 * DAY_S
    cache.expire([version(1)])
    assert cache.has(version(1), version(2)) == [True, False]


def test_the_files_of_earlier_versions_of_msd_are_removed(path: Path, cache: Cache) -> None:
    old = path.parent / "digests"
    old.mkdir(parents=True)
    for number in range(3):
        (old / f"{number:064}").write_bytes(bytes(64))
    (path.parent / "other").touch()
    cache.expire([])
    assert os.listdir(path.parent) == ["other"]


# Databases that cannot be used.


def test_two_processes_use_the_cache_at_the_same_time(path: Path) -> None:
    with closing(Cache(path)) as one, closing(Cache(path)) as other:
        for number in range(0, 20, 2):
            one.put(version(number))
            other.put(version(number + 1))
        assert all(one.has(*map(version, range(20))))
        assert one.failures == other.failures == []


def test_entries_of_a_process_that_was_killed_while_it_wrote_are_lost_without_harm(path: Path, cache: Cache) -> None:
    cache.put(version(1))
    script = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # so that pages are written before the end of the transaction
database.execute("BEGIN IMMEDIATE")
rows = ((os.urandom(16), os.urandom(24), os.urandom(32), b"", 0, 0) for _ in range(5000))
database.executemany("INSERT INTO digests VALUES (?, ?, ?, ?, ?, ?)", rows)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)
    assert path.with_name(f"{path.name}-journal").exists(), "the process must have written"
    with closing(Cache(path)) as other:
        assert other.has(version(1)) == [True]
        other.put(version(2))
        assert other.failures == []
    assert rows(path, "SELECT count(*) FROM digests") == [(2,)]


@pytest.mark.parametrize("lock", ["EXCLUSIVE", "IMMEDIATE"])
def test_a_locked_database_is_not_used_until_it_is_tried_again(
    path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    monkeypatch.setattr(digest_cache, "BUSY_TIMEOUT_S", 0.01)
    cache.put(version(1))
    cache.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"BEGIN {lock}")
        assert cache.has(version(1)) == [lock == "IMMEDIATE"]
        for number in (2, 3):
            cache.put(version(number))
            assert cache.has(version(1)) == [lock == "IMMEDIATE"]
    verb = "write" if lock == "IMMEDIATE" else "read"
    assert cache.failures == [f"cannot {verb} the digest cache {path}: database is locked"]
    cache.expire([])
    cache.put(version(2))
    assert cache.has(version(1), version(2), version(3)) == [True, True, False]
    assert len(cache.failures) == 1


def test_a_full_disk_prevents_writing_only(cache: Cache) -> None:
    cache.put(version(1))
    assert cache._database is not None
    cache._database.execute("PRAGMA max_page_count = 1")
    files = [version(number) for number in range(2, 2000)]
    for _ in range(2):
        cache.put(*files)
    assert cache.has(version(1), files[0]) == [True, False]
    (failure,) = cache.failures
    assert failure == f"cannot write the digest cache {cache._path}: database or disk is full"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every file")
def test_a_database_that_may_only_be_read_is_read(path: Path, cache: Cache) -> None:
    cache.put(version(1))
    cache.close()
    path.chmod(0o400)
    for _ in range(2):
        cache.put(version(2))
    assert cache.has(version(1), version(2)) == [True, False]
    assert cache.failures == [f"cannot write the digest cache {path}: attempt to write a readonly database"]


def test_a_folder_that_cannot_be_created_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with closing(Cache(tmp_path / "file" / "digests.sqlite")) as cache:
        for number in range(3):
            cache.put(version(number))
            assert cache.has(version(number)) == [False]
        assert cache.failures == [f"cannot write the digest cache {cache._path}: File exists"]
        cache.expire([])


def test_a_folder_in_place_of_the_database_is_reported_once(path: Path, cache: Cache) -> None:
    path.mkdir(parents=True)
    for number in range(2):
        cache.put(version(number))
        assert cache.has(version(number)) == [False]
    assert cache.failures == [f"cannot write the digest cache {path}: unable to open database file"]


@pytest.mark.parametrize("statement", ["CREATE TABLE digests (file BLOB)", "PRAGMA application_id = 7"])
def test_the_database_of_another_program_is_left_alone(path: Path, cache: Cache, statement: str) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
    before = path.read_bytes()
    assert cache.has(version(1)) == [False]
    cache.put(version(1))
    cache.expire([version(1)])
    cache.close()
    assert path.read_bytes() == before
    assert set(cache.failures) == {
        f"cannot {verb} the digest cache {path}: it belongs to another program" for verb in ("read", "write")
    }


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0", bytes(8192), b"not a database" * 1000])
def test_a_file_that_is_no_database_is_replaced(path: Path, cache: Cache, damage: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    assert cache.has(version(1)) == [False]
    cache.put(version(1))
    cache.put(version(2))
    assert cache.has(version(2)) == [True]
    assert cache.failures == ([f"the digest cache {path} was damaged: a new one replaces it"] if damage else [])


def test_a_database_without_its_table_is_replaced(path: Path, cache: Cache) -> None:
    cache.put(version(1))
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE digests")
    assert cache.has(version(1)) == [False]
    cache.put(version(1))
    assert cache.has(version(1)) == [True]
    assert cache.failures == [f"the digest cache {path} was damaged: a new one replaces it"]


def test_a_database_that_is_damaged_again_and_again_is_not_used(path: Path, cache: Cache) -> None:
    for _ in range(3):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not a database" * 1000)
        assert cache.has(version(1)) == [False]
    assert cache.failures == [
        f"the digest cache {path} was damaged: a new one replaces it",
        f"cannot read the digest cache {path}: file is not a database",
    ]


@pytest.mark.parametrize(
    "change",
    [
        "id = zeroblob(32)",
        "id = substr(id, 2)",
        "id = NULL",
        "id = 'text'",
        "id = 7",
        "version = NULL",
        "checksum = checksum + 1",
        "checksum = NULL",
        "digests = x'00'",
        "digests = 7",
    ],
)
def test_a_damaged_entry_is_ignored_and_replaced(path: Path, cache: Cache, change: str) -> None:
    files = [version(1), version(2, 13 * MIB)]
    cache.put(*files)
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"UPDATE digests SET {change}")
        database.commit()
    assert not any(cache.has(*files))
    cache.put(*files)
    assert all(cache.has(*files))
    assert cache.failures == []


@pytest.mark.parametrize("rounds", [20, pytest.param(2000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
def test_no_damage_of_any_byte_leads_to_wrong_digests_or_an_error(path: Path, rng: random.Random, rounds: int) -> None:
    files = [version(number) for number in range(60)] + [version(number, 13 * MIB) for number in range(60, 70)]
    with closing(Cache(path)) as cache:
        cache.put(*files)
    intact = path.read_bytes()
    found = 0
    for _ in range(rounds):
        damaged = bytearray(intact)
        for _ in range(rng.choice([1, 1, 8, 100])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        with closing(Cache(path)) as cache:
            found += sum(cache.has(*files))
            cache.put(version(100), version(101, 2 * MIB))
            cache.expire(files)
            cache.has(*files, version(100), version(101, 2 * MIB))
    assert 0 < found < rounds * len(files)
