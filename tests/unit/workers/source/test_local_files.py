"""The shared files as a worker reads them: only ever the version that was indexed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import SharedFile, Version
from msd.workers.source.local_files import OPEN_FILES, LocalFiles, Refused, open_shared

NUMBERS = bytes(range(245))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "shared"
    root.mkdir()
    return root


@pytest.fixture
def library(root: Path) -> Iterator[LocalFiles]:
    library = LocalFiles(root)
    yield library
    library.close()
    assert open_below(root) == []


def put(root: Path, name: str, data: bytes = NUMBERS) -> SharedFile:
    """Writes a file and returns it as the catalogue would name it."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return shared(path, name)


def shared(path: Path, name: str) -> SharedFile:
    """The file as the catalogue would name it; the file system's clock has ticked since."""
    version = Version.of(path.stat())
    probe = path.parent / ".tick"
    while True:
        probe.touch()
        if probe.stat().st_ctime_ns > version.ctime_ns:
            break
    probe.unlink()
    return SharedFile(name, version, bytes(32), 0)


def read_all(library: LocalFiles, file: SharedFile) -> bytes:
    return b"".join(library.read(file, index) for index in range(file.segments))


def refused(library: LocalFiles, file: SharedFile, index: int = 0) -> tuple[RefusalReason, str]:
    with pytest.raises(Refused) as caught:
        library.read(file, index)
    return caught.value.reason, caught.value.detail


def open_below(root: Path) -> list[str]:
    """The files below ``root`` that this process has open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if path.startswith(f"{root}/"):
            found.append(path.removeprefix(f"{root}/"))
    return sorted(found)


# What is read.


def test_a_segment_is_a_range_of_the_file(root: Path, library: LocalFiles) -> None:
    file = put(root, "numbers")
    assert library.read(file, 0) == NUMBERS[:21]
    assert library.read(file, 11) == NUMBERS[231:]
    assert library.read(file, 3) == NUMBERS[63:84]
    assert read_all(library, file) == NUMBERS


@pytest.mark.parametrize(
    "name", ["a b", " a ", "ünïcödé 字 🙂", "-rf", "a'b\"c$d;e", "sub folder/ü/file", "%s{}", "...", "x" * 255]
)
def test_any_name_is_only_a_name(root: Path, library: LocalFiles, name: str) -> None:
    assert read_all(library, put(root, name)) == NUMBERS


def test_the_one_file_that_is_shared_is_read(root: Path) -> None:
    file = put(root, "numbers")
    put(root, "secret", b"secret")
    library = LocalFiles(root / "numbers")
    assert read_all(library, file) == NUMBERS
    library.close()
    assert open_below(root) == []


def test_one_shared_file_may_be_named_by_a_symlink(tmp_path: Path, root: Path) -> None:
    put(root, "numbers")
    link = tmp_path / "link"
    link.symlink_to(root / "numbers")
    library = LocalFiles(link)
    assert read_all(library, shared(link, "link")) == NUMBERS
    library.close()


def test_a_shared_folder_may_be_named_by_a_symlink(tmp_path: Path, root: Path) -> None:
    file = put(root, "numbers")
    (tmp_path / "link").symlink_to(root)
    library = LocalFiles(tmp_path / "link")
    assert read_all(library, file) == NUMBERS
    library.close()


def test_a_symlink_inside_of_the_folder_is_read(root: Path, library: LocalFiles) -> None:
    put(root, "sub/numbers")
    (root / "link").symlink_to("sub/numbers")
    assert read_all(library, shared(root / "link", "link")) == NUMBERS


# What is refused.


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def truncate_and_fill(path: Path) -> None:
    """The length is right again, the end is zeros."""
    os.truncate(path, 100)
    os.truncate(path, 245)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path: Path) -> None:
    path.write_bytes(bytes(245))


def rewrite_unseen(path: Path) -> None:
    """The size and the time of modification are as they were; only the ctime tells."""
    before = path.stat()
    path.write_bytes(bytes(245))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    """As ``mv`` does it, with the same times."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(bytes(245))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def replace_by_the_same(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(NUMBERS)
    other.replace(path)


def replace_by_inner_symlink(path: Path) -> None:
    path.with_name("other").write_bytes(NUMBERS)
    path.unlink()
    path.symlink_to("other")


def delete(path: Path) -> None:
    path.unlink()


def touch(path: Path) -> None:
    os.utime(path)


def replace_by_outer_symlink(path: Path) -> None:
    secret = path.parents[1] / "secret"
    secret.write_bytes(NUMBERS)
    path.unlink()
    path.symlink_to(secret)


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_socket(path: Path) -> None:
    path.unlink()
    os.mknod(path, stat.S_IFSOCK | 0o600)


def replace_by_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


CHANGED = [
    truncate,
    truncate_and_fill,
    append,
    rewrite,
    rewrite_unseen,
    replace,
    replace_by_the_same,
    replace_by_inner_symlink,
    delete,
    touch,
]
NOT_A_FILE = [
    replace_by_outer_symlink,
    replace_by_fifo,
    replace_by_folder,
    replace_by_socket,
    replace_by_device,
]


def name_of(change: Callable[[Path], None]) -> str:
    return change.__name__


@pytest.mark.parametrize("change", CHANGED, ids=name_of)
def test_a_file_that_changed_before_it_is_opened_is_refused_as_changed(
    root: Path, library: LocalFiles, change: Callable[[Path], None]
) -> None:
    file = put(root, "numbers")
    change(root / "numbers")
    for index in range(12):
        assert refused(library, file, index)[0] is RefusalReason.CHANGED


@pytest.mark.parametrize("change", CHANGED + NOT_A_FILE, ids=name_of)
def test_a_file_that_changed_while_it_is_open_is_refused_as_changed(
    root: Path, library: LocalFiles, change: Callable[[Path], None]
) -> None:
    file = put(root, "numbers")
    assert library.read(file, 0) == NUMBERS[:21]
    change(root / "numbers")
    assert refused(library, file)[0] is RefusalReason.CHANGED
    assert open_below(root) == []


@pytest.mark.parametrize("change", NOT_A_FILE, ids=name_of)
def test_what_is_no_file_inside_of_the_folder_is_refused_as_unreadable(
    root: Path, library: LocalFiles, change: Callable[[Path], None]
) -> None:
    file = put(root, "numbers")
    change(root / "numbers")
    reason, detail = refused(library, file)
    assert reason is RefusalReason.UNREADABLE
    assert detail
    assert open_below(root) == []


def test_a_refusal_says_why(root: Path, library: LocalFiles) -> None:
    file = put(root, "numbers")
    touch(root / "numbers")
    assert refused(library, file) == (RefusalReason.CHANGED, "the file is not the version that was indexed")
    delete(root / "numbers")
    assert refused(library, file) == (RefusalReason.CHANGED, "the file is gone")


def test_a_refusal_holds_what_was_read_all_the_same(root: Path, library: LocalFiles) -> None:
    file = put(root, "numbers")
    for change, data in ((touch, NUMBERS[63:84]), (rewrite, bytes(21)), (delete, b"")):
        change(root / "numbers")
        with pytest.raises(Refused) as caught:
            library.read(file, 3)
        assert (caught.value.reason, caught.value.data) == (RefusalReason.CHANGED, data)


def test_a_truncated_file_is_refused_also_where_its_bytes_are_still_there(root: Path, library: LocalFiles) -> None:
    file = put(root, "numbers")
    truncate(root / "numbers")
    assert refused(library, file, 0)[0] is RefusalReason.CHANGED
    assert refused(library, file, 11)[0] is RefusalReason.CHANGED


def test_a_file_that_comes_back_as_it_was_is_read_again(root: Path, library: LocalFiles) -> None:
    file = put(root, "numbers")
    assert library.read(file, 0) == NUMBERS[:21]
    (root / "numbers").rename(root / "away")
    assert refused(library, file)[0] is RefusalReason.CHANGED
    (root / "away").rename(root / "numbers")
    assert refused(library, file)[0] is RefusalReason.CHANGED, "its ctime is another"
    assert library.read(shared(root / "numbers", "numbers"), 0) == NUMBERS[:21]


@pytest.mark.parametrize("change", [truncate, rewrite_unseen, append], ids=name_of)
def test_a_file_that_changes_during_a_read_is_refused_as_changed(
    root: Path, library: LocalFiles, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    file = put(root, "numbers")
    pread = os.pread

    def change_and_pread(fd: int, length: int, offset: int) -> bytes:
        change(root / "numbers")
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", change_and_pread)
    assert refused(library, file)[0] is RefusalReason.CHANGED


def test_one_changed_file_does_not_stop_the_others(root: Path, library: LocalFiles) -> None:
    one, other = put(root, "one"), put(root, "other")
    read_all(library, one)
    rewrite(root / "one")
    assert refused(library, one)[0] is RefusalReason.CHANGED
    assert read_all(library, other) == NUMBERS


def test_a_folder_on_the_way_that_leads_out_is_refused(tmp_path: Path, root: Path, library: LocalFiles) -> None:
    file = put(root, "sub/numbers")
    (root / "sub").rename(tmp_path / "moved")
    (root / "sub").symlink_to(tmp_path / "moved")
    assert refused(library, file)[0] is RefusalReason.UNREADABLE


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret"])
def test_nothing_outside_of_the_folder_is_opened_whatever_its_name(tmp_path: Path, root: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(NUMBERS)
    (root / "sub").mkdir()
    with pytest.raises(PermissionError):
        open_shared(root, name)


def test_only_a_regular_file_is_opened(root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "folder").mkdir()
    (root / "file").touch()
    for name in ("fifo", "folder", "."):
        with pytest.raises(PermissionError):
            open_shared(root, name)
    fd, status = open_shared(root, "file")
    os.close(fd)
    assert status.st_ino == (root / "file").stat().st_ino
    assert open_below(root) == []


def test_an_absolute_name_leads_nowhere(tmp_path: Path, root: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(NUMBERS)
    with pytest.raises(PermissionError):
        open_shared(root, str(secret))


def test_a_folder_whose_name_begins_with_that_of_the_shared_one_is_outside(tmp_path: Path, root: Path) -> None:
    sibling = tmp_path / f"{root.name} and more"
    sibling.mkdir()
    (sibling / "secret").write_bytes(NUMBERS)
    with pytest.raises(PermissionError):
        open_shared(root, f"../{sibling.name}/secret")


# Open files.


def test_a_file_stays_open_for_the_next_request(root: Path, library: LocalFiles) -> None:
    file = put(root, "numbers")
    for index in range(12):
        library.read(file, index)
        assert open_below(root) == ["numbers"]


def test_few_files_are_open_at_a_time_however_many_are_read(root: Path, library: LocalFiles) -> None:
    files = [put(root, f"{number:03}", b"x") for number in range(OPEN_FILES + 10)]
    for number, file in enumerate(files, 1):
        assert library.read(file, 0) == b"x"
        assert len(open_below(root)) == min(number, OPEN_FILES)
    for file in files:
        assert library.read(file, 0) == b"x"


def test_the_file_not_read_for_longest_is_closed_first(root: Path, library: LocalFiles) -> None:
    files = [put(root, f"{number:03}", b"x") for number in range(OPEN_FILES + 1)]
    for file in files[:-1]:
        library.read(file, 0)
    library.read(files[0], 0)
    library.read(files[-1], 0)
    assert set(open_below(root)) == {file.name for file in files} - {files[1].name}


def test_what_cannot_be_read_is_not_kept_open(root: Path, library: LocalFiles) -> None:
    files = [put(root, f"{number:03}", b"x") for number in range(10)]
    for file in files:
        library.read(file, 0)
        touch(root / file.name)
    for file in files:
        refused(library, file)
    assert open_below(root) == []


def test_a_closed_library_holds_nothing(root: Path) -> None:
    library = LocalFiles(root)
    for number in range(5):
        library.read(put(root, f"{number}"), 0)
    library.close()
    assert open_below(root) == []
    library.close()
