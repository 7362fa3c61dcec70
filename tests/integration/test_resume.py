"""Downloads that are interrupted and resumed: no verified segment is fetched twice."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msd.wire.protocol.segments import DIGEST_SIZE, segment_count
from tests.processes import (
    MIB,
    MSD,
    Download,
    Serve,
    Source,
    System,
    files_equal,
    wait_for,
)

#: Maximum number of bytes in flight from four workers to one client at the rates used in these tests.
IN_FLIGHT = 4 * 6 * MIB


def bytes_sent(system: System) -> int:
    """Returns the total number of bytes sent by all workers."""
    return sum(worker.bytes_sent for worker in system.status().workers)


def wait_until_sent(system: System, size: int) -> None:
    """Waits until the workers have reported ``size`` bytes sent: their heartbeats lag behind the transfer."""
    wait_for(f"{size} bytes sent", lambda: bytes_sent(system) >= size)


@pytest.fixture(scope="module")
def memory_folder() -> Iterator[Path]:
    """A folder for large files; it is in memory if the system has /dev/shm."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="msd-t-", dir=base) as folder:
        yield Path(folder)


def flip(path: Path, offset: int) -> None:
    """Inverts all bits of the byte at ``offset``."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 255]))


def fetched_and_reused(done: dict[str, Any]) -> tuple[int, int]:
    """Returns the number of bytes fetched (excluding wasted bytes) and the number reused from the disk."""
    return done["received_bytes"] - done["wasted_bytes"], done["reused_bytes"]


#: A shell script: downloads into a small file system, fills the disk meanwhile, frees the space and downloads again.
FULL_DISK = """
mount -t tmpfs -o size=80m none "$1" && cd "$1" || exit 99
shift
"$@" > /dev/null 2> ../first.err &
until [ -e .copy.bin.msd-part ] && [ "$(du -m .copy.bin.msd-part | cut -f1)" -ge 8 ]; do kill -0 $! || exit 98; done
head -c 60m /dev/zero > filler 2> /dev/null
wait $!
echo $? > ../first.code
du -m .copy.bin.msd-part | cut -f1 > ../first.held
[ -e copy.bin ] && exit 97
rm filler
"$@" > ../second.json || exit 96
cp copy.bin ..
"""


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.soak)])
def test_a_repeatedly_killed_client_fetches_no_segment_twice(
    serve: Serve, source: Source, tmp_path: Path, rng: random.Random, kills: int
) -> None:
    size = kills * 12 * MIB
    path = source(size)
    # A killed client may have downloaded for up to 0.1 s after its last progress event. The rate is low enough that
    # data is left for every client.
    system = serve(path, "--rate", "6MiB")
    reported = 0
    for _ in range(kills):
        share = (reported + rng.random() * 6 * MIB) / size
        with system.download("-o", "copy.bin", cwd=tmp_path) as client:
            client.wait_until_verified(share)
            client.signal(signal.SIGKILL)
            client.wait()
            # Reported bytes are on the disk, so the next client reuses them.
            reported = max(reported, client.verified_bytes)
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        done = client.wait_until_done()
    assert done["reused_bytes"] >= reported > 0
    assert files_equal(path, tmp_path / "copy.bin")
    assert bytes_sent(system) <= size + kills * IN_FLIGHT


@pytest.mark.parametrize("blocks", [2, pytest.param(32, marks=pytest.mark.soak)])
def test_only_missing_segments_of_a_2_gib_file_are_fetched(
    serve: Serve, memory_folder: Path, rng: random.Random, blocks: int
) -> None:
    size = blocks * 64 * MIB
    path = memory_folder / "film.bin"
    block = rng.randbytes(64 * MIB)
    with path.open("wb") as file:
        for number in range(blocks):
            file.write(block[number:] + block[:number])
    system = serve(path)
    copy, part = memory_folder / "copy.bin", memory_folder / ".copy.bin.msd-part"
    try:
        # The part file differs from the shared file in one byte.
        shutil.copyfile(path, part)
        flip(part, rng.randrange(size))
        with system.download("-o", "copy.bin", "--no-sync", cwd=memory_folder) as client:
            done = client.wait_until_done(60)
        assert (fetched_and_reused(done), done["unchanged"]) == ((MIB, size - MIB), False)
        assert files_equal(path, copy)
        # The part file is complete.
        copy.rename(part)
        with system.download("-o", "copy.bin", "--no-sync", cwd=memory_folder) as client:
            done = client.wait_until_done(60)
        assert fetched_and_reused(done) == (0, size)
        # The output differs from the shared file in one byte.
        inode = copy.stat().st_ino
        flip(copy, rng.randrange(size))
        with system.download("-o", "copy.bin", "--no-sync", "--update", cwd=memory_folder) as client:
            done = client.wait_until_done(60)
        assert fetched_and_reused(done) == (MIB, size - MIB)
        assert files_equal(path, copy)
        assert copy.stat().st_ino != inode
        # The output is up to date, so it is not modified.
        before = copy.stat()
        with system.download("-o", "copy.bin", "--no-sync", "--update", cwd=memory_folder) as client:
            done = client.wait_until_done(60)
        assert (done["reused_bytes"], done["unchanged"]) == (size, True)
        assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        digests = 4 * segment_count(size) * DIGEST_SIZE
        wait_until_sent(system, 2 * MIB + digests)
        # On a busy machine the client may also request a segment or a page of digests from a second worker.
        assert bytes_sent(system) <= 4 * (2 * MIB + digests)
        assert not part.exists()
    finally:
        copy.unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def test_3_gib_of_zeros_need_neither_transfer_nor_disk_space(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "shared" / "zeros.img"
    path.parent.mkdir()
    size = 3 << 30
    with path.open("wb") as file:
        file.truncate(size)
    system = serve(path, workers=1)
    part = tmp_path / ".copy.img.msd-part"
    for held in (0, size // 2):
        with part.open("wb") as file:
            file.truncate(held)
        with system.download("-o", "copy.img", "--force", cwd=tmp_path) as client:
            done = client.wait_until_done()
        assert (done["received_bytes"], done["reused_bytes"]) == (0, size)
        assert done["zero_bytes"] == client.events_of("progress")[-1]["zero_bytes"] == size
        copy = (tmp_path / "copy.img").stat()
        assert (copy.st_size, copy.st_blocks) == (size, 0)
    assert bytes_sent(system) <= 2 * segment_count(size) * DIGEST_SIZE


def test_a_full_disk_keeps_the_verified_segments(serve: Serve, source: Source, tmp_path: Path) -> None:
    if subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True
    ).returncode:
        pytest.skip("user namespaces with mounts are not available")
    path = source(48 * MIB)
    system = serve(path, "--rate", "32MiB", workers=1)
    small = tmp_path / "small"
    small.mkdir()
    command = [*MSD, "download", *system.server_flags, "--json", "-o", "copy.bin"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL_DISK, "sh", str(small), *command],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.returncode, done.stderr, (tmp_path / "first.err").read_text())
    assert (tmp_path / "first.code").read_text() == "6\n"
    error = (tmp_path / "first.err").read_text()
    assert "free some space, then run the same command again" in error
    assert error.count("\n") == 1
    held = int((tmp_path / "first.held").read_text())
    assert held >= 8
    second = Download.parse((tmp_path / "second.json").read_text())[-1]
    assert held * MIB - MIB <= second["reused_bytes"] <= held * MIB
    assert sum(fetched_and_reused(second)) == 48 * MIB
    assert files_equal(path, tmp_path / "copy.bin")
