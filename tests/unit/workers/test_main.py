"""``python -m workers`` as the broker starts it: the surroundings it has to do without, and its memory."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq

from msd.wire.protocol.child_messages import WorkerSettings
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import ControlRequest, DataReply, Describe, Described, Get, Heartbeat, List, Refusal
from msd.wire.protocol.states import RefusalReason, WantedState, WorkerState
from msd.workers.__main__ import cache_folder
from msd.workers.serving.fair_queue import MAX_QUEUED
from msd.workers.serving.worker import STALE
from tests.system import free_ports

MIB = 1 << 20
PATIENCE_MS = 30_000

#: ``python -m workers`` for a uid that has neither HOME nor an entry in passwd.
HOMELESS = """
import os, pwd, sys
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
from msd.workers.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_digests_are_kept_in_the_user_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder(tmp_path) == Path("/elsewhere/msd/digests")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder(tmp_path) == Path("/home/someone/.cache/msd/digests")


def test_a_user_without_a_home_shares_files_like_any_other(tmp_path: Path) -> None:
    root, folder = tmp_path / "numbers", tmp_path / "catalogue"
    folder.mkdir()
    root.write_bytes(bytes(range(245)))
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", HOMELESS, "index", str(root), str(folder)]
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "1" / "files.jsonl").exists()


@contextmanager
def serving(root: Path, folder: Path, port: int, rate: int, edition: int = 1) -> Iterator[int]:
    """A worker that shares ``root`` on ``port``, and has no broker to report to; its process id."""
    command = [sys.executable, "-m", "msd.workers", "index", str(root), str(folder)]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    settings = encode(
        WorkerSettings(
            number=1,
            parent=os.getpid(),
            bind=f"tcp://127.0.0.1:{port}",
            control=f"ipc://{folder}/nobody",
            token=b"",
            catalogue=str(folder),
            edition=edition,
            rate=rate,
            wanted=WantedState.AWAKE,
        )
    )
    with subprocess.Popen([sys.executable, "-m", "msd.workers", "serve"], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        os.write(process.stdin.fileno(), struct.pack("!I", len(settings)) + settings)
        yield process.pid
        process.stdin.close()
        assert process.wait(PATIENCE_MS / 1000) == 0


def test_requests_that_wait_take_little_memory(tmp_path: Path, runtime_folder: Path) -> None:
    """
    1. A worker may send one byte a second, so that what it is asked for waits.
    2. Forty connections ask for as many pages as are kept, from the longest name there may be: 16 KiB of text.
    3. Each gets an answer to a small request after that: all of its others have been read.
    """
    root = tmp_path / "numbers"
    root.write_bytes(bytes(range(245)))
    port, *_ = free_ports()
    with serving(root, runtime_folder, port, rate=1) as worker, ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        page = encode(List(rid=1, after="x" * 4095 + "\N{GRINNING FACE}"))
        dealers = [stack.enter_context(context.socket(zmq.DEALER)) for _ in range(40)]
        for dealer in dealers:
            dealer.linger = 0
            dealer.connect(f"tcp://127.0.0.1:{port}")
            for _ in range(MAX_QUEUED):
                dealer.send(page)
            dealer.send(encode(Describe(rid=2)))
        for dealer in dealers:
            while dealer.poll(PATIENCE_MS):
                if isinstance(decode(dealer.recv(), DataReply), Described):
                    break
            else:
                pytest.fail("no answer")
        status = Path(f"/proc/{worker}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) << 10
    assert peak < 80 * MIB, peak


def heard(control: zmq.Socket[bytes], when: Callable[[Heartbeat], bool]) -> Heartbeat:
    """The next heartbeat of which this is true."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while control.poll(max(0, int(1000 * (deadline - time.monotonic())))):
        beat = decode(control.recv_multipart()[1], ControlRequest)
        if isinstance(beat, Heartbeat) and when(beat):
            return beat
    pytest.fail("no such heartbeat")


def test_a_worker_whose_edition_is_gone_serves_the_newest_and_calls_it_stale_for_some_seconds(
    tmp_path: Path, runtime_folder: Path
) -> None:
    root = tmp_path / "numbers"
    root.write_bytes(bytes(range(245)))
    port, *_ = free_ports()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as control, context.socket(zmq.DEALER) as client:
        control.linger = client.linger = 0
        control.bind(f"ipc://{runtime_folder}/nobody")
        with serving(root, runtime_folder, port, rate=0, edition=99):
            assert heard(control, lambda beat: beat.state is WorkerState.AWAKE).edition == 1
            root.write_bytes(bytes(245))
            client.connect(f"tcp://127.0.0.1:{port}")
            client.send(encode(Describe(rid=1)))
            assert client.poll(PATIENCE_MS)
            described = decode(client.recv(), DataReply)
            assert isinstance(described, Described)
            client.send(encode(Get(rid=2, id=described.id, index=0)))
            assert client.poll(PATIENCE_MS)
            refused = decode(client.recv(), DataReply)
            assert isinstance(refused, Refusal)
            assert refused.reason is RefusalReason.CHANGED
            heard(control, lambda beat: beat.load.stale)
            since = time.monotonic()
            heard(control, lambda beat: not beat.load.stale)
            assert time.monotonic() - since > STALE / 2
