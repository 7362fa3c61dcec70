"""Reading segments of the shared files, and refusing every file that is not the indexed version."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msd.wire.protocol.segments import span
from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import SharedFile, Version
from msd.workers.source.local_files import MAX_OPEN_FILES, LocalFiles, open_shared
from msd.workers.source.share import Share
from msd.workers.source.source import ReadRefused
from tests.unit.shares import share_of

NUMBERS = bytes(range(245))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "shared"
    root.mkdir()
    return root


@pytest.fixture
def local_files(root: Path) -> Iterator[LocalFiles]:
    local_files = LocalFiles(share_of(root))
    yield local_files
    local_files.close()
    assert open_below(root) == []


def put(root: Path, name: str, data: bytes = NUMBERS) -> SharedFile:
    """Writes a file and returns its catalogue entry."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return shared(path, name)


def shared(path: Path, name: str) -> SharedFile:
    """Waits until the file system's clock has advanced past the file's last change; returns its catalogue entry."""
    version = Version.of(path.stat())
    probe = path.parent / ".tick"
    while True:
        probe.touch()
        if probe.stat().st_ctime_ns > version.ctime_ns:
            break
    probe.unlink()
    return SharedFile(name, version, bytes(32), 0)


def read(local_files: LocalFiles, file: SharedFile, index: int) -> bytes | ReadRefused:
    """Reads a segment."""
    return local_files.read(file, *span(file.size, index))


def read_all(local_files: LocalFiles, file: SharedFile) -> bytes:
    segments = [read(local_files, file, index) for index in range(file.segments)]
    return b"".join(data for data in segments if isinstance(data, bytes))


def read_refused(local_files: LocalFiles, file: SharedFile, index: int = 0) -> tuple[RefusalReason, str]:
    refused = read(local_files, file, index)
    assert isinstance(refused, ReadRefused)
    return refused.reason, refused.detail


def open_below(root: Path) -> list[str]:
    """Returns the names of the files below ``root`` that this process has open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if path.startswith(f"{root}/"):
            found.append(path.removeprefix(f"{root}/"))
    return sorted(found)


# Reading.


def test_any_range_of_a_file_can_be_read(root: Path, local_files: LocalFiles) -> None:
    file = put(root, "numbers")
    assert local_files.read(file, 20, 3) == NUMBERS[20:23]
    assert read(local_files, file, 0) == NUMBERS[:21]
    assert read(local_files, file, 11) == NUMBERS[231:]
    assert read(local_files, file, 3) == NUMBERS[63:84]
    assert read_all(local_files, file) == NUMBERS


@pytest.mark.parametrize(
    "name", ["a b", " a ", "ünïcödé 字 🙂", "-rf", "a'b\"c$d;e", "sub folder/ü/file", "%s{}", "...", "x" * 255]
)
def test_special_characters_in_a_name_have_no_meaning(root: Path, local_files: LocalFiles, name: str) -> None:
    assert read_all(local_files, put(root, name)) == NUMBERS


def test_the_times_of_a_file_are_reliable_on_an_ordinary_file_system(root: Path, local_files: LocalFiles) -> None:
    assert local_files.has_reliable_versions(put(root, "numbers"))


def test_reads_a_single_shared_file(root: Path) -> None:
    file = put(root, "numbers")
    put(root, "secret", b"secret")
    local_files = LocalFiles(share_of(root / "numbers"))
    assert read_all(local_files, file) == NUMBERS
    local_files.close()
    assert open_below(root) == []


def test_a_single_shared_file_may_be_given_by_a_symlink(tmp_path: Path, root: Path) -> None:
    put(root, "numbers")
    link = tmp_path / "link"
    link.symlink_to(root / "numbers")
    local_files = LocalFiles(share_of(link))
    assert read_all(local_files, shared(link, "link")) == NUMBERS
    local_files.close()


def test_the_shared_folder_may_be_given_by_a_symlink(tmp_path: Path, root: Path) -> None:
    file = put(root, "numbers")
    (tmp_path / "link").symlink_to(root)
    local_files = LocalFiles(share_of(tmp_path / "link"))
    assert read_all(local_files, file) == NUMBERS
    local_files.close()


def test_the_shared_folder_may_be_replaced_by_a_symlink(tmp_path: Path, root: Path, local_files: LocalFiles) -> None:
    """The real path of the shared folder is not the one at the first read any more."""
    assert read_all(local_files, put(root, "numbers")) == NUMBERS
    root.rename(tmp_path / "moved")
    root.symlink_to("moved")
    assert read_all(local_files, put(root, "others")) == NUMBERS
    root.unlink()
    (tmp_path / "moved").rename(root)


def test_reads_a_symlink_that_stays_inside_the_folder(root: Path, local_files: LocalFiles) -> None:
    put(root, "sub/numbers")
    (root / "link").symlink_to("sub/numbers")
    assert read_all(local_files, shared(root / "link", "link")) == NUMBERS


# Refusals.


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def truncate_and_fill(path: Path) -> None:
    """Truncates the file and extends it to its former length, so that it ends with zeros."""
    os.truncate(path, 100)
    os.truncate(path, 245)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path: Path) -> None:
    path.write_bytes(bytes(245))


def rewrite_and_restore_mtime(path: Path) -> None:
    """Changes the content and restores the modification time. The size is the same; only the ctime differs."""
    before = path.stat()
    path.write_bytes(bytes(245))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    """Replaces the file by renaming another one, like ``mv``, and restores the modification time."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(bytes(245))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def replace_by_identical_file(path: Path) -> None:
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
    rewrite_and_restore_mtime,
    replace,
    replace_by_identical_file,
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
    root: Path, local_files: LocalFiles, change: Callable[[Path], None]
) -> None:
    file = put(root, "numbers")
    change(root / "numbers")
    for index in range(12):
        assert read_refused(local_files, file, index)[0] is RefusalReason.CHANGED


@pytest.mark.parametrize("change", CHANGED + NOT_A_FILE, ids=name_of)
def test_a_file_that_changed_while_it_is_open_is_refused_as_changed(
    root: Path, local_files: LocalFiles, change: Callable[[Path], None]
) -> None:
    file = put(root, "numbers")
    assert read(local_files, file, 0) == NUMBERS[:21]
    change(root / "numbers")
    assert read_refused(local_files, file)[0] is RefusalReason.CHANGED
    assert open_below(root) == []


@pytest.mark.parametrize("change", NOT_A_FILE, ids=name_of)
def test_anything_but_a_regular_file_inside_the_folder_is_refused_as_unreadable(
    root: Path, local_files: LocalFiles, change: Callable[[Path], None]
) -> None:
    file = put(root, "numbers")
    change(root / "numbers")
    reason, detail = read_refused(local_files, file)
    assert reason is RefusalReason.UNREADABLE
    assert detail
    assert open_below(root) == []


def test_a_refusal_states_its_reason(root: Path, local_files: LocalFiles) -> None:
    file = put(root, "numbers")
    touch(root / "numbers")
    assert read_refused(local_files, file) == (RefusalReason.CHANGED, "the file is not the version that was indexed")
    delete(root / "numbers")
    assert read_refused(local_files, file) == (RefusalReason.CHANGED, "the file was deleted or renamed")


def test_a_refusal_holds_the_bytes_that_were_read(root: Path, local_files: LocalFiles) -> None:
    file = put(root, "numbers")
    for change, data in ((touch, NUMBERS[63:84]), (rewrite, bytes(21)), (delete, b"")):
        change(root / "numbers")
        refused = read(local_files, file, 3)
        assert isinstance(refused, ReadRefused)
        assert (refused.reason, refused.data) == (RefusalReason.CHANGED, data)


def test_a_truncated_file_is_refused_even_for_segments_it_still_contains(root: Path, local_files: LocalFiles) -> None:
    file = put(root, "numbers")
    truncate(root / "numbers")
    assert read_refused(local_files, file, 0)[0] is RefusalReason.CHANGED
    assert read_refused(local_files, file, 11)[0] is RefusalReason.CHANGED


def test_a_file_that_was_moved_back_is_read_once_it_is_indexed_again(root: Path, local_files: LocalFiles) -> None:
    file = put(root, "numbers")
    assert read(local_files, file, 0) == NUMBERS[:21]
    (root / "numbers").rename(root / "away")
    assert read_refused(local_files, file)[0] is RefusalReason.CHANGED
    (root / "away").rename(root / "numbers")
    assert read_refused(local_files, file)[0] is RefusalReason.CHANGED, "renaming the file has changed its ctime"
    assert read(local_files, shared(root / "numbers", "numbers"), 0) == NUMBERS[:21]


@pytest.mark.parametrize("change", [truncate, rewrite_and_restore_mtime, append], ids=name_of)
def test_a_file_that_changes_during_a_read_is_refused_as_changed(
    root: Path, local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    file = put(root, "numbers")
    pread = os.pread

    def change_and_pread(fd: int, length: int, offset: int) -> bytes:
        change(root / "numbers")
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", change_and_pread)
    assert read_refused(local_files, file)[0] is RefusalReason.CHANGED


def test_a_changed_file_does_not_affect_other_files(root: Path, local_files: LocalFiles) -> None:
    changed, unchanged = put(root, "changed"), put(root, "unchanged")
    read_all(local_files, changed)
    rewrite(root / "changed")
    assert read_refused(local_files, changed)[0] is RefusalReason.CHANGED
    assert read_all(local_files, unchanged) == NUMBERS


def test_a_path_through_a_symlink_out_of_the_folder_is_refused(
    tmp_path: Path, root: Path, local_files: LocalFiles
) -> None:
    file = put(root, "sub/numbers")
    (root / "sub").rename(tmp_path / "moved")
    (root / "sub").symlink_to(tmp_path / "moved")
    assert read_refused(local_files, file)[0] is RefusalReason.UNREADABLE


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret"])
def test_relative_names_cannot_open_files_outside_the_folder(tmp_path: Path, root: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(NUMBERS)
    (root / "sub").mkdir()
    with pytest.raises(PermissionError):
        open_shared(share_of(root), name)


def test_opens_only_regular_files(root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "folder").mkdir()
    (root / "file").touch()
    for name in ("fifo", "folder", "."):
        with pytest.raises(PermissionError):
            open_shared(share_of(root), name)
    fd, status = open_shared(share_of(root), "file")
    os.close(fd)
    assert status.st_ino == (root / "file").stat().st_ino
    assert open_below(root) == []


def test_an_absolute_name_cannot_open_a_file_outside_the_folder(tmp_path: Path, root: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(NUMBERS)
    with pytest.raises(PermissionError):
        open_shared(share_of(root), str(secret))


def test_a_sibling_folder_with_the_same_name_prefix_is_outside(tmp_path: Path, root: Path) -> None:
    sibling = tmp_path / f"{root.name} and more"
    sibling.mkdir()
    (sibling / "secret").write_bytes(NUMBERS)
    with pytest.raises(PermissionError):
        open_shared(share_of(root), f"../{sibling.name}/secret")


def test_only_with_follow_links_may_a_link_lead_out(tmp_path: Path, root: Path) -> None:
    (tmp_path / "secret").write_bytes(NUMBERS)
    (root / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(PermissionError):
        open_shared(Share({"": root}), "link")
    fd, _ = open_shared(Share({"": root}, follow_links=True), "link")
    os.close(fd)
    for name in ("../secret", "link/../../secret", str(tmp_path / "secret")):
        with pytest.raises(PermissionError):
            open_shared(Share({"": root}, follow_links=True), name)


def test_a_link_may_lead_to_another_shared_path(tmp_path: Path, root: Path) -> None:
    film = tmp_path / "film"
    film.write_bytes(NUMBERS)
    (root / "link").symlink_to(film)
    fd, _ = open_shared(Share({"shared": root, "film": film}), "shared/link")
    os.close(fd)
    for name in ("film/x", "shared", "other/film", "shared/../film"):
        with pytest.raises(OSError):  # noqa: PT011
            open_shared(Share({"shared": root, "film": film}), name)


# Descriptors.


def test_a_file_stays_open_for_the_next_request(root: Path, local_files: LocalFiles) -> None:
    file = put(root, "numbers")
    for index in range(12):
        read(local_files, file, index)
        assert open_below(root) == ["numbers"]


def test_the_number_of_open_files_is_limited(root: Path, local_files: LocalFiles) -> None:
    files = [put(root, f"{number:03}", b"x") for number in range(MAX_OPEN_FILES + 10)]
    for number, file in enumerate(files, 1):
        assert read(local_files, file, 0) == b"x"
        assert len(open_below(root)) == min(number, MAX_OPEN_FILES)
    for file in files:
        assert read(local_files, file, 0) == b"x"


def test_the_least_recently_read_file_is_closed_first(root: Path, local_files: LocalFiles) -> None:
    files = [put(root, f"{number:03}", b"x") for number in range(MAX_OPEN_FILES + 1)]
    for file in files[:-1]:
        read(local_files, file, 0)
    read(local_files, files[0], 0)
    read(local_files, files[-1], 0)
    assert set(open_below(root)) == {file.name for file in files} - {files[1].name}


def test_a_file_that_was_refused_is_not_kept_open(root: Path, local_files: LocalFiles) -> None:
    files = [put(root, f"{number:03}", b"x") for number in range(10)]
    for file in files:
        read(local_files, file, 0)
        touch(root / file.name)
    for file in files:
        read_refused(local_files, file)
    assert open_below(root) == []


def test_close_closes_all_files_and_may_be_repeated(root: Path) -> None:
    local_files = LocalFiles(share_of(root))
    for number in range(5):
        read(local_files, put(root, f"{number}"), 0)
    local_files.close()
    assert open_below(root) == []
    local_files.close()


def test_a_file_is_closed_when_it_is_no_longer_read(root: Path, local_files: LocalFiles) -> None:
    once, again = put(root, "once"), put(root, "again")
    read(local_files, once, 0)
    read(local_files, again, 0)
    local_files.close_unread()
    assert open_below(root) == ["again", "once"]
    read(local_files, again, 1)
    local_files.close_unread()
    assert open_below(root) == ["again"]
    local_files.close_unread()
    assert open_below(root) == []
    assert read_all(local_files, once) == NUMBERS
