"""The files in ``deploy/`` and the Dockerfile: systemd accepts the units, and the image gets the files it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
#: Where the units expect the command; a user of the name msd need not exist for the tests.
COMMAND = "/opt/msd/bin/msd"
#: The highest level of exposure that ``systemd-analyze security`` may find, in tenths.
MAX_EXPOSURE = 30


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("unit", UNITS, ids=[unit.name for unit in UNITS])
def test_systemd_accepts_the_unit_without_a_word(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    assert COMMAND in text
    # It complains of a command that is not installed.
    (tmp_path / unit.name).write_text(text.replace(COMMAND, sys.executable))
    ended = analyze("verify", "--man=no", str(tmp_path / unit.name))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", UNITS, ids=[unit.name for unit in UNITS])
def test_the_unit_is_hardly_exposed(unit: Path) -> None:
    ended = analyze("security", "--offline=true", "--no-pager", f"--threshold={MAX_EXPOSURE}", str(unit))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Overall exposure level" in ended.stdout


def test_the_dockerfile_copies_only_what_is_there_and_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for name in allowed if not (ROOT / name).exists()} == set()
    copied = re.findall(r"^COPY (?!--from)(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(copied) - {"."} <= allowed
