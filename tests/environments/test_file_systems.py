"""Shared folders and destinations on file systems that are mounted, full or removed while msd runs."""

from __future__ import annotations

import os
import random
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
        system = serve(disk)
        with system.download("-o", str(tmp_path / "copy")) as client:
            client.wait_until_done()
        if asleep:
            system.put_to_sleep(1, 2, 3, 4)
        # A scan by the indexer may be looking at the folder at this moment.
        wait_for("the unmounted disk", lambda: is_unmounted(disk), timeout=1 if asleep else 10)
        assert os.readlink(f"/proc/{system.worker(1).pid}/cwd") == "/"
