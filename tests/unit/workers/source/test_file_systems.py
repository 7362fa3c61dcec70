"""Which file systems record each change of a file in its times."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from msd.workers.source.file_systems import FileSystems

DEVICE = os.makedev(8, 17)


def mounts(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"36 22 8:17 / /mnt/a\\040stick rw,nosuid shared:2 master:3 - {kind} /dev/sdb1 rw,uid=1000\n"
    )
    return path


@pytest.mark.parametrize("kind", ["vfat", "exfat", "nfs4", "fuse.sshfs", "fuseblk"])
def test_these_file_systems_do_not_record_each_change(tmp_path: Path, kind: str) -> None:
    assert not FileSystems(mounts(tmp_path, kind)).has_reliable_times(DEVICE)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fusectl"])
def test_other_file_systems_do(tmp_path: Path, kind: str) -> None:
    assert FileSystems(mounts(tmp_path, kind)).has_reliable_times(DEVICE)


def test_a_device_that_is_not_listed_counts_as_reliable(tmp_path: Path) -> None:
    assert FileSystems(mounts(tmp_path, "vfat")).has_reliable_times(os.makedev(0, 99))
    assert FileSystems(tmp_path / "missing").has_reliable_times(DEVICE)


@pytest.mark.parametrize(("kind", "name"), [("nfs4", "/mnt/a stick"), ("fuse.sshfs", "/mnt/a stick"), ("vfat", None)])
def test_reads_wait_for_file_systems_that_others_serve(tmp_path: Path, kind: str, name: str | None) -> None:
    wait = FileSystems(mounts(tmp_path, kind)).wait(DEVICE)
    assert (wait.name if wait is not None else None) == name


def test_the_answer_is_remembered_until_it_is_cleared(tmp_path: Path) -> None:
    times = FileSystems(mounts(tmp_path, "vfat"))
    assert not times.has_reliable_times(DEVICE)
    mounts(tmp_path, "ext4")
    assert not times.has_reliable_times(DEVICE)
    times.clear()
    assert times.has_reliable_times(DEVICE)


def test_the_real_list_of_mounts_is_read(tmp_path: Path) -> None:
    assert FileSystems().has_reliable_times(tmp_path.stat().st_dev)
