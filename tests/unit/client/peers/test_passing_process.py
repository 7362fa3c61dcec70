"""The process that passes on what a download has: a real one."""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from msd.client.peers.passing_process import MAX_WAITING_FRAMES, PassingProcess
from msd.wire.errors import MsdError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import Entry, GetBundle
from msd.wire.protocol.segments import Manifest, content_id, cut, digest
from msd.wire.protocol.states import RefusalReason, ReportedState
from tests.hostile_clients import Peer
from tests.passing import get
from tests.processes import TIMEOUT, free_ports, wait_for

CONTENT = random.Random(1).randbytes((4 << 20) + 9)
DIGESTS = b"".join(map(digest, cut(memoryview(CONTENT))))
MANIFEST = Manifest.build("film", len(CONTENT), DIGESTS)


@pytest.fixture
def port() -> int:
    return free_ports()[0]


@pytest.fixture
def process(tmp_path: Path, port: int) -> Iterator[PassingProcess]:
    path = tmp_path / ".film.msd-part"
    path.write_bytes(CONTENT)
    with (
        path.open("rb") as part,
        closing(
            PassingProcess(
                MANIFEST.id,
                Endpoint("127.0.0.1", port),
                b"",
                0,
                [Entry(name="film", size=len(CONTENT), mtime_ns=7, mode=0o644, id=MANIFEST.id)],
            )
        ) as process,
    ):
        process.receive("film", 0, DIGESTS, [part.fileno()])
        yield process


def test_it_serves_what_it_is_told_and_reports_what_it_has_sent(process: PassingProcess, port: int) -> None:
    with Peer(zmq.DEALER, port) as peer:
        assert get(peer, MANIFEST.id, 2) is RefusalReason.MISSING
        process.hold([2, 0])
        wait_for("segment 2", lambda: get(peer, MANIFEST.id, 2) == bytes(cut(memoryview(CONTENT))[2]))
        assert process.flush()

        def has_sent() -> bool:
            select.select([process], [], [], 1.0)
            process.read()
            return process.heartbeat is not None and process.heartbeat.load.bytes_sent > 0

        wait_for("a heartbeat", has_sent)
        assert process.heartbeat is not None
        assert process.heartbeat.state is ReportedState.AWAKE


def test_when_it_ends_it_says_what_it_has_sent_until_then(process: PassingProcess, port: int) -> None:
    """The heartbeats before were earlier. Those that were not read do not leave it without room for the last one."""
    process.hold(range(MANIFEST.segments))
    with Peer(zmq.DEALER, port) as peer:
        wait_for("segment 2", lambda: isinstance(get(peer, MANIFEST.id, 2), bytes))
        size = sum(len(get(peer, MANIFEST.id, index)) for index in range(MANIFEST.segments))
    process.close()
    assert process.heartbeat is not None
    assert process.heartbeat.state is ReportedState.LEAVING
    assert process.heartbeat.load.bytes_sent == size + MANIFEST.span(2)[1]


def test_it_serves_files_of_a_folder(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msd.client.peers.passing_process.LISTED_AT_ONCE", 2)
    contents = {f"ü {number}": bytes([number]) * 100 for number in range(5)}
    ids = {name: content_id(memoryview(content)) for name, content in contents.items()}
    entries = [Entry(name=name, size=100, mtime_ns=0, id=id) for name, id in ids.items()]
    folder = os.open(tmp_path, os.O_RDONLY)
    with closing(PassingProcess(b"p" * 32, Endpoint("127.0.0.1", port), b"", 0, entries, folder=folder)) as process:
        os.close(folder)
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        with Peer(zmq.DEALER, port) as peer:
            wait_for("the listing", process.flush)
            peer.socket.send(encode(GetBundle(rid=1, ids=b"".join(ids.values()))))
            _, payload = peer.socket.recv_multipart()
            assert payload == b"".join(contents.values())


def test_a_process_that_has_ended_is_reported(process: PassingProcess) -> None:
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + TIMEOUT
    with pytest.raises(MsdError, match="the process that passes on has ended: code -9"):  # noqa: PT012
        while time.monotonic() < deadline:
            select.select([process], [], [], 1.0)
            process.read()
    process.hold(range(20_000))


def test_a_process_that_hangs_is_killed(process: PassingProcess) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    process.hold(range(200_000))
    assert not process.flush(), "what a stopped process does not take waits"
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(MAX_WAITING_FRAMES + 9):
        process.receive("film", 0, b"", [0, 0])
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * MAX_WAITING_FRAMES
    process.close()
    assert not Path(f"/proc/{process.pid}").exists()


def test_without_free_descriptors_a_file_is_announced_without_them(
    process: PassingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "dup", fail)
    process.receive("other", 5, DIGESTS, [0, 0])
    process.hold([0])
    wait_for("all to be written", process.flush)
