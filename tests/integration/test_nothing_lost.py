"""Nothing verified is fetched again, and nothing is believed that was not shared."""

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
from tests.relay import Relay
from tests.system import (
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

#: The most that a client of four workers asks for at once, at the rates of these tests: bytes.
IN_FLIGHT = 4 * 6 * MIB


def sent(system: System) -> int:
    """Bytes that all workers have sent."""
    return sum(worker.bytes_sent for worker in system.status().workers)


def all_sent(system: System, size: int) -> bool:
    """True once the workers say that they have sent so much: heartbeats come a moment later."""
    return bool(wait_for(f"{size} bytes sent", lambda: sent(system) >= size))


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.soak)])
def test_a_client_killed_again_and_again_never_fetches_twice(
    serve: Serve, source: Source, tmp_path: Path, rng: random.Random, kills: int
) -> None:
    size = kills * 12 * MIB
    path = source(size)
    system = serve(path, "--rate", "12MiB")
    told = 0
    for _ in range(kills):
        share = (told + rng.random() * 6 * MIB) / size
        with system.download("-o", "copy.bin", cwd=tmp_path, interval=0.01) as client:
            client.wait_until_verified(share)
            client.signal(signal.SIGKILL)
            client.wait()
            # What it had told of is on the disk, and is found there by the next one.
            told = max(told, client.verified_bytes)
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        done = client.wait_until_done()
    assert done["reused_bytes"] >= told > 0
    assert files_equal(path, tmp_path / "copy.bin")
    assert sent(system) <= size + kills * IN_FLIGHT


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory, for large files."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="msd-t-", dir=base) as folder:
        yield Path(folder)


def flip(path: Path, offset: int) -> None:
    """Changes one byte."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 255]))


def fetched(done: dict[str, Any]) -> tuple[int, int]:
    """How much came over the network and was of use, and how much was found on the disk: bytes."""
    return done["received_bytes"] - done["wasted_bytes"], done["reused_bytes"]


@pytest.mark.parametrize("blocks", [8, pytest.param(32, marks=pytest.mark.soak)])
def test_of_2_gib_only_what_is_missing_crosses_the_wire(
    serve: Serve, memory: Path, rng: random.Random, blocks: int
) -> None:
    size = blocks * 64 * MIB
    path = memory / "film.bin"
    block = rng.randbytes(64 * MIB)
    with path.open("wb") as file:
        for number in range(blocks):
            file.write(block[number:] + block[:number])
    system = serve(path)
    copy, part = memory / "copy.bin", memory / "copy.bin.part"
    try:
        # All but one byte is there.
        shutil.copyfile(path, part)
        flip(part, rng.randrange(size))
        with system.download("-o", "copy.bin", "--no-sync", cwd=memory) as client:
            done = client.wait_until_done(60)
        assert (fetched(done), done["unchanged"]) == ((MIB, size - MIB), False)
        assert files_equal(path, copy)
        # All of it is there.
        copy.rename(part)
        with system.download("-o", "copy.bin", "--no-sync", cwd=memory) as client:
            done = client.wait_until_done(60)
        assert fetched(done) == (0, size)
        # One byte of the output has changed since.
        inode = copy.stat().st_ino
        flip(copy, rng.randrange(size))
        with system.download("-o", "copy.bin", "--no-sync", "--update", cwd=memory) as client:
            done = client.wait_until_done(60)
        assert fetched(done) == (MIB, size - MIB)
        assert files_equal(path, copy)
        assert copy.stat().st_ino != inode
        # None has: it is left alone.
        before = copy.stat()
        with system.download("-o", "copy.bin", "--no-sync", "--update", cwd=memory) as client:
            done = client.wait_until_done(60)
        assert (done["reused_bytes"], done["unchanged"]) == (size, True)
        assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        digests = 4 * segment_count(size) * DIGEST_SIZE
        assert all_sent(system, 2 * MIB + digests)
        # Where this machine is busy, a segment or a page of digests may be asked of another worker, too.
        assert sent(system) <= 4 * (2 * MIB + digests)
        assert not part.exists()
    finally:
        copy.unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def test_3_gib_of_zeros_cost_nothing_ever(serve: Serve, tmp_path: Path) -> None:
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
    assert sent(system) <= 2 * segment_count(size) * DIGEST_SIZE


def test_a_liar_an_older_version_and_a_truncated_file_are_named_and_the_file_is_right(
    serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    path, older, shrinking = (tmp_path / name / "film.bin" for name in ("right", "older", "shrinking"))
    make_file(path, 160 * MIB, rng)
    make_file(older, 160 * MIB, rng)
    shrinking.parent.mkdir()
    shutil.copyfile(path, shrinking)
    right, old, shrunk = serve(path, "--rate", "25MiB"), serve(older), serve(shrinking, "--rate", "5MiB")
    ports = free_ports()
    with (
        Relay(ports[0], right.ports[0], hold=0.3),
        Relay(ports[1], right.ports[1], hold=0.3, lie_each=100) as liar,
        Relay(ports[3], shrunk.ports[0], hold=0.3),
    ):
        where = ["-p", *map(str, [ports[0], ports[1], old.ports[0], ports[3], right.ports[4]])]
        with Download(where, "-o", "copy.bin", cwd=tmp_path) as client:
            client.wait_until_verified(0.2)
            os.truncate(shrinking, 7)
            done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    aside = {event["name"]: event["detail"] for event in client.events_of("worker") if event["state"] == "set aside"}
    assert aside == {"3": "unknown", "4": "changed"}
    assert done["workers"]["2"]["corrupt"] == liar.lies >= 1
    assert done["workers"]["3"]["bytes"] == 0
    assert {event["worker"] for event in client.events_of("retry") if event["cause"] == "corrupt"} == {"2"}
    assert [worker.complaints for worker in right.status().workers] == [0, liar.lies, 0, 0]
    for system in (right, old, shrunk):
        assert [worker.restarts for worker in system.status().workers] == [0] * 4


def test_if_every_worker_lies_about_a_segment_nothing_gets_the_name(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    system = serve(source(12 * MIB))
    ports = free_ports()
    relays = [Relay(ports[n], system.ports[n], lie_each=1) for n in range(4)]
    with relays[0], relays[1], relays[2], relays[3]:
        where = ["-p", *map(str, [*ports[:4], system.ports[4]])]
        with Download(where, "-o", "copy.bin", cwd=tmp_path) as client:
            assert client.wait() == 5
    assert "sends segment" in client.events[-1]["message"]
    assert not (tmp_path / "copy.bin").exists()


#: A download into a file system of its own, which somebody else fills up on the way.
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


def test_a_disk_that_fills_up_keeps_what_it_has(serve: Serve, source: Source, tmp_path: Path) -> None:
    if subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True
    ).returncode:
        pytest.skip("no mounts of one's own here")
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
    assert "make room, then run it again" in error
    assert error.count("\n") == 1
    held = int((tmp_path / "first.held").read_text())
    assert held >= 8
    second = Download.parse((tmp_path / "second.json").read_text())[-1]
    assert held * MIB - MIB <= second["reused_bytes"] <= held * MIB
    assert second["received_bytes"] == 48 * MIB - second["reused_bytes"]
    assert files_equal(path, tmp_path / "copy.bin")


def listed(system: System) -> list[str]:
    return [line.split("  ")[-1] for line in run_msd("list", *system.server_flags).stdout.splitlines()]


def test_what_changes_is_indexed_and_served_without_a_restart(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    root = tmp_path / "shared"
    path = make_file(root / "film.bin", 48 * MIB, rng)
    system = serve(root, "--rate", "2MiB")
    system.put_to_sleep(4)
    with system.download("film.bin", "-o", "copy.bin", cwd=tmp_path) as client:
        # A new file, and new times of the old one, are no reason to stop.
        client.wait_until_verified(0.05)
        before = system.status().catalogue
        make_file(root / "new.bin", MIB, rng)
        os.utime(path)
        wait_for("another catalogue", lambda: system.status().catalogue != before)
        assert not client.events_of("done")
        client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    assert wait_for("a new file", lambda: listed(system) == ["film.bin", "new.bin"])
    # Rewritten: no worker serves a byte of it before the new version is indexed.
    make_file(path, 6 * MIB + 5, rng)
    wait_for(
        "a new version",
        lambda: (
            not run_msd("download", "film.bin", *system.server_flags, "-o", "b", "--force", cwd=tmp_path).returncode
        ),
    )
    assert files_equal(path, tmp_path / "b")
    # Replaced, while one worker is asleep; that one knows it, too, when it wakes up.
    os.replace(make_file(root / "x.tmp", 3 * MIB, rng), path)
    path.with_name("new.bin").unlink()
    assert wait_for("a removed file", lambda: listed(system) == ["film.bin"])
    system.wake(4)
    system.put_to_sleep(1, 2, 3)
    with system.download("-o", "c", cwd=tmp_path) as client:
        assert client.wait_until_done()["workers"]["4"]["bytes"] == 3 * MIB
    assert files_equal(path, tmp_path / "c")
    assert [worker.restarts for worker in system.status().workers] == [0] * 4


def test_a_worker_of_other_servers_does_not_end_what_the_right_ones_will_go_on_with(
    serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    path = make_file(tmp_path / "right" / "film.bin", 24 * MIB, rng)
    right = serve(path.parent, "--rate", "2MiB")
    other = serve(make_file(tmp_path / "other" / "other.bin", MIB, rng))
    where = ["-p", *map(str, [*right.ports[:3], other.ports[0], right.ports[4]])]

    def told(state: str, *names: str) -> bool:
        return {event["name"] for event in client.events_of("worker") if event["state"] == state} >= {*names}

    def is_set_aside() -> int:
        return sum(event["name"] == "4" and event["state"] == "set aside" for event in client.events_of("worker"))

    with Download(where, "film.bin", "-o", "copy.bin", cwd=tmp_path) as client:
        wait_for("worker 4 set aside", is_set_aside)
        right.put_to_sleep(1, 2, 3)
        wait_for("nobody", lambda: told("lost", "1", "2", "3"))
        # The catalogue changes, and worker 4 is asked once more.
        make_file(path.with_name("new.bin"), MIB, rng)
        wait_for("another chance", lambda: is_set_aside() == 2)
        right.wake(1, 2, 3)
        client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")


def test_an_indexer_that_is_killed_is_started_again(serve: Serve, source: Source) -> None:
    path = source(MIB)
    system = serve(path)
    children = Path(f"/proc/{system.pid}/task/{system.pid}/children").read_text().split()
    workers = [worker.pid for worker in system.status().workers]
    [indexer] = {*map(int, children)} - {*workers}
    os.kill(indexer, signal.SIGKILL)
    wait_for("word of it", lambda: "the indexer has ended (killed by SIGKILL)" in system.out.text + system.err.text)
    path.write_bytes(b"new")
    wait_for("the new version", lambda: "3 B" in run_msd("list", *system.server_flags).stdout)
    assert [worker.pid for worker in system.status().workers] == workers


def test_verify_names_what_differs(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(15 * MIB)
    where = serve(path).server_flags
    copy = tmp_path / "a copy.bin"
    shutil.copyfile(path, copy)
    right = run_msd("verify", str(copy), *where)
    assert (right.returncode, right.stderr) == (0, "")
    assert "all 15 segments" in right.stdout
    for number in (3, 7, 8):
        flip(copy, number * MIB + 5)
    with copy.open("ab") as file:
        file.write(b"more")
    wrong = run_msd("verify", str(copy), "film.bin", *where)
    assert wrong.returncode == 5
    assert wrong.stdout.splitlines() == [
        "segment 3 differs: bytes 3145728 to 4194303",
        "segments 7 to 8 differ: bytes 7340032 to 9437183",
        "4 bytes more than film.bin has",
    ]
    assert "--update" in wrong.stderr
    mended = run_msd("download", *where, "-o", str(copy), "--update", "--json")
    assert mended.returncode == 0
    assert files_equal(path, copy)
    for arguments, code in ((["missing"], 2), ([str(tmp_path)], 2), ([str(copy), "other.bin"], 3)):
        failed = run_msd("verify", *arguments, *where)
        assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (code, "", 1)
