"""``--update`` makes any ``OUT`` match the manifest, and does not touch an ``OUT`` that is up to date."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from msd.client.storage import update
from msd.client.storage.part_file import PartFile
from msd.client.storage.update import ComparedPartFile, UpdatePartFile
from msd.wire.errors import DiskError, UsageError
from msd.wire.protocol.segments import span
from tests.unit.client.storage.test_part_file import content, manifest_of, part_path, reused, segment_of

#: 12 segments, the last of them shorter. The others consist of whole blocks, so they can be holes.
SEGMENT = 1 << 16
SIZE = 12 * SEGMENT - 5
DATA = content(SIZE)
MANIFEST = manifest_of(DATA)
ALL = set(range(12))
#: A modification time (in ns) in the past: any later change to the file results in a different time.
OLD_TIME_NS = 10**18


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "film.mp4"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the index of each segment that is written."""
    segments: list[int] = []
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        segments.append(offset // SEGMENT)
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return segments


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the disk appear to be full."""
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=9))


def put(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    os.utime(path, ns=(OLD_TIME_NS, OLD_TIME_NS))
    return data


def put_sparse(path: Path, data: bytes) -> bytes:
    """Writes ``data``, with holes for the all-zero segments."""
    with path.open("wb") as file:
        file.truncate(len(data))
        for index in range(12):
            if any(segment_of(data, index)):
                file.seek(span(len(data), index)[0])
                file.write(segment_of(data, index))
    os.utime(path, ns=(OLD_TIME_NS, OLD_TIME_NS))
    return data


def damage(data: bytes, segments: Iterable[int]) -> bytes:
    """Returns ``data`` with one bit flipped in each of these segments."""
    damaged = bytearray(data)
    for index in segments:
        damaged[span(len(data), index)[0] + 77] ^= 1
    return bytes(damaged)


def file_state(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_blocks, status.st_mtime_ns


def copy_all(part: PartFile) -> int:
    """Copies all segments that are still to be copied, and returns their number."""
    return next(count for count in range(100) if not part.copy_next())


def fetch(part: PartFile, missing: Iterable[int], data: bytes = DATA) -> None:
    for index in missing:
        part.write(index, segment_of(data, index))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# An up-to-date output.


@pytest.mark.parametrize("in_part", [None, b"", DATA, damage(DATA, ALL), b"garbage", bytes(2 * SIZE)])
@pytest.mark.parametrize("sync", [True, False])
def test_an_up_to_date_output_is_not_touched_whatever_the_part_file_contains(
    output: Path, written: list[int], in_part: bytes | None, sync: bool
) -> None:
    put(output, DATA)
    if in_part is not None:
        put(part_path(output), in_part)
    before = file_state(output)
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL
        assert copy_all(part) == 0
        assert part_path(output).stat().st_size == len(in_part or b"")
        part.sync()
        part.publish(replace=True, sync=sync)
    assert (file_state(output), written, os.listdir(output.parent)) == (before, [], [output.name])


@pytest.mark.parametrize("zeros", [{0}, {2, 3, 11}, ALL])
def test_an_up_to_date_output_with_holes_is_not_touched(output: Path, written: list[int], zeros: set[int]) -> None:
    data = b"".join(bytes(len(segment_of(DATA, n))) if n in zeros else segment_of(DATA, n) for n in range(12))
    put_sparse(output, data)
    before = file_state(output)
    with closing(UpdatePartFile(output, manifest_of(data))) as part:
        assert (set(part.candidates()), set(part.zero_segments())) == (ALL - zeros, zeros)
        assert reused(part) == ALL
        part.publish(replace=True, sync=False)
    assert (file_state(output), written, os.listdir(output.parent)) == (before, [], [output.name])


def test_an_empty_output_of_an_empty_file_is_not_touched(output: Path) -> None:
    put(output, b"")
    before = file_state(output)
    with closing(UpdatePartFile(output, manifest_of(b""))) as part:
        assert (list(part.candidates()), list(part.zero_segments())) == ([], [])
        part.publish(replace=True, sync=True)
    assert (file_state(output), os.listdir(output.parent)) == (before, [output.name])


def test_an_up_to_date_output_behind_a_link_is_not_touched(output: Path) -> None:
    target = output.with_name("target")
    put(target, DATA)
    output.symlink_to(target.name)
    before = file_state(target)
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL
        part.publish(replace=True, sync=False)
    assert (file_state(target), output.is_symlink()) == (before, True)
    assert not part_path(output).exists()


# An output that differs.


@pytest.mark.parametrize("at", [0, 5 * SEGMENT - 1, 5 * SEGMENT, SIZE - 1])
@pytest.mark.parametrize("copy_first", [True, False])
def test_only_the_segment_of_a_changed_byte_is_fetched(
    output: Path, written: list[int], at: int, copy_first: bool
) -> None:
    old = bytearray(DATA)
    old[at] ^= 1
    put(output, bytes(old))
    before = file_state(output)
    damaged = at // SEGMENT
    with output.open("rb") as file, closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL - {damaged}
        # Segments checked before the first difference was found are copied last.
        assert written == list(range(damaged + 1, 12))
        if copy_first:
            assert copy_all(part) == damaged
            fetch(part, {damaged})
        else:
            fetch(part, {damaged})
            assert copy_all(part) == damaged
        assert sorted(written) == list(range(12))
        part.sync()
        assert file_state(output) == before
        part.publish(replace=True, sync=False)
        assert file.read() == bytes(old)
        assert output.stat().st_ino != before[0]
    assert output.read_bytes() == DATA
    assert os.listdir(output.parent) == [output.name]


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize(
    ("old", "matching"),
    [
        (DATA[: 3 * SEGMENT + 5], {0, 1, 2}),
        (DATA[:-1], ALL - {11}),
        (DATA + b"x", ALL),
        (DATA + noise(SIZE), ALL),
        (b"", set()),
        (b"x", set()),
        (noise(SIZE), set()),
        (noise(SIZE // 2), set()),
        (bytes(SIZE), set()),
        (b"x" + DATA[:-1], set()),
        (damage(DATA, {0, 1, 5, 11}), ALL - {0, 1, 5, 11}),
    ],
    ids=["short", "cut", "longer", "long", "empty", "tiny", "noise", "short noise", "zeros", "shifted", "changed"],
)
def test_the_matching_segments_of_any_output_are_reused(output: Path, old: bytes, matching: set[int]) -> None:
    put(output, old)
    before = file_state(output)
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == matching
        fetch(part, ALL - matching)
        copy_all(part)
        assert (file_state(output), output.read_bytes()) == (before, old)
        part.publish(replace=True, sync=True)
    assert output.read_bytes() == DATA
    assert os.listdir(output.parent) == [output.name]


@pytest.mark.parametrize("old", [b"x", DATA])
def test_an_output_is_replaced_by_an_empty_file(output: Path, old: bytes) -> None:
    put(output, old)
    with closing(UpdatePartFile(output, manifest_of(b""))) as part:
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == b""
    assert os.listdir(output.parent) == [output.name]


def test_an_output_that_is_a_single_hole_differs_at_the_first_write(output: Path) -> None:
    put_sparse(output, bytes(SIZE))
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == set()
        assert part_path(output).stat().st_size == 0
        fetch(part, ALL)
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == DATA


def test_the_holes_of_an_output_are_fetched(output: Path, written: list[int]) -> None:
    """No candidate differs; the first write shows that the output is not up to date."""
    put_sparse(output, DATA[: 4 * SEGMENT] + bytes(SIZE - 4 * SEGMENT))
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == {0, 1, 2, 3}
        assert (copy_all(part), written) == (0, [])
        fetch(part, ALL - {0, 1, 2, 3})
        assert copy_all(part) == 4
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == DATA


def test_zeros_are_not_fetched_although_the_output_has_other_data_there(output: Path, written: list[int]) -> None:
    data = DATA[: 3 * SEGMENT] + bytes(2 * SEGMENT) + DATA[5 * SEGMENT :]
    put(output, DATA)
    with closing(UpdatePartFile(output, manifest_of(data))) as part:
        assert reused(part) == ALL
        copy_all(part)
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == data
    assert sorted(written) == sorted(ALL - {3, 4})


@pytest.mark.parametrize("old", [damage(DATA, {3}), DATA[:-1]])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_the_new_file_has_the_mode_of_the_old_file(output: Path, old: bytes, mode: int) -> None:
    put(output, old)
    output.chmod(mode)
    for publish in (False, True):
        with closing(UpdatePartFile(output, MANIFEST)) as part:
            fetch(part, ALL - reused(part))
            copy_all(part)
            # Other users have no more access to the part file than to the output, and the next run can resume.
            assert part_path(output).stat().st_mode & 0o777 == mode | 0o600
            if publish:
                part.publish(replace=True, sync=False)
    assert (output.stat().st_mode & 0o777, output.read_bytes()) == (mode, DATA)


def test_the_target_of_a_linked_output_is_updated(output: Path) -> None:
    folder = output.with_name("elsewhere")
    folder.mkdir()
    put(folder / "target", damage(DATA, {3}))
    output.symlink_to(Path("elsewhere", "target"))
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        fetch(part, ALL - reused(part))
        copy_all(part)
        part.publish(replace=True, sync=True)
    assert output.is_symlink()
    assert (folder / "target").read_bytes() == DATA
    assert (sorted(os.listdir(output.parent)), os.listdir(folder)) == (["elsewhere", output.name], ["target"])


def test_uncopied_bytes_counts_the_segments_still_to_be_copied(output: Path) -> None:
    put(output, damage(DATA, {11}))
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        for index in range(11):
            assert part.holds(index)
            assert part.uncopied_bytes == (index + 1) * SEGMENT
        assert not part.holds(11)
        for copied in range(1, 12):
            assert part.copy_next()
            assert part.uncopied_bytes == (11 - copied) * SEGMENT
        assert not part.copy_next()


def test_a_disk_that_fails_during_the_copy_is_not_reported_as_a_modification(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(output, damage(DATA, {9}))

    def failing_preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL - {9}
        monkeypatch.setattr(os, "preadv", failing_preadv)
        with pytest.raises(DiskError, match=r"film\.mp4: cannot be read: Input/output error: check the disk$"):
            copy_all(part)


def test_a_segment_that_the_disk_cannot_read_is_fetched(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(output, DATA)
    real = os.preadv

    def failing_preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset == 3 * SEGMENT:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing_preadv)
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL - {3}


# An output and a part file.


@pytest.mark.parametrize("in_output", [{0, 2, 4, 6, 8, 10}, {1, 3, 5, 7, 9, 11}, {0}, {11}, set()])
@pytest.mark.parametrize("grown", [b"", b"x"])
def test_segments_of_the_output_and_of_the_part_file_are_combined(
    output: Path, written: list[int], in_output: set[int], grown: bytes
) -> None:
    put(output, damage(DATA, ALL - in_output) + grown)
    put(part_path(output), damage(DATA, in_output))
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL
        copy_all(part)
        assert set(written) == in_output
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == DATA
    assert not part_path(output).exists()


def test_segments_in_neither_file_are_fetched_and_segments_in_both_are_not_copied(
    output: Path, written: list[int]
) -> None:
    put(output, damage(DATA, {3, 4, 5}))
    put(part_path(output), damage(DATA, {4, 5, 6, 7})[: 9 * SEGMENT])
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL - {4, 5}
        copy_all(part)
        assert sorted(written) == [6, 7, 9, 10, 11]
        fetch(part, {4, 5})
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == DATA


@pytest.mark.parametrize("old", [b"", DATA[: 3 * SEGMENT], bytes(SIZE)])
def test_a_part_file_supplies_the_holes_of_the_output(output: Path, old: bytes) -> None:
    put_sparse(output, old) if len(old) == SIZE else put(output, old)
    put_sparse(part_path(output), bytes(3 * SEGMENT) + DATA[3 * SEGMENT :])
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert ALL - reused(part) == (set() if len(old) == 3 * SEGMENT else {0, 1, 2})
        fetch(part, {0, 1, 2})
        copy_all(part)
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == DATA


def test_after_a_failure_the_part_file_and_the_output_are_kept(output: Path) -> None:
    old = put(output, damage(DATA, {3}))
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL - {3}
    assert output.read_bytes() == old
    with closing(PartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL - {0, 1, 2, 3}  # Segments 0 to 2 had not been copied yet.


# An output that is modified during the update.


def overwrite(output: Path) -> None:
    with output.open("r+b") as file:
        file.write(b"foreign")


def cut(output: Path) -> None:
    os.truncate(output, 5)


def append(output: Path) -> None:
    with output.open("ab") as file:
        file.write(b"foreign")


def replace(output: Path) -> None:
    """Replaces the file with another file of the same size and modification time."""
    other = output.with_name("other")
    put(other, damage(DATA, {7}))
    other.rename(output)


MODIFIED = r"film\.mp4 was modified during the update: run the command again$"


@pytest.mark.parametrize("change", [overwrite, cut, append, replace, os.utime])
def test_an_output_modified_after_its_check_is_not_reported_as_up_to_date(
    output: Path, change: Callable[[Path], None]
) -> None:
    put(output, DATA)
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL
        change(output)
        modified = output.read_bytes(), file_state(output)
        with pytest.raises(DiskError, match=MODIFIED):
            part.publish(replace=True, sync=False)
    assert (output.read_bytes(), file_state(output)) == modified
    assert os.listdir(output.parent) == [output.name]


@pytest.mark.parametrize("change", [overwrite, cut])
def test_an_output_modified_before_it_is_copied_is_not_replaced(output: Path, change: Callable[[Path], None]) -> None:
    put(output, damage(DATA, {9}))
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL - {9}
        change(output)
        modified = output.read_bytes(), file_state(output)
        fetch(part, {9})
        with pytest.raises(DiskError, match=MODIFIED):
            copy_all(part)
    assert (output.read_bytes(), file_state(output)) == modified
    with closing(PartFile(output, MANIFEST)) as part:
        assert reused(part) >= {9, 10, 11}  # The next run resumes with these segments.


# Disk space.


def test_an_up_to_date_output_needs_no_disk_space(output: Path, full_disk: None) -> None:
    put(output, DATA)
    before = file_state(output)
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL
        part.publish(replace=True, sync=True)
    assert (file_state(output), os.listdir(output.parent)) == (before, [output.name])


@pytest.mark.parametrize("old", [damage(DATA, {5}), bytes(SIZE), DATA[:-1], DATA + b"x", b""])
def test_an_output_that_differs_needs_disk_space(output: Path, full_disk: None, old: bytes) -> None:
    """The difference is found from the size, when a segment is checked, or when a segment is written."""
    put_sparse(output, old) if len(old) == SIZE else put(output, old)
    before = file_state(output)

    def run() -> None:
        with closing(UpdatePartFile(output, MANIFEST)) as part:
            fetch(part, ALL - reused(part))

    with pytest.raises(
        DiskError, match=r"film\.mp4: needs 786,427 more bytes but the disk has 0 free: free some space"
    ):
        run()
    assert (file_state(output), os.listdir(output.parent)) == (before, [output.name])
    assert output.read_bytes() == old


def test_on_a_full_disk_a_part_file_with_data_is_kept(output: Path, full_disk: None) -> None:
    put(output, damage(DATA, {0}))
    put(part_path(output), DATA[:SEGMENT])
    with closing(UpdatePartFile(output, MANIFEST)) as part, pytest.raises(DiskError, match="free some space"):
        part.holds(0)
    assert part_path(output).read_bytes() == DATA[:SEGMENT]


# Descriptors.


@pytest.mark.parametrize("old", [DATA, damage(DATA, {3}), DATA[:-1], b""])
def test_close_closes_all_descriptors(output: Path, old: bytes) -> None:
    put(output, old)
    before = open_descriptors()
    for publish in (False, True):
        with closing(UpdatePartFile(output, MANIFEST)) as part:
            fetch(part, ALL - reused(part))
            copy_all(part)
            if publish:
                part.publish(replace=True, sync=True)
        assert open_descriptors() == before


def test_a_full_disk_leaves_no_descriptor_open(output: Path, full_disk: None) -> None:
    put(output, DATA[:-1])
    before = open_descriptors()
    with pytest.raises(DiskError, match="free some space"):
        UpdatePartFile(output, MANIFEST)
    assert open_descriptors() == before


def test_a_rejected_second_update_leaves_no_descriptor_open(output: Path) -> None:
    put(output, DATA)
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        before = open_descriptors()
        with pytest.raises(DiskError, match="another download is writing to this file"):
            UpdatePartFile(output, MANIFEST)
        assert open_descriptors() == before
        assert reused(part) == ALL


def test_an_unreadable_output_is_a_disk_error(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(output, DATA)
    before = open_descriptors()

    def denied(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", denied)
        with pytest.raises(DiskError, match=r"film\.mp4: cannot be read: Permission denied: make it readable"):
            UpdatePartFile(output, MANIFEST)
    assert (open_descriptors(), os.listdir(output.parent)) == (before, [output.name])


def clone_by_copying(source: int, target: int) -> bool:
    size = os.fstat(source).st_size
    return os.pwrite(target, os.pread(source, size, 0), 0) == size


@pytest.mark.parametrize("different", [{0}, {3, 11}, ALL - {5}])
@pytest.mark.parametrize("extra", [b"", b"longer"])
def test_a_clone_of_the_output_needs_only_the_differences(
    output: Path, monkeypatch: pytest.MonkeyPatch, different: set[int], extra: bytes
) -> None:
    """Also where the new version has zeros: a part file that is no clone has them without a write."""
    data = b"".join(bytes(len(segment_of(DATA, n))) if n == 3 else segment_of(DATA, n) for n in range(12))
    old = b"".join(b"?" * len(segment_of(DATA, n)) if n in different else segment_of(data, n) for n in range(12))
    put(output, old + extra)
    monkeypatch.setattr(update, "clone_file", clone_by_copying)
    with closing(UpdatePartFile(output, manifest_of(data))) as part:
        assert reused(part) == ALL - different
        assert part.uncopied_bytes == 0
        assert copy_all(part) == 0
        for index in different:
            part.write(index, segment_of(data, index))
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == data


def test_an_existing_part_file_is_not_replaced_by_a_clone(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(output, b"?" * len(DATA))
    put(part_path(output), DATA)
    monkeypatch.setattr(update, "clone_file", clone_by_copying)
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        assert reused(part) == ALL
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == DATA


# An output that may not be replaced.


def test_an_output_with_the_shared_content_is_kept_although_it_may_not_be_replaced(output: Path) -> None:
    put(output, DATA)
    with closing(ComparedPartFile(output, MANIFEST)) as part:
        assert all(part.holds(index) for index in part.candidates())
        part.publish(replace=False, sync=False)
    assert [*output.parent.iterdir()] == [output]


@pytest.mark.parametrize("old", [b"", DATA[:-1], DATA + b"x", damage(DATA, {11}), bytes(SIZE)])
def test_the_first_difference_of_an_output_that_may_not_be_replaced_is_an_error(output: Path, old: bytes) -> None:
    put(output, old)
    before, descriptors = file_state(output), open_descriptors()

    def download() -> None:
        with closing(ComparedPartFile(output, MANIFEST)) as part:
            for index in part.candidates():
                part.holds(index)
            fetch(part, ALL)

    with pytest.raises(UsageError, match=r"film\.mp4 exists: choose another path"):
        download()
    assert file_state(output) == before
    assert [*output.parent.iterdir()] == [output]
    assert open_descriptors() == descriptors
