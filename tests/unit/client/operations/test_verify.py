"""A file compared with the shared one: which segments differ, and how that is said."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.operations import verify as verify_module
from msd.client.operations.verify import Comparison, compare, mismatches, verify
from msd.wire.config.settings import Config, locate_servers
from msd.wire.errors import DiskError, UsageError
from msd.wire.protocol.segments import Manifest, digest, segment_count, span

#: Eleven segments of 21 bytes and one of 14.
NUMBERS = bytes(range(245))
ALL = tuple(range(12))


def manifest(data: bytes, name: str = "numbers") -> Manifest:
    spans = (span(len(data), index) for index in range(segment_count(len(data))))
    digests = b"".join(digest(data[offset : offset + length]) for offset, length in spans)
    return Manifest.build(name, len(data), digests)


def verdict_of(path: Path, held: bytes, shared: bytes = NUMBERS) -> Comparison:
    """What a file that holds ``held`` is, where ``shared`` is shared."""
    path.write_bytes(held)
    fd = os.open(path, os.O_RDONLY)
    try:
        verdict = compare(fd, manifest(shared))
    finally:
        os.close(fd)
    assert (verdict.name, verdict.size, verdict.held) == ("numbers", len(shared), len(held))
    assert verdict.segments == segment_count(len(shared))
    assert verdict.is_same == (held == shared) == (not list(mismatches(verdict)))
    return verdict


def differing(*positions: int) -> bytes:
    """The numbers, other ones at these positions."""
    data = bytearray(NUMBERS)
    for position in positions:
        data[position] ^= 1
    return bytes(data)


def test_a_file_that_is_the_same_has_no_mismatch(tmp_path: Path) -> None:
    assert verdict_of(tmp_path / "file", NUMBERS).bad == ()


@pytest.mark.parametrize(
    ("held", "bad", "told"),
    [
        pytest.param(differing(0), (0,), ["segment 0 differs: bytes 0 to 20"], id="first"),
        pytest.param(differing(62, 63), (2, 3), ["segments 2 to 3 differ: bytes 42 to 83"], id="two"),
        pytest.param(differing(244), (11,), ["segment 11 differs: bytes 231 to 244"], id="last"),
        pytest.param(
            differing(20, 84, 110, 146, 240),
            (0, 4, 5, 6, 11),
            [
                "segment 0 differs: bytes 0 to 20",
                "segments 4 to 6 differ: bytes 84 to 146",
                "segment 11 differs: bytes 231 to 244",
            ],
            id="runs",
        ),
        pytest.param(bytes(245), ALL, ["segments 0 to 11 differ: bytes 0 to 244"], id="all"),
        pytest.param(
            NUMBERS[:100],
            ALL[4:],
            ["segments 4 to 11 differ: bytes 84 to 244", "145 bytes less than numbers has"],
            id="shorter",
        ),
        pytest.param(
            NUMBERS[:231],
            (11,),
            ["segment 11 differs: bytes 231 to 244", "14 bytes less than numbers has"],
            id="shorter by a segment",
        ),
        pytest.param(
            b"",
            ALL,
            ["segments 0 to 11 differ: bytes 0 to 244", "245 bytes less than numbers has"],
            id="empty",
        ),
        pytest.param(NUMBERS + bytes(5), (), ["5 bytes more than numbers has"], id="longer"),
        pytest.param(
            differing(30) + bytes(5),
            (1,),
            ["segment 1 differs: bytes 21 to 41", "5 bytes more than numbers has"],
            id="longer and different",
        ),
    ],
)
def test_each_run_of_segments_and_the_size_are_told(
    tmp_path: Path, held: bytes, bad: tuple[int, ...], told: list[str]
) -> None:
    verdict = verdict_of(tmp_path / "file", held)
    assert verdict.bad == bad
    assert list(mismatches(verdict)) == told


def test_an_empty_file_is_shared_like_any_other(tmp_path: Path) -> None:
    assert verdict_of(tmp_path / "file", b"", shared=b"").is_same
    verdict = verdict_of(tmp_path / "file", b"abc", shared=b"")
    assert list(mismatches(verdict)) == ["3 bytes more than numbers has"]


def test_a_name_is_shown_without_what_could_harm_a_terminal() -> None:
    (told,) = mismatches(Comparison("a\x1b[2Jb", size=1, held=2, segments=1, bad=()))
    assert "\x1b" not in told


def test_what_is_no_file_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, told in (("none", "no such file"), ("", "not a regular file"), ("pipe", "not a regular file")):
        with pytest.raises(UsageError, match=told):
            verify(locate_servers(Config(), host=None, ports=None, server5=None), tmp_path / name)


def test_holes_are_not_read_and_right_where_there_are_to_be_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twelve segments the file holds the first one; 4 to 7 and 11 are to be zeros, and 11 is cut off."""
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
        verdict = compare(file.fileno(), manifest(shared))
    assert (read, verdict.bad) == ([0], (1, 2, 3, 8, 9, 10, 11))


def test_a_file_that_the_disk_cannot_read_is_not_called_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "file"
    path.write_bytes(NUMBERS)
    monkeypatch.setattr(os, "preadv", broken)
    monkeypatch.setattr(verify_module, "ConnectionPool", lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(verify_module, "find_manifest", lambda *_, **__: (manifest(NUMBERS), b""))
    with pytest.raises(DiskError, match=r"file: cannot be read: Input/output error: the disk has a fault$"):
        verify(locate_servers(Config(), host=None, ports=None, server5=None), path)
