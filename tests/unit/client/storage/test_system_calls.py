"""System calls that Python does not have: on this kernel, and on a file system that lacks one."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from msd.client.storage import system_calls
from msd.client.storage.system_calls import rename_to_new, sync_file_system


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def without_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(system_calls, "_libc", lambda: SimpleNamespace(renameat2=fail))


@pytest.mark.parametrize("is_supported", [True, False])
def test_a_rename_never_replaces_a_file(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch, is_supported: bool
) -> None:
    if not is_supported:
        without_renames(monkeypatch)
    (tmp_path / "old ü").write_bytes(b"1")
    rename_to_new("old ü", "new", folder)
    (tmp_path / "old ü").write_bytes(b"2")
    with pytest.raises(FileExistsError):
        rename_to_new("old ü", "new", folder)
    assert ((tmp_path / "new").read_bytes(), (tmp_path / "old ü").read_bytes()) == (b"1", b"2")
    with pytest.raises(FileNotFoundError):
        rename_to_new("missing", "other", folder)


def test_a_file_system_is_synced(folder: int) -> None:
    sync_file_system(folder)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file_system(-1)
