"""Misbehaving peers and hostile conditions: the client rejects wrong data and does not hang."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgpack
import pytest
import zmq

from msd.client.operations.download import download
from msd.client.operations.list_files import list_files
from msd.wire.config.servers import Servers, locate_servers
from msd.wire.config.settings import Config
from msd.wire.errors import NoAnswerError, SourceError
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    CataloguePage,
    DataRequest,
    Describe,
    Described,
    DigestPage,
    Digests,
    Entry,
    Get,
    Hello,
    List,
    Message,
    Welcome,
)
from msd.wire.protocol.segments import Manifest, digest
from tests.processes import MIB, Download, Serve, Source, files_equal, free_ports, run_msd, wait_for


@pytest.fixture
def closing_ports() -> Iterator[list[int]]:
    """Four ports whose listeners accept each connection and close it at once."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return

    threads = [threading.Thread(target=serve, args=(listener,)) for listener in listeners]
    for thread in threads:
        thread.start()
    yield [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()


def test_ports_that_accept_and_close_do_not_reset_the_timeout(closing_ports: list[int], tmp_path: Path) -> None:
    server_flags = ["-p", *map(str, [*closing_ports, free_ports()[4]])]
    with Download(server_flags, "--timeout", "2", cwd=tmp_path) as client:
        assert client.wait(20) == 7


@contextmanager
def bad_worker(answer: Callable[[DataRequest], list[bytes] | None]) -> Iterator[Servers]:
    """The servers of which only one worker runs. It answers requests with the frames that ``answer`` returns."""
    ports = free_ports()
    servers = locate_servers(Config(), host=None, ports=ports, server5=None)
    stop = threading.Event()

    def run(router: zmq.Socket[bytes]) -> None:
        while not stop.is_set():
            if router.poll(20):
                peer, frame = router.recv_multipart()
                if (frames := answer(decode(frame, DataRequest))) is not None:
                    router.send_multipart([peer, *frames])

    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        router = stack.enter_context(context.socket(zmq.ROUTER))
        router.linger = 0
        router.bind(f"tcp://127.0.0.1:{ports[0]}")
        thread = threading.Thread(target=run, args=(router,))
        thread.start()
        try:
            yield Servers(servers.status, {1: servers.workers[1]}, pinned=True)
        finally:
            stop.set()
            thread.join()


def welcome(request: Hello) -> list[bytes]:
    reply = Welcome(rid=request.rid, version=PROTOCOL_VERSION, epoch=1, number=1, files=1, catalogue=b"")
    return [encode(reply)]


def test_a_worker_that_repeats_a_catalogue_page_makes_no_progress() -> None:
    """If a page could start before the end of the previous page, the list might never end."""

    def answer(request: DataRequest) -> list[bytes] | None:
        match request:
            case Hello():
                return welcome(request)
            case List(rid=rid):
                entry = Entry(name="same", size=1, mtime_ns=1, id=bytes(32))
                return [encode(CataloguePage(rid=rid, epoch=1, catalogue=b"", entries=[entry], more=True))]
        return None

    with bad_worker(answer) as servers, pytest.raises(NoAnswerError):
        list_files(servers, timeout=1)


def test_a_worker_that_refuses_for_an_unknown_reason_is_not_asked_again_and_again(tmp_path: Path) -> None:
    requests: list[type[Message]] = []
    manifest = Manifest.build("film", 1, digest(b"x"))

    def answer(request: DataRequest) -> list[bytes] | None:
        requests.append(type(request))
        match request:
            case Hello():
                return welcome(request)
            case Describe(rid=rid):
                return [
                    encode(Described(rid=rid, epoch=1, name="film", size=1, mtime_ns=1, segment_size=1, id=manifest.id))
                ]
            case Digests(rid=rid):
                return [encode(DigestPage(rid=rid, epoch=1, start=0)), manifest.digests]
            case Get(rid=rid):
                return [msgpack.packb({"type": "refusal", "rid": rid, "epoch": 1, "reason": "mood", "detail": ""})]
        return None

    with bad_worker(answer) as servers, pytest.raises(SourceError, match="does not know"):
        download(servers, "film", tmp_path / "film", timeout=20)
    assert requests.count(Hello) == requests.count(Get) == 1


def test_an_output_created_during_the_download_is_not_replaced(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(16 * MIB)
    system = serve(path, "--rate", "16MiB", workers=1)
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_verified(0.2)
        (tmp_path / "copy.bin").write_text("precious")
        assert client.wait() == 2
    assert "was created in the meantime" in client.events[-1]["message"]
    assert (tmp_path / "copy.bin").read_text() == "precious"
    with system.download("-o", "copy.bin", "--force", cwd=tmp_path) as client:
        assert client.wait_until_done()["received_bytes"] == 0
    assert files_equal(path, tmp_path / "copy.bin")


def test_a_part_file_that_was_swapped_is_not_published(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(16 * MIB), "--rate", "16MiB", workers=1)
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_verified(0.2)
        (tmp_path / ".copy.bin.msd-part").unlink()
        (tmp_path / ".copy.bin.msd-part").write_bytes(b"garbage")
        assert client.wait() == 6
    assert not (tmp_path / "copy.bin").exists()


@pytest.mark.parametrize("name", ["", "x" * 5000, "line\nbreak"])
def test_an_invalid_name_is_rejected_at_once(tmp_path: Path, name: str) -> None:
    result = run_msd("download", "-p", *map(str, free_ports()), "--", name, cwd=tmp_path)
    assert result.returncode == (3 if name else 2)
    assert result.stderr.count("\n") == 1


def test_a_modification_time_in_the_far_future_is_harmless(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(1000)
    system = serve(path, workers=1)
    os.utime(path, ns=(10**20, 10**20))
    system.signal(signal.SIGTERM)
    system.wait()
    restarted = serve(path, workers=1)
    assert "film.bin" in run_msd("list", *restarted.server_flags).stdout
    with restarted.download("-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_done()
    wait_for("all workers awake", lambda: restarted.states() == ["awake"])
