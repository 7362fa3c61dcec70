"""Atomic replacement of a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from msd.wire.support.files import replace_file


def test_the_content_is_replaced_and_no_temporary_file_remains(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"old")
    replace_file(path, b"new", sync=True)
    assert path.read_bytes() == b"new"
    assert [*tmp_path.iterdir()] == [path]


def test_the_permissions_are_those_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    replace_file(path, b"secret", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_temporary_file_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / f".msd-{os.getpid()}.part").write_bytes(b"left over")
    replace_file(tmp_path / "keys", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("keys", b"new")]


def test_after_an_error_the_old_content_stays_and_no_temporary_file_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"old")

    def fail(self: Path, target: Path) -> None:
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]
