"""A client and a worker written from docs/protocol.md alone show that the document is complete and correct.

They import none of the project's code; only the helpers that start the servers do. If a test fails, either the document
or the servers are wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import secrets
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import msgpack
import pytest
import zmq
from blake3 import blake3
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from tests.hostile_clients import Keyring
from tests.hosts import Broker
from tests.processes import MIB, Serve, Source, System, files_equal, make_file, run_msd, wait_for

Map = dict[str, Any]
Reply = tuple[Map, bytes]
TIMEOUT_S = 10.0  # seconds for each wait
WINDOW = 4  # requests in flight at each worker
OPENED = zmq.Event.HANDSHAKE_SUCCEEDED
REFUSED, FAILED = zmq.Event.HANDSHAKE_FAILED_AUTH, zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
OTHER_MECHANISM = zmq.Event.HANDSHAKE_FAILED_PROTOCOL


# --- Files, segments, ids ---


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)] if data else []


def segment_size_of(size: int) -> int:
    limit = MIB
    while size > 2**20 * limit:
        limit *= 2
    return min(-(-size // 12), limit)


def digests_of(content: bytes) -> list[bytes]:
    return [blake3(segment).digest() for segment in cut(content, segment_size_of(len(content)))]


def id_from(size: int, digests: list[bytes]) -> bytes:
    return blake3(size.to_bytes(8) + segment_size_of(size).to_bytes(8) + b"".join(digests)).digest()


def id_of(content: bytes) -> bytes:
    return id_from(len(content), digests_of(content))


def catalogue_of(entries: list[Map]) -> bytes:
    digest = blake3()
    for entry in entries:
        digest.update(entry["name"].encode() + b"\0" + entry["mtime_ns"].to_bytes(8, signed=True))
        digest.update(entry["mode"].to_bytes(2) + (entry["id"] or bytes(32)))
    return digest.digest()


# --- Connections ---


class Keys:
    """The servers' public key, as the digits that the project prints, and a key pair of the client."""

    def __init__(self, servers: str) -> None:
        self.servers = z85.encode(bytes.fromhex(servers))
        self.public, self.secret = zmq.curve_keypair()
        self.digits = z85.decode(self.public).hex()


class Connection:
    """One connection to a data, status or control socket. It is not used any more once it has ended."""

    def __init__(self, context: zmq.Context[Any], port: int, kind: int, keys: Keys | None) -> None:
        self.socket = context.socket(kind)
        self.socket.maxmsgsize = 64 * MIB
        if keys:
            self.socket.curve_serverkey, self.socket.curve_publickey = keys.servers, keys.public
            self.socket.curve_secretkey = keys.secret
        ends = zmq.Event.DISCONNECTED | REFUSED | FAILED | OTHER_MECHANISM
        self.monitor = self.socket.get_monitor_socket(OPENED | ends)
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self.pending: dict[int, Unit] = {}
        self.rid = 0

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=300)

    def event(self) -> tuple[int, int]:
        """Waits until the handshake or the connection has ended; returns how, and the value of the event."""
        assert self.monitor.poll(TIMEOUT_S * 1000), "no event"
        event = parse_monitor_message(self.monitor.recv_multipart())
        return event["event"], event["value"]

    def opened(self) -> Self:
        assert self.event()[0] == OPENED
        return self

    def send_raw(self, header: Any, *frames: bytes) -> None:
        self.socket.send_multipart([msgpack.packb(header), *frames], zmq.DONTWAIT)

    def send(self, type: str, **keys: Any) -> int:
        self.rid += 1
        self.send_raw({"type": type, "rid": self.rid, **keys})
        return self.rid

    def receive(self) -> Reply:
        assert self.socket.poll(TIMEOUT_S * 1000), "no reply"
        header, *payload = self.socket.recv_multipart()
        assert len(header) <= MIB
        assert len(payload) <= 1
        return msgpack.unpackb(header), b"".join(payload)

    def request(self, type: str, **keys: Any) -> Reply:
        rid = self.send(type, **keys)
        header, payload = self.receive()
        assert header["rid"] == rid, header
        return header, payload

    def refusal(self, type: str, **keys: Any) -> str:
        """Sends a request that is to be refused and returns the reason."""
        header, payload = self.request(type, **keys)
        assert (header["type"], payload) == ("refusal", b""), (keys, header)
        return str(header["reason"])

    def hello(self, session: int = 0) -> Map:
        welcome, _ = self.request("hello", version=2, session=session)
        assert welcome["type"] == "welcome"
        return welcome

    def pages(self, prefix: str = "") -> list[list[Map]]:
        """Lists all entries whose names begin with ``prefix``."""
        page, _ = self.request("list", prefix=prefix)
        pages, catalogue = [page["entries"]], page["catalogue"]
        while page["more"]:
            last = pages[-1][-1]["name"]
            page, _ = self.request("list", after=last, prefix=prefix, catalogue=catalogue)
            assert page["catalogue"] == catalogue
            pages.append(page["entries"])
        names = [entry["name"] for page in pages for entry in page]
        assert all(first < second for first, second in itertools.pairwise(names))
        assert all(name.startswith(prefix) for name in names)
        return pages

    def digests(self, manifest: Map) -> list[bytes]:
        """Gets the digests of all segments and checks them against the id."""
        digests: list[bytes] = []
        while len(digests) * manifest["segment_size"] < manifest["size"]:
            _, payload = self.request("digests", id=manifest["id"], start=len(digests))
            digests += cut(payload, 32)
        assert manifest["segment_size"] == segment_size_of(manifest["size"])
        assert manifest["id"] == id_from(manifest["size"], digests)
        return digests


class Network:
    """Opens connections to servers, and closes all of them at the end."""

    def __init__(self, system: System, keys: Keys | None = None) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.ports, self.keys = system.ports, keys
        self.connections: list[Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for connection in self.connections:
            connection.close()
        self.context.term()

    def connect(self, port: int, kind: int = zmq.DEALER) -> Connection:
        self.connections.append(Connection(self.context, port, kind, self.keys))
        return self.connections[-1]

    def worker(self, number: int, session: int = 0) -> Connection:
        connection = self.connect(self.ports[number - 1]).opened()
        assert connection.hello(session)["number"] == number
        return connection

    def status(self, topic: bytes = b"msd1:") -> Connection:
        connection = self.connect(self.ports[4], zmq.SUB).opened()
        connection.socket.subscribe(topic)
        return connection

    def control(self) -> Connection:
        return self.connect(port_of(snapshot(self.status())["control"])).opened()


def port_of(endpoint: str) -> int:
    return int(endpoint.removeprefix("tcp://").rpartition(":")[2])


def snapshot(status: Connection, when: Callable[[Map], bool] = lambda snapshot: True) -> Map:
    """Returns the next snapshot that fulfils a condition."""
    while True:
        assert status.socket.poll(TIMEOUT_S * 1000), "no snapshot"
        (frame,) = status.socket.recv_multipart()
        assert frame.startswith(b"msd1:")
        header: Map = msgpack.unpackb(frame[5:])
        assert (header["type"], header["version"]) == ("status", 2)
        if when(header):
            return header


# --- A download ---


class Unit:
    """A segment or a bundle: a request, and a function that verifies and writes what arrives for it."""

    def __init__(self, accept: Callable[[Map, bytes], bool], **request: Any) -> None:
        self.accept, self.request, self.done = accept, request, False


class Download:
    """Downloads from all workers at once, as the section "A download from beginning to end" says."""

    def __init__(self, network: Network, target: Path) -> None:
        self.session, self.target = secrets.randbits(63), target
        self.status = snapshot(network.status())
        self.control = network.connect(port_of(self.status["control"])).opened()
        awake = [worker for worker in self.status["workers"] if worker["state"] == "awake"]
        self.workers = [network.connect(port_of(worker["endpoint"])).opened() for worker in awake]
        for connection, worker in zip(self.workers, awake, strict=True):
            welcome = connection.hello(self.session)
            assert (welcome["number"], welcome["epoch"]) == (worker["number"], worker["epoch"])
            assert welcome["catalogue"] == self.status["catalogue"]

    def path(self, name: str) -> Path:
        assert not {"", ".", ".."} & {*name.removesuffix("/").split("/")}
        path = self.target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def file(self, name: str) -> list[Unit]:
        manifest, _ = self.workers[0].request("describe", name=name)
        path = self.path(manifest["name"])
        path.touch()

        def segment(index: int, digest: bytes) -> Unit:
            def accept(header: Map, payload: bytes) -> bool:
                if (header["index"], header["start"], blake3(payload).digest()) != (index, 0, digest):
                    return False
                with path.open("r+b") as file:
                    file.seek(index * manifest["segment_size"])
                    return file.write(payload) > 0

            return Unit(accept, type="get", id=manifest["id"], index=index)

        return [segment(index, digest) for index, digest in enumerate(self.workers[0].digests(manifest))]

    def tree(self, prefix: str) -> list[Unit]:
        units: list[Unit] = []
        files: list[Map] = []
        for entry in itertools.chain(*self.workers[0].pages(prefix)):
            if entry["name"].endswith("/"):
                self.path(entry["name"]).mkdir(exist_ok=True)
            elif entry["size"] > MIB:
                units += self.file(entry["name"])
            else:
                if len(files) == 512 or sum(file["size"] for file in files) + entry["size"] > MIB:
                    units.append(self.bundle(files))
                    files = []
                files.append(entry)
        return [*units, self.bundle(files)] if files else units

    def bundle(self, files: list[Map]) -> Unit:
        def accept(header: Map, payload: bytes) -> bool:
            assert header["statuses"] == ["ok"] * len(files)
            start = 0
            for entry, length in zip(files, header["lengths"], strict=True):
                content = payload[start : start + length]
                start += length
                if id_of(content) != entry["id"]:
                    return False
                self.path(entry["name"]).write_bytes(content)
            return True

        return Unit(accept, type="bundle", ids=b"".join(entry["id"] for entry in files))

    def fetch(self, units: list[Unit], disturb: Callable[[], object] = lambda: None) -> None:
        """Fetches the units. ``disturb`` is called when the first reply has arrived."""
        waiting, deadline = deque(units), time.monotonic() + 3 * TIMEOUT_S
        while missing := [unit for unit in units if not unit.done]:
            assert time.monotonic() < deadline
            poller = zmq.Poller()
            for worker in self.workers:
                while len(worker.pending) < WINDOW and waiting:
                    unit = waiting.popleft()
                    worker.pending[worker.send(**unit.request)] = unit
                if not worker.pending:  # It is idle: ask it for a unit that is outstanding at another worker.
                    worker.pending[worker.send(**missing[0].request)] = missing[0]
                poller.register(worker.socket, zmq.POLLIN)
                poller.register(worker.monitor, zmq.POLLIN)
            assert poller.poll(round(TIMEOUT_S * 1000)), "nothing arrives"
            for worker in [*self.workers]:
                if has_ended := worker.monitor.poll(0):
                    self.workers.remove(worker)
                while worker.socket.poll(0):
                    header, payload = worker.receive()
                    unit = worker.pending.pop(header["rid"])
                    if not unit.done:
                        unit.done = header["type"] in ("segment", "bundle") and unit.accept(header, payload)
                        waiting.extend([] if unit.done else [unit])
                    disturb()
                    disturb = bool
                if has_ended:
                    waiting.extend(unit for unit in worker.pending.values() if not unit.done)

    def end(self) -> None:
        for connection in self.workers:
            connection.send_raw({"type": "bye", "session": self.session})
        assert self.control.request("done", session=self.session)[0]["type"] == "accepted"


# --- A worker ---


class Worker:
    """A worker without files, as the section "Workers and the broker" says."""

    def __init__(self, context: zmq.Context[Any], control_port: int, keys: Keys) -> None:
        self.broker = Connection(context, control_port, zmq.DEALER, keys).opened()
        self.data = context.socket(zmq.ROUTER)
        self.key, self.data.curve_secretkey = zmq.curve_keypair()
        self.data.curve_server = True
        self.port = self.data.bind_to_random_port("tcp://127.0.0.1")
        self.epoch, self.token = random.randint(1, 2**63 - 1), secrets.token_bytes(16)
        self.catalogue = catalogue_of([])
        #: The last message of each type.
        self.received: dict[str, Map] = {}

    def join(self, name: str) -> Map:
        keys = {"name": name, "epoch": self.epoch, "token": self.token}
        address = {"endpoint": f"tcp://*:{self.port}", "key": z85.decode(self.key)}
        joined, _ = self.broker.request("join", version=2, **keys, **address)
        assert joined["type"] == "joined", joined
        self.number = joined["number"]
        return joined

    def beat(self, state: str) -> None:
        """Sends a heartbeat, and answers for a quarter of a second."""
        heartbeat = {"type": "heartbeat", "number": self.number, "epoch": self.epoch, "state": state, "edition": 1}
        admitted = self.received.get("admitted", {}).get("digest", b"")
        files = {"catalogue": self.catalogue, "files": 0, "admitted": admitted}
        self.broker.send_raw({**heartbeat, **files, "load": {}, "sessions": []})
        poller = zmq.Poller()
        poller.register(self.data, zmq.POLLIN)
        poller.register(self.broker.socket, zmq.POLLIN)
        end = time.monotonic() + 0.25
        while (rest := end - time.monotonic()) > 0:
            ready = dict(poller.poll(round(rest * 1000)))
            if self.broker.socket in ready:
                message, _ = self.broker.receive()
                self.received[message["type"]] = message
            if self.data in ready:
                client, frame = self.data.recv_multipart()
                hello = msgpack.unpackb(frame)
                assert (hello["type"], hello["version"], hello["session"]) == ("hello", 2, 0)
                welcome = {"type": "welcome", "rid": hello["rid"], "version": 2, "epoch": self.epoch}
                described = {"number": self.number, "files": 0, "catalogue": self.catalogue, "features": []}
                self.data.send_multipart([client, msgpack.packb({**welcome, **described})])

    def close(self) -> None:
        self.data.close(linger=0)
        self.broker.close()


# --- Servers for all tests that change nothing ---

SMALL, LARGE = random.Random(18).randbytes(245), random.Random(18).randbytes(12 * MIB + 1)
TEXTS = [bytes(1000 * number) for number in range(20)]
S, L, EMPTY, UNKNOWN = id_of(SMALL), id_of(LARGE), id_of(b""), bytes(32)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    for name, content in {"small.bin": SMALL, "large.bin": LARGE, "tree/1": SMALL, "tree/2": LARGE[: MIB + 1]}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "large.bin").chmod(0o640)
    (folder / "tree" / "empty folder").mkdir()
    (folder / "tree" / "empty folder").chmod(0o1770)
    for number, content in enumerate(TEXTS):
        (folder / "tree" / f"part {number:02d}").mkdir()
        (folder / "tree" / f"part {number:02d}" / "ü.txt").write_bytes(content)
    deep = folder.joinpath("long", *["x" * 250] * 12)
    deep.mkdir(parents=True)
    for number in range(400):  # Their names, of 3 kB each, do not fit into one page.
        (deep / f"{number:03d}").touch()
    return folder


@pytest.fixture(scope="module")
def system(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    runtime = tempfile.mkdtemp(prefix="msd-t-")
    environment = {**os.environ, "XDG_RUNTIME_DIR": runtime, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    # With this interval, a snapshot within a test's time limit is one for a new subscriber or for a change.
    with System(shared, "-i", "30", env=environment) as system:
        yield system.wait_until_ready()
    shutil.rmtree(runtime)


@pytest.fixture
def network(system: System) -> Iterator[Network]:
    with Network(system) as network:
        yield network


@pytest.fixture
def worker(network: Network) -> Connection:
    return network.worker(1)


# --- The data socket ---


def test_welcome_describes_the_worker(network: Network) -> None:
    status = snapshot(network.status())
    for number in (1, 2, 3, 4):
        welcome = network.connect(network.ports[number - 1]).opened().hello()
        assert (welcome["version"], welcome["features"], welcome["number"]) == (2, [], number)
        assert welcome["epoch"] == status["workers"][number - 1]["epoch"]
        assert (welcome["catalogue"], welcome["files"]) == (status["catalogue"], status["files"])


def test_other_versions_are_refused_with_those_spoken(network: Network) -> None:
    worker = network.connect(network.ports[0]).opened()
    for version in (0, 1, 3):
        refusal, _ = worker.request("hello", version=version)
        assert (refusal["type"], refusal["reason"], refusal["versions"]) == ("refusal", "version", [2])
    # The connection stays. Features and keys that are not defined are ignored.
    assert worker.request("hello", version=2, features=["not-defined"], later=1.5)[0]["type"] == "welcome"
    for request in ("status", "quit"):
        rejected, _ = network.control().request(request, version=3)
        assert (rejected["type"], rejected["versions"]) == ("rejected", [2])


def test_the_listing_has_every_file_and_folder(worker: Connection, shared: Path) -> None:
    pages = worker.pages()
    assert len(pages) > 1
    entries = [*itertools.chain(*pages)]
    paths = {str(path.relative_to(shared)) + "/" * path.is_dir(): path for path in shared.rglob("*")}
    assert [entry["name"] for entry in entries] == sorted(paths)
    for entry in entries:
        stat, path = paths[entry["name"]].stat(), paths[entry["name"]]
        expected = (0, 0, None) if path.is_dir() else (stat.st_size, stat.st_mtime_ns, id_of(path.read_bytes()))
        assert (entry["size"], entry["mtime_ns"], entry["id"]) == expected
        assert entry["mode"] == stat.st_mode & 0o777
    assert worker.hello()["catalogue"] == catalogue_of(entries)
    assert worker.hello()["files"] == sum(path.is_file() for path in paths.values())


def test_a_listing_can_be_of_a_prefix_or_begin_later(worker: Connection) -> None:
    entries = [*itertools.chain(*worker.pages())]
    for prefix in ("tree/", "tree/part 1", "small.bin", "no such name"):
        expected = [entry for entry in entries if entry["name"].startswith(prefix)]
        assert [*itertools.chain(*worker.pages(prefix))] == expected
    page, _ = worker.request("list", after="tree/part 19/", prefix="tree/part")
    assert ([entry["name"] for entry in page["entries"]], page["more"]) == (["tree/part 19/ü.txt"], False)
    assert worker.refusal("list", catalogue=UNKNOWN) == "unknown"


def test_files_are_described_by_name_and_by_id(worker: Connection) -> None:
    manifest, _ = worker.request("describe", name="large.bin")
    assert (manifest["type"], manifest["name"], manifest["mode"]) == ("manifest", "large.bin", 0o640)
    assert (manifest["size"], manifest["segment_size"], manifest["id"]) == (len(LARGE), MIB, L)
    assert worker.request("describe", id=L)[0]["name"] == "large.bin"
    assert worker.request("describe", id=S)[0]["name"] in ("small.bin", "tree/1")
    assert worker.request("describe", name="small.bin", id=S)[0]["segment_size"] == 21
    for keys in ({"name": "small.bin", "id": L}, {"name": "tree/"}, {"name": "no"}, {"id": UNKNOWN}, {}):
        assert worker.refusal("describe", **keys) == "unknown"
    assert worker.digests(manifest) == digests_of(LARGE)
    assert worker.request("digests", id=L, start=12)[1] == digests_of(LARGE)[12]
    assert worker.refusal("digests", id=L, start=13) == worker.refusal("digests", id=EMPTY, start=0) == "bad-request"


def test_segments_are_sent_whole_and_in_parts(worker: Connection) -> None:
    for index, start, length in ((0, 0, None), (11, 0, None), (1, 0, 5), (1, 5, 16), (1, 20, None), (11, 13, 1)):
        header, payload = worker.request("get", id=S, index=index, start=start, length=length)
        assert (header["type"], header["index"], header["start"]) == ("segment", index, start)
        assert payload == cut(SMALL, 21)[index][start:][:length]
    for index, start, length in ((12, 0, None), (0, 21, None), (0, 5, 17), (11, 0, 15), (0, 0, 0)):
        assert worker.refusal("get", id=S, index=index, start=start, length=length) == "bad-request"
    assert worker.refusal("get", id=EMPTY, index=0) == "bad-request"
    assert worker.refusal("get", id=UNKNOWN, index=0) == "unknown"


def test_bundles_are_sent_whole_and_in_parts(worker: Connection) -> None:
    for start, length, lengths in (
        *((0, None, [245, 0, 245]), (5, None, [240, 0, 245]), (5, 10, [10, 0, 0])),
        *((244, 2, [1, 0, 1]), (0, 10_000, [245, 0, 245])),
    ):
        header, payload = worker.request("bundle", ids=S + EMPTY + S, start=start, length=length)
        assert (header["type"], header["statuses"], header["lengths"]) == ("bundle", ["ok"] * 3, lengths)
        assert payload == (SMALL + SMALL)[start:][:length]
    # An unknown file does not count towards the length.
    header, payload = worker.request("bundle", ids=S + UNKNOWN + S, length=300)
    assert (header["statuses"], header["lengths"]) == (["ok", "unknown", "ok"], [245, 0, 55])
    assert payload == (SMALL + SMALL)[:300]
    header, payload = worker.request("bundle", ids=UNKNOWN + S, start=9)
    assert (header["statuses"], payload) == (["unknown", "ok"], SMALL)


def test_the_limits_of_bundles(worker: Connection) -> None:
    assert worker.request("bundle", ids=S * 512)[1] == SMALL * 512
    text = TEXTS[16]  # of 16000 bytes, so that 66 of them have more than 1 MiB, but less without 8000 bytes
    assert worker.refusal("bundle", ids=id_of(text) * 66) == "bad-request"
    assert len(worker.request("bundle", ids=id_of(text) * 66, start=8000)[1]) == 66 * 16000 - 8000
    assert len(worker.request("bundle", ids=id_of(text) * 66, length=MIB)[1]) == MIB
    refused: list[Map] = [{"ids": L}, {"ids": L, "length": 1}, {"ids": S, "start": 245}, {"ids": EMPTY, "start": 1}]
    for keys in refused:
        assert worker.refusal("bundle", **keys) == "bad-request"


MALFORMED: dict[str, list[Map]] = {
    "type": [{}, {"type": 5}, {"type": "later"}, {"type": "welcome"}],
    "version": [{"type": "hello"}, {"type": "hello", "version": 2.0}],
    "session": [{"type": "hello", "version": 2, "session": -1}],
    "features": [{"type": "hello", "version": 2, "features": "a"}, {"type": "hello", "version": 2, "features": ["A"]}],
    "after": [{"type": "list", "after": 1}],
    "prefix": [{"type": "list", "prefix": b""}],
    "catalogue": [{"type": "list", "catalogue": ""}],
    "name": [{"type": "describe", "name": b"small.bin"}],
    "id": [{"type": "get", "index": 0}, {"type": "describe", "id": bytes(31)}],
    "start": [{"type": "digests", "id": S}, {"type": "get", "id": S, "index": 0, "start": None}],
    "index": [{"type": "get", "id": S, "index": index} for index in (0.0, True, -1, "0", 2**63)],
    "length": [{"type": "get", "id": S, "index": 0, "length": 0}],
    "ids": [{"type": "bundle", "ids": ids} for ids in (b"", bytes(33), "0" * 32)],
}


def test_a_malformed_request_is_answered_with_the_key(worker: Connection) -> None:
    for key, requests in MALFORMED.items():
        for request in requests:
            worker.send_raw({"rid": 77, **request})
            header, _ = worker.receive()
            assert (header["type"], header["rid"], header["reason"]) == ("refusal", 77, "bad-request")
            assert re.search(rf"\b{key}\b", header["detail"]), header


def test_garbage_is_counted_and_not_answered(network: Network) -> None:
    control, worker = network.control(), network.worker(4)

    def garbage() -> int:
        return int(control.request("status")[0]["status"]["workers"][3]["garbage"])

    before, request = garbage(), {"type": "list", "rid": 999}
    worker.send_raw({"type": "list"})
    for rid in (1.0, -1, True, "1", 2**63):
        worker.send_raw({**request, "rid": rid})
    worker.send_raw(request, b"a second frame")
    worker.send_raw([request])
    worker.send_raw({**request, "later": [0] * 8193})
    worker.send_raw({"type": "bundle", "rid": 999, "ids": S * 513})
    worker.socket.send(msgpack.packb(request) + b"more")
    worker.socket.send(b"")
    assert worker.request("list", prefix="small")[0]["type"] == "catalog"  # the first reply since
    wait_for("the count", lambda: garbage() == before + 12)
    for connection in (worker, control):
        connection.socket.send(bytes((64 << 10) + 1))
        assert connection.event()[0] == zmq.Event.DISCONNECTED


def test_requests_above_128_are_busy_or_dropped(worker: Connection) -> None:
    rids = {worker.send("get", id=L, index=0) for _ in range(128)}
    while rids:
        header, _ = worker.receive()
        assert header["type"] == "segment"
        rids.remove(header["rid"])

    started, rids, busy = time.monotonic(), {worker.send("get", id=L, index=0) for _ in range(500)}, 0
    while (header := worker.receive()[0])["type"] != "digests":
        rids.discard(header["rid"])
        busy += header.get("reason") == "busy"
        if header["type"] == "segment" and len(rids) <= 500 - busy - 128:
            worker.send("digests", id=S, start=0)  # After those that were accepted, a request is answered again.
    assert rids, "none was dropped"
    assert 1 <= busy <= 100 * (time.monotonic() - started) + 1


def test_requests_for_several_files_are_mixed(worker: Connection) -> None:
    expected: dict[int, bytes] = {}
    for text in TEXTS[1:]:
        expected[worker.send("get", id=id_of(text), index=3)] = cut(text, segment_size_of(len(text)))[3]
        expected[worker.send("bundle", ids=id_of(text) + S)] = text + SMALL
        expected[worker.send("digests", id=id_of(text), start=0)] = b"".join(digests_of(text))
    while expected:
        header, payload = worker.receive()
        assert payload == expected.pop(header["rid"])


def test_a_changed_file_refuses_itself_alone(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    files = [make_file(tmp_path / "shared" / name, 1000, rng) for name in ("a", "b", "c")]
    first, changed, last = (file.read_bytes() for file in files)
    with Network(serve(tmp_path / "shared")) as network:
        status, worker = network.status(), network.worker(1)
        old, pages = snapshot(status)["catalogue"], worker.pages()
        files[1].write_bytes(SMALL)
        header, payload = worker.request("bundle", ids=id_of(first) + id_of(changed) + id_of(last))
        assert header["statuses"] in (["ok", "changed", "ok"], ["ok", "unknown", "ok"])
        assert (header["lengths"], payload) == ([1000, 0, 1000], first + last)
        assert worker.refusal("get", id=id_of(changed), index=0) in ("changed", "unknown")
        # The new catalogue is used on open connections, and the one before it is kept.
        new = snapshot(status, lambda status: status["catalogue"] != old)["catalogue"]
        wait_for("the new catalogue", lambda: worker.request("list")[0]["catalogue"] == new)
        assert worker.request("bundle", ids=S)[1] == SMALL
        assert worker.refusal("get", id=id_of(changed), index=0) == "unknown"
        page, _ = worker.request("list", catalogue=old)
        assert (page["catalogue"], [page["entries"]]) == (old, pages)


# --- The status socket and the control socket ---


def test_a_snapshot_has_the_keys_of_the_document(network: Network) -> None:
    types: dict[type, str] = {int: "epoch seq files clients garbage refused", str: "control", list: "features workers"}
    types |= {float: "interval", bytes: "catalogue"}
    worker_types: dict[type, str] = {int: "number epoch pid restarts clients bytes_sent complaints garbage refused"}
    worker_types |= {str: "endpoint state wanted reason", float: "rate uptime"}
    for status in (snapshot(network.status()), snapshot(network.status(topic=b""))):
        for table, maps in ((types, [status]), (worker_types, status["workers"])):
            for kind, keys in table.items():
                assert all(type(item[key]) is kind for item in maps for key in keys.split())
        assert [worker["number"] for worker in status["workers"]] == [1, 2, 3, 4]
        assert [port_of(worker["endpoint"]) for worker in status["workers"]] == [*network.ports[:4]]
        assert {(worker["state"], worker["wanted"]) for worker in status["workers"]} == {("awake", "awake")}


def test_subscriptions_to_other_topics_are_limited(network: Network) -> None:
    status = network.status()
    status.socket.subscribe(b"x" * 1000)
    snapshot(status)
    assert not status.monitor.poll(0)
    status.socket.subscribe(b"y" * 100)
    assert status.event()[0] == zmq.Event.DISCONNECTED
    status = network.status()
    status.socket.subscribe(b"z" * 1025)
    assert status.event()[0] == zmq.Event.DISCONNECTED


def test_a_client_is_counted_once(network: Network) -> None:
    control = network.control()

    def counted(total: int, *workers: int) -> None:
        def reached() -> bool:
            status = control.request("status")[0]["status"]
            return (status["clients"], *(worker["clients"] for worker in status["workers"])) == (total, *workers)

        wait_for("the number of clients", reached)

    workers = [network.worker(number, session=5) for number in (1, 1, 2)]
    counted(1, 1, 1, 0, 0)
    for worker in workers:
        worker.send_raw({"type": "bye", "session": 5})
    counted(0, 0, 0, 0, 0)


def test_the_control_socket_reports_and_rejects(network: Network) -> None:
    control, status, complaint = network.control(), network.status(), {"number": 2, "id": S, "index": 11}
    report, _ = control.request("status", version=2)
    assert abs(report["time"] - time.time()) < 60
    assert (report["type"], report["status"]["catalogue"]) == ("report", snapshot(status)["catalogue"])
    assert control.request("done", session=5)[0]["type"] == "accepted"
    for _ in range(2):  # The second one does not count.
        assert control.request("complaint", **complaint)[0]["type"] == "accepted"
    workers = control.request("status")[0]["status"]["workers"]
    assert [worker["complaints"] for worker in workers] == [0, 1, 0, 0]
    rejected: list[tuple[str, Map]] = [
        *(("type", {"type": "later"}), ("session", {"type": "done"}), ("number", {"type": "toggle"})),
        *(("number", {"type": "toggle", "number": 1.0}), ("want", {"type": "toggle", "number": 1, "want": "dead"})),
        *(("version", {"type": "status", "version": "2"}), ("9", {"type": "toggle", "number": 9})),
        *(("", {"type": "complaint", **complaint, **keys}) for keys in ({"number": 9}, {"id": L[::-1]}, {"index": 12})),
        ("index", {"type": "complaint", **complaint, "index": None}),
    ]
    for word, request in rejected:
        header, _ = control.request(**request)
        assert (header["type"], header["denied"], header.get("versions", [])) == ("rejected", False, [])
        assert word in header["message"]


def test_a_client_reports_its_progress(network: Network) -> None:
    control = network.control()
    assert "progress" in snapshot(network.status())["features"]
    progress: Map = {"session": 77, "selection": "Sé*", "bytes": 3, "total": 9}
    for state in ("downloading", "later"):  # The second one is malformed.
        control.send_raw({"type": "progress", **progress, "state": state})
    (download,) = control.request("status")[0]["downloads"]
    assert download.pop("silent_seconds") < 60
    zeros = dict.fromkeys(("received", "files", "rate", "seconds", "workers", "peers", "peer_bytes", "exit_code"), 0)
    expected = {"number": 1, "client": "127.0.0.1", "host": "127.0.0.1", "state": "downloading", "passes_on": False}
    assert download == {**expected, **zeros, "selection": "Sé*", "bytes": 3, "total": 9}
    control.send_raw({"type": "progress", **progress, "state": "broken", "exit_code": 6, "workers": 2, "later": 1})
    (download,) = control.request("status")[0]["downloads"]
    assert (download["state"], download["exit_code"], download["workers"]) == ("broken", 6, 2)


def test_an_operator_puts_a_worker_to_sleep(network: Network) -> None:
    status, control, worker = network.status(), network.control(), network.worker(3)
    control.send("toggle", number=3)
    assert worker.event()[0] == zmq.Event.DISCONNECTED
    toggled, _ = control.receive()
    assert (toggled["type"], toggled["number"], toggled["state"], toggled["reached"]) == ("toggled", 3, "asleep", True)
    snapshot(status, lambda status: status["workers"][2]["state"] == status["workers"][2]["wanted"] == "asleep")
    assert control.request("toggle", number=3, want="awake")[0]["state"] == "awake"
    network.worker(3)


# --- Downloads ---


def test_a_file_is_downloaded_although_workers_crash_and_freeze(serve: Serve, source: Source, tmp_path: Path) -> None:
    film = source(24 * MIB)
    system = serve(film, "--until-done")
    with Network(system) as network:
        download = Download(network, tmp_path)
        _, second, third, _ = (worker["pid"] for worker in download.status["workers"])

        def disturb() -> None:
            os.kill(second, signal.SIGSTOP)
            os.kill(third, signal.SIGKILL)

        try:
            download.fetch(download.file("film.bin"), disturb)
        finally:
            os.kill(second, signal.SIGCONT)
        assert files_equal(film, tmp_path / "film.bin")
        download.end()
        assert system.wait() == 0


def test_a_tree_is_downloaded(network: Network, shared: Path, tmp_path: Path) -> None:
    download = Download(network, tmp_path)
    download.fetch(download.tree("tree/"))
    download.end()
    paths = {path.relative_to(shared): path for path in (shared / "tree").rglob("*")}
    assert {path.relative_to(tmp_path) for path in (tmp_path / "tree").rglob("*")} == paths.keys()
    for name, path in paths.items():
        assert path.is_dir() or files_equal(path, tmp_path / name)


def test_keys_are_converted_from_digits_to_z85(
    serve: Serve, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text('[broker]\nsecurity = "curve"\n')
    digits = re.findall(r"\b[0-9a-f]{64}\b", run_msd("keys", "init").stdout)
    keys = Keys(*digits)
    (tmp_path / "reader.pub").write_text(f"reader {keys.digits}\n")
    assert run_msd("keys", "admit", "reader.pub", "--role", "client").returncode == 0
    film = source(len(SMALL))
    with Network(serve(film), keys) as network:
        download = Download(network, tmp_path)
        download.fetch(download.file("film.bin"))
        assert files_equal(film, tmp_path / "film.bin")
        rejected, _ = download.control.request("toggle", number=1)
        assert (rejected["type"], rejected["denied"]) == ("rejected", True)
        network.keys = Keys(*digits)  # a key that the servers have not admitted
        assert network.connect(network.ports[0]).event() == (REFUSED, 400)
        network.keys = Keys(keys.digits)  # another public key of the servers
        assert network.connect(network.ports[0]).event()[0] == FAILED
        network.keys = None
        assert network.connect(network.ports[0]).event()[0] in (OTHER_MECHANISM, FAILED)


# --- Workers and the broker ---


def test_a_worker_joins_is_reached_obeys_and_leaves(tmp_path: Path, runtime_folder: Path) -> None:
    keyring = Keyring(tmp_path / "keys")
    servers = keyring.servers.public.hex()
    host, operator = Keys(servers), Keys(servers)
    for name, role, keys in (("host", "worker", host), ("boss", "operator", operator)):
        (tmp_path / f"{name}.pub").write_text(f"{name} {keys.digits}\n")
        admitted = run_msd("keys", "admit", f"{tmp_path}/{name}.pub", "--role", role, env=keyring.env("servers"))
        assert admitted.returncode == 0
    with ExitStack() as stack:
        context: zmq.Context[Any] = zmq.Context()
        stack.callback(context.term)
        broker = stack.enter_context(Broker(tmp_path / "b", keys=keyring))
        worker = Worker(context, broker.port + 1, host)
        stack.callback(worker.close)
        control = Connection(context, broker.port + 1, zmq.DEALER, operator).opened()
        stack.callback(control.close)

        def shown(state: str, beat: str) -> Map:
            """Sends heartbeats until the worker is in this state; returns what the snapshot says of it."""

            def is_shown() -> Map | None:
                worker.beat(beat)
                (shown,) = control.request("status")[0]["status"]["workers"]
                return shown if shown["state"] == state else None

            return wait_for(f"the state {state}", is_shown)

        def answer(type: str, beat: str) -> Map:
            """Sends heartbeats until a message of this type has arrived, and returns it."""

            def has_arrived() -> Map | None:
                worker.beat(beat)
                return worker.received.get(type)

            return wait_for(f"{type} from the broker", has_arrived)

        joined = worker.join("attic")
        assert (joined["number"], joined["wanted"], joined["host"]) == (1, "awake", "127.0.0.1")
        first = shown("awake", "awake")
        assert (first["name"], first["epoch"], first["key"]) == ("attic", worker.epoch, z85.decode(worker.key))
        assert (first["endpoint"], first["catalogue"]) == (f"tcp://*:{worker.port}", worker.catalogue)
        assert worker.received["reached"]["reason"] == ""
        roles = {
            key["hash"]: (key["role"], key["seconds"], key["scope"]) for key in worker.received["admitted"]["keys"]
        }
        own, boss = (hashlib.sha256(bytes.fromhex(digits)).digest() for digits in (servers, operator.digits))
        assert roles == {own: ("operator", None, ""), boss: ("operator", None, "")}
        worker.received.clear()
        control.send("toggle", number=1, want="asleep")
        assert answer("order", "awake")["wanted"] == "asleep"
        worker.beat("asleep")
        assert control.receive()[0]["reached"] is True
        assert shown("asleep", "asleep")["wanted"] == "asleep"
        assert worker.join("attic")["number"] == 1, "the same run may join again"
        worker.broker.send("join", version=2, name="attic", epoch=1, token=bytes(16), key=bytes(32))
        assert "in use" in answer("rejected", "asleep")["message"]
        assert shown("lost", "leaving")["reason"]
