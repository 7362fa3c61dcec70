"""What a segment costs, counted without a clock: copies, system calls, steps of Python.

A worker and a download run in this process, through their public ends; what they do with the bytes is seen at
the functions of the system, of ZeroMQ and of BLAKE3. So a copy that sneaks in between fails here, wherever it does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import zmq
from blake3 import blake3

from msd.client.operations.download import download
from msd.wire.config.settings import Servers
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.child_messages import WorkerSettings
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import DataReply, Get, List
from msd.wire.protocol.segments import segment_count
from msd.wire.protocol.states import WantedState
from msd.workers.serving.fair_queue import REPLIES_INSIDE
from msd.workers.serving.worker import Worker
from tests.system import TIMEOUT, Source, files_equal, free_ports

SIZE = 48 << 20
SEGMENTS = segment_count(SIZE)
#: What is larger than this is a segment's payload; ZeroMQ copies what is smaller than this anyhow.
LARGE = 1 << 16
#: System calls a segment: a worker looks at the file before and after it has read.
READS, LOOKS, WRITES = 1, 2, 1
#: Calls of functions a segment, at either end and with all that is done once a download. Seen were 190 to 260,
#: the more the busier the machine is, for then the loops turn more often.
STEPS = 350

Profile = Callable[[FrameType, str, Any], None]


@contextmanager
def working(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, profile: Profile | None = None
) -> Iterator[Servers]:
    """A worker in a thread of this process that shares ``root``; it has no broker to report to."""

    def work() -> None:
        sys.setprofile(profile)
        Worker(settings).run()

    command = [sys.executable, "-P", "-m", "msd.workers", "index", str(root), str(folder)]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    port, status_port, *_ = free_ports()
    settings = WorkerSettings(
        number=1,
        parent=os.getpid(),
        bind=f"tcp://127.0.0.1:{port}",
        control=f"ipc://{folder}/nobody",
        token=b"",
        catalogue=str(folder),
        edition=1,
        rate=0,
        wanted=WantedState.AWAKE,
    )
    # Signals are the main thread's; the end of its standard input ends a worker as well.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(signal, "set_wakeup_fd", lambda *_, **__: None)
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        thread = threading.Thread(target=work, name="worker")
        thread.start()
        try:
            yield Servers(Endpoint("127.0.0.1", status_port), {1: Endpoint("127.0.0.1", port)}, pinned=True)
        finally:
            os.close(write_end)
            thread.join(TIMEOUT)


class Witness:
    """Sees what passes the system, ZeroMQ and BLAKE3: how often each was called, and where large payloads lay.

    What was read and what was received is kept, so that nothing else can ever lie there.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        self.at: dict[str, list[int]] = {}
        self._kept: list[Any] = []
        for name in ("read", "pread", "readv", "preadv", "write", "pwrite", "writev", "pwritev", "fstat", "sendfile"):
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))
        monkeypatch.setattr(zmq.Socket, "send", self._sending(zmq.Socket.send))
        monkeypatch.setattr(zmq.Socket, "recv", self._receiving(zmq.Socket.recv))
        monkeypatch.setattr("msd.wire.protocol.segments.blake3", self._hashing(blake3))

    def note(self, deed: str, payload: Any) -> None:
        if memoryview(payload).nbytes > LARGE:
            if deed in ("read", "received"):
                self._kept.append(payload)
            self.at.setdefault(deed, []).append(address(payload))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: int, what: Any = None, *others: Any) -> Any:
            result = function(fd, what, *others) if what is not None else function(fd)
            self.calls[name] += 1
            if isinstance(result, bytes):
                self.note("read", result)
            elif name.endswith("readv"):
                for buffer in what:
                    self.note("read", buffer)
            elif "write" in name:
                for buffer in what if name.endswith("v") else [what]:
                    self.note("written", buffer)
            return result

        return call

    def _sending(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def call(socket: Any, data: Any, flags: int = 0, copy: bool = True, **options: Any) -> Any:
            # ZeroMQ takes a frame as it is; it lies elsewhere than what it was made of if that was copied.
            view = data.buffer if isinstance(data, zmq.Frame) else data
            if isinstance(data, zmq.Frame) or not copy:
                self.note("sent", view)
            elif memoryview(view).nbytes > LARGE:
                self.calls["copied to be sent"] += 1
            return send(socket, data, flags, copy, **options)

        return call

    def _receiving(self, recv: Callable[..., Any]) -> Callable[..., Any]:
        def call(socket: Any, *arguments: Any, **options: Any) -> Any:
            frame = recv(socket, *arguments, **options)
            if isinstance(frame, zmq.Frame):
                self.note("received", frame.buffer)
            elif len(frame) > LARGE:
                self.calls["copied when received"] += 1
            return frame

        return call

    def _hashing(self, blake3: Callable[..., Any]) -> Callable[..., Any]:
        def call(data: Any, *arguments: Any, **options: Any) -> Any:
            self.note("hashed", data)
            return blake3(data, *arguments, **options)

        return call


def address(data: Any) -> int:
    """Where the bytes lie."""
    view = memoryview(data)
    if not view.readonly:
        return ctypes.addressof(ctypes.c_char.from_buffer(view))
    assert isinstance(view.obj, bytes), "read-only memory of another kind"
    return ctypes.cast(ctypes.c_char_p(view.obj), ctypes.c_void_p).value or 0


def test_what_has_left_wakes_the_worker_for_what_waits(
    source: Source, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else wakes it here: it has no heartbeat, and does not look by itself."""
    monkeypatch.setattr("msd.workers.serving.worker.IDLE_LOOK", 3600.0)
    monkeypatch.setattr(Worker, "_report", lambda worker, now: setattr(worker, "_next_heartbeat", now + 3600))
    with (
        working(source(SIZE), runtime_folder, monkeypatch) as servers,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as dealer,
    ):
        dealer.linger = 0
        dealer.rcvtimeo = int(TIMEOUT * 1000)
        dealer.connect(servers.workers[1].url)
        dealer.send(encode(List(rid=1)))
        (file,) = decode(dealer.recv(), DataReply).entries
        for index in range(4 * REPLIES_INSIDE):
            dealer.send(encode(Get(rid=index, id=file.id, index=index)))
        replies = [decode(dealer.recv_multipart()[0], DataReply) for _ in range(4 * REPLIES_INSIDE)]
    assert [reply.index for reply in replies] == [*range(4 * REPLIES_INSIDE)]


def test_a_segment_stays_where_it_lies(
    source: Source, tmp_path: Path, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    1. What a worker has read of its file is what ZeroMQ sends.
    2. What ZeroMQ has received is what is hashed, and what is written.
    3. Each is done once a segment.
    """
    root, copy = source(SIZE), tmp_path / "copy"
    with working(root, runtime_folder, monkeypatch) as servers:
        witness = Witness(monkeypatch)
        report = download(servers, output=copy, sync=False, timeout=TIMEOUT)
    monkeypatch.undo()
    assert report.received_bytes == SIZE
    assert files_equal(root, copy)
    assert witness.calls["copied to be sent"] == witness.calls["copied when received"] == 0
    read, sent, received, hashed, written = (
        sorted(witness.at[deed]) for deed in ("read", "sent", "received", "hashed", "written")
    )
    assert len(read) == len(received) == SEGMENTS
    assert sent == read, "what was read was copied to be sent"
    assert written == received, "what was received was copied to be written"
    # And zeros, once: what the digest of a hole would be.
    assert [place for place in hashed if place in received] == received, "what was received was copied to be hashed"
    assert len(hashed) <= SEGMENTS + 1
    few = 20  # for opening, connecting, finding the file
    assert witness.calls.total() <= (READS + LOOKS + WRITES) * SEGMENTS + few, witness.calls


def test_a_segment_takes_few_steps_of_python(
    source: Source, tmp_path: Path, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step is: a call of a function, be it of Python or of C."""
    steps: Counter[str] = Counter()

    def counting(side: str) -> Profile:
        def count(frame: FrameType, event: str, argument: Any) -> None:
            steps[side] += event in ("call", "c_call")

        return count

    with working(source(SIZE), runtime_folder, monkeypatch, counting("worker")) as servers:
        # Threads that a download may start are its own.
        threading.setprofile(counting("client"))
        sys.setprofile(counting("client"))
        try:
            report = download(servers, output=tmp_path / "copy", sync=False, timeout=TIMEOUT)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    assert report.received_bytes == SIZE
    assert steps["worker"] <= STEPS * SEGMENTS, steps
    assert steps["client"] <= STEPS * SEGMENTS, steps
