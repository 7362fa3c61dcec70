"""The content of a file compared with a shared file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from msd.client.storage import file_content
from msd.client.storage.file_content import compare_content
from msd.wire.errors import DiskError
from tests.memory_worker import entry_of

DATA = bytes(range(250)) * 8


@pytest.mark.parametrize("content", [DATA, b"", DATA[:-1], DATA + b"x", b"x" + DATA[1:], DATA[:-1] + b"x"])
def test_only_the_same_content_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(file_content, "STEP", 500)
    path = tmp_path / "file"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    *steps, matches = compare_content(fd, entry_of("file", DATA), path)
    os.close(fd)
    assert matches is (content == DATA)
    assert steps == [None] * len(steps)
    assert len(steps) >= len(content) // 700


def test_an_empty_file_is_compared_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, expected in {b"": True, b"x": False}.items():
        path.write_bytes(content)
        fd = os.open(path, os.O_RDONLY)
        assert [*compare_content(fd, entry_of("file", b""), path)] == [expected]
        os.close(fd)


def test_a_read_error_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(DiskError, match="film: cannot be read: Input/output error"):
        next(compare_content(0, entry_of("film", b"x"), Path("film")))
