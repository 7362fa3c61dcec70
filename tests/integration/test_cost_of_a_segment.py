"""The cost of a segment, measured in copies, system calls and function calls instead of time.

A worker and a download run in this process through their public interfaces. The tests record every call to
system functions, ZeroMQ and BLAKE3 with the address of its buffer, so they detect any additional copy of the data.
"""

from __future__ import annotations

import ctypes
import os
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
from msd.wire.config.servers import Servers
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.child_messages import WorkerSettings
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import DataReply, Get, List
from msd.wire.protocol.segments import segment_count
from msd.wire.protocol.states import WantedState
from msd.workers.serving.broker_connection import LocalBroker
from msd.workers.serving.fair_queue import MAX_IN_FLIGHT
from msd.workers.serving.worker import Worker
from tests.processes import TIMEOUT, Source, files_equal, free_ports
from tests.unit.shares import write_share_of

SIZE = 48 << 20
SEGMENTS = segment_count(SIZE)
#: A buffer above this size (bytes) is a segment's payload. pyzmq always copies smaller messages.
PAYLOAD_MIN = 1 << 16
#: System calls per segment: pread, fstat before and after the pread (to detect a changed file), pwrite, and fstat
#: before and after the pwrite (to detect that another program changed the part file).
READS, FSTATS, WRITES = 1, 4, 1
#: Maximum function calls per segment in the worker and in the client, including the fixed cost of a download.
#: Measured: 190 to 260; more on a busy machine, where the event loops iterate more often.
MAX_CALLS = 350

Profile = Callable[[FrameType, str, Any], None]


@contextmanager
def running_worker(root: Path, folder: Path, profile: Profile | None = None) -> Iterator[Servers]:
    """Runs a worker for ``root`` in a thread of this process, without a broker."""

    def run() -> None:
        sys.setprofile(profile)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        poll_loop = PollLoop()
        worker = Worker(context, settings, LocalBroker(context, settings.control), poll_loop)
        poll_loop.register(read_end, worker.stop)
        worker.run()
        context.term()
        worker.close()

    write_share_of(root, folder)
    command = [sys.executable, "-P", "-m", "msd.workers", "index", str(folder)]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    port, status_port, *_ = free_ports()
    settings = WorkerSettings(
        name="1",
        number=1,
        parent=os.getpid(),
        bind=f"tcp://127.0.0.1:{port}",
        control=f"ipc://{folder}/no-broker",
        token=b"",
        catalogue=str(folder),
        edition=1,
        rate=0,
        wanted=WantedState.AWAKE,
    )
    read_end, write_end = os.pipe()
    with os.fdopen(read_end):
        thread = threading.Thread(target=run, name="worker")
        thread.start()
        try:
            yield Servers(Endpoint("127.0.0.1", status_port), {1: Endpoint("127.0.0.1", port)}, pinned=True)
        finally:
            os.close(write_end)
            thread.join(TIMEOUT)


class CallRecorder:
    """Counts calls to system functions, ZeroMQ and BLAKE3, and records the addresses of their payloads.

    The recorder keeps a reference to each payload read or received, so that no other payload gets the same address.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        self.addresses: dict[str, list[int]] = {}
        self._references: list[Any] = []
        for name in ("read", "pread", "readv", "preadv", "write", "pwrite", "writev", "pwritev", "fstat", "sendfile"):
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))
        monkeypatch.setattr(zmq.Socket, "send", self._sending(zmq.Socket.send))
        monkeypatch.setattr(zmq.Socket, "recv", self._receiving(zmq.Socket.recv))
        monkeypatch.setattr("msd.wire.protocol.segments.blake3", self._hashing(blake3))

    def record(self, operation: str, payload: Any) -> None:
        if memoryview(payload).nbytes > PAYLOAD_MIN:
            if operation in ("read", "received"):
                self._references.append(payload)
            self.addresses.setdefault(operation, []).append(address(payload))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: int, data: Any = None, *others: Any) -> Any:
            result = function(fd, data, *others) if data is not None else function(fd)
            self.calls[name] += 1
            if isinstance(result, bytes):
                self.record("read", result)
            elif name.endswith("readv"):
                for buffer in data:
                    self.record("read", buffer)
            elif "write" in name:
                for buffer in data if name.endswith("v") else [data]:
                    self.record("written", buffer)
            return result

        return call

    def _sending(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def call(socket: Any, data: Any, flags: int = 0, copy: bool = True, **options: Any) -> Any:
            # ZeroMQ sends a Frame without copying it. If pyzmq has copied the data, the frame has another address.
            view = data.buffer if isinstance(data, zmq.Frame) else data
            if isinstance(data, zmq.Frame) or not copy:
                self.record("sent", view)
            elif memoryview(view).nbytes > PAYLOAD_MIN:
                self.calls["copied to send"] += 1
            return send(socket, data, flags, copy, **options)

        return call

    def _receiving(self, recv: Callable[..., Any]) -> Callable[..., Any]:
        def call(socket: Any, *arguments: Any, **options: Any) -> Any:
            frame = recv(socket, *arguments, **options)
            if isinstance(frame, zmq.Frame):
                self.record("received", frame.buffer)
            elif len(frame) > PAYLOAD_MIN:
                self.calls["copied on receipt"] += 1
            return frame

        return call

    def _hashing(self, blake3: Callable[..., Any]) -> Callable[..., Any]:
        def call(data: Any, *arguments: Any, **options: Any) -> Any:
            self.record("hashed", data)
            return blake3(data, *arguments, **options)

        return call


def address(data: Any) -> int:
    """Returns the memory address of a buffer."""
    view = memoryview(data)
    if not view.readonly:
        return ctypes.addressof(ctypes.c_char.from_buffer(view))
    assert isinstance(view.obj, bytes), "the address of a read-only buffer is known only for bytes"
    return ctypes.cast(ctypes.c_char_p(view.obj), ctypes.c_void_p).value or 0


def test_a_send_completion_wakes_the_worker_for_queued_requests(
    source: Source, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats and the idle poll are disabled, so only a send completion can wake the worker."""
    monkeypatch.setattr("msd.workers.serving.worker.IDLE_COLLECT_INTERVAL_S", 3600.0)
    monkeypatch.setattr("msd.workers.serving.worker_life.HEARTBEAT_INTERVAL_S", 3600.0)
    monkeypatch.setattr(LocalBroker, "send", lambda *_: True)
    with (
        running_worker(source(SIZE), runtime_folder) as servers,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as dealer,
    ):
        dealer.linger = 0
        dealer.rcvtimeo = int(TIMEOUT * 1000)
        dealer.connect(servers.workers[1].url)
        dealer.send(encode(List(rid=1)))
        (file,) = decode(dealer.recv(), DataReply).entries
        for index in range(4 * MAX_IN_FLIGHT):
            dealer.send(encode(Get(rid=index, id=file.id, index=index)))
        replies = [decode(dealer.recv_multipart()[0], DataReply) for _ in range(4 * MAX_IN_FLIGHT)]
    assert [reply.index for reply in replies] == [*range(4 * MAX_IN_FLIGHT)]


def test_a_segment_is_never_copied_in_user_space(
    source: Source, tmp_path: Path, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    1. ZeroMQ sends from the buffer into which the worker has read the segment.
    2. The client hashes and writes from the buffer into which ZeroMQ has received the segment.
    3. Each segment is read, sent, received, hashed and written once.

    Only the first segment arrives in parts, because the rate is unknown: it is copied together.
    """
    root, copy = source(SIZE), tmp_path / "copy"
    with running_worker(root, runtime_folder) as servers:
        recorder = CallRecorder(monkeypatch)
        report = download(servers, output=copy, sync=False, timeout=TIMEOUT)
    monkeypatch.undo()
    assert report.received_bytes == SIZE
    assert files_equal(root, copy)
    assert recorder.calls["copied to send"] == recorder.calls["copied on receipt"] == 0
    read, sent, received, hashed, written = (
        sorted(recorder.addresses[operation]) for operation in ("read", "sent", "received", "hashed", "written")
    )
    assert SEGMENTS <= len(read) == len(received) <= SEGMENTS + 3
    assert sent == read, "the segment was copied between read and send"
    assert len(written) == SEGMENTS
    whole = [place for place in written if place in received]
    assert len(whole) >= SEGMENTS - 1, "the segment was copied between receive and write"
    assert [place for place in hashed if place in whole] == whole, "the segment was copied between receive and hash"
    # One more hash is allowed: that of zeros, the digest of a hole in the part file.
    assert len(hashed) <= SEGMENTS + 1
    setup_calls = 40  # to open files, connect, fetch the manifest and read the parts of the first segment
    assert recorder.calls.total() <= (READS + FSTATS + WRITES) * SEGMENTS + setup_calls, recorder.calls


def test_a_segment_takes_few_function_calls(
    source: Source, tmp_path: Path, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls to Python functions and to C functions are both counted."""
    calls: Counter[str] = Counter()

    def count_calls(side: str) -> Profile:
        def count(frame: FrameType, event: str, argument: Any) -> None:
            calls[side] += event in ("call", "c_call")

        return count

    with running_worker(source(SIZE), runtime_folder, count_calls("worker")) as servers:
        # Also count calls in the threads that the download starts.
        threading.setprofile(count_calls("client"))
        sys.setprofile(count_calls("client"))
        try:
            report = download(servers, output=tmp_path / "copy", sync=False, timeout=TIMEOUT)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    assert report.received_bytes == SIZE
    assert calls["worker"] <= MAX_CALLS * SEGMENTS, calls
    assert calls["client"] <= MAX_CALLS * SEGMENTS, calls
