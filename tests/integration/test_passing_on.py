"""Downloads that pass on what they have: real processes on loopback. ``tests/environments`` has many machines."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
import zmq

from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import (
    PASSES_ON,
    PROTOCOL_VERSION,
    Announce,
    DataRequest,
    Get,
    Held,
    Hello,
    Holders,
    Holds,
    Rejected,
    Segment,
    Welcome,
)
from msd.wire.protocol.segments import span
from tests.hostile_clients import process_and_children
from tests.hosts import Broker
from tests.passing import from_peers, wait_until_serving
from tests.processes import MIB, Download, Serve, Source, System, files_equal, free_ports, make_file, wait_for

SIZE = 12 * MIB


def receive(system: System, folder: Path, name: str, *arguments: str) -> Download:
    return system.download("-o", name, "--force", "--pass-on", *arguments, cwd=folder)


def holders(server5: int, plan: bytes) -> list[str]:
    """The endpoints of the receivers that server 5 names, which listens at this port."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.rcvtimeo = 20_000
        socket.connect(f"tcp://127.0.0.1:{server5 + 1}")
        socket.send(encode(Announce(rid=1, plan=plan, units=0)))
        answer = decode(socket.recv(), Holders | Rejected)
    assert isinstance(answer, Holders)
    return [holder.endpoint for holder in answer.holders]


def test_a_download_that_keeps_serving_is_enough_for_another_one(serve: Serve, source: Source, tmp_path: Path) -> None:
    """
    1. A download is complete, and goes on passing on.
    2. It receives nothing any more, which does not count towards its --timeout.
    3. Another one begins. Then all workers are put to sleep: it gets everything from the first one.
    4. Ctrl-C ends the first one, and with it the process that passes on. The download was complete, and is reported so.
    """
    path = source(SIZE)
    system = serve(path, "--rate", "1MiB")
    with receive(system, tmp_path, "first", "--keep-serving", "10m", "--timeout", "60") as first:
        first.wait_until_verified(1.0)
        plan = bytes.fromhex(first.events_of("start")[0]["id"])
        wait_for("a holder", lambda: holders(system.ports[4], plan))
        notices = wait_for(
            "a notice", lambda: [e for e in first.events_of("waiting") if "passed on to others" in e["reason"]]
        )
        assert "timeout" not in notices[0]
        pids = process_and_children(first.pid)
        assert len(pids) == 2
        with receive(system, tmp_path, "second") as second:
            wait_for("a peer", lambda: [e for e in second.events_of("worker") if e["name"].startswith("peer")])
            system.put_to_sleep(1, 2, 3, 4)
            done = second.wait_until_done()
        assert files_equal(path, tmp_path / "second")
        assert from_peers(done) > SIZE // 4
        assert first.process.poll() is None
        first.signal(signal.SIGINT)
        done = first.wait_until_done()
        assert done["passed_on_bytes"] > SIZE // 4
    assert files_equal(path, tmp_path / "first")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_the_time_of_passing_on_is_not_time_that_was_waited(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(MIB))
    with receive(system, tmp_path, "copy", "--keep-serving", "2s") as download:
        done = download.wait_until_done()
        assert [event for event in download.events_of("waiting") if "passed on to others" in event["reason"]]
    assert done["waited_seconds"] == 0.0


@pytest.mark.parametrize("flag", ["--update", "--checksum"])
def test_what_an_existing_file_has_is_passed_on(serve: Serve, source: Source, tmp_path: Path, flag: str) -> None:
    """The first download has the old file, of which nothing is copied, or one half; the second one has nothing."""
    path = source(SIZE)
    system = serve(path, "--rate", "1MiB")
    old = path.read_bytes()
    (tmp_path / "first").write_bytes(old[: SIZE // 2] + bytes(SIZE // 2) if flag == "--update" else old)
    arguments = ("-o", "first", "--pass-on", "--keep-serving", "10m", flag)
    with system.download(*arguments, cwd=tmp_path) as first:
        plan = bytes.fromhex(wait_for("the start", lambda: first.events_of("start"))[0]["id"])
        wait_for("a holder", lambda: holders(system.ports[4], plan))
        with receive(system, tmp_path, "second") as second:
            wait_for("a peer", lambda: [e for e in second.events_of("worker") if e["name"].startswith("peer")])
            assert from_peers(second.wait_until_done()) > SIZE // 4
        first.wait_until_verified(1.0)
        first.signal(signal.SIGTERM)
        first.wait_until_done()
    assert files_equal(path, tmp_path / "first")
    assert files_equal(path, tmp_path / "second")


def test_receivers_of_a_file_that_changes_pass_on_the_new_version(
    serve: Serve, source: Source, tmp_path: Path, rng: random.Random
) -> None:
    """The scheduler numbers its units after those of the old version, unlike the plan."""
    path = source(SIZE // 2)
    system = serve(path, "--rate", "512KiB")
    with receive(system, tmp_path, "first") as first, receive(system, tmp_path, "second") as second:
        for download in (first, second):
            download.wait_until_verified(0.3)
        new = make_file(tmp_path / "new", SIZE // 2, rng)
        content = new.read_bytes()
        new.replace(path)
        reports = [download.wait_until_done() for download in (first, second)]
        assert all(download.events_of("changed") for download in (first, second))
        changed_at = max(download.events_of("changed")[0]["at"] for download in (first, second))
    assert all((tmp_path / name).read_bytes() == content for name in ("first", "second"))
    assert sum(map(from_peers, reports)) > 0
    later = [e for d in (first, second) for e in d.events_of("progress") if e["at"] > changed_at + 1.0]
    received = [{n: w["received"] for n, w in e["workers"].items() if n.startswith("peer")} for e in later]
    assert any(one != other for one, other in pairwise(received)), "peers send units of the new version"


def test_a_busy_port_is_noticed_before_anything_is_made(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(MIB))
    port = system.ports[0]
    for name in ("film.bin", "*"):
        with system.download(
            name, "-o", "out/", "--pass-on", "--listen", f"127.0.0.1:{port}", cwd=tmp_path
        ) as download:
            assert download.wait() == 2
            assert f"port {port} (passing on) is in use" in download.err.text
            assert "--listen" in download.err.text
    assert not (tmp_path / "out").exists()


def test_new_receivers_find_the_old_ones_after_the_broker_was_killed(tmp_path: Path) -> None:
    """All that pass on when the broker is killed go on. They announce themselves to the next one."""
    path = make_file(tmp_path / "film", SIZE, random.Random(1))
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path / "b"))
        port = str(free_ports()[0])
        worker = broker.worker("attic", str(path), "--listen", f"127.0.0.1:{port}", "--rate", "3MiB")
        stack.enter_context(worker).wait_until_serving()
        flags = ("--pass-on", "--keep-serving", "10m")
        downloads = [broker.download("-o", name, *flags, cwd=tmp_path) for name in ("first", "second")]
        for download in downloads:
            stack.enter_context(download)
        for download in downloads:
            download.wait_until_verified(0.2)
        plan = bytes.fromhex(downloads[0].events_of("start")[0]["id"])
        broker.signal(signal.SIGKILL)
        broker.wait()
        for download in downloads:
            wait_until_serving(download)
        assert all(files_equal(path, tmp_path / name) for name in ("first", "second"))
        broker.start_again()
        wait_for("both receivers", lambda: len(holders(broker.port, plan)) == 2)
        third = stack.enter_context(broker.download("-o", "third", "--pass-on", cwd=tmp_path))
        assert from_peers(third.wait_until_done()) > SIZE // 4
    assert files_equal(path, tmp_path / "third")


def test_a_download_that_is_killed_leaves_no_process(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(SIZE), "--rate", "256KiB")
    with receive(system, tmp_path, "copy") as download:
        pids = wait_for("its process", lambda: found if len(found := process_and_children(download.pid)) == 2 else None)
        download.signal(signal.SIGKILL)
        download.wait()
        wait_for("the end of its process", lambda: not Path(f"/proc/{pids[1]}").exists())


class WrongReceiver:
    """Announces that it has all units of ``plan``, and sends wrong bytes. A context manager."""

    def __init__(self, system: System, plan: bytes, size: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._control = self._context.socket(zmq.DEALER)
        for socket in (self._router, self._control):
            socket.linger = 0
        port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self._control.connect(f"tcp://127.0.0.1:{system.ports[4] + 1}")
        self.endpoint = f"tcp://*:{port}"
        self._announce = Announce(rid=1, plan=plan, units=99, endpoint=self.endpoint)
        self._plan, self._size = plan, size
        self.sent = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> WrongReceiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        self._context.destroy(0)

    def _run(self) -> None:
        beats = 0
        while not self._ends.is_set():
            if beats % 40 == 0:
                self._control.send(encode(self._announce))
            beats += 1
            if not self._router.poll(25):
                continue
            ident, frame = self._router.recv_multipart()
            request = decode(frame, DataRequest)
            match request:
                case Hello(rid=rid):
                    welcome = Welcome(
                        rid=rid,
                        version=PROTOCOL_VERSION,
                        epoch=7,
                        number=1,
                        files=1,
                        catalogue=b"",
                        features=[PASSES_ON],
                    )
                    self._send(ident, encode(welcome))
                case Holds(rid=rid):
                    self._send(ident, encode(Held(rid=rid, epoch=7, plan=self._plan)), b"\xff" * 20)
                case Get(rid=rid, index=index, start=start, length=length):
                    self.sent += 1
                    size = span(self._size, index)[1] - start if length is None else length
                    head = encode(Segment(rid=rid, epoch=7, index=index, start=start))
                    self._send(ident, head, os.urandom(size))

    def _send(self, *frames: bytes) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._router.send_multipart(frames)


@pytest.fixture
def wrong(serve: Serve, source: Source) -> Iterator[tuple[System, Path, WrongReceiver]]:
    path = source(SIZE)
    system = serve(path, "--rate", "1MiB")
    plan = bytes.fromhex(next(iter(system.ids().values())))
    with WrongReceiver(system, plan, SIZE) as receiver:
        wait_for("the wrong receiver", lambda: holders(system.ports[4], plan))
        yield system, path, receiver


def test_a_receiver_that_sends_wrong_units_is_named_and_not_used_any_more(
    wrong: tuple[System, Path, WrongReceiver], tmp_path: Path
) -> None:
    system, path, receiver = wrong
    with receive(system, tmp_path, "copy") as download:
        done = download.wait_until_done()
    assert files_equal(path, tmp_path / "copy")
    bans = [event for event in download.events_of("worker") if event["detail"] == "sent corrupt data"]
    ((name, detail, place),) = [(event["name"], event["detail"], event["place"]) for event in bans]
    assert (name, detail) == ("peer 1", "sent corrupt data")
    assert place == receiver.endpoint.replace("tcp://*", "127.0.0.1")
    assert done["workers"]["peer 1"]["bytes"] == 0
    assert done["workers"]["peer 1"]["corrupt"] <= 3
