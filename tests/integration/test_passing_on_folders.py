"""Downloads of folders that pass on what they have: real processes on loopback."""

from __future__ import annotations

import filecmp
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.passing import from_peers, wait_until_serving
from tests.processes import MIB, Download, Serve, System, make_file


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder with large and small files, some of them empty, or with unusual names."""
    rng, folder = random.Random(1), tmp_path / "shared"
    for number in range(40):
        path = folder / f"sub {number % 3}" / ("ü" * (number % 2)) / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice([0, 9, 3000, 90_000, 300_000])))
    for number in range(2):
        make_file(folder / f"large {number}", (2 + number) * MIB + 7, rng)
    (folder / "program").write_bytes(b"#!/bin/sh\n")
    (folder / "program").chmod(0o755)
    return folder


def receive(system: System, folder: Path, name: str, *arguments: str) -> Download:
    return system.download(".", "-o", name, "--pass-on", *arguments, cwd=folder)


def summary(download: Download) -> dict[str, Any]:
    assert download.wait() == 0, download.err.text
    assert download.events[-1]["event"] == "summary"
    return download.events[-1]


def are_equal(one: Path, other: Path) -> bool:
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*"))
    assert names == sorted(str(path.relative_to(other)) for path in other.rglob("*"))
    files = [name for name in names if (one / name).is_file()]
    assert all((one / name).stat().st_mode & 0o100 == (other / name).stat().st_mode & 0o100 for name in files)
    return filecmp.cmpfiles(one, other, files, shallow=False)[1:] == ([], [])


def test_a_folder_is_passed_on(serve: Serve, shared: Path, tmp_path: Path) -> None:
    """
    1. A download is complete, and keeps serving. Another one gets most from it.
    2. The first one is started again, with one file less than before: it serves what it kept, too, as well as what it
       fetches again. So a third one gets most from it.
    3. SIGTERM ends each in order.
    """
    size = sum(path.stat().st_size for path in shared.rglob("*") if path.is_file())
    system = serve(shared, "--rate", "1MiB")
    with receive(system, tmp_path, "first", "--keep-serving", "10m") as first:
        wait_until_serving(first)
        with receive(system, tmp_path, "second") as second:
            assert from_peers(summary(second)) > size / 4
        first.signal(signal.SIGTERM)
        assert summary(first)["passed_on_bytes"] > size / 4
    assert are_equal(shared, tmp_path / "first")
    assert are_equal(shared, tmp_path / "second")
    (tmp_path / "first" / "sub 0" / "file 0").unlink()
    with receive(system, tmp_path, "first", "--keep-serving", "10m") as first:
        wait_until_serving(first)
        with receive(system, tmp_path, "third") as third:
            assert from_peers(summary(third)) > size / 4
        first.signal(signal.SIGTERM)
        assert summary(first)["files"]["kept"] == 42
    assert are_equal(shared, tmp_path / "third")


def test_receivers_of_a_folder_pass_on_to_one_another(serve: Serve, shared: Path, tmp_path: Path) -> None:
    """Three begin together, one of them with an old copy. Its files that have changed are fetched."""
    shutil.copytree(shared, tmp_path / "old")
    (tmp_path / "old" / "large 0").write_bytes(bytes(2 * MIB))
    (tmp_path / "old" / "sub 1" / "ü" / "file 1").write_bytes(b"old")
    system = serve(shared, "--rate", "512KiB")
    with (
        receive(system, tmp_path, "one") as one,
        receive(system, tmp_path, "two") as two,
        receive(system, tmp_path, "old", "--update") as old,
    ):
        reports = [summary(download) for download in (one, two, old)]
    assert all(are_equal(shared, tmp_path / name) for name in ("one", "two", "old"))
    assert sum(map(from_peers, reports[:2])) > MIB
    assert reports[2]["files"]["same"] + reports[2]["files"]["kept"] == 41


def test_another_selection_is_another_plan(serve: Serve, shared: Path, tmp_path: Path) -> None:
    system = serve(shared, "--rate", "4MiB")
    with receive(system, tmp_path, "first", "--keep-serving", "10m") as first:
        wait_until_serving(first)
        with system.download("sub 0/", "large 0", "-o", "part", "--pass-on", cwd=tmp_path) as other:
            assert from_peers(summary(other)) == 0
    assert (tmp_path / "part" / "large 0").read_bytes() == (shared / "large 0").read_bytes()
