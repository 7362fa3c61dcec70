"""Downloads to standard output and to a FIFO: in order, verified, with bounded memory, whatever the reader does."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.processes import MIB, MSD, TIMEOUT, Serve, Source, System, files_equal, make_file, wait_for


class StreamDownload:
    """``msd download -o -``; the test reads its standard output."""

    def __init__(self, system: System, *arguments: str, **options: object) -> None:
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [*MSD, "download", *system.server_flags, "-o", "-", "-i", "60", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,  # type: ignore[call-overload]
        )
        self.stdout: IO[bytes] = self._process.stdout
        self._errors: list[str] = []
        self._thread = threading.Thread(target=self._read_errors)
        self._thread.start()

    @property
    def errors(self) -> str:
        return "".join(self._errors)

    @property
    def peak_memory(self) -> int:
        """The largest resident set size of the process so far, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        code = self._process.wait(TIMEOUT)
        self._thread.join()
        return code

    def close(self) -> None:
        self.stdout.close()
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors.append(line.decode())


@contextmanager
def downloading(system: System, *arguments: str, **options: object) -> Iterator[StreamDownload]:
    download = StreamDownload(system, *arguments, **options)
    try:
        yield download
    finally:
        download.close()


def bytes_sent(system: System) -> int:
    return sum(worker.bytes_sent for worker in system.status().workers)


def test_a_reader_that_pauses_bounds_the_memory_and_is_not_a_failure_of_the_servers(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    """
    1. The reader takes 1 MiB and pauses for longer than --timeout. The client receives no more than its memory allows.
    2. Meanwhile a worker is killed: the client notices at once, because its loop does not wait for the reader.
    3. The reader goes on and receives the file.
    """
    path = source(64 * MIB)
    (tmp_path / "memory.toml").write_text('[client]\nmemory = "8MiB"\n')
    system = serve(path)
    # The wait is reported after 1 s, so it does not count towards the timeout.
    with downloading(system, "-c", str(tmp_path / "memory.toml"), "--timeout", "0.7") as client:
        received = client.stdout.read(MIB)
        wait_for("the reason of the wait", lambda: "/dev/stdout is full: its reader does not read" in client.errors)
        system.kill(2)
        wait_for("the loss of worker 2", lambda: "worker 2 lost" in client.errors)
        # The segments in memory, the one in the pipe, the one that was read, the digests, and one that was sent twice.
        assert bytes_sent(system) <= (8 + 1 + 3) * MIB
        # The client cannot end before the last 2 MiB are read: the pipe holds 1 MiB.
        received += client.stdout.read(61 * MIB)
        assert client.peak_memory <= 90 * MIB
        received += client.stdout.read()
        assert client.wait() == 0, client.errors
        assert "/dev/stdout: 64.0 MiB verified in" in client.errors
    assert received == path.read_bytes()


def test_a_reader_that_closes_ends_the_download_at_once_and_quietly(serve: Serve, source: Source) -> None:
    """The next segment arrives only after many seconds, so the client does not learn from a write."""
    path = source(24 * MIB)
    system = serve(path, "--rate", "512KiB", workers=1)
    with downloading(system, "--quiet") as client:
        assert client.stdout.read(100) == path.read_bytes()[:100]
        system.put_to_sleep(1)
        client.stdout.close()
        assert client.wait() == 141
        assert client.errors == ""


def test_an_interrupted_stream_has_only_verified_bytes_and_says_how_many(serve: Serve, source: Source) -> None:
    path = source(24 * MIB)
    with downloading(serve(path, workers=1)) as client:
        received = client.stdout.read(5 * MIB)
        wait_for("the reason of the wait", lambda: "its reader does not read" in client.errors)
        client.signal(signal.SIGINT)
        assert client.wait() == 130
        received += client.stdout.read()
        size = f"{len(received) / MIB:.1f} MiB"
        assert f"msd: interrupted: {size} of 24.0 MiB verified; all of that was written to /dev/stdout" in client.errors
    assert received == path.read_bytes()[: len(received)]


#: A shell script: unpacks an archive from standard output and from a FIFO, and writes to a full device.
UNPACK = """
set -o pipefail
mkdir piped named
"$@" -o - | tar x -C piped || exit 99
mkfifo fifo
tar xf fifo -C named &
"$@" -o fifo || exit 98
wait $! || exit 97
"$@" -o - > /dev/full
[ $? = 6 ] || exit 96
"""


def test_an_archive_is_unpacked_while_it_is_downloaded(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    files = [make_file(tmp_path / "files" / f"{number}.bin", 8 * MIB, rng) for number in range(4)]
    with tarfile.open(tmp_path / "files.tar", "w") as archive:
        for file in files:
            archive.add(file, file.name)
    system = serve(tmp_path / "files.tar", workers=1)
    command = [*MSD, "download", *system.server_flags]
    result = subprocess.run(
        ["bash", "-c", UNPACK, "bash", *command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    for file in files:
        assert files_equal(file, tmp_path / "piped" / file.name)
        assert files_equal(file, tmp_path / "named" / file.name)


@pytest.mark.soak
def test_3_gib_pass_through_a_slow_reader_in_bounded_memory(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    """The file is sparse, so it needs no space, but all of it is sent."""
    path = tmp_path / "shared" / "sparse.img"
    path.parent.mkdir()
    size = 3 << 30
    with path.open("wb") as file:
        for offset in range(0, size, 64 * MIB):
            file.seek(offset)
            file.write(rng.randbytes(MIB))
        file.truncate(size)
    expected, received = hashlib.blake2b(), hashlib.blake2b()
    with path.open("rb") as file:
        while data := file.read(4 * MIB):
            expected.update(data)
    with downloading(serve(path)) as client:
        taken = 0
        while data := os.read(client.stdout.fileno(), 1 << 16):
            received.update(data)
            taken += len(data)
            if size - 3 * MIB <= taken <= size - 2 * MIB:
                # The pipe holds 1 MiB, so the client is still running.
                peak_memory = client.peak_memory
        # 64 MiB that wait for the reader, and the program itself.
        assert peak_memory <= 150 * MIB
        assert client.wait() == 0, client.errors
    assert received.digest() == expected.digest()
