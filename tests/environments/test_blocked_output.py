"""Output into a pipe that is not read: it never stops the work."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import MIB, MSD, TIMEOUT, Serve, Source, System, files_equal, wait_for


class FullPipe:
    """A pipe that takes no more data until ``read_to_end`` is called."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        os.write(self.writer, b"\n" * 4096)

    def read_to_end(self) -> str:
        """Reads until all processes have closed the pipe."""
        os.close(self.writer)
        with open(self._reader, encoding="utf-8", closefd=False) as file:
            text = file.read()
        self.writer = os.open(os.devnull, os.O_WRONLY)
        return text.lstrip("\n")

    def close(self) -> None:
        os.close(self._reader)
        os.close(self.writer)


@pytest.fixture
def full_pipe() -> Iterator[FullPipe]:
    pipe = FullPipe()
    yield pipe
    pipe.close()


def start(system: System, output: Path, *flags: str, **streams: Any) -> subprocess.Popen[bytes]:
    words = [*MSD, "download", *system.server_flags, "-o", str(output), "-i", "0.01", *flags]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, **streams)


def test_metric_lines_that_are_not_read_do_not_stop_a_download(
    serve: Serve, source: Source, tmp_path: Path, full_pipe: FullPipe
) -> None:
    path = source(4 * MIB)
    system = serve(path, "--rate", "2MiB", workers=1)
    with start(system, tmp_path / "copy", stderr=full_pipe.writer, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert b"4.0 MiB verified" in client.stdout.read()
        assert client.wait(TIMEOUT) == 0
    assert files_equal(path, tmp_path / "copy")


def test_json_that_is_read_at_the_end_only_does_not_stop_a_download_and_has_the_result(
    serve: Serve, source: Source, tmp_path: Path, full_pipe: FullPipe
) -> None:
    path, copy = source(4 * MIB), tmp_path / "copy"
    system = serve(path, "--rate", "2MiB", workers=1)
    with start(system, copy, "--json", "--verbose", stdout=full_pipe.writer, stderr=full_pipe.writer) as client:
        wait_for("the file", copy.exists)
        assert client.poll() is None
        lines = full_pipe.read_to_end().splitlines()
        assert client.wait(TIMEOUT) == 0
    assert json.loads(lines[-1])["event"] == "done"
    assert files_equal(path, copy)


def test_ctrl_c_ends_a_download_whose_output_is_not_read(
    serve: Serve, source: Source, tmp_path: Path, full_pipe: FullPipe
) -> None:
    system = serve(source(8 * MIB), "--rate", "2m", workers=1)
    part = tmp_path / ".copy.msd-part"
    with start(system, tmp_path / "copy", "--json", stdout=full_pipe.writer, stderr=full_pipe.writer) as client:
        wait_for("data", lambda: part.exists() and part.stat().st_blocks)
        client.send_signal(signal.SIGINT)
        assert client.wait(TIMEOUT) == 130


def test_a_full_disk_at_the_output_is_an_error_at_the_end(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(MIB)
    with open("/dev/full", "wb") as full:
        client = start(
            serve(path, workers=1), tmp_path / "copy", "--json", stdout=full.fileno(), stderr=subprocess.PIPE
        )
        with client:
            _, error = client.communicate(timeout=TIMEOUT)
    assert (client.returncode, error) == (
        6,
        b"msd: cannot write the output: No space left on device: free some space\n",
    )
    assert files_equal(path, tmp_path / "copy")
