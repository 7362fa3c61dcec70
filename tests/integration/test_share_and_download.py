"""The main use case with real processes: four workers share files, and a client downloads and verifies them."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from msd.client.operations.download import download
from msd.wire.protocol.codec import STATUS_TOPIC, decode, encode
from msd.wire.protocol.messages import CataloguePage, DataReply, Describe, Described, List, Refusal
from msd.wire.protocol.states import RefusalReason
from tests.processes import (
    MIB,
    MSD,
    TIMEOUT,
    Process,
    Serve,
    Source,
    files_equal,
    free_ports,
    make_file,
    run_msd,
    wait_for,
)

#: At this rate per worker, four workers take 1.5 s to send 48 MiB: long enough for all four to take part.
RATE = ("--rate", "8MiB")
SIZE = 48 * MIB


def check_result(done: dict[str, Any], source: Path, output: Path, *, in_flight: int = 0) -> None:
    """Checks the output and the byte counts, and that at most ``in_flight`` MiB were wasted."""
    assert files_equal(source, output)
    assert not output.with_name(f".{output.name}.msd-part").exists()
    size = source.stat().st_size
    assert done["bytes"] == size
    assert done["received_bytes"] - done["wasted_bytes"] + done["reused_bytes"] == size
    assert sum(worker["bytes"] for worker in done["workers"].values()) + done["reused_bytes"] == size
    assert done["wasted_bytes"] <= in_flight * MIB


SIZES = (0, 1, 11, 12, 13, 245, MIB - 1, MIB, MIB + 1, 12 * MIB - 1, 12 * MIB, 12 * MIB + 1)


def data_extents(path: Path) -> Iterator[tuple[int, int]]:
    """Yields the offset and the length of each data range (between holes) in a file."""
    with path.open("rb") as file:
        end = 0
        while end < path.stat().st_size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, end - start


def read_at(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), length, offset)


def test_a_limited_download_uses_all_workers_and_wastes_little(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(20 * MIB)
    with serve(path).download("-o", "copy.bin", "--max-rate", "10MiB/s", cwd=tmp_path) as client:
        done = client.wait_until_done()
    assert 1.8 <= done["seconds"] <= 2.8 + 1.0, "one more second, because this machine may be busy"
    # Nothing on a machine that is not busy.
    assert done["received_bytes"] - 20 * MIB == done["wasted_bytes"] <= 2 * MIB
    assert min(worker["bytes"] for worker in done["workers"].values()) >= MIB
    assert files_equal(path, tmp_path / "copy.bin")


def test_a_download_uses_all_four_workers(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(SIZE)
    with serve(path, *RATE).download("-o", "copy.bin", cwd=tmp_path) as client:
        done = client.wait_until_done()
    # On a busy machine, a worker may seem to be late.
    check_result(done, path, tmp_path / "copy.bin", in_flight=4)
    assert [done["workers"][name]["segments"] for name in "1234"] == pytest.approx([12] * 4, abs=3)


def test_files_of_all_sizes_and_names_are_downloaded_correctly(
    serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    sizes = {f"size-{size}": size for size in SIZES}
    names = {"with spaces and 'quotes'.bin": 1000, "übergröße – 漢字 🎬.mkv": 2000, "deep/er/file": 3000, "-o": 4000}
    for name, size in (sizes | names).items():
        make_file(tmp_path / "shared" / name, size, rng)
    system = serve(tmp_path / "shared", workers=1)
    for name in sizes:
        download(system.servers, name, tmp_path / name, sync=False)
        assert files_equal(tmp_path / "shared" / name, tmp_path / name), name
    for number, name in enumerate(names):
        # A new folder for each file, which receives the file under its base name.
        with system.download("-o", f"copies/ä {number}/", "--no-sync", "--", name, cwd=tmp_path) as client:
            client.wait_until_done()
        assert files_equal(tmp_path / "shared" / name, tmp_path / f"copies/ä {number}" / Path(name).name), name


def test_a_sparse_file_of_3_gib_is_downloaded_correctly(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    path = tmp_path / "shared" / "sparse.img"
    path.parent.mkdir()
    with path.open("wb") as file:
        for offset in (0, 1 << 30, (3 << 30) - 5):
            file.seek(offset)
            file.write(rng.randbytes(5))
    with serve(path).download("-o", "copy.img", cwd=tmp_path) as client:
        done = client.wait_until_done(120)
    copy = tmp_path / "copy.img"
    assert copy.stat().st_size == path.stat().st_size == done["bytes"]
    # Compare only the data of both files; reading holes would fill the page cache with zeros.
    for extent in {*data_extents(path), *data_extents(copy)}:
        assert read_at(path, *extent) == read_at(copy, *extent)
    assert done["received_bytes"] - done["wasted_bytes"] == 3 * MIB


def test_all_commands_share_a_configuration_and_the_console_reads_commands_from_a_pipe(
    runtime_folder: Path, tmp_path: Path, rng: random.Random
) -> None:
    """
    1. `msd serve`, `list`, `download` and `status` read the same config.toml.
    2. Lines on standard input toggle a worker and shut down the servers; an invalid line produces an error message.
    """
    path = make_file(tmp_path / "Star.mp4", 3 * MIB, rng)
    ports = free_ports()
    blocks = "".join(f"[[workers]]\nport = {port}\n" for port in ports[:4])
    config = tmp_path / "config.toml"
    config.write_text(f'[share]\npath = "Star.mp4"\n[broker]\nstatus_port = {ports[4]}\n{blocks}')
    with Process([*MSD, "serve", "-c", str(config)], stdin=subprocess.PIPE) as console:
        wait_for("ready", lambda: console.out.text.startswith("ready"))
        assert "Star.mp4" in run_msd("list", cwd=tmp_path).stdout
        assert run_msd("download", "-o", "copy.mp4", "--quiet", cwd=tmp_path).returncode == 0
        assert files_equal(path, tmp_path / "copy.mp4")
        console.write_stdin("2\n7\n")
        wait_for("worker 2 asleep", lambda: "worker 2 was put to sleep" in console.out.text)
        wait_for("an error message", lambda: "invalid choice '7'" in console.out.text)
        workers = json.loads(run_msd("status", "--json", cwd=tmp_path).stdout)["workers"]
        assert [worker["state"] for worker in workers] == ["awake", "asleep", "awake", "awake"]
        console.write_stdin("-1\n")
        assert console.wait() == 0
    # Not a terminal: events instead of tables, and at last what was done.
    first, *others, last = console.out.text.splitlines()
    assert first.startswith("ready: ")
    slept = "worker 2 was put to sleep by an operator at the plain console"
    assert [line for line in others if line.startswith("worker")] == [slept]
    # The clients end so soon that an event may be missing, and one that only lists files has no name.
    client = re.compile(r"client (127\.0\.0\.1 )?(dis)?connected: now serving [01]")
    assert all(client.fullmatch(line) for line in others if line.startswith("client"))
    assert "Server 2" not in console.out.text
    assert re.fullmatch(r"stopped by -1: 4 workers shared 1 file for 0:\d\d; .+ sent(, .*)?", last)


def test_a_worker_refuses_files_that_are_not_shared(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    """The test sends requests on a raw socket, because the client itself might reject such names."""
    shared = tmp_path / "shared"
    make_file(shared / "film.bin", 100, rng)
    make_file(tmp_path / "secret", 100, rng)
    (shared / "way-out").symlink_to(tmp_path / "secret")
    (shared / "way-in").symlink_to(shared / "film.bin")
    os.mkfifo(shared / "fifo")
    system = serve(shared, workers=1)
    names = ["../secret", str(tmp_path / "secret"), str(shared / "film.bin"), "way-out", "fifo", ".", "film.bin/", "no"]
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(f"tcp://127.0.0.1:{system.ports[0]}")

        def describe(name: str) -> DataReply:
            dealer.send(encode(Describe(rid=1, name=name)))
            assert dealer.poll(int(TIMEOUT * 1000))
            reply: DataReply = decode(dealer.recv(), DataReply)
            return reply

        for name in names:
            reply = describe(name)
            assert isinstance(reply, Refusal), name
            assert reply.reason is RefusalReason.UNKNOWN
        assert isinstance(describe("way-in"), Described)


def client_command(server: Process) -> str:
    """Waits until ``server`` is ready; returns the command for a client, without ``msd``."""
    wait_for("ready", lambda: server.out.text.startswith("ready"))
    return server.out.text.splitlines()[0].partition("; msd ")[2]


def test_servers_without_ports_run_beside_each_other(runtime_folder: Path, tmp_path: Path, rng: random.Random) -> None:
    with ExitStack() as stack:
        for name in ("one", "two"):
            path = make_file(tmp_path / name, 1000, rng)
            server = stack.enter_context(Process([*MSD, "serve", str(path)], cwd=tmp_path))
            command = client_command(server)
            assert run_msd(*shlex.split(command), "-o", str(tmp_path / "copy"), "--force", cwd=tmp_path).returncode == 0
            assert files_equal(path, tmp_path / "copy")
        assert "the usual ports are in use: using " in server.err.text


def test_several_paths_are_shared_together(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    film = make_file(tmp_path / ".film.bin", 1000, rng)
    photo = make_file(tmp_path / "photos" / "sub" / "a b.jpg", 2000, rng)
    make_file(tmp_path / "photos" / ".secret", 100, rng)
    make_file(tmp_path / "photos" / "x.tmp", 100, rng)
    system = serve(film, str(tmp_path / "photos"), "--exclude", "*.tmp", workers=1)
    assert "not shared: 1 hidden, 1 excluded (--hidden)" in system.err.text.splitlines()
    listed = run_msd("list", "--json", *system.server_flags)
    assert [file["name"] for file in json.loads(listed.stdout)["files"]] == [".film.bin", "photos/sub/a b.jpg"]
    for name, path in ((".film.bin", film), ("photos/sub/a b.jpg", photo)):
        copy = tmp_path / "copy"
        assert run_msd("download", name, "-o", str(copy), "--force", *system.server_flags).returncode == 0
        assert copy.read_bytes() == path.read_bytes()


def test_a_folder_and_files_are_downloaded_in_one_session(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    """One name selects nothing, and one file is in the way; everything else is in place."""
    tree = tmp_path / "shared"
    files = {"docs/a b": 10_000, "docs/ü/empty": 0, "docs/ü/small": 1, "film": 3 * MIB, "music/song": MIB + 1}
    for name, size in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(rng.randbytes(size))
    (tree / "docs" / "nothing").mkdir()
    system = serve(tree, workers=1)
    (tmp_path / "out" / "music").mkdir(parents=True)
    (tmp_path / "out" / "music" / "song").write_bytes(b"mine")
    result = run_msd("download", "docs/", "*", "music/*", "nope", "-o", "out", *system.server_flags, cwd=tmp_path)
    assert result.returncode == 2, "the code of the first failure"
    assert "out/music/song exists" in result.stderr
    assert "'nope' is not shared" in result.stderr
    assert (tmp_path / "out/docs/nothing").is_dir()
    for name in files.keys() - {"music/song"}:
        assert (tmp_path / "out" / name).read_bytes() == (tree / name).read_bytes(), name
    assert (tmp_path / "out/music/song").read_bytes() == b"mine"
    assert not [*(tmp_path / "out").rglob(".*.msd-part")]
    refused = run_msd("download", "docs/", "--sha256", "0" * 64, *system.server_flags)
    assert (refused.returncode, "--sha256 is for a single file" in refused.stderr) == (2, True)


def test_the_status_socket_sends_only_snapshots(serve: Serve, source: Source) -> None:
    """The status socket ignores data requests."""
    system = serve(source(1000), "-i", "0.2", workers=1)
    with zmq.Context() as context, context.socket(zmq.XSUB) as subscriber:
        subscriber.linger = 0
        subscriber.connect(f"tcp://127.0.0.1:{system.ports[1]}")
        subscriber.send(encode(Describe(rid=1)))
        subscriber.send(b"\x01")
        for _ in range(3):
            assert subscriber.poll(int(TIMEOUT * 1000))
            assert subscriber.recv().startswith(STATUS_TOPIC)


def test_all_of_many_small_requests_are_answered(serve: Serve, source: Source) -> None:
    system = serve(source(1000), workers=1)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(f"tcp://127.0.0.1:{system.ports[0]}")
        requests = [kind(rid=rid) for rid in range(0, 200, 2) for kind in (Describe, List)]
        for request in requests:
            dealer.send(encode(request))
        for _ in requests:
            assert dealer.poll(int(TIMEOUT * 1000))
            reply = decode(dealer.recv(), DataReply)
            assert isinstance(reply, Described | CataloguePage)
