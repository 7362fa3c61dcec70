"""The part file: writing, resuming, locking and publishing. Only segments that match the manifest are reused."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from msd.client.storage import locked_file
from msd.client.storage.change_detector import ChangeDetector
from msd.client.storage.part_file import PartFile, check_output
from msd.wire.errors import DiskError, UsageError
from msd.wire.protocol.segments import Manifest, digest, segment_count, span

MIB = 1 << 20
#: 16 segments of 1 MiB and a shorter one. A segment of 1 MiB consists of whole blocks, so it can be a hole.
SIZE = 16 * MIB + 1234


def content(size: int, seed: int = 1) -> bytes:
    """Returns ``size`` bytes. None of them is zero, and no two segments are equal."""
    pattern = bytes(1 + (seed + n) % 255 for n in range(255))
    return b"".join(
        (n * 7919 + seed).to_bytes(4, "big").replace(b"\0", b"\1") + pattern for n in range(size // 259 + 1)
    )[:size]


def manifest_of(data: bytes) -> Manifest:
    spans = (span(len(data), index) for index in range(segment_count(len(data))))
    digests = b"".join(digest(data[offset : offset + length]) for offset, length in spans)
    return Manifest.build("film.mp4", len(data), digests)


def segment_of(data: bytes, index: int) -> memoryview:
    offset, length = span(len(data), index)
    return memoryview(data)[offset : offset + length]


DATA = content(SIZE)
MANIFEST = manifest_of(DATA)
EXISTS = r"exists: choose another path, bring it up to date or replace it$"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "film.mp4"


def part_path(output: Path) -> Path:
    return output.with_name(f".{output.name}.msd-part")


@pytest.fixture
def part_fd(output: Path) -> Iterator[int]:
    """A descriptor of a part file from an earlier run; the file has its full size but is a single hole."""
    with part_path(output).open("wb", buffering=0) as file:
        file.truncate(SIZE)
        yield file.fileno()


def write_all(part: PartFile, data: bytes = DATA) -> None:
    for index in range(segment_count(len(data))):
        part.write(index, segment_of(data, index))


def reused(part: PartFile) -> set[int]:
    """Returns the segments that need not be fetched: they match the manifest or are all zeros."""
    return {index for index in part.candidates() if part.holds(index)} | set(part.zero_segments())


# A whole download.


@pytest.mark.parametrize("size", [1, 11, 245, 12 * 4096, SIZE])
@pytest.mark.parametrize("sync", [True, False])
def test_segments_written_in_any_order_form_the_file(output: Path, size: int, sync: bool) -> None:
    data = content(size)
    with closing(PartFile(output, manifest_of(data))) as part:
        assert list(part.candidates()) == []
        for index in reversed(range(segment_count(size))):
            part.write(index, segment_of(data, index))
            assert part.holds(index)
        part.sync()
        assert not output.exists()
        part.publish(replace=True, sync=sync)
    assert output.read_bytes() == data
    assert not part_path(output).exists()


def test_an_empty_file_is_published(output: Path) -> None:
    with closing(PartFile(output, manifest_of(b""))) as part:
        assert (list(part.candidates()), list(part.zero_segments())) == ([], [])
        part.publish(replace=True, sync=True)
    assert output.read_bytes() == b""


def test_a_new_part_file_has_its_full_size_but_no_blocks(output: Path) -> None:
    with closing(PartFile(output, MANIFEST)):
        status = part_path(output).stat()
    assert status.st_size == SIZE
    assert status.st_blocks * 512 < MIB


def test_publishing_replaces_an_existing_output(output: Path) -> None:
    output.write_bytes(b"old")
    with closing(PartFile(output, manifest_of(b"new"))) as part:
        for index in range(3):
            part.write(index, segment_of(b"new", index))
        assert output.read_bytes() == b"old"
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == b"new"


def test_the_part_file_is_kept_after_a_failure(output: Path) -> None:
    with closing(PartFile(output, MANIFEST)) as part:
        part.write(3, segment_of(DATA, 3))
    with closing(PartFile(output, MANIFEST)) as part:
        assert reused(part) == {3}


# Resuming from an earlier run.


def test_without_an_earlier_run_no_segment_is_reused(output: Path) -> None:
    with closing(PartFile(output, MANIFEST)) as part:
        assert reused(part) == set()


def test_a_complete_part_file_is_reused_completely(output: Path) -> None:
    part_path(output).write_bytes(DATA)
    with closing(PartFile(output, MANIFEST)) as part:
        assert list(part.candidates()) == list(range(17))
        assert reused(part) == set(range(17))


@pytest.mark.parametrize("at", [0, MIB - 1, 5 * MIB + 77, SIZE - 1])
def test_only_the_segment_of_a_damaged_byte_is_fetched_again(output: Path, at: int) -> None:
    damaged = bytearray(DATA)
    damaged[at] ^= 1
    part_path(output).write_bytes(damaged)
    with closing(PartFile(output, MANIFEST)) as part:
        assert reused(part) == set(range(17)) - {at // MIB}


def test_only_segments_with_data_are_candidates(output: Path, part_fd: int) -> None:
    for index in (2, 3, 9, 16):
        os.pwrite(part_fd, segment_of(DATA, index), index * MIB)
    with closing(PartFile(output, MANIFEST)) as part:
        assert list(part.candidates()) == [2, 3, 9, 16]
        assert reused(part) == {2, 3, 9, 16}


def test_a_segment_with_a_hole_in_it_is_one_candidate_and_not_reused(output: Path, part_fd: int) -> None:
    os.pwrite(part_fd, DATA[4 * MIB : 4 * MIB + 8192], 4 * MIB)
    os.pwrite(part_fd, DATA[5 * MIB - 8192 : 5 * MIB], 5 * MIB - 8192)
    with closing(PartFile(output, MANIFEST)) as part:
        assert list(part.candidates()) == [4]
        assert reused(part) == set()


def test_data_across_a_segment_border_makes_both_segments_candidates(output: Path, part_fd: int) -> None:
    os.pwrite(part_fd, b"x" * 8192, 7 * MIB - 4096)
    with closing(PartFile(output, MANIFEST)) as part:
        assert list(part.candidates()) == [6, 7]


def test_the_complete_segments_of_a_shorter_part_file_are_reused(output: Path) -> None:
    part_path(output).write_bytes(DATA[: 3 * MIB + 5])
    with closing(PartFile(output, MANIFEST)) as part:
        assert list(part.candidates()) == [0, 1, 2, 3]
        assert reused(part) == {0, 1, 2}


def test_a_longer_part_file_is_truncated(output: Path) -> None:
    part_path(output).write_bytes(DATA + b"x" * 3 * MIB)
    with closing(PartFile(output, MANIFEST)) as part:
        assert reused(part) == set(range(17))
        assert part_path(output).stat().st_size == SIZE


def test_the_part_file_of_another_version_is_reused_where_it_matches(output: Path) -> None:
    other = DATA[: 8 * MIB] + content(SIZE - 8 * MIB, seed=99)
    part_path(output).write_bytes(other)
    with closing(PartFile(output, MANIFEST)) as part:
        assert reused(part) == set(range(8))


# File systems without holes.


def fail_to_seek(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def lseek(fd: int, position: int, how: int) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "lseek", lseek)


def test_without_support_for_holes_matching_segments_are_reused(
    output: Path, part_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.pwrite(part_fd, segment_of(DATA, 4), 4 * MIB)
    fail_to_seek(monkeypatch, errno.EINVAL)
    with closing(PartFile(output, MANIFEST)) as part:
        assert list(part.candidates()) == list(range(17))
        assert reused(part) == {4}


def test_without_support_for_holes_a_new_part_file_has_no_candidates(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_seek(monkeypatch, errno.EINVAL)
    with closing(PartFile(output, MANIFEST)) as part:
        assert list(part.candidates()) == []


def test_a_failing_seek_is_a_disk_error(output: Path, part_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to_seek(monkeypatch, errno.EIO)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DiskError, match=r"\.film\.mp4\.msd-part: Input/output error"):
        PartFile(output, MANIFEST)
    assert len(os.listdir("/proc/self/fd")) == before
    assert part_path(output).stat().st_size == SIZE


# Zeros.


def test_a_file_of_zeros_needs_no_request(output: Path) -> None:
    data = bytes(SIZE)
    with closing(PartFile(output, manifest_of(data))) as part:
        assert list(part.zero_segments()) == list(range(17))
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == data


def test_only_all_zero_segments_need_no_request(output: Path) -> None:
    data = bytes(4 * MIB) + DATA[4 * MIB : 16 * MIB] + bytes(1234)
    with closing(PartFile(output, manifest_of(data))) as part:
        assert list(part.zero_segments()) == [0, 1, 2, 3, 16]


def test_zeros_that_an_earlier_run_overwrote_are_checked(output: Path, part_fd: int) -> None:
    os.pwrite(part_fd, b"x", 5 * MIB)
    with closing(PartFile(output, manifest_of(bytes(SIZE)))) as part:
        assert list(part.candidates()) == [5]
        assert reused(part) == set(range(17)) - {5}


def test_a_hole_is_not_reused_if_the_file_has_no_zeros_there(output: Path, part_fd: int) -> None:
    with closing(PartFile(output, MANIFEST)) as part:
        assert reused(part) == set()


# Locks.


def test_two_downloads_cannot_use_the_same_part_file(output: Path) -> None:
    with (
        closing(PartFile(output, MANIFEST)),
        pytest.raises(DiskError, match="another download is writing to this file"),
    ):
        PartFile(output, MANIFEST)


def test_downloads_to_different_outputs_do_not_conflict(output: Path) -> None:
    with closing(PartFile(output, MANIFEST)), closing(PartFile(output.with_name("other.mp4"), MANIFEST)):
        pass


def test_closing_the_part_file_releases_the_lock(output: Path) -> None:
    PartFile(output, MANIFEST).close()
    PartFile(output, MANIFEST).close()


def test_a_process_that_reads_the_part_file_keeps_no_other_download_from_writing(output: Path) -> None:
    """Nor does its descriptor look like another program that may have changed the file."""
    warnings: list[str] = []
    with closing(PartFile(output, MANIFEST, on_warning=warnings.append)) as part:
        (fd,) = part.descriptors
        kept = os.dup(fd)
        part.write(0, segment_of(DATA, 0))
    with closing(PartFile(output, MANIFEST, on_warning=warnings.append)) as part:
        write_all(part)
        part.publish(replace=False, sync=False)
    assert os.pread(kept, len(DATA), 0) == DATA
    os.close(kept)
    assert warnings == []


def test_a_rejected_second_download_does_not_disturb_the_first(output: Path) -> None:
    with closing(PartFile(output, MANIFEST)) as part:
        part.write(0, segment_of(DATA, 0))
        with pytest.raises(DiskError):
            PartFile(output, manifest_of(b"tiny"))
        assert part.holds(0)
        assert part_path(output).stat().st_size == SIZE


def test_a_part_file_renamed_before_it_was_locked_is_opened_again(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This download opens the part file of another download, which publishes the file before it can be locked."""
    other = PartFile(output, MANIFEST)
    write_all(other)
    real = fcntl.flock

    def publish_first(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        other.publish(replace=True, sync=False)
        other.close()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", publish_first)
    # As if the other download had locked the file after this one looked at the list of locks.
    monkeypatch.setattr(locked_file, "LOCK_TABLE", output.with_name("no-locks"))
    with closing(PartFile(output, MANIFEST)) as part:
        part.write(0, segment_of(content(SIZE, seed=2), 0))
        assert output.read_bytes() == DATA  # The output of the other download is unchanged.
        assert part_path(output).exists()


# What other programs do meanwhile; tests/property/test_part_file_under_attack.py tries every moment.


def test_a_part_file_that_another_program_opened_is_hashed_again(output: Path) -> None:
    warnings: list[str] = []
    with closing(PartFile(output, MANIFEST, on_warning=warnings.append)) as part:
        write_all(part)
        part_path(output).read_bytes()
        part.publish(replace=False, sync=False)
    assert output.read_bytes() == DATA
    assert warnings == [f"another program may have changed {part_path(output)}: verifying it again"]


def test_publishing_ends_the_reports_of_opens_before_the_file_is_closed(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[bool] = []
    monkeypatch.setattr(ChangeDetector, "stop", lambda _: stopped.append(output.exists()))
    with closing(PartFile(output, MANIFEST)) as part:
        write_all(part)
        part.publish(replace=False, sync=False)
        assert stopped == [True]


def test_a_part_file_that_another_program_changed_does_not_become_the_output(output: Path) -> None:
    with closing(PartFile(output, MANIFEST)) as part:
        write_all(part)
        with part_path(output).open("r+b") as file:
            file.write(b"\0")
        for act in (part.sha256, lambda: part.publish(replace=True, sync=False)):
            with pytest.raises(DiskError, match="was changed by another program: run the command again"):
                act()
    assert not output.exists()
    with closing(PartFile(output, MANIFEST)) as part:
        assert reused(part) == set(range(1, 17))


def test_a_part_file_that_keeps_being_opened_is_given_up(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(PartFile(output, MANIFEST)) as part:
        write_all(part)
        part_path(output).read_bytes()
        real = os.preadv

        def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
            part_path(output).open().close()
            return real(fd, buffers, offset)

        monkeypatch.setattr(os, "preadv", preadv)
        with pytest.raises(DiskError, match="keeps being opened or changed by another program"):
            part.publish(replace=True, sync=False)
    assert not output.exists()


@pytest.mark.parametrize("replace", [False, True])
def test_a_part_file_that_is_also_linked_elsewhere_becomes_the_output(output: Path, replace: bool) -> None:
    with closing(PartFile(output, MANIFEST)) as part:
        write_all(part)
        os.link(part_path(output), output if replace else output.with_name("link"))
        part.publish(replace=replace, sync=False)
    assert output.read_bytes() == DATA
    assert not part_path(output).exists()


# What fails after the rename.


def fail_with(monkeypatch: pytest.MonkeyPatch, name: str, error: int) -> None:
    """Makes ``os.name`` fail for folders and names, but not for the data of a file."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, name, fail)


def test_a_folder_that_cannot_be_synced_is_a_warning(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    fail_with(monkeypatch, "fsync", errno.EINVAL)
    with closing(PartFile(output, manifest_of(b"n"), on_warning=warnings.append)) as part:
        part.write(0, segment_of(b"n", 0))
        part.sync()
        part.publish(replace=False, sync=True)
    assert output.read_bytes() == b"n"
    (warning,) = warnings
    assert "is complete, but its name may not survive a power failure" in warning
    assert "Invalid argument" in warning


def test_a_part_file_that_cannot_be_removed_is_a_warning(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    with closing(PartFile(output, manifest_of(b"n"), on_warning=warnings.append)) as part:
        part.write(0, segment_of(b"n", 0))
        fail_with(monkeypatch, "unlink", errno.EPERM)
        part.publish(replace=False, sync=False)
    assert output.read_bytes() == b"n"
    assert warnings == [f"{output} is complete, but {part_path(output)} cannot be removed: {os.strerror(errno.EPERM)}"]


@pytest.mark.parametrize(("error", "is_error"), [(errno.EINVAL, False), (errno.EOPNOTSUPP, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_sync_is_a_warning_but_a_failed_sync_is_an_error(
    output: Path, monkeypatch: pytest.MonkeyPatch, error: int, is_error: bool
) -> None:
    warnings: list[str] = []
    fail_with(monkeypatch, "fdatasync", error)
    with closing(PartFile(output, manifest_of(b"n"), on_warning=warnings.append)) as part:
        part.write(0, segment_of(b"n", 0))
        if is_error:
            with pytest.raises(DiskError, match="check the disk"):
                part.sync()
            return
        part.sync()
        part.publish(replace=False, sync=True)
    assert output.read_bytes() == b"n"
    assert warnings == [f"{output} is complete, but its file system cannot say when the data is on the disk"]


# Links as outputs.


def test_the_target_of_a_link_is_replaced_and_the_link_is_kept(output: Path) -> None:
    target = output.parent / "folder" / "target"
    target.parent.mkdir()
    target.write_bytes(b"old")
    output.symlink_to("folder/target")
    with closing(PartFile(output, MANIFEST)) as part:
        assert part.path == target.with_name(".target.msd-part")
        write_all(part)
        part.publish(replace=True, sync=True)
    assert (output.is_symlink(), target.read_bytes()) == (True, DATA)
    assert [*target.parent.iterdir()] == [target]


# Closing.


def test_an_empty_part_file_is_removed(output: Path) -> None:
    with closing(PartFile(output, manifest_of(b""))):
        assert part_path(output).exists()
    assert list(output.parent.iterdir()) == []


def test_on_a_full_disk_only_a_part_file_with_data_is_kept(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=9))
    for data in (b"", b"x"):
        part_path(output).write_bytes(data)
        with pytest.raises(DiskError, match="free some space"):
            PartFile(output, MANIFEST)
        assert [path.read_bytes() for path in output.parent.iterdir()] == [data] * len(data)


@pytest.mark.parametrize("blocks", [0, 9])
def test_a_disk_that_does_not_know_its_size_or_is_not_asked_is_not_full(
    output: Path, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=blocks))
    with closing(PartFile(output, MANIFEST, check_space=blocks == 0)) as part:
        part.write(0, segment_of(DATA, 0))


def test_a_disk_that_cannot_be_asked_is_not_full(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, "fstatvfs", errno.ENOSYS)
    PartFile(output, MANIFEST).close()


@pytest.mark.parametrize(("free_mib", "fits"), [(4, True), (3, False)])
def test_zeros_need_no_space(output: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, fits: bool) -> None:
    data = bytes(9 * MIB) + DATA[: 3 * MIB] + bytes(4 * MIB) + DATA[:1234]
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_bavail=free_mib, f_frsize=MIB, f_blocks=1 << 20))
    if fits:
        PartFile(output, manifest_of(data)).close()
        return
    with pytest.raises(DiskError, match=r"needs 3,146,962 more bytes but the disk has 3,145,728 free: free some space"):
        PartFile(output, manifest_of(data))


@pytest.mark.parametrize("foreign", [b"", b"foreign"])
def test_a_foreign_part_file_is_not_removed(output: Path, foreign: bytes) -> None:
    path, moved = part_path(output), output.with_name("moved")
    with closing(PartFile(output, manifest_of(b""))):
        path.rename(moved)
        path.write_bytes(foreign)
    assert (path.read_bytes(), moved.read_bytes()) == (foreign, b"")


# Invalid part files.


@pytest.mark.parametrize("kind", ["folder", "fifo", "link"])
def test_a_part_file_must_be_a_regular_file(output: Path, kind: str) -> None:
    path = part_path(output)
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(output.with_name("elsewhere"))
    with pytest.raises(DiskError, match=r"\.film\.mp4\.msd-part"):
        PartFile(output, MANIFEST)
    assert not output.with_name("elsewhere").exists()


def test_a_file_larger_than_the_disk_is_rejected_at_once(output: Path) -> None:
    size = shutil.disk_usage(output.parent).free + (64 << 30)
    with pytest.raises(DiskError, match=rf"needs {size:,} more bytes but the disk has [\d,]+ free: "):
        PartFile(output, Manifest("huge", size, b"", b""))


WRITE_WITH_SIZE_LIMIT = """
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


def test_a_write_that_fails_half_way_is_a_disk_error_and_keeps_the_written_bytes(output: Path) -> None:
    """A limit on the file size behaves like a full disk: some bytes fit, then the write fails."""
    run = subprocess.run(
        [sys.executable, "-c", WRITE_WITH_SIZE_LIMIT, str(output)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (
        run.stdout == f"{part_path(output)}: File too large: choose a file system that can store files of this size\n"
    )
    assert part_path(output).read_bytes()[:30] == b"x" * 30


# An output that is created during the download.


@pytest.mark.parametrize("links", [True, False])
def test_an_output_created_during_the_download_is_replaced_only_on_request(
    output: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(source: str, target: str, **options: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with closing(PartFile(output, manifest_of(b"n"))) as part:
        part.write(0, segment_of(b"n", 0))
        output.write_bytes(b"old")
        message = (
            r"was created in the meantime: choose another path, bring it up to date or replace it$" if links else EXISTS
        )
        with pytest.raises(UsageError, match=message):
            part.publish(replace=False, sync=False)
        assert (output.read_bytes(), part_path(output).read_bytes()) == (b"old", b"n")
        output.unlink()
        part.publish(replace=False, sync=False)
    assert output.read_bytes() == b"n"
    assert not part_path(output).exists()


def test_a_part_file_linked_to_the_output_is_not_written(output: Path) -> None:
    """An earlier run was killed between linking the part file to the output and removing the part file's name."""
    output.write_bytes(b"foreign")
    os.link(output, part_path(output))
    before = output.stat()
    with closing(PartFile(output, MANIFEST)) as part:
        assert list(part.candidates()) == []
        part.write(0, segment_of(DATA, 0))
        assert (output.read_bytes(), output.stat().st_nlink) == (b"foreign", 1)
        assert part_path(output).stat().st_ino != before.st_ino
    with closing(PartFile(output, MANIFEST)) as part:
        assert reused(part) == {0}


def test_a_linked_part_file_that_is_in_use_is_not_removed(output: Path) -> None:
    with closing(PartFile(output, MANIFEST)) as part:
        part.write(0, segment_of(DATA, 0))
        os.link(part_path(output), output)
        with pytest.raises(DiskError, match="another download is writing to this file"):
            PartFile(output, MANIFEST)
        assert part_path(output).samefile(output)
        os.unlink(output)


# Valid outputs.


def test_a_new_file_in_an_existing_folder_is_a_valid_output(output: Path) -> None:
    check_output(output, replace=False)
    assert list(output.parent.iterdir()) == []


def test_a_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing: no such folder: create it, or choose another path$"):
        check_output(tmp_path / "missing" / "film.mp4", replace=False)


def test_an_existing_output_is_replaced_only_on_request(output: Path) -> None:
    output.write_bytes(b"old")
    with pytest.raises(UsageError, match=EXISTS):
        check_output(output, replace=False)
    check_output(output, replace=True)
    assert output.read_bytes() == b"old"


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize(("kind", "message"), [("folder", "is a folder"), ("fifo", "is not a regular file")])
def test_only_a_regular_file_is_replaced(output: Path, kind: str, message: str, replace: bool) -> None:
    if kind == "folder":
        output.mkdir()
    else:
        os.mkfifo(output)
    with pytest.raises(UsageError, match=message):
        check_output(output, replace=replace)


@pytest.mark.parametrize("replace", [True, False])
def test_a_dangling_link_is_not_replaced(output: Path, replace: bool) -> None:
    output.symlink_to("nothing")
    with pytest.raises(UsageError, match="is a dangling symbolic link"):
        check_output(output, replace=replace)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_not_a_valid_output(device: str) -> None:
    with pytest.raises(UsageError, match="not a regular file"):
        check_output(Path(device), replace=True)


def test_an_output_name_that_is_too_long_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="choose a shorter name"):
        check_output(tmp_path / ("x" * 300), replace=False)


def test_a_file_in_place_of_the_folder_is_a_usage_error(output: Path) -> None:
    output.write_bytes(b"")
    with pytest.raises(UsageError, match=r"film\.mp4 is not a folder: choose another path$"):
        check_output(output / "film.mp4", replace=False)


def test_a_path_that_is_too_long_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="choose a shorter name"):
        PartFile(Path("/".join([str(tmp_path), *["x" * 200] * 30])), MANIFEST)


@pytest.mark.parametrize(("mode", "expected"), [(0o755, 0o750), (0o644, 0o640), (0, 0o640)])
def test_the_file_gets_the_time_and_the_executable_bits_of_the_shared_file(
    output: Path, mode: int, expected: int
) -> None:
    before = os.umask(0o027)
    try:
        manifest = msgspec.structs.replace(manifest_of(b"n"), mtime_ns=1_600_000_000_123_456_789, mode=mode)
        with closing(PartFile(output, manifest)) as part:
            part.write(0, segment_of(b"n", 0))
            part.publish(replace=False, sync=False)
    finally:
        os.umask(before)
    status = output.stat()
    assert status.st_mtime_ns == manifest.mtime_ns
    assert status.st_mode & 0o777 == expected


@pytest.mark.parametrize("is_given", [True, False])
def test_a_link_that_takes_the_place_of_the_folder_is_not_followed(tmp_path: Path, is_given: bool) -> None:
    """The file stays in its folder. Only if the folder was opened by the part file, that is an error."""
    folder, outside, moved = tmp_path / "folder", tmp_path / "outside", tmp_path / "moved"
    folder.mkdir()
    outside.mkdir()
    fd = os.open(folder, os.O_PATH)
    with closing(PartFile(folder / "film.mp4", manifest_of(b"n"), folder=fd if is_given else None)) as part:
        folder.rename(moved)
        folder.symlink_to(outside)
        part.write(0, segment_of(b"n", 0))
        with nullcontext() if is_given else pytest.raises(DiskError, match="was removed or replaced"):
            part.publish(replace=False, sync=False)
    os.close(fd)
    assert [path.name for path in moved.iterdir()] == ["film.mp4" if is_given else ".film.mp4.msd-part"]
    assert not [*outside.iterdir()]
