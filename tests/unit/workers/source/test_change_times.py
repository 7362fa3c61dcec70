"""Which file systems record each change of a file in its times."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from msd.workers.source.change_times import ChangeTimes

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
    assert not ChangeTimes(mounts(tmp_path, kind)).are_reliable(DEVICE)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fusectl"])
def test_other_file_systems_do(tmp_path: Path, kind: str) -> None:
    assert ChangeTimes(mounts(tmp_path, kind)).are_reliable(DEVICE)


def test_a_device_that_is_not_listed_counts_as_reliable(tmp_path: Path) -> None:
    assert ChangeTimes(mounts(tmp_path, "vfat")).are_reliable(os.makedev(0, 99))
    assert ChangeTimes(tmp_path / "missing").are_reliable(DEVICE)


def test_the_answer_is_remembered_until_it_is_cleared(tmp_path: Path) -> None:
    times = ChangeTimes(mounts(tmp_path, "vfat"))
    assert not times.are_reliable(DEVICE)
    mounts(tmp_path, "ext4")
    assert not times.are_reliable(DEVICE)
    times.clear()
    assert times.are_reliable(DEVICE)


def test_the_real_list_of_mounts_is_read(tmp_path: Path) -> None:
    assert ChangeTimes().are_reliable(tmp_path.stat().st_dev)
