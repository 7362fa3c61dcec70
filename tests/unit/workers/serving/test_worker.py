"""The serving process. The tests send it the messages that the broker and clients send."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgpack
import pytest
import zmq

from msd.wire.protocol.child_messages import WorkerSettings
from msd.wire.protocol.codec import MAX_REQUEST_FRAME, decode, encode
from msd.wire.protocol.messages import (
    FILE_OK,
    MAX_BUNDLE_FILES,
    PROTOCOL_VERSION,
    Bundle,
    CataloguePage,
    ControlRequest,
    DataReply,
    DataRequest,
    Describe,
    Described,
    Get,
    GetBundle,
    Heartbeat,
    Hello,
    Join,
    Joined,
    JoinOrder,
    List,
    Load,
    Order,
    QuitOrder,
    Refusal,
    Segment,
    ServedSession,
    Welcome,
    WorkerOrder,
)
from msd.wire.protocol.states import RefusalReason, ReportedState, WantedState
from msd.workers.serving.fair_queue import MAX_QUEUED
from msd.workers.serving.worker import MAX_SERVED_REPORTED, MAX_SESSIONS_REPORTED, REPLIES_PER_TURN
from tests.processes import free_ports, wait_for
from tests.unit.shares import write_share_of

MIB = 1 << 20
TIMEOUT_MS = 30_000


class Bench:
    """A worker process, the control socket of its broker, and the sockets of its clients."""

    def __init__(self, folder: Path, port: int, stack: ExitStack, edition: int = 1) -> None:
        self.edition = edition
        self.joins: list[Join] = []
        self._stack = stack
        self._port = port
        self.context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self._control = stack.enter_context(self.context.socket(zmq.ROUTER))
        self._control.linger = 0
        self._control.bind(f"ipc://{folder}/control")
        self._routing_id = b""
        self.process: subprocess.Popen[bytes]

    def client(self) -> zmq.Socket[bytes]:
        dealer = self._stack.enter_context(self.context.socket(zmq.DEALER))
        dealer.linger = 0
        dealer.connect(f"tcp://127.0.0.1:{self._port}")
        return dealer

    def is_listening(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def heartbeat(self, condition: Callable[[Heartbeat], bool]) -> Heartbeat:
        """Waits for a heartbeat that satisfies ``condition``."""
        deadline = time.monotonic() + TIMEOUT_MS / 1000
        while self._control.poll(max(0, int(1000 * (deadline - time.monotonic())))):
            self._routing_id, frame = self._control.recv_multipart()
            message = decode(frame, ControlRequest)
            if isinstance(message, Join):
                self.joins.append(message)
                joined = Joined(rid=message.rid, number=1, wanted=WantedState.AWAKE, edition=self.edition)
                self._control.send_multipart([self._routing_id, encode(joined)])
            if isinstance(message, Heartbeat) and condition(message):
                return message
        pytest.fail("no such heartbeat")

    def order(self, order: WorkerOrder) -> None:
        self._control.send_multipart([self._routing_id, encode(order)])


WORKERS = [sys.executable, "-m", "msd.workers"]
#: Runs ``python -m msd.workers`` with a disk that takes 50 ms for each read.
WITH_A_SLOW_DISK = """
import sys, time
from msd.workers.source.local_files import LocalFiles
read = LocalFiles.read
LocalFiles.read = lambda *arguments: time.sleep(0.05) or read(*arguments)
from msd.workers.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def serving(
    root: Path, folder: Path, *, rate: int = 0, edition: int = 1, command: Sequence[str] = WORKERS
) -> Iterator[Bench]:
    """Runs a worker that shares ``root``, and asserts that it exits when its standard input is closed."""
    write_share_of(root, folder)
    subprocess.run([*WORKERS, "index", str(folder)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    port, *_ = free_ports()
    settings = encode(
        WorkerSettings(
            name="1",
            number=1,
            parent=os.getpid(),
            bind=f"tcp://127.0.0.1:{port}",
            control=f"ipc://{folder}/control",
            token=bytes(16),
            catalogue=str(folder),
            edition=edition,
            rate=rate,
            wanted=WantedState.AWAKE,
        )
    )
    with (
        ExitStack() as stack,
        subprocess.Popen([*command, "serve"], stdin=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        os.write(process.stdin.fileno(), struct.pack("!I", len(settings)) + settings)
        bench = Bench(folder, port, stack, edition)
        bench.process = process
        yield bench
        process.stdin.close()
        assert process.wait(TIMEOUT_MS / 1000) == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "numbers"
    root.write_bytes(bytes(range(245)))
    return root


def ask(client: zmq.Socket[bytes], request: DataRequest) -> DataReply:
    client.send(encode(request))
    assert client.poll(TIMEOUT_MS), "no reply"
    reply: DataReply = decode(client.recv_multipart()[0], DataReply)
    return reply


def file_id(client: zmq.Socket[bytes]) -> bytes:
    """Returns the id of the only shared file."""
    described = ask(client, Describe(rid=1))
    assert isinstance(described, Described)
    return described.id


@pytest.mark.parametrize(
    "large",
    [List(rid=1, after="x" * 4095 + "\N{GRINNING FACE}"), GetBundle(rid=1, ids=bytes(32 * MAX_BUNDLE_FILES))],
    ids=["list", "bundle"],
)
def test_queued_requests_need_little_memory(root: Path, runtime_folder: Path, large: DataRequest) -> None:
    """
    1. The worker has a rate limit of one byte per second, so requests stay queued.
    2. Each of 40 clients fills its queue with list requests that contain the longest possible name, or with requests
       for the largest number of files (16 KiB in memory).
    3. Then each client sends a describe request. The reply proves that the worker has read all earlier requests.
    4. The peak memory of the worker must stay below 80 MiB.
    """
    with serving(root, runtime_folder, rate=1) as bench:
        request = encode(large)
        clients = [bench.client() for _ in range(40)]
        for client in clients:
            for _ in range(MAX_QUEUED):
                client.send(request)
            client.send(encode(Describe(rid=2)))
        for client in clients:
            while client.poll(TIMEOUT_MS):
                if isinstance(decode(client.recv(), DataReply), Described):
                    break
            else:
                pytest.fail("no answer")
        status = Path(f"/proc/{bench.process.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) << 10
    assert peak < 80 * MIB, peak


def test_a_malformed_request_with_a_readable_rid_is_refused(root: Path, runtime_folder: Path) -> None:
    with serving(root, runtime_folder) as bench:
        client = bench.client()
        id = file_id(client)
        malformed = [
            ({"type": "get", "rid": 7, "id": id, "index": 0.0}, "index"),
            ({"type": "get", "rid": 7, "id": id.hex(), "index": 0}, "id"),
            ({"type": "frobnicate", "rid": 7}, "type"),
        ]
        client.send(b"garbage")
        client.send(bytes(msgpack.packb({"type": "get", "rid": -1})))
        for header, key in malformed:
            client.send(bytes(msgpack.packb(header)))
            assert client.poll(TIMEOUT_MS), "no reply"
            refusal = decode(client.recv(), DataReply)
            assert isinstance(refusal, Refusal)
            assert (refusal.rid, refusal.reason) == (7, RefusalReason.BAD_REQUEST)
            assert f"`$.{key}`" in refusal.detail
        bench.heartbeat(lambda heartbeat: heartbeat.load.malformed_messages == 5)


def test_a_client_of_another_version_is_not_counted(root: Path, runtime_folder: Path) -> None:
    with serving(root, runtime_folder) as bench:
        client = bench.client()
        assert isinstance(ask(client, Hello(rid=1, version=PROTOCOL_VERSION + 1, session=9)), Refusal)
        assert isinstance(ask(client, Hello(rid=2, version=PROTOCOL_VERSION, session=8)), Welcome)
        assert bench.heartbeat(lambda heartbeat: bool(heartbeat.sessions)).sessions == [8]


def test_parts_of_a_segment_have_its_bytes(root: Path, runtime_folder: Path) -> None:
    with serving(root, runtime_folder) as bench:
        client = bench.client()
        id = file_id(client)
        client.send(encode(Get(rid=2, id=id, index=1, start=4, length=9)))
        client.send(encode(Get(rid=3, id=id, index=11, start=13)))
        for rid, index, start, data in (2, 1, 4, bytes(range(25, 34))), (3, 11, 13, bytes([244])):
            assert client.poll(TIMEOUT_MS), "no reply"
            header, payload = client.recv_multipart()
            segment = decode(header, DataReply)
            assert isinstance(segment, Segment)
            assert (segment.rid, segment.index, segment.start, payload) == (rid, index, start, data)


def test_a_file_of_a_bundle_that_changed_refuses_itself_and_not_its_neighbours(
    tmp_path: Path, runtime_folder: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in ("a", b"first"), ("b", b"second"), ("c", b""), ("d", b"fourth"):
        (folder / name).write_bytes(content)
    with serving(folder, runtime_folder) as bench:
        client = bench.client()
        page = ask(client, List(rid=1))
        assert isinstance(page, CataloguePage)
        a, b, c, d = [entry.id or b"" for entry in page.entries]
        (folder / "b").write_bytes(b"other!")
        client.send(encode(GetBundle(rid=2, ids=a + b + bytes(32) + c + d)))
        client.send(encode(GetBundle(rid=3, ids=a + c + d, start=2, length=6)))
        for rid, statuses, lengths, data in (
            (2, [FILE_OK, "changed", "unknown", FILE_OK, FILE_OK], [5, 0, 0, 0, 6], b"firstfourth"),
            (3, [FILE_OK] * 3, [3, 0, 3], b"rstfou"),
        ):
            assert client.poll(TIMEOUT_MS), "no reply"
            header, payload = client.recv_multipart()
            bundle = decode(header, DataReply)
            assert isinstance(bundle, Bundle)
            assert (bundle.rid, bundle.statuses, bundle.lengths, payload) == (rid, statuses, lengths, data)
        assert bench.heartbeat(lambda heartbeat: heartbeat.load.stale)


def test_slow_reads_delay_other_clients_by_a_few_replies_only(root: Path, runtime_folder: Path) -> None:
    with serving(root, runtime_folder, command=[sys.executable, "-c", WITH_A_SLOW_DISK]) as bench:
        reader, other = bench.client(), bench.client()
        id = file_id(reader)
        file_id(other)
        for rid in range(REPLIES_PER_TURN):
            reader.send(encode(Get(rid=rid, id=id, index=0)))
        assert reader.poll(TIMEOUT_MS), "no reply"
        file_id(other)
        answered = 0
        while reader.poll(0):
            reader.recv_multipart()
            answered += 1
        assert answered <= REPLIES_PER_TURN // 2


def test_requests_beyond_a_full_queue_are_refused_as_busy(root: Path, runtime_folder: Path) -> None:
    with serving(root, runtime_folder, rate=1) as bench:
        client = bench.client()
        id = file_id(client)
        assert isinstance(ask(client, Get(rid=2, id=id, index=0)), Segment), (
            "the rate limit must not delay the first reply"
        )
        for rid in range(MAX_QUEUED):
            client.send(encode(Get(rid=rid, id=id, index=0)))
        refusal = ask(client, Get(rid=MAX_QUEUED, id=id, index=0))
        assert isinstance(refusal, Refusal)
        assert (refusal.rid, refusal.reason) == (MAX_QUEUED, RefusalReason.BUSY)


def test_a_worker_whose_edition_was_deleted_serves_the_newest(root: Path, runtime_folder: Path) -> None:
    with serving(root, runtime_folder, edition=99) as bench:
        assert bench.heartbeat(lambda heartbeat: heartbeat.state is ReportedState.AWAKE).edition == 1


def test_heartbeats_report_that_a_file_differs_from_the_edition(root: Path, runtime_folder: Path) -> None:
    with serving(root, runtime_folder) as bench:
        client = bench.client()
        id = file_id(client)
        root.write_bytes(bytes(245))
        refusal = ask(client, Get(rid=2, id=id, index=0))
        assert isinstance(refusal, Refusal)
        assert refusal.reason is RefusalReason.CHANGED
        bench.heartbeat(lambda heartbeat: heartbeat.load.stale)


def test_a_worker_ordered_to_sleep_refuses_queued_and_new_requests_and_then_closes_its_port(
    root: Path, runtime_folder: Path
) -> None:
    with serving(root, runtime_folder, rate=1) as bench:
        client = bench.client()
        id = file_id(client)
        assert isinstance(ask(client, Get(rid=2, id=id, index=0)), Segment)
        # On a busy machine this process may send its new request after the worker has closed its port. Then try again.
        for _ in range(5):
            client = bench.client()
            bench.heartbeat(lambda heartbeat: heartbeat.state is ReportedState.AWAKE)
            assert file_id(client) == id
            client.send(encode(Get(rid=3, id=id, index=1)))
            assert not client.poll(100), "the rate limit must keep the request in the queue"
            bench.order(Order(wanted=WantedState.ASLEEP, edition=1))
            assert client.poll(TIMEOUT_MS), "no reply"
            replies = [decode(client.recv(), DataReply)]
            client.send(encode(Describe(rid=4)))
            bench.heartbeat(lambda heartbeat: heartbeat.state is ReportedState.ASLEEP)
            wait_for("the port to be closed", lambda: not bench.is_listening())
            if client.poll(0):
                replies.append(decode(client.recv(), DataReply))
            bench.order(Order(wanted=WantedState.AWAKE, edition=1))
            if len(replies) == 2:
                break
        for reply in replies:
            assert isinstance(reply, Refusal)
        assert [(reply.rid, reply.reason) for reply in replies] == [
            (3, RefusalReason.SLEEPING),
            (4, RefusalReason.SLEEPING),
        ]
        assert file_id(bench.client()) == id


def test_a_worker_ordered_to_quit_exits(root: Path, runtime_folder: Path) -> None:
    with serving(root, runtime_folder) as bench:
        bench.heartbeat(lambda heartbeat: heartbeat.state is ReportedState.AWAKE)
        bench.order(QuitOrder())
        assert bench.process.wait(TIMEOUT_MS / 1000) == 0


def test_a_worker_joins_and_joins_again_when_the_broker_does_not_know_it(root: Path, runtime_folder: Path) -> None:
    with serving(root, runtime_folder) as bench:
        epoch = bench.heartbeat(lambda heartbeat: heartbeat.state is ReportedState.AWAKE).epoch
        before = len(bench.joins)
        bench.order(JoinOrder())
        wait_for("another join", lambda: bench.heartbeat(lambda _: True) and len(bench.joins) > before)
        assert {(join.name, join.epoch, join.pid) for join in bench.joins} == {("1", epoch, bench.process.pid)}


def test_the_largest_heartbeat_fits_into_a_frame() -> None:
    largest = 2**63 - 1
    heartbeat = Heartbeat(
        number=1024,
        epoch=largest,
        state=ReportedState.ASLEEP,
        edition=largest,
        load=Load(bytes_sent=largest, clients=largest, malformed_messages=largest, rejected_connections=largest),
        sessions=[largest] * MAX_SESSIONS_REPORTED,
        served=[ServedSession(largest, bytes(32))] * MAX_SERVED_REPORTED,
    )
    assert len(encode(heartbeat)) <= MAX_REQUEST_FRAME
