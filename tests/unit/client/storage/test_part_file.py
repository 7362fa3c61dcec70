"""The part file: whatever lies in it, only what the manifest says is kept."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from msd.client.storage.local_copy import LocalCopy
from msd.client.storage.part_file import PartFile, check_output
from msd.wire.errors import DiskError, UsageError
from msd.wire.protocol.segments import Manifest, digest, segment_count, span

MIB = 1 << 20
#: 16 segments of 1 MiB and a short one: holes are at least a block, so segments must be many.
SIZE = 16 * MIB + 1234


def content(size: int, seed: int = 1) -> bytes:
    """Bytes without a zero and without a repeated segment."""
    pattern = bytes(1 + (seed + n) % 255 for n in range(255))
    return b"".join(
        (n * 7919 + seed).to_bytes(4, "big").replace(b"\0", b"\1") + pattern for n in range(size // 259 + 1)
    )[:size]


def manifest(data: bytes) -> Manifest:
    pieces = (span(len(data), index) for index in range(segment_count(len(data))))
    digests = b"".join(digest(data[offset : offset + length]) for offset, length in pieces)
    return Manifest.build("film.mp4", len(data), digests)


def piece(data: bytes, index: int) -> memoryview:
    offset, length = span(len(data), index)
    return memoryview(data)[offset : offset + length]


DATA = content(SIZE)
STAR = manifest(DATA)
TAKEN = r"exists: give another -o, --update to bring it up to date, or --force to replace it$"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "film.mp4"


def part_path(output: Path) -> Path:
    return output.with_name(output.name + ".part")


@pytest.fixture
def left(output: Path) -> Iterator[int]:
    """The part file of an earlier run, of the full size and all hole; a descriptor to write to."""
    with part_path(output).open("wb", buffering=0) as file:
        file.truncate(SIZE)
        yield file.fileno()


def kept(part: PartFile, of: Manifest = STAR) -> set[int]:
    """The segments that a download would not ask for."""
    return {index for index in part.candidates() if part.holds(index)} | set(part.zeros())


# A whole download.


@pytest.mark.parametrize("size", [1, 11, 245, 12 * 4096, SIZE])
@pytest.mark.parametrize("sync", [True, False])
def test_segments_written_in_any_order_become_the_file(output: Path, size: int, sync: bool) -> None:
    data = content(size)
    with closing(PartFile(output, manifest(data))) as part:
        assert list(part.candidates()) == []
        for index in reversed(range(segment_count(size))):
            part.write(index, piece(data, index))
            assert part.holds(index)
        part.sync()
        assert not output.exists()
        part.publish(replace=True, sync=sync)
    assert output.read_bytes() == data
    assert not part_path(output).exists()


def test_an_empty_file_becomes_one(output: Path) -> None:
    with closing(PartFile(output, manifest(b""))) as part:
        assert (list(part.candidates()), list(part.zeros())) == ([], [])
        part.publish(replace=True, sync=True)
    assert output.read_bytes() == b""


def test_the_part_file_has_its_full_size_and_no_blocks_at_once(output: Path) -> None:
    with closing(PartFile(output, STAR)):
        status = part_path(output).stat()
    assert status.st_size == SIZE
    assert status.st_blocks * 512 < MIB


def test_publishing_replaces_an_older_output(output: Path) -> None:
    output.write_bytes(b"old")
    with closing(PartFile(output, manifest(b"new"))) as part:
        for index in range(3):
            part.write(index, piece(b"new", index))
        assert output.read_bytes() == b"old"
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == b"new"


def test_the_part_file_stays_after_a_failure(output: Path) -> None:
    with closing(PartFile(output, STAR)) as part:
        part.write(3, piece(DATA, 3))
    with closing(PartFile(output, STAR)) as part:
        assert kept(part) == {3}


# What an earlier run left.


def test_nothing_left_means_nothing_kept(output: Path) -> None:
    with closing(PartFile(output, STAR)) as part:
        assert kept(part) == set()


def test_a_complete_part_file_is_kept_whole(output: Path) -> None:
    part_path(output).write_bytes(DATA)
    with closing(PartFile(output, STAR)) as part:
        assert list(part.candidates()) == list(range(17))
        assert kept(part) == set(range(17))


@pytest.mark.parametrize("at", [0, MIB - 1, 5 * MIB + 77, SIZE - 1])
def test_a_damaged_byte_costs_its_segment(output: Path, at: int) -> None:
    damaged = bytearray(DATA)
    damaged[at] ^= 1
    part_path(output).write_bytes(damaged)
    with closing(PartFile(output, STAR)) as part:
        assert kept(part) == set(range(17)) - {at // MIB}


def test_only_where_there_is_data_are_there_candidates(output: Path, left: int) -> None:
    for index in (2, 3, 9, 16):
        os.pwrite(left, piece(DATA, index), index * MIB)
    with closing(PartFile(output, STAR)) as part:
        assert list(part.candidates()) == [2, 3, 9, 16]
        assert kept(part) == {2, 3, 9, 16}


def test_a_segment_that_is_half_hole_is_a_candidate_once_and_not_kept(output: Path, left: int) -> None:
    os.pwrite(left, DATA[4 * MIB : 4 * MIB + 8192], 4 * MIB)
    os.pwrite(left, DATA[5 * MIB - 8192 : 5 * MIB], 5 * MIB - 8192)
    with closing(PartFile(output, STAR)) as part:
        assert list(part.candidates()) == [4]
        assert kept(part) == set()


def test_data_across_a_border_makes_both_segments_candidates(output: Path, left: int) -> None:
    os.pwrite(left, b"x" * 8192, 7 * MIB - 4096)
    with closing(PartFile(output, STAR)) as part:
        assert list(part.candidates()) == [6, 7]


def test_a_shorter_part_file_keeps_its_beginning(output: Path) -> None:
    part_path(output).write_bytes(DATA[: 3 * MIB + 5])
    with closing(PartFile(output, STAR)) as part:
        assert list(part.candidates()) == [0, 1, 2, 3]
        assert kept(part) == {0, 1, 2}


def test_a_longer_part_file_is_cut(output: Path) -> None:
    part_path(output).write_bytes(DATA + b"x" * 3 * MIB)
    with closing(PartFile(output, STAR)) as part:
        assert kept(part) == set(range(17))
        assert part_path(output).stat().st_size == SIZE


def test_the_part_file_of_another_version_keeps_what_is_the_same(output: Path) -> None:
    other = DATA[: 8 * MIB] + content(SIZE - 8 * MIB, seed=99)
    part_path(output).write_bytes(other)
    with closing(PartFile(output, STAR)) as part:
        assert kept(part) == set(range(8))


# File systems that know no holes.


def fail_to_seek(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def lseek(fd: int, position: int, how: int) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "lseek", lseek)


def data_ranges(fd: int, size: int) -> list[tuple[int, int]]:
    return list(LocalCopy(fd, Manifest("film.mp4", size, b"", b"")).data())


def test_without_holes_all_of_a_file_is_data(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_ranges(left, SIZE) == []
    fail_to_seek(monkeypatch, errno.EINVAL)
    assert data_ranges(left, SIZE) == [(0, SIZE)]
    assert data_ranges(left, SIZE - 5) == [(0, SIZE - 5)]
    assert data_ranges(left, 2 * SIZE) == [(0, SIZE)]
    assert data_ranges(left, 0) == []


def test_without_holes_what_is_right_is_kept_all_the_same(
    output: Path, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.pwrite(left, piece(DATA, 4), 4 * MIB)
    fail_to_seek(monkeypatch, errno.EINVAL)
    with closing(PartFile(output, STAR)) as part:
        assert list(part.candidates()) == list(range(17))
        assert kept(part) == {4}


def test_without_holes_a_new_part_file_has_no_candidates(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to_seek(monkeypatch, errno.EINVAL)
    with closing(PartFile(output, STAR)) as part:
        assert list(part.candidates()) == []


def test_a_disk_that_fails_while_data_is_looked_for_is_a_disk_error(
    output: Path, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_seek(monkeypatch, errno.EIO)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DiskError, match=r"film\.mp4\.part: Input/output error"):
        PartFile(output, STAR)
    assert len(os.listdir("/proc/self/fd")) == before
    assert part_path(output).stat().st_size == SIZE


# Zeros.


def test_a_file_of_zeros_is_there_before_it_is_asked_for(output: Path) -> None:
    data = bytes(SIZE)
    with closing(PartFile(output, manifest(data))) as part:
        assert list(part.zeros()) == list(range(17))
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == data


def test_only_the_zeros_of_a_mixed_file_are_there(output: Path) -> None:
    data = bytes(4 * MIB) + DATA[4 * MIB : 16 * MIB] + bytes(1234)
    with closing(PartFile(output, manifest(data))) as part:
        assert list(part.zeros()) == [0, 1, 2, 3, 16]


def test_zeros_that_were_overwritten_are_checked_like_any_other(output: Path, left: int) -> None:
    os.pwrite(left, b"x", 5 * MIB)
    of = manifest(bytes(SIZE))
    with closing(PartFile(output, of)) as part:
        assert list(part.candidates()) == [5]
        assert kept(part, of) == set(range(17)) - {5}


def test_without_zeros_in_the_file_a_hole_is_worth_nothing(output: Path, left: int) -> None:
    with closing(PartFile(output, STAR)) as part:
        assert kept(part) == set()


# Locks.


def test_two_downloads_cannot_write_the_same_part_file(output: Path) -> None:
    with closing(PartFile(output, STAR)), pytest.raises(DiskError, match="another download is writing it"):
        PartFile(output, STAR)


def test_two_downloads_of_two_outputs_do_not_meet(output: Path) -> None:
    with closing(PartFile(output, STAR)), closing(PartFile(output.with_name("other.mp4"), STAR)):
        pass


def test_the_lock_ends_with_the_part_file(output: Path) -> None:
    PartFile(output, STAR).close()
    PartFile(output, STAR).close()


def test_a_second_download_that_is_refused_leaves_the_first_alone(output: Path) -> None:
    with closing(PartFile(output, STAR)) as part:
        part.write(0, piece(DATA, 0))
        with pytest.raises(DiskError):
            PartFile(output, manifest(b"tiny"))
        assert part.holds(0)
        assert part_path(output).stat().st_size == SIZE


def test_a_lock_on_a_file_that_was_renamed_is_not_enough(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other download publishes between this one's open and its lock."""
    other = PartFile(output, STAR)
    real = fcntl.flock

    def publish_first(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        other.publish(replace=True, sync=False)
        other.close()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", publish_first)
    with closing(PartFile(output, STAR)) as part:
        part.write(0, piece(DATA, 0))
        assert output.read_bytes() == bytes(SIZE)  # What the other one published, untouched.
        assert part_path(output).exists()


def test_a_disk_that_has_no_locks_is_a_disk_error(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(DiskError, match="No locks available"):
        PartFile(output, STAR)


# What is closed.


def test_an_empty_part_file_is_removed(output: Path) -> None:
    with closing(PartFile(output, manifest(b""))):
        assert part_path(output).exists()
    assert list(output.parent.iterdir()) == []


def test_without_room_only_a_part_file_that_holds_data_stays(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_bavail=0, f_frsize=4096))
    for data in (b"", b"x"):
        part_path(output).write_bytes(data)
        with pytest.raises(DiskError, match="make room"):
            PartFile(output, STAR)
        assert [path.read_bytes() for path in output.parent.iterdir()] == [data] * len(data)


@pytest.mark.parametrize("theirs", [b"", b"theirs"])
def test_a_part_file_of_somebody_else_is_not_removed(output: Path, theirs: bytes) -> None:
    path, moved = part_path(output), output.with_name("moved")
    with closing(PartFile(output, manifest(b""))):
        path.rename(moved)
        path.write_bytes(theirs)
    assert (path.read_bytes(), moved.read_bytes()) == (theirs, b"")


# What cannot be a part file.


@pytest.mark.parametrize("kind", ["folder", "fifo", "link"])
def test_only_a_regular_part_file_is_written(output: Path, kind: str) -> None:
    path = part_path(output)
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(output.with_name("elsewhere"))
    with pytest.raises(DiskError, match=r"film\.mp4\.part"):
        PartFile(output, STAR)
    assert not output.with_name("elsewhere").exists()


def test_a_file_larger_than_the_disk_is_refused_before_a_byte_is_asked_for(output: Path) -> None:
    huge = Manifest("huge", 1 << 50, b"", b"")
    with pytest.raises(DiskError, match=r"needs 1,125,899,906,842,624 bytes more and the disk has [\d,]+: make room"):
        PartFile(output, huge)


def test_a_name_too_long_with_its_suffix_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="give a shorter -o"):
        PartFile(tmp_path / ("x" * 253), STAR)


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from msd.client.storage.part_file import PartFile
from msd.wire.errors import DiskError
from msd.wire.protocol.segments import Manifest, digest
data = b"x" * 245
digests = b"".join(digest(data[at : at + 21]) for at in range(0, 245, 21))
part = PartFile(Path(sys.argv[1]), Manifest.build("f", 245, digests))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))
try:
    part.write(0, memoryview(data)[:21])
    part.write(1, memoryview(data)[21:42])
except DiskError as error:
    print(error)
"""


def test_a_write_that_fails_half_way_is_a_disk_error_and_what_was_written_stays(output: Path) -> None:
    """A limit on the size of files fails like a full disk: some bytes fit, then no more."""
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(output)], capture_output=True, text=True, timeout=30, check=True
    )
    assert run.stdout == f"{part_path(output)}: File too large\n"
    assert part_path(output).read_bytes()[:30] == b"x" * 30


# What has come there since the start.


@pytest.mark.parametrize("links", [True, False])
def test_an_output_that_came_meanwhile_is_only_replaced_if_that_is_meant(
    output: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(source: Path, target: Path, *, follow_symlinks: bool) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with closing(PartFile(output, manifest(b"n"))) as part:
        part.write(0, piece(b"n", 0))
        output.write_bytes(b"old")
        told = r"exists now: give another -o, --update or --force$" if links else TAKEN
        with pytest.raises(UsageError, match=told):
            part.publish(replace=False, sync=False)
        assert (output.read_bytes(), part_path(output).read_bytes()) == (b"old", b"n")
        output.unlink()
        part.publish(replace=False, sync=False)
    assert output.read_bytes() == b"n"
    assert not part_path(output).exists()


def test_a_part_file_that_is_the_output_as_well_is_not_written(output: Path) -> None:
    """As an earlier run leaves it that is killed while it gives the file its name."""
    output.write_bytes(b"theirs")
    os.link(output, part_path(output))
    before = output.stat()
    with closing(PartFile(output, STAR)) as part:
        assert list(part.candidates()) == []
        part.write(0, piece(DATA, 0))
        assert (output.read_bytes(), output.stat().st_nlink) == (b"theirs", 1)
        assert part_path(output).stat().st_ino != before.st_ino
    with closing(PartFile(output, STAR)) as part:
        assert kept(part) == {0}


def test_a_part_file_with_another_name_is_left_alone_while_it_is_written(output: Path) -> None:
    with closing(PartFile(output, STAR)) as part:
        part.write(0, piece(DATA, 0))
        os.link(part_path(output), output)
        with pytest.raises(DiskError, match="another download is writing it"):
            PartFile(output, STAR)
        assert part_path(output).samefile(output)
        os.unlink(output)


# What can be an output.


def test_a_new_name_in_a_folder_is_fine(output: Path) -> None:
    check_output(output, replace=False)
    assert list(output.parent.iterdir()) == []


def test_a_folder_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing: no such folder: create it, or give another -o$"):
        check_output(tmp_path / "missing" / "film.mp4", replace=False)


def test_an_output_that_exists_is_only_replaced_if_that_is_meant(output: Path) -> None:
    output.write_bytes(b"old")
    with pytest.raises(UsageError, match=TAKEN):
        check_output(output, replace=False)
    check_output(output, replace=True)
    assert output.read_bytes() == b"old"


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize(("kind", "told"), [("folder", "is a folder"), ("fifo", "is not a regular file")])
def test_only_a_regular_file_is_ever_replaced(output: Path, kind: str, told: str, replace: bool) -> None:
    if kind == "folder":
        output.mkdir()
    else:
        os.mkfifo(output)
    with pytest.raises(UsageError, match=told):
        check_output(output, replace=replace)


@pytest.mark.parametrize("replace", [True, False])
def test_a_link_to_nothing_is_not_replaced(output: Path, replace: bool) -> None:
    output.symlink_to("nothing")
    with pytest.raises(UsageError, match="is a link to nothing"):
        check_output(output, replace=replace)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_no_output(device: str) -> None:
    with pytest.raises(UsageError, match="not a regular file"):
        check_output(Path(device), replace=True)


def test_a_name_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="give a shorter -o"):
        check_output(tmp_path / ("x" * 300), replace=False)


def test_a_file_in_the_place_of_a_folder_is_an_error(output: Path) -> None:
    output.write_bytes(b"")
    with pytest.raises(DiskError, match="Not a directory"):
        check_output(output / "film.mp4", replace=False)
