"""Downloads to file systems that people have: in memory, small, full, read-only, of containers; and part files that
other programs touch while a real download runs."""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from msd.client.storage.part_file import PartFile
from msd.client.storage.update import UpdatePartFile
from msd.wire.errors import DiskError
from tests.environments.recipes import mounted_fuse, mounted_image, mounted_overlay, mounted_tmpfs
from tests.processes import MIB, Serve, System, files_equal, make_file, run_msd, wait_for
from tests.unit.client.storage.test_part_file import content, manifest_of, reused, write_all

DATA = content(3 * MIB + 77)
MANIFEST = manifest_of(DATA)
OTHER = content(2 * MIB, seed=2)


def save(folder: Path, name: str = "film.mp4", **options: bool) -> list[str]:
    """Saves ``DATA`` as a download does, and checks the result. Returns the warnings."""
    warnings: list[str] = []
    with closing(PartFile(folder / name, MANIFEST, on_warning=warnings.append, **options)) as part:
        write_all(part, DATA)
        part.sync()
        part.publish(replace=False, sync=True)
    assert (folder / name).read_bytes() == DATA
    assert [path.name for path in folder.iterdir() if path.name != "lost+found"] == [name]
    return warnings


# The storage layer.


@pytest.mark.parametrize("options", ["size=0", "size=10m", "size=10m,huge=always", "size=10m,noatime,nosuid,nodev"])
def test_a_file_system_in_memory_needs_no_warning(tmp_path: Path, options: str) -> None:
    with mounted_tmpfs(tmp_path / "disk", options) as disk:
        assert save(disk) == []


@pytest.mark.parametrize("kind", ["ext4", "ext2", "vfat", "exfat", "xfs", "btrfs"])
def test_a_file_system_in_an_image_needs_no_warning(tmp_path: Path, kind: str) -> None:
    quiet = [] if kind in ("vfat", "exfat") else ["-q"]
    with mounted_image(
        tmp_path / "disk", [f"mkfs.{kind}", *quiet], (320 if kind in ("xfs", "btrfs") else 16) * MIB
    ) as disk:
        assert save(disk) == []
        (disk / "film.mp4").unlink()
        assert save(disk, "ä" * 127) == []


@pytest.mark.parametrize(
    ("lacking", "warning"),
    [
        ((), ""),
        (("change-time", "links", "space"), ""),
        (("locks",), "the file system has no locks"),
        (("sync",), "its file system cannot say when the data is on the disk"),
        (("folder-sync",), "its name may not survive a power failure"),
        (("long-names",), ""),
        (("modes",), ""),
        (("fine-times",), ""),
        (("links", "modes", "change-time", "fine-times", "stable-inodes"), ""),  # as exFAT
        (("stable-inodes",), ""),
        (("stable-inodes", "links", "locks", "folder-sync", "space", "change-time"), "has no locks"),
    ],
    ids=str,
)
def test_what_a_fuse_file_system_lacks_is_a_warning_at_most(
    tmp_path: Path, lacking: tuple[str, ...], warning: str
) -> None:
    with mounted_fuse(tmp_path / "disk", *lacking) as disk:
        warnings = save(disk, "x" * 140)
        with closing(UpdatePartFile(disk / ("x" * 140), manifest_of(OTHER), on_warning=warnings.append)) as part:
            write_all(part, OTHER)
            part.publish(replace=True, sync=True)
        assert (disk / ("x" * 140)).read_bytes() == OTHER
    assert warning in " ".join(warnings)
    assert bool(warnings) == bool(warning), warnings


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_an_update_shares_the_data_of_the_output_where_files_can_share_data(tmp_path: Path, kind: str) -> None:
    """Without that the new version would need 48 MiB."""
    old = content(48 * MIB)
    data = b"new" + old[3:]
    manifest = manifest_of(data)
    with mounted_image(tmp_path / "disk", [f"mkfs.{kind}", "-q"], 320 * MIB) as disk:
        (disk / "film.mp4").write_bytes(old)
        os.sync()
        before = os.statvfs(disk).f_bfree
        with closing(UpdatePartFile(disk / "film.mp4", manifest)) as part:
            assert reused(part) == {*range(1, manifest.segments)}
            assert not part.copy_next()
            part.write(0, memoryview(data)[: manifest.span(0)[1]])
            part.sync()
            os.sync()
            disk_status = os.statvfs(disk)
            assert (before - disk_status.f_bfree) * disk_status.f_frsize < 8 * MIB
            part.publish(replace=True, sync=True)
        assert (disk / "film.mp4").read_bytes() == data


def test_a_sparse_file_needs_room_for_its_data_only(tmp_path: Path) -> None:
    data = DATA[: 2 * MIB] + bytes(30 * MIB)
    with mounted_tmpfs(tmp_path / "disk", "size=10m") as disk:
        with closing(PartFile(disk / "sparse", manifest_of(data))) as part:
            for index in {*range(manifest_of(data).segments)} - {*part.zero_segments()}:
                offset, length = manifest_of(data).span(index)
                part.write(index, memoryview(data)[offset : offset + length])
            part.publish(replace=False, sync=True)
        assert (disk / "sparse").read_bytes() == data


def test_a_file_that_does_not_fit_fails_at_once_or_when_the_disk_is_full(tmp_path: Path) -> None:
    """The download can be resumed once there is room."""
    with mounted_tmpfs(tmp_path / "disk", "size=2m") as disk:
        with pytest.raises(DiskError, match=r"needs 3,145,805 more bytes but the disk has 2,097,152 free: free some"):
            save(disk)
        assert not [*disk.iterdir()]
        with pytest.raises(DiskError, match=r"No space left on device: free some space, .* the part file is kept"):
            save(disk, check_space=False)
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        with closing(PartFile(disk / "film.mp4", MANIFEST)) as part:
            assert reused(part)


def test_a_folder_that_does_not_fit_is_continued_once_there_is_room(
    serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    shared = tmp_path / "shared"
    for number in range(800):
        make_file(shared / f"{number % 20}" / f"{number}", 10_000, rng)
    # It is among the first files that are listed, and too large: nothing is requested before the disk is checked.
    make_file(shared / "0" / "film", 7 * MIB, rng)
    system = serve(shared, workers=1)
    with mounted_tmpfs(tmp_path / "disk", "size=6m") as disk:
        command = ("download", "**", "-o", str(disk), *system.server_flags)
        refused = run_msd(*command)
        assert refused.returncode == 6
        assert re.search(r"needs [\d,]+ more bytes but the disk has [\d,]+ free: free some space", refused.stderr)
        assert not [path for path in disk.rglob("*") if path.is_file()]
        full = run_msd(*command, "--no-space-check")
        assert full.returncode == 6
        assert "No space left on device: free some space, then run the same command again" in full.stderr
        in_place = [path for path in disk.rglob("*") if path.is_file() and not path.name.endswith(".msd-part")]
        assert all(files_equal(path, shared / path.relative_to(disk)) for path in in_place)
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        assert run_msd(*command).returncode == 0
        for path in shared.rglob("*"):
            assert path.is_dir() or files_equal(path, disk / path.relative_to(shared))
        assert not [*disk.rglob(".*.msd-part")]


def test_a_disk_that_becomes_read_only_is_a_disk_error(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", "size=10m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(DiskError, match=r"Read-only file system: choose a folder on a writable disk"):
            save(disk)


def test_in_a_container_part_files_and_outputs_of_the_image_are_replaced(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "lower", "size=10m") as lower, mounted_tmpfs(tmp_path / "upper", "size=20m") as upper:
        (lower / ".film.mp4.msd-part").write_bytes(DATA[: 2 * MIB])
        with mounted_overlay(tmp_path / "disk", lower, upper) as disk:
            with closing(PartFile(disk / "film.mp4", MANIFEST)) as part:
                assert reused(part)
            assert save(disk) == []


def test_the_change_of_a_part_file_is_noticed_on_an_overlay(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "lower", "size=10m") as lower, mounted_tmpfs(tmp_path / "upper", "size=20m") as upper:
        (lower / ".film.mp4.msd-part").write_bytes(DATA)
        with (
            mounted_overlay(tmp_path / "disk", lower, upper) as disk,
            closing(PartFile(disk / "film.mp4", MANIFEST)) as part,
        ):
            assert reused(part) == {*range(MANIFEST.segments)}
            with (disk / ".film.mp4.msd-part").open("r+b") as file:
                file.write(b"\0\1\2")
            with pytest.raises(DiskError, match="was changed by another program"):
                part.publish(replace=False, sync=False)


def test_a_folder_that_cannot_be_read_receives_the_file_with_a_warning(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    inbox.chmod(0o1733)
    folder = os.open(inbox, os.O_PATH)
    # The other user cannot enter the folders above this one.
    other_user = Path(f"/proc/self/fd/{folder}")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setresgid(54321, 54321, 54321)
            os.setresuid(54321, 54321, 54321)
            warnings: list[str] = []
            with closing(PartFile(other_user / "film.mp4", MANIFEST, on_warning=warnings.append)) as part:
                write_all(part, DATA)
                part.publish(replace=False, sync=True)
            os.write(writer, " ".join(warnings).encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
            os._exit(1)
        os._exit(0)
    os.close(folder)
    os.close(writer)
    with open(reader) as pipe:
        output = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, output
    assert "is complete, but its name may not survive a power failure: its folder cannot be synced" in output
    assert {path.name: path.read_bytes() for path in inbox.iterdir()} == {"film.mp4": DATA}


# Real downloads.


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Path]]:
    """Slow servers of one file, for all downloads of this module."""
    folder = tmp_path_factory.mktemp("shared")
    path = make_file(folder / "film.bin", 6 * MIB, random.Random(7))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    with System(path, "--rate", "4MiB", env=environment) as system:
        yield system.wait_until_ready(), path


def test_the_longest_name_is_resumed_and_completed(shared: tuple[System, Path], tmp_path: Path) -> None:
    system, path = shared
    output = tmp_path / ("x" * 255)
    # Slow enough to be killed in the middle on a busy machine, too.
    with system.download("-o", str(output), "--max-rate", "1MiB") as client:
        client.wait_until_verified(0.2)
        client.process.kill()
        client.wait()
    with system.download("-o", str(output)) as client:
        assert client.wait_until_done()["reused_bytes"] >= MIB
    assert files_equal(path, output)
    assert [*tmp_path.iterdir()] == [output]


def test_force_replaces_the_target_of_a_link_as_update_does(shared: tuple[System, Path], tmp_path: Path) -> None:
    system, path = shared
    for flag in ("--force", "--update"):
        target, link = tmp_path / f"target{flag}", tmp_path / f"link{flag}"
        target.write_bytes(b"old")
        link.symlink_to(target)
        with system.download("-o", str(link), flag) as client:
            client.wait_until_done()
        assert link.is_symlink()
        assert files_equal(path, target)


def overwrite(part: Path) -> None:
    with part.open("r+b") as file:
        file.write(b"\0\1\2\3")


def exchange(part: Path) -> None:
    other = part.with_name("other")
    other.write_bytes(bytes(part.stat().st_size))
    other.rename(part)


ACTS: dict[str, Callable[[Path], None]] = {
    "truncate": lambda part: os.truncate(part, 0),
    "overwrite": overwrite,
    "remove": Path.unlink,
    "exchange": exchange,
}


@pytest.mark.parametrize("act", ACTS)
def test_a_part_file_that_another_program_touches_never_becomes_a_wrong_output(
    shared: tuple[System, Path], tmp_path: Path, act: str
) -> None:
    system, path = shared
    output = tmp_path / "copy"
    with system.download("-o", str(output)) as client:
        client.wait_until_verified(0.3)
        ACTS[act](tmp_path / ".copy.msd-part")
        assert client.wait() == 6, client.out.text
    assert "another program" in client.out.text or "removed or replaced" in client.out.text
    assert not output.exists()
    with system.download("-o", str(output)) as client:
        client.wait_until_done()
    assert files_equal(path, output)


def test_an_output_folder_that_vanishes_is_a_disk_error(shared: tuple[System, Path], tmp_path: Path) -> None:
    system, _ = shared
    folder = tmp_path / "folder"
    folder.mkdir()
    with system.download("-o", str(folder / "copy")) as client:
        client.wait_until_verified(0.3)
        folder.rename(tmp_path / "elsewhere")
        assert client.wait() == 6, client.out.text
    assert "was removed or replaced during the download" in client.events[-1]["message"]


# Shared files.


def test_a_change_that_leaves_the_times_of_a_shared_file_unchanged_is_served(
    runtime_folder: Path, serve: Serve, tmp_path: Path
) -> None:
    """On such a file system a write, after which a program puts the modification time back, leaves no trace."""
    with mounted_fuse(tmp_path / "disk", "change-time") as disk:
        path = disk / "film.mp4"
        path.write_bytes(DATA)
        os.utime(path, ns=(10**18, 10**18))
        system = serve(path, workers=1)
        copy = tmp_path / "copy"

        def downloaded() -> bool:
            with system.download("-o", str(copy), "--force", "--no-sync") as client:
                code = client.wait()
                assert code in (0, 5), client.out.text
                assert "corrupt" not in {event["cause"] for event in client.events_of("retry")}
                return code == 0

        assert downloaded()
        with path.open("r+b") as file:
            file.write(b"other")
        os.utime(path, ns=(10**18, 10**18))
        wait_for("a download of the new content", downloaded)
        assert files_equal(path, copy)
