"""Receivers that pass on what they have: requests to one, one that sends wrong bytes, whom server 5 names, what a
download says of passing on, and a folder to pass on.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import random
import threading
from pathlib import Path
from typing import Any

import msgpack
import zmq

from msd.wire.net.sockets import tune
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import (
    FILE_OK,
    PASSES_ON,
    PROTOCOL_VERSION,
    Announce,
    Bundle,
    DataRequest,
    Get,
    GetBundle,
    Held,
    Hello,
    Holder,
    Holders,
    Holds,
    Rejected,
    Segment,
    Welcome,
)
from msd.wire.protocol.segments import DIGEST_SIZE, span
from msd.wire.protocol.states import RefusalReason
from msd.wire.security.keys import Credentials, KeyPair
from tests.hostile_clients import Peer
from tests.processes import MIB, TIMEOUT, Download, System, make_file, wait_for


def get(peer: Peer, id: bytes, index: int) -> bytes | RefusalReason:
    """Returns a segment, or why it is refused."""
    peer.socket.send(encode(Get(rid=index, id=id, index=index)))
    head, *payload = peer.socket.recv_multipart()
    return payload[0] if payload else RefusalReason(msgpack.unpackb(head)["reason"])


#: Sizes at which files become segments, deep folders, and names that are special to a shell or as long as can be.
ODD_FILES = {
    "one MiB": MIB,
    "one MiB and a byte": MIB + 1,
    "/".join(["deep"] * 30) + "/large": MIB + 2,
    "/".join(["deep"] * 30) + "/empty": 0,
    "-rf * $(false) 'x' \"y\" \\ # ?": 5000,
    "-: e\u0301 é 🗂 \u00a0 ": 5000,
    "l" * 255: MIB + 3,
    "s" * 255: 3,
}
#: The number of files that ``make_folder`` makes.
FILES = 43 + len(ODD_FILES)


def receiver_welcome(rid: int) -> Welcome:
    """The answer of a receiver to ``hello``."""
    return Welcome(rid=rid, version=PROTOCOL_VERSION, epoch=7, number=1, files=1, catalogue=b"", features=[PASSES_ON])


def make_folder(folder: Path) -> Path:
    """Makes large and small files, empty ones, unusual names, sizes around the limit of bundles. Returns the folder."""
    rng = random.Random(1)
    for number in range(40):
        path = folder / f"sub {number % 3}" / ("ü" * (number % 2)) / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice([0, 9, 3000, 90_000, 300_000])))
    for number in range(2):
        make_file(folder / f"large {number}", (2 + number) * MIB + 7, rng)
    for name, size in ODD_FILES.items():
        make_file(folder / name, size, rng)
    (folder / "empty folder" / "🗂").mkdir(parents=True)
    (folder / "program").write_bytes(b"#!/bin/sh\n")
    (folder / "program").chmod(0o755)
    assert sum(path.is_file() for path in folder.rglob("*")) == FILES
    return folder


def folders_equal(one: Path, other: Path) -> bool:
    """True if two folders have the same names, and files with the same content and executable bits."""
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*"))
    assert names == sorted(str(path.relative_to(other)) for path in other.rglob("*"))
    files = [name for name in names if (one / name).is_file()]
    assert all((one / name).stat().st_mode & 0o100 == (other / name).stat().st_mode & 0o100 for name in files)
    return filecmp.cmpfiles(one, other, files, shallow=False)[1:] == ([], [])


def summary(download: Download, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Waits until a download of several files is complete, and returns its last event."""
    assert download.wait(timeout) == 0, download.err.text
    assert download.events[-1]["event"] == "summary"
    return download.events[-1]


def from_peers(done: dict[str, Any]) -> int:
    """The bytes that a download has got from others."""
    return sum(report["bytes"] for name, report in done["workers"].items() if name.startswith("peer"))


def wait_until_serving(download: Download) -> None:
    """Waits until a download is complete, and passes on what it has."""
    wait_for("passing on", lambda: [e for e in download.events_of("waiting") if "passed on to others" in e["reason"]])


def holders(server5: int, plan: bytes, credentials: Credentials | None = None) -> list[Holder]:
    """The receivers that server 5 names, which listens at this port."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        tune(socket, credentials=credentials)
        socket.linger = 0
        socket.rcvtimeo = 20_000
        socket.connect(f"tcp://127.0.0.1:{server5 + 1}")
        socket.send(encode(Announce(rid=1, plan=plan, units=0)))
        answer = decode(socket.recv(), Holders | Rejected)
    assert isinstance(answer, Holders)
    return answer.holders


class WrongReceiver:
    """Announces that it has all units of ``plan``, and sends wrong bytes. ``sizes`` are those of the files, by id. With
    ``credentials``, which are those of an admitted client, it has a key of its own. A context manager.
    """

    def __init__(
        self, system: System, plan: bytes, sizes: dict[bytes, int], credentials: Credentials | None = None
    ) -> None:
        self.key = KeyPair.generate() if credentials is not None else None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._control = self._context.socket(zmq.DEALER)
        for socket in (self._router, self._control):
            socket.linger = 0
        tune(self._control, credentials=credentials)
        if self.key is not None:
            self._router.curve_server = True
            self._router.curve_secretkey = self.key.secret
        port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self._control.connect(f"tcp://127.0.0.1:{system.ports[4] + 1}")
        self.endpoint = f"tcp://*:{port}"
        key = self.key.public if self.key is not None else b""
        self._announce = Announce(rid=1, plan=plan, units=99, endpoint=self.endpoint, key=key)
        self._plan, self._sizes = plan, sizes
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
                    self._send(ident, encode(receiver_welcome(rid)))
                case Holds(rid=rid):
                    self._send(ident, encode(Held(rid=rid, epoch=7, plan=self._plan)), b"\xff" * 20)
                case Get(rid=rid, id=id, index=index, start=start, length=length):
                    self.sent += 1
                    size = span(self._sizes[id], index)[1] - start if length is None else length
                    head = encode(Segment(rid=rid, epoch=7, index=index, start=start))
                    self._send(ident, head, os.urandom(size))
                case GetBundle(rid=rid):
                    self.sent += 1
                    lengths = self._lengths(request)
                    head = encode(Bundle(rid=rid, epoch=7, statuses=[FILE_OK] * len(lengths), lengths=lengths))
                    self._send(ident, head, os.urandom(sum(lengths)))

    def _lengths(self, request: GetBundle) -> list[int]:
        """How many bytes of each file a request is for."""
        ids = (request.ids[at : at + DIGEST_SIZE] for at in range(0, len(request.ids), DIGEST_SIZE))
        lengths = [self._sizes[id] for id in ids]
        lengths[0] -= request.start
        if request.length is not None:
            lengths[-1] -= sum(lengths) - request.length
        return lengths

    def _send(self, *frames: bytes) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._router.send_multipart(frames)
