"""Memory does not depend on the file size, and clients share the workers fairly."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import PROTOCOL_VERSION, DataReply, Describe, Described, Get, Hello, Segment, Welcome
from tests.processes import MIB, TIMEOUT, Serve, Source, System, files_equal, wait_for


def peak_rss(pid: int) -> int:
    """Returns the peak resident memory of a running process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


class RawClient:
    """A client of one worker that can send any number of requests. Only ``request`` reads a reply."""

    def __init__(self, stack: ExitStack, context: zmq.Context[zmq.Socket[bytes]], port: int) -> None:
        self.dealer = stack.enter_context(context.socket(zmq.DEALER))
        self.dealer.linger = 0
        self.dealer.rcvhwm = 1
        self.dealer.connect(f"tcp://127.0.0.1:{port}")
        assert isinstance(self.request(Hello(rid=1, version=PROTOCOL_VERSION, session=id(self))), Welcome)
        described = self.request(Describe(rid=2))
        assert isinstance(described, Described)
        self.file = described.id

    def request(self, request: Hello | Describe | Get) -> DataReply:
        self.dealer.send(encode(request))
        assert self.dealer.poll(int(TIMEOUT * 1000))
        reply: DataReply = decode(self.dealer.recv_multipart()[0], DataReply)
        return reply

    def send_without_reading(self, requests: int) -> None:
        for index in range(requests):
            self.dealer.send(encode(Get(rid=index + 10, id=self.file, index=index % 16)))


def check_memory(system: System, size: int, output: Path) -> None:
    """Downloads a file of ``size`` bytes and checks the peak memory of the client and of each worker."""
    with system.download("-o", str(output), "--no-sync", interval=0.2) as client:
        peak = 0
        while client.process.poll() is None:
            try:
                peak = max(peak, peak_rss(client.pid))
            except (FileNotFoundError, IndexError):
                break  # The process has ended: its /proc entry is missing, or is that of a zombie, without VmHWM.
            wait_for(
                "the end of the download",
                lambda: client.process.poll() is not None or client.verified_bytes < size or None,
            )
        client.wait_until_done(600)
    assert 0 < peak < 150 * MIB
    assert all(peak_rss(worker.pid) < 100 * MIB for worker in system.status().workers)


@pytest.mark.alone
def test_twenty_clients_share_the_workers_fairly(serve: Serve, source: Source, tmp_path: Path) -> None:
    """All clients start when the workers wake up. When the first client finishes, the others have nearly finished."""
    path = source(6 * MIB)
    system = serve(path, "--rate", "16MiB")
    system.put_to_sleep(1, 2, 3, 4)
    with ExitStack() as stack:
        clients = []
        for number in range(20):
            client = stack.enter_context(
                system.download("-o", f"copy-{number}", "--no-sync", interval=0.2, cwd=tmp_path)
            )
            clients.append(client)
        wait_for("all clients to wait", lambda: all(client.events_of("waiting") for client in clients))
        system.wake(1, 2, 3, 4)
        wait_for("the first client to finish", lambda: any(client.events_of("done") for client in clients), 60)
        shares = [client.verified_bytes for client in clients]
        for client in clients:
            client.wait_until_done(60)
    assert all(files_equal(path, tmp_path / f"copy-{number}") for number in range(20))
    # Jain's fairness index: 1 if all shares are equal.
    fairness = sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))
    assert fairness > 0.9, shares


def test_clients_that_never_read_do_not_block_other_clients(serve: Serve, source: Source, tmp_path: Path) -> None:
    """
    1. Forty connections to worker 1 send 200 requests each and never read the replies.
    2. A well-behaved client still receives segments from worker 1, and the memory of worker 1 stays bounded.
    """
    path = source(48 * MIB)
    system = serve(path, workers=1)
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        non_readers = [RawClient(stack, context, system.ports[0]) for _ in range(40)]
        for client in non_readers:
            client.send_without_reading(200)
        well_behaved = RawClient(stack, context, system.ports[0])
        for index in range(32):
            assert isinstance(well_behaved.request(Get(rid=100 + index, id=well_behaved.file, index=index)), Segment)
        assert peak_rss(system.worker(1).pid) < 400 * MIB


def test_a_suspended_client_gets_the_rest_after_it_resumes(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(64 * MIB)
    system = serve(path, "--rate", "16MiB")
    with system.download("-o", "slow", cwd=tmp_path) as slow:
        slow.wait_until_verified(0.2)
        slow.signal(signal.SIGSTOP)
        with system.download("-o", "fast", cwd=tmp_path) as fast:
            assert fast.wait_until_done()["wasted_bytes"] <= 4 * MIB
        slow.signal(signal.SIGCONT)
        done = slow.wait_until_done()
    assert files_equal(path, tmp_path / "slow")
    assert done["wasted_bytes"] <= 4 * MIB


def test_memory_does_not_grow_with_the_file_size(serve: Serve, source: Source, tmp_path: Path) -> None:
    """The only worker sends all of the file, which is larger than its memory may become, and the client's."""
    size = 160 * MIB
    path = source(size)
    check_memory(serve(path, workers=1), size, tmp_path / "copy")
    assert files_equal(path, tmp_path / "copy")


@pytest.mark.soak
def test_memory_is_bounded_on_a_file_of_4_gib(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(4 << 30)
    check_memory(serve(path), 4 << 30, tmp_path / "copy")
    assert files_equal(path, tmp_path / "copy")
