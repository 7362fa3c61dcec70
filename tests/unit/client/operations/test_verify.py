"""A local file compared with the shared file: which segments differ, and how this is reported."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.operations import verify as verify_module
from msd.client.operations.verify import Comparison, compare, mismatch_lines, verify, verify_sha256
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.errors import DiskError, SourceError, UsageError
from msd.wire.protocol.segments import Manifest, digest, segment_count, span

#: The SHA-256 of "abc" (FIPS 180-2).
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#: Eleven segments of 21 bytes and one of 14.
NUMBERS = bytes(range(245))
ALL_SEGMENTS = tuple(range(12))


def manifest_of(data: bytes, name: str = "numbers") -> Manifest:
    spans = (span(len(data), index) for index in range(segment_count(len(data))))
    digests = b"".join(digest(data[offset : offset + length]) for offset, length in spans)
    return Manifest.build(name, len(data), digests)


def compare_bytes(path: Path, local: bytes, shared: bytes = NUMBERS) -> Comparison:
    """Writes ``local`` to a file, and compares the file with a shared file whose content is ``shared``."""
    path.write_bytes(local)
    fd = os.open(path, os.O_RDONLY)
    try:
        comparison = compare(fd, manifest_of(shared))
    finally:
        os.close(fd)
    assert (comparison.name, comparison.size, comparison.local_size) == ("numbers", len(shared), len(local))
    assert comparison.segments == segment_count(len(shared))
    assert comparison.matches == (local == shared) == (not list(mismatch_lines(comparison)))
    return comparison


def with_changes(*positions: int) -> bytes:
    """Returns ``NUMBERS`` with the bytes at these positions changed."""
    data = bytearray(NUMBERS)
    for position in positions:
        data[position] ^= 1
    return bytes(data)


def test_an_equal_file_has_no_differing_segment(tmp_path: Path) -> None:
    assert compare_bytes(tmp_path / "file", NUMBERS).differing == ()


@pytest.mark.parametrize(
    ("local", "differing", "lines"),
    [
        pytest.param(with_changes(0), (0,), ["segment 0 differs: bytes 0 to 20"], id="first"),
        pytest.param(with_changes(62, 63), (2, 3), ["segments 2 to 3 differ: bytes 42 to 83"], id="two"),
        pytest.param(with_changes(244), (11,), ["segment 11 differs: bytes 231 to 244"], id="last"),
        pytest.param(
            with_changes(20, 84, 110, 146, 240),
            (0, 4, 5, 6, 11),
            [
                "segment 0 differs: bytes 0 to 20",
                "segments 4 to 6 differ: bytes 84 to 146",
                "segment 11 differs: bytes 231 to 244",
            ],
            id="runs",
        ),
        pytest.param(bytes(245), ALL_SEGMENTS, ["segments 0 to 11 differ: bytes 0 to 244"], id="all"),
        pytest.param(
            NUMBERS[:100],
            ALL_SEGMENTS[4:],
            ["segments 4 to 11 differ: bytes 84 to 244", "145 bytes shorter than numbers"],
            id="shorter",
        ),
        pytest.param(
            NUMBERS[:231],
            (11,),
            ["segment 11 differs: bytes 231 to 244", "14 bytes shorter than numbers"],
            id="shorter by a segment",
        ),
        pytest.param(
            b"",
            ALL_SEGMENTS,
            ["segments 0 to 11 differ: bytes 0 to 244", "245 bytes shorter than numbers"],
            id="empty",
        ),
        pytest.param(NUMBERS + bytes(5), (), ["5 bytes longer than numbers"], id="longer"),
        pytest.param(
            with_changes(30) + bytes(5),
            (1,),
            ["segment 1 differs: bytes 21 to 41", "5 bytes longer than numbers"],
            id="longer and different",
        ),
    ],
)
def test_each_run_of_differing_segments_and_the_size_are_reported(
    tmp_path: Path, local: bytes, differing: tuple[int, ...], lines: list[str]
) -> None:
    comparison = compare_bytes(tmp_path / "file", local)
    assert comparison.differing == differing
    assert list(mismatch_lines(comparison)) == lines


def test_an_empty_shared_file(tmp_path: Path) -> None:
    assert compare_bytes(tmp_path / "file", b"", shared=b"").matches
    comparison = compare_bytes(tmp_path / "file", b"abc", shared=b"")
    assert list(mismatch_lines(comparison)) == ["3 bytes longer than numbers"]
    comparison = compare_bytes(tmp_path / "file", b"a", shared=b"")
    assert list(mismatch_lines(comparison)) == ["1 byte longer than numbers"]


@pytest.mark.parametrize(
    ("local", "shared", "is_copy"),
    [
        pytest.param(with_changes(0), NUMBERS, True, id="one segment differs"),
        pytest.param(with_changes(*range(0, 120)), NUMBERS, True, id="half differs"),
        pytest.param(with_changes(*range(0, 130)), NUMBERS, False, id="more than half differs"),
        pytest.param(NUMBERS[:100], NUMBERS, True, id="the beginning"),
        pytest.param(NUMBERS + bytes(range(200)), NUMBERS, True, id="longer"),
        pytest.param(NUMBERS[::-1], NUMBERS, False, id="another file"),
        pytest.param(NUMBERS[:20], NUMBERS, False, id="shorter than a segment"),
        pytest.param(b"", NUMBERS, False, id="empty"),
        pytest.param(bytes(201) + NUMBERS[1:45], bytes(201) + NUMBERS[45:89], False, id="only zeros are equal"),
        pytest.param(bytes(200), bytes(245), False, id="nothing but zeros"),
    ],
)
def test_a_damaged_copy_is_told_from_another_file(tmp_path: Path, local: bytes, shared: bytes, is_copy: bool) -> None:
    assert compare_bytes(tmp_path / "file", local, shared).is_copy == is_copy


def test_a_sha_256_needs_no_server(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    verify_sha256(path, ABC.upper())
    path.write_bytes(b"abd")
    with pytest.raises(SourceError, match=f"file: the SHA-256 is a52d.*, but {ABC} is expected$"):
        verify_sha256(path, ABC)
    with pytest.raises(UsageError, match="no such file"):
        verify_sha256(tmp_path / "none", ABC)


def test_control_characters_in_a_name_are_escaped() -> None:
    (line,) = mismatch_lines(Comparison("a\x1b[2Jb", 1, local_size=2, segments=1, differing=(), compared=1, equal=1))
    assert "\x1b" not in line


def test_an_invalid_file_is_rejected_without_a_request(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("none", "no such file"), ("", "not a regular file"), ("pipe", "not a regular file")):
        with pytest.raises(UsageError, match=message):
            verify(locate_servers(Config(), host=None, ports=None, server5=None), tmp_path / name)


def test_holes_are_not_read_and_match_where_zeros_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local file has the first of twelve segments, then a hole up to one byte before the end of segment 11.
    Segments 4 to 7 and 11 of the shared file are zeros.
    """
    segment = 1 << 16
    shared = b"".join(bytes([index not in (4, 5, 6, 7, 11)]) * segment for index in range(12))
    path = tmp_path / "file"
    path.write_bytes(shared[:segment])
    os.truncate(path, len(shared) - 1)
    read: list[int] = []
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        read.append(offset)
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with path.open("rb") as file:
        comparison = compare(file.fileno(), manifest_of(shared))
    assert (read, comparison.differing) == ([0], (1, 2, 3, 8, 9, 10, 11))


def test_a_file_that_the_disk_cannot_read_is_not_reported_as_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "file"
    path.write_bytes(NUMBERS)
    monkeypatch.setattr(os, "preadv", fail)
    monkeypatch.setattr(verify_module, "ConnectionPool", lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(verify_module, "find_manifest", lambda *_, **__: (manifest_of(NUMBERS), b""))
    with pytest.raises(DiskError, match=r"file: cannot be read: Input/output error: check the disk$"):
        verify(locate_servers(Config(), host=None, ports=None, server5=None), path)
