"""Shared folders and destinations on file systems that are mounted, full or removed while msd runs."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.environments.recipes import mounted_tmpfs
from tests.processes import MIB, Serve, make_file, wait_for


def is_unmounted(folder: Path) -> bool:
    """Unmounts a file system; returns False while it is in use."""
    return subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("asleep", [False, True])
def test_a_shared_disk_can_be_unmounted_when_nothing_is_read_from_it(
    serve: Serve, tmp_path: Path, rng: random.Random, asleep: bool
) -> None:
    with mounted_tmpfs(tmp_path / "disk") as disk:
        make_file(disk / "film.bin", MIB, rng)
        system = serve(disk, workers=1)
        with system.download("-o", str(tmp_path / "copy")) as client:
            client.wait_until_done()
        if asleep:
            system.put_to_sleep(1)
        # A scan by the indexer may be looking at the folder at this moment.
        wait_for("the unmounted disk", lambda: is_unmounted(disk))
        assert os.readlink(f"/proc/{system.worker(1).pid}/cwd") == "/"


def test_servers_continue_after_their_folder_was_removed(
    serve: Serve, runtime_folder: Path, tmp_path: Path, rng: random.Random
) -> None:
    """Programs such as systemd-tmpfiles remove files below /tmp that are some days old."""
    shared = make_file(tmp_path / "shared" / "film.bin", MIB, rng).parent
    system = serve(shared)
    shutil.rmtree(next(runtime_folder.iterdir()))
    system.kill(2)
    make_file(shared / "later.bin", MIB, rng)
    wait_for("worker 2", lambda: system.worker(2).restarts == 1 and system.states() == ["awake"] * 4)
    wait_for("the new file", lambda: "later.bin" in system.shared())
    for worker in (1, 3, 4):
        system.put_to_sleep(worker)
    with system.download("later.bin", "-o", str(tmp_path / "copy")) as client:
        client.wait_until_done()
    assert system.err.text.count("was removed by another program: it is restored") == 1
