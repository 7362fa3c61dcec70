"""Reading and hashing files: their ids and digests, holes, changes meanwhile, and threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from msd.wire.protocol.segments import content_id, cut, digest, segment_size
from msd.workers.indexing import file_hasher
from msd.workers.indexing.file_hasher import CHANGED, READ_AHEAD, FileChangedError, HashedFile, hash_files
from msd.workers.source.catalogue import Version
from msd.workers.source.share import Share
from tests.unit.shares import share_of

MIB = 1 << 20
#: Sizes around the limits: small and large files, whole and broken segments.
SIZES = [0, 1, 11, 12, 13, 245, MIB - 1, MIB, MIB + 1, 5 * MIB, 12 * MIB, 12 * MIB + 1]


class Root:
    """A shared folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.share = share_of(path)
        #: The name of each piece that was read, its length, and how many bytes of it had to be read.
        self.pieces: list[tuple[str, int, int]] = []

    def put(self, name: str, data: bytes) -> Path:
        (self.path / name).write_bytes(data)
        return self.path / name

    def hash(self, *names: str, meanwhile: Callable[[], object] = lambda: None) -> list[HashedFile | OSError]:
        """Hashes files; calls ``meanwhile`` when a piece was read."""

        def on_read(*piece: str | int) -> None:
            self.pieces.append(piece)  # type: ignore[arg-type]
            meanwhile()

        return [*hash_files(self.share, names, on_read)]

    def hash_one(self, name: str, meanwhile: Callable[[], object] = lambda: None) -> HashedFile | OSError:
        (result,) = self.hash(name, meanwhile=meanwhile)
        return result


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def assert_hashed(result: HashedFile | OSError, data: bytes) -> None:
    assert isinstance(result, HashedFile), result
    assert result.id == content_id(memoryview(data))
    assert result.digests == (b"".join(map(digest, cut(memoryview(data)))) if len(data) > MIB else b"")


@pytest.mark.parametrize("size", SIZES)
def test_the_id_of_a_file_and_the_digests_of_a_large_one(root: Root, size: int) -> None:
    data = os.urandom(size)
    path = root.put("film", data)
    before = time.time()
    result = root.hash_one("film")
    assert_hashed(result, data)
    assert isinstance(result, HashedFile)
    assert result.version == Version.of(path.stat())
    assert before <= result.opened_at <= time.time()
    assert {name for name, *_ in root.pieces} == {"film"}
    assert [sum(piece[column] for piece in root.pieces) for column in (1, 2)] == [size, size]  # type: ignore[misc]


def test_the_results_have_the_order_of_the_names(root: Root) -> None:
    contents = {f"{number:02}": os.urandom(number) for number in range(3 * READ_AHEAD)}
    for name, data in contents.items():
        root.put(name, data)
    names = sorted(contents, reverse=True)
    results = root.hash(*names[:5], "missing", *names[5:])
    assert isinstance(results.pop(5), FileNotFoundError)
    for name, result in zip(names, results, strict=True):
        assert_hashed(result, contents[name])


def test_files_that_are_not_read_any_more_are_closed(root: Root) -> None:
    for number in range(20):
        root.put(str(number), b"x")
    before = len(os.listdir("/proc/self/fd"))
    results = hash_files(root.share, map(str, range(20)), lambda *_: None)
    next(results)
    assert len(os.listdir("/proc/self/fd")) == before + READ_AHEAD
    results.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before


def test_holes_are_not_read(root: Root) -> None:
    size = 24 * MIB + 1
    path = root.path / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(9 * MIB)
        file.write(b"data")
    assert_hashed(root.hash_one("sparse"), path.read_bytes())
    assert sum(length for _, length, _ in root.pieces) == size
    assert sum(read for *_, read in root.pieces) == MIB


@pytest.mark.parametrize("size", [245, 3 * MIB])
@pytest.mark.parametrize("change", ["longer", "shorter", "rewritten"])
def test_a_file_that_changes_while_being_read_is_an_error(
    root: Root, monkeypatch: pytest.MonkeyPatch, size: int, change: str
) -> None:
    path = root.put("film", bytes(size))
    new = {"longer": bytes(size + 1), "shorter": bytes(size - 1), "rewritten": b"x" * size}[change]
    read: dict[str, Callable[..., object]] = {"pread": os.pread, "preadv": os.preadv}

    def rewrite_then(function: str) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            path.write_bytes(new)
            os.utime(path, (1, 1))
            return read[function](*arguments)

        return call

    for function in read:
        monkeypatch.setattr(os, function, rewrite_then(function))
    result = root.hash_one("film")
    assert isinstance(result, FileChangedError)
    assert result.strerror == CHANGED
    assert root.pieces == []


def test_a_large_file_is_not_read_further_once_it_has_changed(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_hasher, "MAX_THREADS", 1)
    path = root.put("film", bytes(24 * MIB))
    result = root.hash_one("film", meanwhile=lambda: os.truncate(path, 0))
    assert isinstance(result, FileChangedError)
    assert len(root.pieces) == 1


def test_a_large_file_is_hashed_by_several_threads(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    threads_before = threading.active_count()
    data = os.urandom(24 * MIB)
    root.put("film", data)
    threads: set[int] = set()
    # The first segments wait for one another, so no thread can hash them all.
    together = threading.Barrier(4)

    def meet() -> None:
        if threading.get_ident() not in threads:
            threads.add(threading.get_ident())
            together.wait(30)

    assert_hashed(root.hash_one("film", meanwhile=meet), data)
    assert len(threads) == 4
    assert threading.active_count() == threads_before


def test_where_no_thread_can_be_started_a_large_file_is_hashed_without(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    monkeypatch.setattr(threading.Thread, "start", fail)
    data = os.urandom(12 * MIB)
    root.put("film", data)
    assert_hashed(root.hash_one("film"), data)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_an_error_in_any_thread_is_the_result(
    root: Root, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    threads_before = threading.active_count()
    data = bytes(24 * MIB)
    root.put("film", data)
    failing = 7 * segment_size(len(data))
    read = os.preadv

    def fail_at_one(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset == failing:
            raise error
        return read(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", fail_at_one)
    if isinstance(error, OSError):
        assert root.hash_one("film") is error
    else:
        with pytest.raises(type(error)):
            root.hash_one("film")
    assert threading.active_count() == threads_before


def test_a_file_outside_the_share_is_an_error(root: Root, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    root.put("secret", b"x")
    (tmp_path / "shared" / "link").symlink_to(tmp_path / "secret")
    (result,) = hash_files(Share({"": tmp_path / "shared"}), ["link"], lambda *_: None)
    assert isinstance(result, PermissionError)
