"""The worker of a download that passes on what it has: a real process."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import zmq

from msd.wire.protocol.child_messages import FileReceived, FilesListed, PassOnSettings, UnitsHeld
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import (
    PASSES_ON,
    PROTOCOL_VERSION,
    Describe,
    Digests,
    Entry,
    Held,
    Hello,
    Holds,
    List,
    Message,
    Refusal,
    Segment,
    Welcome,
)
from msd.wire.protocol.segments import Manifest, cut, digest
from msd.wire.protocol.states import RefusalReason
from tests.hostile_clients import Peer
from tests.passing import get
from tests.processes import TIMEOUT, free_ports, wait_for

CONTENT = random.Random(1).randbytes((4 << 20) + 9)
MANIFEST = Manifest.build("film", len(CONTENT), b"".join(map(digest, cut(memoryview(CONTENT)))))
REPLIES = Segment | Refusal | Welcome


class PassingWorker:
    """The process, whose file is complete on the disk from the beginning."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / ".film.msd-part"
        self.path.write_bytes(CONTENT)
        self.port = free_ports()[0]
        fd = os.open(self.path, os.O_RDONLY)
        digests = b"".join(map(MANIFEST.digest, range(MANIFEST.segments)))
        settings = PassOnSettings(os.getpid(), MANIFEST.id, f"tcp://127.0.0.1:{self.port}", b"", 0, None)
        command = [sys.executable, "-P", "-m", "msd.workers", "pass-on"]
        self.input, child_input = socket.socketpair()
        self.process = subprocess.Popen(command, stdin=child_input.fileno(), stdout=subprocess.PIPE, bufsize=0)
        child_input.close()
        self.write(msgspec.msgpack.encode(settings))
        entry = Entry(name="film", size=len(CONTENT), mtime_ns=7, mode=0o644, id=MANIFEST.id)
        self.write(encode(FilesListed(entries=[entry], more=True)))
        self.write(encode(FilesListed(entries=[], more=False)))
        self.write(encode(FileReceived(name="film", first_unit=0, digests=digests, descriptors=1)), fd)
        os.close(fd)

    def write(self, frame: bytes, *descriptors: int) -> None:
        socket.send_fds(self.input, [struct.pack("!I", len(frame)) + frame], descriptors)

    def hold(self, *units: int) -> None:
        self.write(encode(UnitsHeld(units=[*units])))


@contextmanager
def started(tmp_path: Path) -> Iterator[tuple[PassingWorker, Peer]]:
    worker = PassingWorker(tmp_path)
    with worker.process, Peer(zmq.DEALER, worker.port) as peer:
        try:
            yield worker, peer
        finally:
            worker.process.kill()
            worker.input.close()


def requested(peer: Peer, message: Message) -> object:
    return peer.request(message, REPLIES)


def test_units_are_served_as_soon_as_they_are_verified(tmp_path: Path) -> None:
    with started(tmp_path) as (worker, peer):
        welcome = requested(peer, Hello(rid=1, version=PROTOCOL_VERSION, session=5))
        assert isinstance(welcome, Welcome)
        assert welcome.features == [PASSES_ON]
        assert get(peer, MANIFEST.id, 1) is RefusalReason.MISSING
        worker.hold(1, 3)
        segment = bytes(cut(memoryview(CONTENT))[1])
        wait_for("segment 1", lambda: get(peer, MANIFEST.id, 1) == segment)
        assert get(peer, MANIFEST.id, 3) == bytes(cut(memoryview(CONTENT))[3])
        assert get(peer, MANIFEST.id, 0) is RefusalReason.MISSING
        peer.socket.send(encode(Holds(rid=4)))
        head, bitmap = peer.socket.recv_multipart()
        assert decode(head, Held).plan == MANIFEST.id
        assert bitmap == bytes([0b1010])
        worker.path.write_bytes(bytes(len(CONTENT)))
        assert get(peer, MANIFEST.id, 1) is RefusalReason.CHANGED, "nothing is served that does not match its digest"


def test_what_is_right_only_workers_say(tmp_path: Path) -> None:
    with started(tmp_path) as (_, peer):
        requests = (Digests(rid=1, id=MANIFEST.id, start=0), Describe(rid=2, name="film"), List(rid=3))
        for request in requests:
            reply = requested(peer, request)
            assert isinstance(reply, Refusal)
            assert reply.reason is RefusalReason.BAD_REQUEST


@pytest.mark.parametrize("how", ["input closed", "SIGTERM"])
def test_it_ends_with_the_download_or_when_it_is_told_to(tmp_path: Path, how: str) -> None:
    before = {*Path(os.environ.get("TMPDIR", "/tmp")).glob("msd-pass-on-*")}
    with started(tmp_path) as (worker, peer):
        assert get(peer, MANIFEST.id, 1) is RefusalReason.MISSING
        assert {*Path(os.environ.get("TMPDIR", "/tmp")).glob("msd-pass-on-*")} <= before, "it leaves no folder"
        if how == "SIGTERM":
            worker.process.send_signal(signal.SIGTERM)
        else:
            worker.input.close()
        assert worker.process.wait(TIMEOUT) == 0
