"""Limits that are too low: one line says which limit, and what it must be; no traceback, and nothing is left behind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.environments.recipes import limited, limited_processes, mounted_tmpfs
from tests.processes import MIB, Serve, Source, free_ports, run_msd


def refusal(*arguments: str, code: int, wrapper: Sequence[str] = ()) -> str:
    """Runs a command that must end with one line, and returns the line."""
    ended = run_msd(*arguments, *ports(), wrapper=wrapper)
    assert (ended.returncode, ended.stderr.count("\n")) == (code, 1), ended.stderr
    return ended.stderr


def ports() -> list[str]:
    return ["-a", "127.0.0.1", "-p", *map(str, free_ports())]


@pytest.mark.parametrize("limit", [8, 24, 55])
def test_too_few_open_files(runtime_folder: Path, source: Source, tmp_path: Path, limit: int) -> None:
    wrapper = limited(f"--nofile={limit}")
    line = refusal("serve", str(source(1000)), code=2, wrapper=wrapper)
    problem = f"the limit on open files is {limit}, but the broker and 4 workers need at least 56"
    assert line == f"msd: {problem}: raise it with ulimit, or LimitNOFILE of the service\n"
    assert not [*runtime_folder.iterdir()]
    if limit < 48:
        line = refusal("download", "-o", str(tmp_path / "copy"), code=2, wrapper=wrapper)
        assert "need at least 48" in line


def test_a_soft_limit_on_open_files_is_raised(runtime_folder: Path, tmp_path: Path) -> None:
    wrapper = limited("--nofile=24:100")
    assert "no such file" in refusal("serve", str(tmp_path / "none"), code=2, wrapper=wrapper)


@pytest.mark.parametrize("limit", [3, 10, 22])
def test_too_few_processes(runtime_folder: Path, source: Source, limit: int) -> None:
    with limited_processes(limit) as wrapper:
        line = refusal("serve", str(source(1000)), code=2, wrapper=wrapper)
    problem = rf"msd: the broker and 4 workers need 23 processes and threads: pids\.max in .* is {limit} and must be at"
    assert re.fullmatch(rf"{problem} least 23\n", line)
    assert not [*runtime_folder.iterdir()]


def test_a_download_with_too_few_threads(tmp_path: Path) -> None:
    with limited_processes(3) as wrapper:
        line = refusal("download", "-o", str(tmp_path / "copy"), code=2, wrapper=wrapper)
    assert "need 6 processes and threads: pids.max in " in line
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("room", ["size=4k", "size=60k", "nr_inodes=3", "nr_inodes=40"])
def test_a_full_disk_at_the_runtime_folder(
    runtime_folder: Path, source: Source, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted_tmpfs(runtime_folder / "disk", room) as disk:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(disk))
        line = refusal("serve", str(source(1000)), code=6)
        assert re.fullmatch(r"msd: .*: No space left on device: .*set XDG_RUNTIME_DIR to .*folder.*\n", line)
        assert not [*disk.iterdir()]


def test_a_limit_on_the_size_of_files(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(2 * MIB), workers=1)
    arguments = ["download", *system.server_flags, "-o", str(tmp_path / "copy"), "--quiet"]
    ended = run_msd(*arguments, wrapper=limited(f"--fsize={MIB}"))
    assert (ended.returncode, ended.stderr.count("\n")) == (6, 1), ended.stderr
    assert ".copy.msd-part: File too large: choose a file system that can store files of this size" in ended.stderr
