"""The change detector notices what other programs do, and nothing else."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from msd.client.storage.change_detector import ChangeDetector


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / ".film.mp4.msd-part"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    with path.open("r+b", buffering=0) as file:
        yield file.fileno()


def test_the_changes_of_the_owner_are_not_reported(fd: int) -> None:
    with closing(ChangeDetector(fd)) as changes:
        for _ in range(3):
            assert changes.check() is None
            os.pwrite(fd, b"own", 0)
            os.ftruncate(fd, 100)
            changes.record()
        assert changes.size == 100
        assert not changes.reset()


@pytest.mark.parametrize(
    "act",
    [Path.read_bytes, Path.touch, Path.unlink, lambda path: path.chmod(0o600), lambda path: path.write_bytes(b"")],
)
def test_the_act_of_another_program_is_reported_once(path: Path, fd: int, act: Callable[[Path], None]) -> None:
    with closing(ChangeDetector(fd)) as changes:
        act(path)
        assert changes.reset()
        assert not changes.reset()


def test_a_change_stays_known_after_the_next_change_of_the_owner(path: Path, fd: int) -> None:
    with closing(ChangeDetector(fd)) as changes:
        os.truncate(path, 3)
        status = changes.check()
        assert status is not None
        assert (status.st_size, changes.size) == (3, 7)
        changes.record()
        assert changes.check() is None
        assert changes.reset()


@pytest.mark.parametrize("function", ["inotify_init1", "inotify_add_watch"])
def test_without_reports_of_opens_a_file_counts_as_changed_once(
    fd: int, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    class Libc:
        def __getattr__(self, name: str) -> Callable[..., int]:
            real: Callable[..., int] = getattr(libc, name)
            return (lambda *_: -1) if name == function else real

    libc = ctypes.CDLL(None)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Libc())
    before = len(os.listdir("/proc/self/fd"))
    with closing(ChangeDetector(fd)) as changes:
        assert len(os.listdir("/proc/self/fd")) == before
        assert changes.reset()
        assert not changes.reset()


def watches() -> list[str]:
    """The watches of this process, as the kernel lists them."""
    found = []
    for info in Path("/proc/self/fdinfo").iterdir():
        with suppress(OSError):
            found += [line for line in info.read_text().splitlines() if line.startswith("inotify")]
    return found


def test_stopping_ends_the_watch(fd: int) -> None:
    with closing(ChangeDetector(fd)) as changes:
        assert len(watches()) == 1
        changes.stop()
        assert watches() == []


def test_closing_leaves_no_descriptor(fd: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    changes = ChangeDetector(fd)
    changes.close()
    changes.close()
    assert len(os.listdir("/proc/self/fd")) == before
