"""Hostile clients: malformed messages, floods of requests, peers with and without keys.

``python -m tests.hostile_clients`` runs a flood in a separate process, so that the flood does not slow down the test.
"""

from __future__ import annotations

import fcntl
import math
import os
import random
import struct
import sys
import termios
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgpack
import msgspec
import zmq
from msgspec.structs import replace

from msd.wire.net.monitor import ConnectionEvent, Monitor
from msd.wire.net.sockets import tune
from msd.wire.protocol.codec import STATUS_TOPIC, decode, encode
from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    Bye,
    DataReply,
    Describe,
    Described,
    Digests,
    Get,
    GetBundle,
    Hello,
    List,
    Message,
    Segment,
)
from msd.wire.protocol.segments import digest
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials, KeyFolder, KeyPair, Role
from tests.processes import TIMEOUT, Process, Serve, System

#: Number of requests that a flood keeps outstanding per connection; it exceeds what a worker queues.
OUTSTANDING = 400


def memory_of(pid: int, field: str = "VmRSS") -> int:
    """Returns the resident memory of a running process in bytes, or its peak if ``field`` is ``VmHWM``."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


def process_and_children(pid: int) -> list[int]:
    """Returns the pids of a process and its children."""
    children: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # The thread has ended.
            children += (task / "children").read_text().split()
    return [pid, *sorted(map(int, children))]


# Keys and connections.


class Keyring:
    """The keys of the servers and of users. Each owner has a configuration folder, as if on a separate machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.config = folder / "config.toml"
        self.config.write_text('[broker]\nsecurity = "curve"\n')
        self.servers: KeyPair = self.key_folder("servers").init()

    def env(self, owner: str) -> dict[str, str]:
        return {**os.environ, "XDG_CONFIG_HOME": str(self._folder / owner)}

    def key_folder(self, owner: str) -> KeyFolder:
        return KeyFolder(self._folder / owner / "msd" / "keys")

    def create_key(self, owner: str, role: Role | None = None) -> Credentials:
        """Creates a key pair for ``owner`` and admits its public key in ``role``, unless ``role`` is None."""
        pair, public = self.key_folder(owner).new(owner)
        if role is not None:
            self.key_folder("servers").admit(public.read_text(), role)
        return Credentials(pair, self.servers.public)

    def serve(self, serve: Serve, path: Path, *arguments: str, **options: Any) -> System:
        """Starts servers that use these keys. The returned system connects to them with the servers' own key pair."""
        system = serve(path, "-c", str(self.config), *arguments, env=self.env("servers"), **options)
        system.server_flags += ["--server-key", self.servers.public.hex()]
        own = Credentials(self.servers, self.servers.public)
        system.servers = replace(system.servers, credentials=own)
        return system


class Peer:
    """One connection to a port of the servers, with or without a key. A context manager."""

    def __init__(self, kind: int, port: int, credentials: Credentials | None = None) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(kind)
        tune(self.socket, credentials=credentials)
        self.socket.linger = 0
        self.socket.sndtimeo = self.socket.rcvtimeo = int(TIMEOUT * 1000)
        if kind == zmq.SUB:
            self.socket.subscribe(b"")
        self.monitor = Monitor(self.socket, encrypted=credentials is not None)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def events(self) -> Iterator[ConnectionEvent | ConnectionRefusal]:
        """Yields the connection's events (opened, closed, refused) until the timeout, then fails."""
        deadline = time.monotonic() + TIMEOUT
        while self.monitor.socket.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            yield from self.monitor.read()
        raise AssertionError("no further connection event arrived before the timeout")

    def is_accepted(self) -> bool:
        return next(self.events()) is ConnectionEvent.OPENED

    def request(self, request: Message, replies: Any) -> Any:
        """Sends a request and returns the next message, decoded as one of ``replies``."""
        self.socket.send(encode(request))
        return decode(self.socket.recv_multipart()[0], replies)

    def unsent_bytes(self) -> int:
        """Returns how many bytes the kernel holds that the other side has not received yet."""
        return int.from_bytes(fcntl.ioctl(self.monitor.descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def drain(self) -> int:
        """Discards the messages that have arrived and returns their number."""
        dropped = 0
        with suppress(zmq.Again):
            while True:
                self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
                dropped += 1
        return dropped

    def close(self) -> None:
        self.monitor.close()
        self._context.destroy(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WellBehavedClient:
    """Keeps ``WINDOW`` requests outstanding with each worker and verifies the segments. A context manager."""

    WINDOW = 4

    def __init__(self, ports: Sequence[int]) -> None:
        self._peers = [Peer(zmq.DEALER, port) for port in ports]
        described: Described = self._peers[0].request(Describe(rid=0), DataReply)
        self.file = described.id
        self.segments = -(-described.size // described.segment_size)
        self._peers[0].socket.send(encode(Digests(rid=0, id=self.file, start=0)))
        page = self._peers[0].socket.recv_multipart()[1]
        self._digests = [page[at : at + 32] for at in range(0, len(page), 32)]
        self._poller = zmq.Poller()
        self._requests = 0
        for peer in self._peers:
            self._poller.register(peer.socket, zmq.POLLIN)
            for _ in range(self.WINDOW):
                self._send_request(peer.socket)

    def _send_request(self, socket: zmq.Socket[bytes]) -> None:
        self._requests += 1
        socket.send(encode(Get(rid=self._requests, id=self.file, index=self._requests % self.segments)))

    def count_segments(self, seconds: float) -> int:
        """Returns the number of segments that arrive within ``seconds``."""
        arrived = 0
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for socket, _ in self._poller.poll(math.ceil(left * 1000)):
                head, payload = socket.recv_multipart(copy=False)
                segment = decode(head.buffer, Segment)
                assert digest(payload.buffer) == self._digests[segment.index]
                arrived += 1
                self._send_request(socket)
        return arrived

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in self._peers:
            peer.close()


# Malformed messages.


def data_requests(file: bytes) -> list[Message]:
    """Returns valid requests of each kind to a worker that shares ``film.bin`` with the id ``file``."""
    return [
        Hello(rid=1, version=PROTOCOL_VERSION, session=7),
        List(rid=2),
        Describe(rid=3, name="film.bin"),
        Digests(rid=4, id=file, start=0),
        Get(rid=5, id=file, index=3),
        Get(rid=6, id=file, index=3, start=10, length=100),
        GetBundle(rid=7, ids=file * 2),
        GetBundle(rid=8, ids=file * 512, start=1, length=1000),
        List(rid=9, after="a", prefix="film", catalogue=bytes(32)),
        Bye(session=7),
    ]


class MessageFuzzer:
    """Generates malformed messages of many kinds, from valid requests and from random values."""

    def __init__(self, rng: random.Random, requests: Sequence[Message], max_size: int) -> None:
        self._rng = rng
        self._frames = [encode(request) for request in requests]
        self._headers: list[dict[str, Any]] = [
            msgspec.to_builtins(request, builtin_types=(bytes,)) for request in requests
        ]
        self._max_size = max_size
        kinds = {
            self._random_bytes: 12,
            self._random_value: 12,
            self._damaged_request: 30,
            self._request_with_wrong_field: 30,
            self._wrong_number_of_parts: 12,
            self._very_large: 3,
            self._deeply_nested: 1,
            self._many_parts: 0.2,
        }
        self._kinds = list(kinds)
        self._weights = list(kinds.values())

    def message(self) -> list[bytes]:
        """Returns the frames of a message, which is almost always malformed."""
        (make,) = self._rng.choices(self._kinds, self._weights)
        return [frame[: self._max_size] for frame in make()]

    def oversized(self) -> bytes:
        """Returns a frame that exceeds the socket's size limit and is not a subscription."""
        return (b"\x7f" + self._rng.randbytes(63)) * (self._rng.randint(65536, 1 << 20) // 64 + 1)

    def _random_bytes(self) -> list[bytes]:
        return [self._rng.randbytes(self._rng.choice((0, 1, 5, 40, 300, 4000)))]

    def _random_value(self) -> list[bytes]:
        return [msgpack.packb(self._value(0))]

    def _damaged_request(self) -> list[bytes]:
        """A valid request with a few bytes changed, removed or inserted."""
        frame = bytearray(self._rng.choice(self._frames))
        for _ in range(self._rng.randint(1, 3)):
            at = self._rng.randrange(len(frame) or 1)
            frame[at : at + self._rng.randint(0, 2)] = self._rng.randbytes(self._rng.randint(0, 2))
        return [bytes(frame)]

    def _request_with_wrong_field(self) -> list[bytes]:
        header = dict(self._rng.choice(self._headers))
        key = self._rng.choice([*header])
        if self._rng.random() < 0.2:
            del header[key]
        else:
            header[key] = self._value(2)
        return [msgpack.packb(header)]

    def _wrong_number_of_parts(self) -> list[bytes]:
        valid = self._rng.choice(self._frames)
        return self._rng.choice([[b"", valid], [valid, b""], [valid, valid], [valid] * 3, [valid] * 5, [b""] * 9])

    def _very_large(self) -> list[bytes]:
        """A frame near the size limit, or a small frame whose msgpack header declares a huge size."""
        header = dict(self._rng.choice(self._headers))
        room = self._max_size - 200
        header[self._rng.choice([*header])] = self._rng.choice(
            ["x" * room, bytes(room), [None] * room, ["x"] * (room // 2), [{}] * room, 2**64 - 1, -(2**63)]
        )
        declared_sizes = [
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xc9\xff\xff\xff\xff\x01",
        ]
        return [self._rng.choice([msgpack.packb(header), self._rng.choice(declared_sizes)])]

    def _deeply_nested(self) -> list[bytes]:
        depth = self._max_size // 4
        return [self._rng.choice([b"\x91" * depth, b"\x91" * 500 + b"\xc0", b"\x81\xa1a" * depth])]

    def _many_parts(self) -> list[bytes]:
        return [self._rng.randbytes(self._rng.choice((0, 0, 8)))] * self._rng.choice((100, 3000))

    def _value(self, depth: int) -> Any:
        rng = self._rng
        match rng.randrange(13 if depth < 4 else 9):
            case 0:
                return None
            case 1:
                return rng.random() < 0.5
            case 2:
                return rng.choice((0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)))
            case 3:
                return rng.choice((0.0, 1e308, float("nan"), float("inf")))
            case 4:
                return rng.choice(
                    ("", "x" * 5000, "a/../b", "\0", "\x1b[2J", "\u202e", *(h["type"] for h in self._headers))
                )
            case 5:
                return rng.randbytes(rng.choice((0, 31, 32, 33, 5000)))
            case 6:
                return msgpack.ExtType(rng.randrange(128), rng.randbytes(rng.choice((0, 4, 8))))
            case 7:
                return msgpack.Timestamp(rng.randrange(2**40), 5)
            case 8:
                return rng.randrange(2**64)
            case 9:
                return [self._value(depth + 1) for _ in range(rng.randrange(5))]
            case 10:
                return {self._key(depth): self._value(depth + 1) for _ in range(rng.randrange(5))}
            case 11:
                return dict(rng.choice(self._headers))
            case _:
                return [0] * rng.choice((8192, 8193))

    def _key(self, depth: int) -> Any:
        return self._rng.choice(("type", "rid", "id", "", "x" * 20, 5, b"rid", None))


# Bytes that are not ZMTP (ZeroMQ's wire protocol), and incomplete ZMTP handshakes.

#: The first bytes of every ZMTP 3 connection.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
#: The last handshake message of a DEALER without keys.
READY = b"\x04\x1c\x05READY\x0bSocket-Type" + struct.pack("!I", 6) + b"DEALER"
GIB_8 = struct.pack("!Q", 8 << 30)
CLIENT_HELLO = bytes.fromhex("16030100c2010000be0303") + bytes(range(32)) + bytes(151)
RAW_STREAMS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: servers\r\n\r\n",
    "TLS": CLIENT_HELLO,
    "nothing": b"",
    "ZMTP/1.0": bytes.fromhex("05 00") + b"abcd" + bytes.fromhex("06 00") + b"hello",
    "ZMTP/1.0, 8 GiB": b"\xff" + GIB_8 + b"\0" + bytes(100),
    "ZMTP/1.0, a subscription": bytes.fromhex("01 00 07 00 01") + STATUS_TOPIC,
    "ZMTP/3.0, a frame of 8 GiB": GREETING + READY + b"\x02" + GIB_8 + bytes(100),
    "ZMTP/3.0, a command of 8 GiB": GREETING + b"\x06" + GIB_8 + bytes(100),
    "ZMTP/3.0, a message before the handshake": GREETING + b"\x00\x05hello",
}
#: Handshakes that stop before they are complete.
UNFINISHED_HANDSHAKES = {
    "nothing": b"",
    "HTTP": RAW_STREAMS["HTTP"],
    "TLS": CLIENT_HELLO[:20],
    "half a greeting": GREETING[:11],
    "a greeting": GREETING,
    "half a command": GREETING + READY[:9],
    "the header of an 8 GiB command": GREETING + b"\x06" + GIB_8,
}


# Floods.


def flood(behaviour: str, connections: int, client: WellBehavedClient, ports: Sequence[int]) -> Process:
    """Starts a process that opens ``connections`` connections to each port and floods them with requests for segments
    of the client's file. ``behaviour``: ``no-read`` never reads a reply, ``reconnect`` also replaces each connection
    every second, ``steady`` sends a new request for each segment it receives, ``greedy`` also sends a new request for
    each refusal.
    """
    arguments = [behaviour, str(connections), client.file.hex(), str(client.segments), *map(str, ports)]
    return Process([sys.executable, "-m", "tests.hostile_clients", *arguments], cwd=Path(__file__).parents[1])


def main(behaviour: str, connections: str, file: str, segments: str, *ports: str) -> None:
    requests = [encode(Get(rid=i, id=bytes.fromhex(file), index=i % int(segments))) for i in range(OUTSTANDING)]
    with zmq.Context() as context:
        context.max_sockets = 4096
        reads = behaviour in ("steady", "greedy")

        def connect(port: str) -> zmq.Socket[bytes]:
            dealer = context.socket(zmq.DEALER)
            dealer.linger = 0
            if not reads:
                # With buffers of the default size, this process and the kernel would buffer gigabytes of replies.
                dealer.rcvhwm = 1
                dealer.rcvbuf = 65536
            # Connections keep their own ports for a minute after they closed. On another address than that of the
            # servers, these may be default ports of the servers.
            dealer.connect(f"tcp://127.0.0.2:0;127.0.0.1:{port}")
            return dealer

        sockets = deque(map(connect, [*ports] * int(connections)))
        print("flooding", flush=True)
        if reads:
            _read_and_request(sockets, requests, greedy=behaviour == "greedy")
        elif behaviour == "no-read":
            _never_read(sockets, requests)
        else:
            next_ports = cycle(ports)
            while True:
                _never_read(sockets, requests, until=time.monotonic() + 1 / 20)
                for port in islice(next_ports, len(sockets) // 20):
                    sockets.popleft().close()
                    sockets.append(connect(port))


def _never_read(sockets: deque[zmq.Socket[bytes]], requests: list[bytes], until: float = math.inf) -> None:
    while time.monotonic() < until:
        sent = 0
        for socket in sockets:
            with suppress(zmq.Again):
                for request in requests[:8]:
                    socket.send(request, zmq.NOBLOCK)
                    sent += 1
        if not sent:
            time.sleep(0.001)


def _read_and_request(sockets: deque[zmq.Socket[bytes]], requests: list[bytes], *, greedy: bool) -> None:
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
        for request in requests:
            socket.send(request)
    sent = 0
    while True:
        for socket, _ in poller.poll():
            with suppress(zmq.Again):
                for _ in range(16):
                    is_segment = len(socket.recv_multipart(zmq.NOBLOCK, copy=False)) == 2
                    if is_segment or greedy:
                        sent += 1
                        socket.send(requests[sent % len(requests)], zmq.NOBLOCK)


if __name__ == "__main__":
    main(*sys.argv[1:])
