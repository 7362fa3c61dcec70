"""``--update``: whatever ``OUT`` holds, it is right in the end, and left alone if it was right."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from msd.client.storage.part_file import PartFile
from msd.client.storage.update import UpdateFile
from msd.wire.errors import DiskError
from msd.wire.protocol.segments import span
from tests.unit.client.storage.test_part_file import content, kept, manifest, part_path, piece

#: 12 segments, the last one shorter; each of whole blocks, so that it can be a hole.
SEGMENT = 1 << 16
SIZE = 12 * SEGMENT - 5
DATA = content(SIZE)
STAR = manifest(DATA)
ALL = set(range(12))
#: Nanoseconds; long ago, so that whatever is done to a file shows in its time.
THEN = 10**18


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "film.mp4"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The segments written so far."""
    segments: list[int] = []
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        segments.append(offset // SEGMENT)
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return segments


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room."""
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_bavail=0, f_frsize=4096))


def put(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    os.utime(path, ns=(THEN, THEN))
    return data


def put_sparse(path: Path, data: bytes) -> bytes:
    """Writes only the segments that are not zeros."""
    with path.open("wb") as file:
        file.truncate(len(data))
        for index in range(12):
            if any(piece(data, index)):
                file.seek(span(len(data), index)[0])
                file.write(piece(data, index))
    os.utime(path, ns=(THEN, THEN))
    return data


def without(data: bytes, segments: Iterable[int]) -> bytes:
    """One bit of each of these segments is wrong."""
    wrong = bytearray(data)
    for index in segments:
        wrong[span(len(data), index)[0] + 77] ^= 1
    return bytes(wrong)


def seen(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_blocks, status.st_mtime_ns


def settle(part: PartFile) -> int:
    """How often there was something to settle."""
    return next(count for count in range(100) if not part.settle())


def fetch(part: PartFile, missing: Iterable[int], data: bytes = DATA) -> None:
    for index in missing:
        part.write(index, piece(data, index))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# An output that is right.


@pytest.mark.parametrize("left", [None, b"", DATA, without(DATA, ALL), b"garbage", bytes(2 * SIZE)])
@pytest.mark.parametrize("sync", [True, False])
def test_a_right_output_is_left_alone_whatever_the_part_file_holds(
    output: Path, written: list[int], left: bytes | None, sync: bool
) -> None:
    put(output, DATA)
    if left is not None:
        put(part_path(output), left)
    before = seen(output)
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == ALL
        assert settle(part) == 0
        assert part_path(output).stat().st_size == len(left or b"")
        part.sync()
        part.publish(replace=True, sync=sync)
    assert (seen(output), written, os.listdir(output.parent)) == (before, [], [output.name])


@pytest.mark.parametrize("zeros", [{0}, {2, 3, 11}, ALL])
def test_a_right_output_with_holes_is_left_alone(output: Path, written: list[int], zeros: set[int]) -> None:
    data = b"".join(bytes(len(piece(DATA, n))) if n in zeros else piece(DATA, n) for n in range(12))
    put_sparse(output, data)
    before = seen(output)
    of = manifest(data)
    with closing(UpdateFile(output, of)) as part:
        assert (set(part.candidates()), set(part.zeros())) == (ALL - zeros, zeros)
        assert kept(part, of) == ALL
        part.publish(replace=True, sync=False)
    assert (seen(output), written, os.listdir(output.parent)) == (before, [], [output.name])


def test_an_empty_output_of_an_empty_file_is_left_alone(output: Path) -> None:
    put(output, b"")
    before = seen(output)
    with closing(UpdateFile(output, manifest(b""))) as part:
        assert (list(part.candidates()), list(part.zeros())) == ([], [])
        part.publish(replace=True, sync=True)
    assert (seen(output), os.listdir(output.parent)) == (before, [output.name])


def test_a_right_output_behind_a_link_is_left_alone(output: Path) -> None:
    target = output.with_name("target")
    put(target, DATA)
    output.symlink_to(target.name)
    before = seen(target)
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == ALL
        part.publish(replace=True, sync=False)
    assert (seen(target), output.is_symlink()) == (before, True)
    assert not part_path(output).exists()


# An output that differs.


@pytest.mark.parametrize("at", [0, 5 * SEGMENT - 1, 5 * SEGMENT, SIZE - 1])
@pytest.mark.parametrize("settle_first", [True, False])
def test_a_changed_byte_costs_its_segment(output: Path, written: list[int], at: int, settle_first: bool) -> None:
    old = bytearray(DATA)
    old[at] ^= 1
    put(output, bytes(old))
    before = seen(output)
    wrong = at // SEGMENT
    with output.open("rb") as file, closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == ALL - {wrong}
        # What was right before the first difference is copied last.
        assert written == list(range(wrong + 1, 12))
        if settle_first:
            assert settle(part) == wrong
            fetch(part, {wrong})
        else:
            fetch(part, {wrong})
            assert settle(part) == wrong
        assert sorted(written) == list(range(12))
        part.sync()
        assert seen(output) == before
        part.publish(replace=True, sync=False)
        assert file.read() == bytes(old)
        assert output.stat().st_ino != before[0]
    assert output.read_bytes() == DATA
    assert os.listdir(output.parent) == [output.name]


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize(
    ("old", "held"),
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
        (without(DATA, {0, 1, 5, 11}), ALL - {0, 1, 5, 11}),
    ],
    ids=["short", "cut", "longer", "long", "empty", "tiny", "noise", "short noise", "zeros", "shifted", "changed"],
)
def test_of_any_output_what_is_right_is_adopted(output: Path, old: bytes, held: set[int]) -> None:
    put(output, old)
    before = seen(output)
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == held
        fetch(part, ALL - held)
        settle(part)
        assert (seen(output), output.read_bytes()) == (before, old)
        part.publish(replace=True, sync=True)
    assert output.read_bytes() == DATA
    assert os.listdir(output.parent) == [output.name]


@pytest.mark.parametrize("old", [b"x", DATA])
def test_an_output_becomes_an_empty_file(output: Path, old: bytes) -> None:
    put(output, old)
    with closing(UpdateFile(output, manifest(b""))) as part:
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == b""
    assert os.listdir(output.parent) == [output.name]


def test_an_output_that_is_all_hole_differs_with_the_first_write(output: Path) -> None:
    put_sparse(output, bytes(SIZE))
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == set()
        assert part_path(output).stat().st_size == 0
        fetch(part, ALL)
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == DATA


def test_where_there_is_nothing_in_the_output_the_next_segment_is_asked_for(output: Path, written: list[int]) -> None:
    """No candidate is wrong: it is the write that says that the output differs."""
    put_sparse(output, DATA[: 4 * SEGMENT] + bytes(SIZE - 4 * SEGMENT))
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == {0, 1, 2, 3}
        assert (settle(part), written) == (0, [])
        fetch(part, ALL - {0, 1, 2, 3})
        assert settle(part) == 4
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == DATA


def test_zeros_that_the_output_has_overwritten_are_not_asked_for(output: Path, written: list[int]) -> None:
    data = DATA[: 3 * SEGMENT] + bytes(2 * SEGMENT) + DATA[5 * SEGMENT :]
    put(output, DATA)
    of = manifest(data)
    with closing(UpdateFile(output, of)) as part:
        assert kept(part, of) == ALL
        settle(part)
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == data
    assert sorted(written) == sorted(ALL - {3, 4})


@pytest.mark.parametrize("old", [without(DATA, {3}), DATA[:-1]])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_the_new_file_has_the_mode_of_the_old_one(output: Path, old: bytes, mode: int) -> None:
    put(output, old)
    output.chmod(mode)
    for publish in (False, True):
        with closing(UpdateFile(output, STAR)) as part:
            fetch(part, ALL - kept(part))
            settle(part)
            # Nobody can read more of it meanwhile, and the next run can go on.
            assert part_path(output).stat().st_mode & 0o777 == mode | 0o600
            if publish:
                part.publish(replace=True, sync=False)
    assert (output.stat().st_mode & 0o777, output.read_bytes()) == (mode, DATA)


def test_of_an_output_that_is_a_link_the_file_is_brought_up_to_date(output: Path) -> None:
    folder = output.with_name("elsewhere")
    folder.mkdir()
    put(folder / "target", without(DATA, {3}))
    output.symlink_to(Path("elsewhere", "target"))
    with closing(UpdateFile(output, STAR)) as part:
        fetch(part, ALL - kept(part))
        settle(part)
        part.publish(replace=True, sync=True)
    assert output.is_symlink()
    assert (folder / "target").read_bytes() == DATA
    assert (sorted(os.listdir(output.parent)), os.listdir(folder)) == (["elsewhere", output.name], ["target"])


def test_what_is_still_to_be_copied_is_not_settled(output: Path) -> None:
    put(output, without(DATA, {11}))
    with closing(UpdateFile(output, STAR)) as part:
        for index in range(11):
            assert part.holds(index)
            assert part.unsettled == (index + 1) * SEGMENT
        assert not part.holds(11)
        for copied in range(1, 12):
            assert part.settle()
            assert part.unsettled == (11 - copied) * SEGMENT
        assert not part.settle()


def test_an_output_that_the_disk_cannot_read_any_more_is_not_called_changed(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(output, without(DATA, {9}))

    def broken(fd: int, buffers: list[memoryview], offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == ALL - {9}
        monkeypatch.setattr(os, "preadv", broken)
        with pytest.raises(DiskError, match=r"film\.mp4: cannot be read: Input/output error: the disk has a fault$"):
            settle(part)


def test_what_the_disk_cannot_read_is_asked_for(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(output, DATA)
    real = os.preadv

    def broken(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset == 3 * SEGMENT:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", broken)
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == ALL - {3}


# An output and a part file.


@pytest.mark.parametrize("in_output", [{0, 2, 4, 6, 8, 10}, {1, 3, 5, 7, 9, 11}, {0}, {11}, set()])
@pytest.mark.parametrize("grown", [b"", b"x"])
def test_each_has_what_the_other_lacks(output: Path, written: list[int], in_output: set[int], grown: bytes) -> None:
    put(output, without(DATA, ALL - in_output) + grown)
    put(part_path(output), without(DATA, in_output))
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == ALL
        settle(part)
        assert set(written) == in_output
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == DATA
    assert not part_path(output).exists()


def test_what_neither_has_is_missing_and_what_both_have_is_not_copied(output: Path, written: list[int]) -> None:
    put(output, without(DATA, {3, 4, 5}))
    put(part_path(output), without(DATA, {4, 5, 6, 7})[: 9 * SEGMENT])
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == ALL - {4, 5}
        settle(part)
        assert sorted(written) == [6, 7, 9, 10, 11]
        fetch(part, {4, 5})
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == DATA


@pytest.mark.parametrize("old", [b"", DATA[: 3 * SEGMENT], bytes(SIZE)])
def test_a_part_file_that_goes_on_where_there_is_nothing_in_the_output(output: Path, old: bytes) -> None:
    put_sparse(output, old) if len(old) == SIZE else put(output, old)
    put_sparse(part_path(output), bytes(3 * SEGMENT) + DATA[3 * SEGMENT :])
    with closing(UpdateFile(output, STAR)) as part:
        assert ALL - kept(part) == (set() if len(old) == 3 * SEGMENT else {0, 1, 2})
        fetch(part, {0, 1, 2})
        settle(part)
        part.publish(replace=True, sync=False)
    assert output.read_bytes() == DATA


def test_after_a_failure_the_part_file_stays_beside_the_output(output: Path) -> None:
    old = put(output, without(DATA, {3}))
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == ALL - {3}
    assert output.read_bytes() == old
    with closing(PartFile(output, STAR)) as part:
        assert kept(part) == ALL - {0, 1, 2, 3}  # Those before it had not been copied yet.


# An output that somebody else changes meanwhile.


def overwrite(output: Path) -> None:
    with output.open("r+b") as file:
        file.write(b"theirs")


def cut(output: Path) -> None:
    os.truncate(output, 5)


def append(output: Path) -> None:
    with output.open("ab") as file:
        file.write(b"theirs")


def replace(output: Path) -> None:
    """Same size, same time."""
    other = output.with_name("other")
    put(other, without(DATA, {7}))
    other.rename(output)


CHANGED = r"film\.mp4 was changed by somebody else meanwhile: run it again$"


@pytest.mark.parametrize("change", [overwrite, cut, append, replace, os.utime])
def test_an_output_that_changes_after_it_was_found_right_is_not_vouched_for(
    output: Path, change: Callable[[Path], None]
) -> None:
    put(output, DATA)
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == ALL
        change(output)
        theirs = output.read_bytes(), seen(output)
        with pytest.raises(DiskError, match=CHANGED):
            part.publish(replace=True, sync=False)
    assert (output.read_bytes(), seen(output)) == theirs
    assert os.listdir(output.parent) == [output.name]


@pytest.mark.parametrize("change", [overwrite, cut])
def test_an_output_that_changes_before_it_is_copied_is_not_replaced(
    output: Path, change: Callable[[Path], None]
) -> None:
    put(output, without(DATA, {9}))
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == ALL - {9}
        change(output)
        theirs = output.read_bytes(), seen(output)
        fetch(part, {9})
        with pytest.raises(DiskError, match=CHANGED):
            settle(part)
    assert (output.read_bytes(), seen(output)) == theirs
    with closing(PartFile(output, STAR)) as part:
        assert kept(part) >= {9, 10, 11}  # The next run goes on from these.


# Room.


def test_a_right_output_needs_no_room(output: Path, full: None) -> None:
    put(output, DATA)
    before = seen(output)
    with closing(UpdateFile(output, STAR)) as part:
        assert kept(part) == ALL
        part.publish(replace=True, sync=True)
    assert (seen(output), os.listdir(output.parent)) == (before, [output.name])


@pytest.mark.parametrize("old", [without(DATA, {5}), bytes(SIZE), DATA[:-1], DATA + b"x", b""])
def test_an_output_that_differs_needs_room(output: Path, full: None, old: bytes) -> None:
    """Found out at once by its size, or by the segment that is wrong, or by the one to be written."""
    put_sparse(output, old) if len(old) == SIZE else put(output, old)
    before = seen(output)

    def run() -> None:
        with closing(UpdateFile(output, STAR)) as part:
            fetch(part, ALL - kept(part))

    with pytest.raises(DiskError, match=r"film\.mp4: needs 786,427 bytes more and the disk has 0: make room"):
        run()
    assert (seen(output), os.listdir(output.parent)) == (before, [output.name])
    assert output.read_bytes() == old


def test_without_room_a_part_file_that_holds_data_stays(output: Path, full: None) -> None:
    put(output, without(DATA, {0}))
    put(part_path(output), DATA[:SEGMENT])
    with closing(UpdateFile(output, STAR)) as part, pytest.raises(DiskError, match="make room"):
        part.holds(0)
    assert part_path(output).read_bytes() == DATA[:SEGMENT]


# Descriptors.


@pytest.mark.parametrize("old", [DATA, without(DATA, {3}), DATA[:-1], b""])
def test_nothing_stays_open_after_close(output: Path, old: bytes) -> None:
    put(output, old)
    before = descriptors()
    for publish in (False, True):
        with closing(UpdateFile(output, STAR)) as part:
            fetch(part, ALL - kept(part))
            settle(part)
            if publish:
                part.publish(replace=True, sync=True)
        assert descriptors() == before


def test_nothing_stays_open_where_there_is_no_room(output: Path, full: None) -> None:
    put(output, DATA[:-1])
    before = descriptors()
    with pytest.raises(DiskError, match="make room"):
        UpdateFile(output, STAR)
    assert descriptors() == before


def test_a_second_update_is_refused_and_leaves_nothing_open(output: Path) -> None:
    put(output, DATA)
    with closing(UpdateFile(output, STAR)) as part:
        before = descriptors()
        with pytest.raises(DiskError, match="another download is writing it"):
            UpdateFile(output, STAR)
        assert descriptors() == before
        assert kept(part) == ALL


def test_an_output_that_cannot_be_read_is_a_disk_error(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(output, DATA)
    before = descriptors()

    def denied(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", denied)
        with pytest.raises(DiskError, match=r"film\.mp4: cannot be read: Permission denied: give yourself"):
            UpdateFile(output, STAR)
    assert (descriptors(), os.listdir(output.parent)) == (before, [output.name])
