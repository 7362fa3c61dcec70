"""The commands for folders, globs and several files, with real servers."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.processes import MIB, Serve, make_file, run_msd

FILES = {
    "docs/a.pdf": 5000,
    "docs/a*.pdf": 600,
    "photos/film": 2 * MIB,
    "photos/sub/ü 1": 7,
    "photos/sub/2": 0,
    "top": 9,
}


@pytest.fixture
def shared(tmp_path: Path, rng: random.Random) -> Path:
    for name, size in FILES.items():
        make_file(tmp_path / "shared" / name, size, rng)
    (tmp_path / "shared" / "empty").mkdir()
    return tmp_path / "shared"


def test_the_commands_for_several_files(serve: Serve, shared: Path, tmp_path: Path) -> None:
    """1. Lists a folder.
    2. Downloads NAMEs, again, and with a file that differs.
    3. Verifies the folder before and after it is updated.
    4. A name that looks like a glob is that of a file.
    """
    flags = serve(shared, workers=1).server_flags

    def msd(*arguments: str, code: int = 0) -> CompletedProcess[str]:
        ended = run_msd(*arguments, *flags, cwd=tmp_path)
        assert ended.returncode == code, ended
        return ended

    listed = json.loads(msd("list", "--json", "photos/", "empty").stdout)
    assert {file["name"]: file["size"] for file in listed["files"]} == {
        name: size for name, size in FILES.items() if name.startswith("photos")
    }
    assert [folder["name"] for folder in listed["folders"]] == ["empty/", "photos/", "photos/sub/"]

    names = ("photos/", "docs/*.pdf", "-o", "copy/")
    dry = msd("download", *names, "--dry-run", "--exclude", "2")
    assert not (tmp_path / "copy").exists()
    assert dry.stdout.endswith("4 of 4 files would be fetched, 2.0 MiB (4 missing): copy\n")
    first = msd("download", *names)
    assert first.stdout.startswith("5 files, 2.0 MiB verified in ")
    assert first.stdout.endswith(" (5 fetched): copy\n")
    assert msd("download", *names).stdout == "copy: already up to date: 5 files (5 kept)\n"

    (tmp_path / "copy/photos/sub/2").write_text("mine")
    (tmp_path / "copy/photos/sub/new").write_text("")
    differs = msd("verify", "copy/photos", code=5)
    assert differs.stdout.splitlines() == ["differs     sub/2", "extra       sub/new"]
    assert (
        "2 of 3 files match, 1 differs, 1 extra: repair it with msd download photos/ --update -o copy" in differs.stderr
    )
    refused = msd("download", *names, "nothing", "--quiet", code=2)
    assert refused.stderr.splitlines() == [
        "msd: copy/photos/sub/2 exists: choose another path, bring it up to date or replace it (-o, --update, --force)",
        "msd: 'nothing' is not shared: msd list shows the shared files",
    ]
    assert "1 fetched, 4 kept" in msd("download", *names, "--update").stdout
    assert (
        msd("verify", "copy/photos").stdout.splitlines()[-1]
        == "copy/photos matches photos/ (3 files verified, 1 extra)"
    )

    msd("download", "docs/a*.pdf", "-o", "one.pdf")
    assert (tmp_path / "one.pdf").read_bytes() == (shared / "docs/a*.pdf").read_bytes()
    shutil.rmtree(tmp_path / "copy")
    msd(
        "download", ".", "-o", "copy", "--report", "report.json", "--no-sync", "--no-space-check", "--max-rate", "50MiB"
    )
    assert msd("verify", "copy", ".").stdout == "copy matches what is shared (6 files verified)\n"
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["files"]["fetched"] == report["files"]["listed"] == 6
    assert run_msd("plot", "report.json", "-o", "run.svg", cwd=tmp_path).returncode == 0
