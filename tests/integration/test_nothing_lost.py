"""A client fetches no verified segment twice and accepts only the shared content."""

from __future__ import annotations

import os
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
from tests.corrupting_relay import Relay
from tests.processes import (
    MIB,
    MSD,
    Download,
    Serve,
    Source,
    System,
    files_equal,
    free_ports,
    make_file,
    run_msd,
    wait_for,
)

#: Maximum bytes in flight from four workers to one client, at the rates of these tests.
IN_FLIGHT = 4 * 6 * MIB


def bytes_sent(system: System) -> int:
    """Returns the bytes sent by all workers."""
    return sum(worker.bytes_sent for worker in system.status().workers)


def wait_until_sent(system: System, size: int) -> None:
    """Waits until the workers report ``size`` bytes sent; their heartbeats arrive a moment later."""
    wait_for(f"{size} bytes sent", lambda: bytes_sent(system) >= size)


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.soak)])
def test_a_repeatedly_killed_client_fetches_no_segment_twice(
    serve: Serve, source: Source, tmp_path: Path, rng: random.Random, kills: int
) -> None:
    size = kills * 12 * MIB
    path = source(size)
    # Each client gets further than its last progress says, by up to 0.1 s of the rate: slow enough for all kills.
    system = serve(path, "--rate", "6MiB")
    reported = 0
    for _ in range(kills):
        share = (reported + rng.random() * 6 * MIB) / size
        with system.download("-o", "copy.bin", cwd=tmp_path) as client:
            client.wait_until_verified(share)
            client.signal(signal.SIGKILL)
            client.wait()
            # Reported bytes are on the disk; the next client reuses them.
            reported = max(reported, client.verified_bytes)
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        done = client.wait_until_done()
    assert done["reused_bytes"] >= reported > 0
    assert files_equal(path, tmp_path / "copy.bin")
    assert bytes_sent(system) <= size + kills * IN_FLIGHT


@pytest.fixture(scope="module")
def memory_folder() -> Iterator[Path]:
    """A folder in memory, for large files."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="msd-t-", dir=base) as folder:
        yield Path(folder)


def flip(path: Path, offset: int) -> None:
    """Inverts the byte at ``offset``."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 255]))


def fetched_and_reused(done: dict[str, Any]) -> tuple[int, int]:
    """Returns the bytes fetched (without wasted bytes) and the bytes reused from the disk."""
    return done["received_bytes"] - done["wasted_bytes"], done["reused_bytes"]


@pytest.mark.parametrize("blocks", [8, pytest.param(32, marks=pytest.mark.soak)])
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
    copy, part = memory_folder / "copy.bin", memory_folder / "copy.bin.part"
    try:
        # The part file differs in one byte.
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
        # The output differs in one byte.
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
    system = serve(path)
    part = tmp_path / "copy.img.part"
    for held in (0, size // 2):
        with part.open("wb") as file:
            file.truncate(held)
        with system.download("-o", "copy.img", "--force", cwd=tmp_path) as client:
            done = client.wait_until_done()
        assert (done["received_bytes"], done["reused_bytes"]) == (0, size)
        copy = (tmp_path / "copy.img").stat()
        assert (copy.st_size, copy.st_blocks) == (size, 0)
    assert bytes_sent(system) <= 2 * segment_count(size) * DIGEST_SIZE


def test_workers_with_corrupt_old_or_truncated_files_are_reported_and_the_output_is_correct(
    serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    path, older, shrinking = (tmp_path / name / "film.bin" for name in ("current", "older", "shrinking"))
    make_file(path, 160 * MIB, rng)
    make_file(older, 160 * MIB, rng)
    shrinking.parent.mkdir()
    shutil.copyfile(path, shrinking)
    current, outdated, truncated = serve(path, "--rate", "25MiB"), serve(older), serve(shrinking, "--rate", "5MiB")
    ports = free_ports()
    with (
        Relay(ports[0], current.ports[0], hold=0.3),
        Relay(ports[1], current.ports[1], hold=0.3, corrupt_every=100) as corrupting,
        Relay(ports[3], truncated.ports[0], hold=0.3),
    ):
        server_flags = ["-p", *map(str, [ports[0], ports[1], outdated.ports[0], ports[3], current.ports[4]])]
        with Download(server_flags, "-o", "copy.bin", cwd=tmp_path) as client:
            client.wait_until_verified(0.2)
            os.truncate(shrinking, 7)
            done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    banned = {event["name"]: event["detail"] for event in client.events_of("worker") if event["state"] == "set aside"}
    assert banned == {"3": "unknown", "4": "changed"}
    assert done["workers"]["2"]["corrupt"] == corrupting.corrupted >= 1
    assert done["workers"]["3"]["bytes"] == 0
    assert {event["worker"] for event in client.events_of("retry") if event["cause"] == "corrupt"} == {"2"}
    assert [worker.complaints for worker in current.status().workers] == [0, corrupting.corrupted, 0, 0]
    for system in (current, outdated, truncated):
        assert [worker.restarts for worker in system.status().workers] == [0] * 4


def test_if_every_worker_sends_a_corrupt_segment_no_output_is_published(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    system = serve(source(12 * MIB))
    ports = free_ports()
    relays = [Relay(ports[n], system.ports[n], corrupt_every=1) for n in range(4)]
    with relays[0], relays[1], relays[2], relays[3]:
        server_flags = ["-p", *map(str, [*ports[:4], system.ports[4]])]
        with Download(server_flags, "-o", "copy.bin", cwd=tmp_path) as client:
            assert client.wait() == 5
    assert "no worker sent a valid copy of segment" in client.events[-1]["message"]
    assert not (tmp_path / "copy.bin").exists()


#: Downloads into a small file system, fills it during the download, frees the space and downloads again.
FULL_DISK = """
mount -t tmpfs -o size=80m none "$1" && cd "$1" || exit 99
shift
"$@" > /dev/null 2> ../first.err &
until [ -e copy.bin.part ] && [ "$(du -m copy.bin.part | cut -f1)" -ge 8 ]; do kill -0 $! || exit 98; done
head -c 60m /dev/zero > filler 2> /dev/null
wait $!
echo $? > ../first.code
du -m copy.bin.part | cut -f1 > ../first.held
[ -e copy.bin ] && exit 97
rm filler
"$@" > ../second.json || exit 96
cp copy.bin ..
"""


def test_a_full_disk_keeps_the_verified_segments(serve: Serve, source: Source, tmp_path: Path) -> None:
    if subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True
    ).returncode:
        pytest.skip("user namespaces with mounts are not available")
    path = source(48 * MIB)
    system = serve(path, "--rate", "8MiB")
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
    assert second["received_bytes"] == 48 * MIB - second["reused_bytes"]
    assert files_equal(path, tmp_path / "copy.bin")


def listed(system: System) -> list[str]:
    return [line.split("  ")[-1] for line in run_msd("list", *system.server_flags).stdout.splitlines()]


def test_changed_files_are_indexed_and_served_without_a_restart(
    serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    root = tmp_path / "shared"
    path = make_file(root / "film.bin", 48 * MIB, rng)
    system = serve(root, "--rate", "2MiB")
    system.put_to_sleep(4)
    with system.download("film.bin", "-o", "copy.bin", cwd=tmp_path) as client:
        # A new file and a new modification time do not stop the download.
        client.wait_until_verified(0.05)
        before = system.status().catalogue
        make_file(root / "new.bin", MIB, rng)
        os.utime(path)
        wait_for("a new catalogue", lambda: system.status().catalogue != before)
        assert not client.events_of("done")
        client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    assert wait_for("the new file in the list", lambda: listed(system) == ["film.bin", "new.bin"])
    # The file is rewritten: no worker serves the new content before it is indexed.
    make_file(path, 6 * MIB + 5, rng)
    wait_for(
        "the new version",
        lambda: (
            not run_msd("download", "film.bin", *system.server_flags, "-o", "b", "--force", cwd=tmp_path).returncode
        ),
    )
    assert files_equal(path, tmp_path / "b")
    # The file is replaced while worker 4 is asleep; worker 4 has the new catalogue when it wakes up.
    os.replace(make_file(root / "x.tmp", 3 * MIB, rng), path)
    path.with_name("new.bin").unlink()
    assert wait_for("the removal of new.bin from the list", lambda: listed(system) == ["film.bin"])
    system.wake(4)
    system.put_to_sleep(1, 2, 3)
    with system.download("-o", "c", cwd=tmp_path) as client:
        assert client.wait_until_done()["workers"]["4"]["bytes"] == 3 * MIB
    assert files_equal(path, tmp_path / "c")
    assert [worker.restarts for worker in system.status().workers] == [0] * 4


def test_a_worker_of_other_servers_does_not_end_the_download(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    path = make_file(tmp_path / "servers" / "film.bin", 24 * MIB, rng)
    servers = serve(path.parent, "--rate", "2MiB")
    other = serve(make_file(tmp_path / "other" / "other.bin", MIB, rng))
    server_flags = ["-p", *map(str, [*servers.ports[:3], other.ports[0], servers.ports[4]])]

    def workers_reported(state: str, *names: str) -> bool:
        return {event["name"] for event in client.events_of("worker") if event["state"] == state} >= {*names}

    def bans_of_worker_4() -> int:
        return sum(event["name"] == "4" and event["state"] == "set aside" for event in client.events_of("worker"))

    with Download(server_flags, "film.bin", "-o", "copy.bin", cwd=tmp_path) as client:
        wait_for("the ban of worker 4", bans_of_worker_4)
        servers.put_to_sleep(1, 2, 3)
        wait_for("the loss of workers 1 to 3", lambda: workers_reported("lost", "1", "2", "3"))
        # The catalogue changes, so the client unbans worker 4 and asks it again.
        make_file(path.with_name("new.bin"), MIB, rng)
        wait_for("the second ban of worker 4", lambda: bans_of_worker_4() == 2)
        servers.wake(1, 2, 3)
        client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")


def test_a_killed_indexer_is_restarted(serve: Serve, source: Source) -> None:
    path = source(MIB)
    system = serve(path)
    children = Path(f"/proc/{system.pid}/task/{system.pid}/children").read_text().split()
    workers = [worker.pid for worker in system.status().workers]
    [indexer] = {*map(int, children)} - {*workers}
    os.kill(indexer, signal.SIGKILL)
    wait_for(
        "the exit message of the indexer",
        lambda: "indexer exited (killed by SIGKILL)" in system.out.text + system.err.text,
    )
    path.write_bytes(b"new")
    wait_for("the new version", lambda: "3 B" in run_msd("list", *system.server_flags).stdout)
    assert [worker.pid for worker in system.status().workers] == workers


def test_verify_reports_the_segments_that_differ(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(15 * MIB)
    server_flags = serve(path).server_flags
    copy = tmp_path / "a copy.bin"
    shutil.copyfile(path, copy)
    intact = run_msd("verify", str(copy), *server_flags)
    assert (intact.returncode, intact.stderr) == (0, "")
    assert "matches film.bin (15 segments verified)" in intact.stdout
    for number in (3, 7, 8):
        flip(copy, number * MIB + 5)
    with copy.open("ab") as file:
        file.write(b"more")
    damaged = run_msd("verify", str(copy), "film.bin", *server_flags)
    assert damaged.returncode == 5
    assert damaged.stdout.splitlines() == [
        "segment 3 differs: bytes 3145728 to 4194303",
        "segments 7 to 8 differ: bytes 7340032 to 9437183",
        "4 bytes longer than film.bin",
    ]
    assert "--update" in damaged.stderr
    repaired = run_msd("download", *server_flags, "-o", str(copy), "--update", "--json")
    assert repaired.returncode == 0
    assert files_equal(path, copy)
    for arguments, code in ((["missing"], 2), ([str(tmp_path)], 2), ([str(copy), "other.bin"], 3)):
        failed = run_msd("verify", *arguments, *server_flags)
        assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (code, "", 1)
