"""The files of a selection on the disk: each under its shared name, complete or absent."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from msd.client.storage import file_content, open_folders
from msd.client.storage import tree as module
from msd.client.storage.existing_file import Decision, Policy
from msd.client.storage.locked_file import open_part_file
from msd.client.storage.segments_on_disk import UnusableDiskError
from msd.client.storage.tree import MAX_BATCH_S, Saved, Tree
from msd.wire.errors import DiskError, UsageError
from msd.wire.protocol.messages import Entry
from msd.wire.support.part_names import short_name
from tests.memory_worker import entry_of, manifest_of

MakeTree = Callable[..., Tree]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeTree]:
    """Makes a tree that saves files in ``out``."""
    trees: list[Tree] = []

    def make(*, sync: bool = True, **options: Any) -> Tree:
        flags = {name: options.pop(name) for name in ("update", "force", "checksum") if name in options}
        trees.append(Tree(tmp_path / "out", policy=Policy(**flags), make=True, sync=sync, **options))
        return trees[-1]

    yield make
    for tree in trees:
        tree.close()


def save(tree: Tree, name: str, data: bytes, mode: int = 0o644) -> Entry:
    entry = replace(entry_of(name, data), mode=mode)
    tree.save(entry, memoryview(data))
    return entry


def fetch(tree: Tree, name: str, data: bytes) -> None:
    """Saves a large file by segments."""
    manifest = replace(manifest_of(name, data), mtime_ns=7)
    output = tree.open(manifest)
    for index in range(manifest.segments):
        if index not in output.candidates() or not output.holds(index):
            offset, length = manifest.span(index)
            output.write(index, memoryview(data)[offset : offset + length])
    while output.copy_next():
        pass
    tree.finish(manifest)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 50])
def test_a_small_file_is_saved_under_its_name_in_missing_folders(
    tmp_path: Path, make: MakeTree, data: bytes, sync: bool
) -> None:
    tree = make(sync=sync)
    save(tree, "a/b c/ü\n", data)
    assert tree.complete() == [Saved("a/b c/ü\n", len(data))]
    tree.sync_names()
    assert (tmp_path / "out/a/b c/ü\n").read_bytes() == data
    assert names_in(tmp_path / "out/a/b c") == ["ü\n"]


def test_no_name_stands_for_data_that_is_not_synced(
    tmp_path: Path, make: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(module, "sync_file_system", lambda fd: seen.append(names_in(tmp_path / "out")))
    tree = make()
    save(tree, "a", b"1")
    fetch(tree, "b", b"2" * 500)
    assert tree.settle(0.0) == []
    assert names_in(tmp_path / "out") == [".a.msd-part", ".b.msd-part"]
    assert tree.complete() == [Saved("a", 1), Saved("b", 500)]
    assert seen == [[".a.msd-part", ".b.msd-part"]]
    assert names_in(tmp_path / "out") == ["a", "b"]


@pytest.mark.parametrize(
    ("limit", "value"),
    [("MAX_BATCH_FILES", 2), ("MAX_BATCH_FOLDERS", 2), ("MAX_BATCH_SIZE", 20), ("MAX_BATCH_OUTPUTS", 2)],
)
def test_a_full_batch_is_put_in_place_while_the_download_goes_on(
    make: MakeTree, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(module, limit, value)
    tree = make()
    fetch(tree, "a/1", b"1" * 10)
    assert tree.settle(0.0) == []
    fetch(tree, "b/2", b"2" * 10)
    saved: list[Saved] = []
    while not saved:
        saved = tree.settle(0.0)
    assert saved == [Saved("a/1", 10), Saved("b/2", 10)]


def test_a_batch_does_not_wait_longer_than_its_time(make: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    tree = make()
    save(tree, "a", b"1")
    save(tree, "b", b"2")
    assert tree.settle(100.0 + MAX_BATCH_S / 2) == []
    saved: list[Saved] = []
    while not saved:
        saved = tree.settle(100.0 + MAX_BATCH_S)
    assert saved == [Saved("a", 1), Saved("b", 1)]


@pytest.mark.parametrize("is_large", [True, False])
def test_a_file_has_the_time_and_the_executable_bits_of_the_shared_one(
    tmp_path: Path, make: MakeTree, is_large: bool
) -> None:
    tree, data = make(), b"x" * 1000
    if is_large:
        manifest = replace(manifest_of("run", data), mtime_ns=1_600_000_000_123_456_789, mode=0o700)
        output = tree.open(manifest)
        for index in range(manifest.segments):
            output.write(index, memoryview(data)[slice(*manifest.span(index))][: manifest.span(index)[1]])
        tree.finish(manifest)
    else:
        tree.save(replace(entry_of("run", data), mtime_ns=1_600_000_000_123_456_789, mode=0o700), memoryview(data))
    tree.complete()
    status = (tmp_path / "out/run").stat()
    assert status.st_mtime_ns == 1_600_000_000_123_456_789
    assert stat.S_IMODE(status.st_mode) == 0o755


def test_a_file_that_was_saved_is_kept_by_the_next_download(make: MakeTree) -> None:
    tree = make()
    entry = save(tree, "a/b", b"data")
    assert tree.check(entry) is Decision.FETCH
    tree.complete()
    assert tree.check(entry) is Decision.KEEP


def test_an_existing_file_is_replaced_only_if_wanted(tmp_path: Path, make: MakeTree) -> None:
    first = make()
    save(first, "a", b"old!")
    first.complete()
    new = entry_of("a", b"new")
    with pytest.raises(UsageError, match="out/a exists: choose another path, bring it up to date or replace it"):
        first.check(new)
    with pytest.raises(UsageError, match="out/a exists"):
        first.check_replaceable(new)
    save(first, "a", b"new")
    (saved,) = first.complete()
    assert isinstance(saved.error, UsageError)
    assert names_in(tmp_path / "out") == ["a"]
    with pytest.raises(UsageError, match="out/a exists"):
        first.open(manifest_of("a", b"new"))
    assert (tmp_path / "out/a").read_bytes() == b"old!"
    first.close()
    for policy in ("update", "force"):
        tree = make(**{policy: True})
        tree.check_replaceable(new)
        assert tree.check(new) is Decision.REPLACE
        save(tree, "a", b"new")
        assert tree.complete() == [Saved("a", 3)]
        assert (tmp_path / "out/a").read_bytes() == b"new"
        (tmp_path / "out/a").write_bytes(b"old!")
        tree.close()


def test_a_file_that_another_program_puts_into_a_new_folder_is_not_replaced(tmp_path: Path, make: MakeTree) -> None:
    tree = make()
    tree.add_folder(entry_of("new/", b""))
    (tmp_path / "out/new/a").write_bytes(b"theirs")
    assert tree.check(entry_of("new/a", b"ours")) is Decision.FETCH, "a folder that was just made is not searched"
    save(tree, "new/a", b"ours")
    (saved,) = tree.complete()
    assert isinstance(saved.error, UsageError)
    assert (tmp_path / "out/new/a").read_bytes() == b"theirs"
    assert names_in(tmp_path / "out/new") == ["a"]
    tree.close()
    with pytest.raises(UsageError, match="out/new/a exists"):
        make().check(entry_of("new/a", b"ours"))


def test_an_update_of_a_new_folder_looks_for_what_another_program_puts_there(tmp_path: Path, make: MakeTree) -> None:
    tree = make(force=True)
    tree.add_folder(entry_of("new/", b""))
    (tmp_path / "out/new/a").mkdir()
    with pytest.raises(UsageError, match="out/new/a is a folder: remove it"):
        tree.check(entry_of("new/a", b"ours"))


def test_an_update_keeps_the_permissions_of_the_user(tmp_path: Path, make: MakeTree) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_bytes(b"old")
    (tmp_path / "out/a").chmod(0o600)
    tree = make(update=True)
    save(tree, "a", b"new", mode=0o755)
    tree.complete()
    assert stat.S_IMODE((tmp_path / "out/a").stat().st_mode) == 0o700


def test_an_update_of_a_large_file_fetches_what_differs(tmp_path: Path, make: MakeTree) -> None:
    data = os.urandom(240)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/film").write_bytes(data[:200] + bytes(40))
    tree = make(update=True)
    manifest = manifest_of("film", data)
    output = tree.open(manifest)
    held = [index for index in output.candidates() if output.holds(index)]
    assert held == [*range(10)]
    for index in {*range(manifest.segments)} - {*held}:
        offset, length = manifest.span(index)
        output.write(index, memoryview(data)[offset : offset + length])
    while output.copy_next():
        pass
    tree.finish(manifest)
    assert tree.complete() == [Saved("film", 240)]
    assert (tmp_path / "out/film").read_bytes() == data


@pytest.mark.parametrize("content", [b"same" * 500, b"", b"other" + b"same" * 500, b"same" * 499 + b"else"])
def test_a_comparison_reads_the_content(
    tmp_path: Path, make: MakeTree, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(file_content, "STEP", 500)
    tree, data = make(checksum=True), b"same" * 500
    (tmp_path / "out/a").write_bytes(content)
    entry = entry_of("a", data)
    *steps, matches = tree.compare(entry)
    assert steps == [None] * len(steps)
    assert matches is (content == data)
    if matches:
        assert len(steps) == 3
        assert (tmp_path / "out/a").stat().st_mtime_ns == entry.mtime_ns


def test_an_empty_file_is_compared_by_its_size(tmp_path: Path, make: MakeTree) -> None:
    tree = make(checksum=True)
    (tmp_path / "out/a").write_bytes(b"")
    assert [*tree.compare(entry_of("a", b""))] == [True]
    (tmp_path / "out/a").write_bytes(b"1")
    assert [*tree.compare(entry_of("a", b""))] == [False]


def test_a_file_that_vanishes_before_it_is_compared_is_an_error_of_this_file(tmp_path: Path, make: MakeTree) -> None:
    tree = make(checksum=True)
    assert [*tree.compare(entry_of("missing/a", b""))] == [False]
    with pytest.raises(DiskError, match="cannot be read"):
        next(tree.compare(entry_of("a", b"")))


@pytest.mark.parametrize("policy", ["update", "force", "checksum"])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, make: MakeTree, kind: str, policy: str) -> None:
    tree = make(**{policy: True})
    os.mkdir(tmp_path / "out/a") if kind == "folder" else os.mkfifo(tmp_path / "out/a")
    with pytest.raises(UsageError, match=r"out/a is (a folder|not a regular file): remove it"):
        tree.check(entry_of("a", b""))
    with pytest.raises(UsageError, match="out/a is"):
        tree.open(manifest_of("a", b"x" * 300))


@pytest.mark.parametrize("is_large", [True, False])
def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(
    tmp_path: Path, make: MakeTree, is_large: bool
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    tree = make(update=True)
    (tmp_path / "out/a").symlink_to(tmp_path / "secret")
    assert tree.check(entry_of("a", b"new" * 99)) is Decision.REPLACE
    (fetch if is_large else save)(tree, "a", b"new" * 99)
    assert tree.complete() == [Saved("a", 297)]
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert not (tmp_path / "out/a").is_symlink()


@pytest.mark.parametrize("is_large", [True, False])
def test_a_link_in_the_place_of_a_part_file_is_not_followed(tmp_path: Path, make: MakeTree, is_large: bool) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    tree = make()
    (tmp_path / "out/.a.msd-part").symlink_to(tmp_path / "secret")
    with pytest.raises(DiskError, match="symbolic links"):
        (fetch if is_large else save)(tree, "a", b"new" * 99)
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_a_file_where_a_folder_must_be_is_an_error_of_this_file(tmp_path: Path, make: MakeTree) -> None:
    tree = make()
    (tmp_path / "out/a").write_bytes(b"file")
    for action in (lambda: save(tree, "a/b", b"x"), lambda: tree.add_folder(entry_of("a/", b""))):
        with pytest.raises(UsageError, match="out/a is not a folder"):
            action()
    assert (tmp_path / "out/a").read_bytes() == b"file"


def test_an_empty_folder_is_made(tmp_path: Path, make: MakeTree) -> None:
    make().add_folder(entry_of("a/empty/", b""))
    assert (tmp_path / "out/a/empty").is_dir()


def test_the_part_file_of_an_earlier_run_is_replaced_unless_it_is_in_use(tmp_path: Path, make: MakeTree) -> None:
    tree = make()
    (tmp_path / "out/.a.msd-part").write_bytes(b"something longer")
    save(tree, "a", b"new")
    tree.complete()
    assert names_in(tmp_path / "out") == ["a"]
    folder = os.open(tmp_path / "out", os.O_RDONLY)
    used = open_part_file(tmp_path / "out/b", folder)
    with pytest.raises(DiskError, match="another download is writing to this file"):
        save(tree, "b", b"new")
    os.close(used.fd)
    os.close(folder)


def test_a_long_name_has_a_shorter_part_file(tmp_path: Path, make: MakeTree) -> None:
    tree, name = make(), "ü" * 127
    save(tree, name, b"1")
    assert names_in(tmp_path / "out") == [short_name(name)]
    tree.complete()
    assert names_in(tmp_path / "out") == [name]


def test_the_name_of_a_part_file_is_refused(make: MakeTree) -> None:
    with pytest.raises(UsageError, match="is the name of an unfinished download"):
        make().check(entry_of("a/.b.msd-part", b""))


def test_names_that_differ_only_by_case_are_refused_where_they_are_the_same_file(
    tmp_path: Path, make: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def ignores_case(path: Any, **options: Any) -> os.stat_result:
        try:
            return real(path, **options)
        except FileNotFoundError:
            return real(str(path).swapcase(), **options)

    tree = make()
    monkeypatch.setattr(os, "stat", ignores_case)
    save(tree, "a/Readme", b"1")
    save(tree, "a/other", b"2")
    with pytest.raises(UsageError, match=r"README and .*out/a/Readme are the same file here"):
        save(tree, "a/README", b"3")
    monkeypatch.undo()
    save(tree, "b/README", b"3")
    save(tree, "b/Readme", b"4")
    assert [saved.error for saved in tree.complete()] == [None] * 4
    assert (tmp_path / "out/b/README").read_bytes() == b"3"


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, UnusableDiskError), (errno.EIO, DiskError)])
def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, make: MakeTree, monkeypatch: pytest.MonkeyPatch, number: int, error: type[DiskError]
) -> None:
    def fail(fd: int, data: memoryview) -> int:
        raise OSError(number, os.strerror(number))

    tree = make()
    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(error, match=os.strerror(number)):
        save(tree, "a", b"1")
    assert names_in(tmp_path / "out") == []


def test_a_sync_that_fails_is_a_disk_error_and_one_that_is_impossible_a_warning(
    tmp_path: Path, make: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []

    def fail(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "sync_file_system", fail)
    number = errno.ENOSYS
    tree = make(on_warning=warnings.append)
    save(tree, "a", b"1")
    assert tree.complete() == [Saved("a", 1)]
    assert len(warnings) == 1
    assert warnings[0].endswith("the file system cannot say when the data is on the disk")
    number = errno.EIO
    tree.close()
    tree = make()
    save(tree, "b", b"1")
    with pytest.raises(DiskError, match="check the disk"):
        tree.complete()
    assert not (tmp_path / "out/b").exists()


def test_too_little_space_is_an_error_before_it_is_needed(make: MakeTree) -> None:
    make().check_free_space(1)
    with pytest.raises(DiskError, match="free some space"):
        make().check_free_space(1 << 60)
    make(check_space=False).check_free_space(1 << 60)


def test_part_files_of_files_that_are_not_shared_any_more_are_removed(tmp_path: Path, make: MakeTree) -> None:
    (tmp_path / "out/a").mkdir(parents=True)
    for name in ("a/.gone.msd-part", "a/.other.msd-part", ".top.msd-part", "a/mine.msd-part", "a/.mine"):
        (tmp_path / "out" / name).write_bytes(b"")
    tree = make()
    save(tree, "a/b", b"1")
    tree.complete()
    asked: list[str] = []

    def selects(name: str) -> bool:
        asked.append(name)
        return name not in ("a/other", "top")

    folder = os.open(tmp_path / "out/a", os.O_RDONLY)
    used = open_part_file(tmp_path / "out/a/used", folder)
    tree.remove_leftovers(selects)
    os.close(used.fd)
    os.close(folder)
    assert asked == ["a/gone", "a/other", "a/used", "top"]
    assert names_in(tmp_path / "out/a") == [".mine", ".other.msd-part", ".used.msd-part", "b", "mine.msd-part"]
    assert (tmp_path / "out/.top.msd-part").exists()


def test_a_folder_that_is_found_again_while_part_files_are_removed(
    tmp_path: Path, make: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open a folder opens those above it. They have existed since it was opened, so they are searched, too."""
    monkeypatch.setattr(open_folders, "MAX_UNUSED", 2)
    (tmp_path / "out").mkdir()
    tree = make()
    # The third one closes a/b/c; then it is opened again while a/b is open, and the last ones close both.
    for name in ("a/b/c/1", "a/b/1", "a/d/1", "a/b/c/2", "a/e/1", "a/f/1"):
        save(tree, name, b"1")
        tree.complete()
    (tmp_path / "out/a/b/c/.gone.msd-part").write_bytes(b"")
    tree.remove_leftovers(lambda name: True)
    assert names_in(tmp_path / "out/a/b/c") == ["1", "2"]


def test_an_unfinished_file_leaves_only_its_part_file(tmp_path: Path, make: MakeTree) -> None:
    data = b"x" * 5000
    tree = make()
    tree.open(manifest_of("film", b"?" * 5000))
    output = tree.open(manifest_of("film", data))  # Another version.
    output.write(0, memoryview(data)[: manifest_of("film", data).span(0)[1]])
    tree.discard("film")
    tree.discard("film")
    assert names_in(tmp_path / "out") == [".film.msd-part"]


def test_the_next_download_continues_a_large_file(make: MakeTree) -> None:
    data = bytes(range(1, 241))
    manifest = manifest_of("film", data)
    first = make()
    first.open(manifest).write(3, memoryview(data)[60:80])
    first.close()
    output = make().open(manifest)
    assert [index for index in output.candidates() if output.holds(index)] == [3]


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_folder_that_is_moved_meanwhile_is_an_error(
    tmp_path: Path, make: MakeTree, sync: bool, is_replaced: bool
) -> None:
    tree = make(sync=sync)
    save(tree, "a", b"1")
    (tmp_path / "out").rename(tmp_path / "moved")
    if is_replaced:
        (tmp_path / "out").mkdir()
        os.utime(tmp_path / "out", ns=(5, 5))
    tree.complete()
    with pytest.raises(DiskError, match="out was moved or removed during the download"):
        tree.sync_names()


def test_everything_is_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with closing(Tree(tmp_path / "out", policy=Policy(), make=True, sync=True)) as tree:
        save(tree, "a/b", b"1")
        fetch(tree, "a/film", b"1" * 100)
        tree.open(manifest_of("b/film", b"1" * 100))
    assert len(os.listdir("/proc/self/fd")) == before
