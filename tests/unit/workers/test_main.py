"""``python -m msd.workers``: its cache, its exit codes, and the check of its parent process."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from msd.wire.errors import DiskError
from msd.wire.protocol.child_messages import WorkerSettings
from msd.wire.protocol.codec import encode
from msd.wire.protocol.states import WantedState
from msd.workers.__main__ import cache_path, main
from tests.unit.shares import write_share_of

TIMEOUT = 30.0

#: Runs ``python -m msd.workers`` as a user without an entry in passwd.
WITHOUT_HOME = """
import os, pwd, sys
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
from msd.workers.__main__ import main
from tests.unit.shares import write_share_of
sys.exit(main(sys.argv[1:]))
"""


def test_digests_are_kept_in_the_cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_path(tmp_path) == Path("/elsewhere/msd/digests.sqlite")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_path(tmp_path) == Path("/home/someone/.cache/msd/digests.sqlite")


def test_a_user_without_a_home_folder_can_share_files(tmp_path: Path) -> None:
    root, folder = tmp_path / "numbers", tmp_path / "catalogue"
    folder.mkdir()
    root.write_bytes(bytes(range(245)))
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    write_share_of(root, folder)
    command = [sys.executable, "-c", WITHOUT_HOME, "index", str(folder)]
    result = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert (folder / "1" / "records").exists()


@pytest.mark.parametrize("arguments", [[], ["index"], ["index", "folder", "more"], ["serve", "more"]])
def test_invalid_arguments_are_a_usage_error(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == "workers: internal command: run msd serve instead\n"


def test_an_error_is_one_line_on_standard_error(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    command = [sys.executable, "-m", "msd.workers", "index", str(missing)]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    error = f"{missing}: cannot read what is shared: No such file or directory: start msd serve again\n"
    assert (result.returncode, result.stderr) == (DiskError.exit_code, error)


def test_a_worker_whose_broker_has_already_exited_does_not_start(tmp_path: Path) -> None:
    settings = encode(
        WorkerSettings(
            name="1",
            number=1,
            parent=os.getppid(),
            bind="tcp://127.0.0.1:1",
            control=f"ipc://{tmp_path}/control",
            token=b"",
            catalogue=str(tmp_path),
            edition=1,
            rate=0,
            wanted=WantedState.AWAKE,
        )
    )
    command = [sys.executable, "-m", "msd.workers", "serve"]
    first_frame = struct.pack("!I", len(settings)) + settings
    result = subprocess.run(command, input=first_frame, capture_output=True, check=False, timeout=TIMEOUT)
    assert (result.returncode, result.stderr) == (1, b"")
