"""A client written from docs/protocol.md alone: what the page says is enough, and is true.

Nothing of the project's code is imported but what starts the servers. Where a test fails, either the
page or the servers are wrong.
"""

from __future__ import annotations

import random
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgpack
import pytest
import zmq
from blake3 import blake3

from tests.system import MIB, Serve, make_file

Map = dict[str, Any]
SECONDS = 10.0  # no single wait is longer
WINDOW = 2  # segments asked of one worker at a time

# --- Files, segments, ids ---


def segment_size_of(size: int) -> int:
    limit = MIB
    while size > 2**20 * limit:
        limit *= 2
    return min(-(-size // 12), limit)


def segments_of(size: int) -> int:
    return -(-size // segment_size_of(size)) if size else 0


def id_of(size: int, digests: list[bytes]) -> bytes:
    sizes = size.to_bytes(8, "big") + segment_size_of(size).to_bytes(8, "big")
    return blake3(sizes + b"".join(digests)).digest()


def id_of_content(data: bytes) -> bytes:
    step = segment_size_of(len(data))
    starts = [number * step for number in range(segments_of(len(data)))]
    return id_of(len(data), [blake3(data[start : start + step]).digest() for start in starts])


def catalogue_digest(entries: list[tuple[str, bytes]]) -> bytes:
    entries = sorted(entries)  # Python orders strings by code point
    return blake3(b"".join(name.encode() + b"\0" + id_ for name, id_ in entries)).digest()


# --- The client ---


class Lost(Exception):
    """The connection is gone, or its worker is not to be asked again."""


class Refused(Exception):
    def __init__(self, header: Map) -> None:
        super().__init__(header)
        self.reason = header.get("reason", "rejected")


class Connection:
    """A DEALER to a worker or to the control socket; one that was lost is never opened again."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.reconnect_ivl = -1
        self.socket.maxmsgsize = 64 * MIB
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.socket.connect(endpoint)
        self.welcome: Map = {}
        self.owed: dict[int, int] = {}  # rid -> the segment asked for

    def close(self, linger: int = 0) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(linger)

    def send(self, kind: str, **keys: object) -> int:
        rid = secrets.randbits(63)
        with suppress(zmq.Again):  # it is gone, as is what was asked there: the monitor will tell
            self.socket.send(msgpack.packb({"type": kind, "rid": rid, **keys}), zmq.DONTWAIT)
        return rid

    def receive(self) -> tuple[Map, bytes]:
        """The next message that counts; frames that are here are read before a loss is seen."""
        deadline = time.monotonic() + SECONDS
        poller = zmq.Poller()
        poller.register(self.socket, zmq.POLLIN)
        poller.register(self.monitor, zmq.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(poller.poll(int(left * 1000) + 1))
            if self.socket in ready:
                head, *payload = self.socket.recv_multipart()
                header: Map = msgpack.unpackb(head)
                if header["type"] == "hello":
                    raise Lost("connected to itself")
                if not self.welcome or header["epoch"] == self.welcome["epoch"]:
                    return header, b"".join(payload)
            elif ready:
                raise Lost
        raise TimeoutError

    def ask(self, kind: str, **keys: object) -> tuple[Map, bytes]:
        rid = self.send(kind, **keys)
        while True:
            header, payload = self.receive()
            if header["rid"] == rid:
                if header["type"] in ("refusal", "rejected"):
                    raise Refused(header)
                return header, payload


class Client:
    """Download one file from all workers that are awake."""

    def __init__(self, status_port: int) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.session = secrets.randbits(63)
        self.workers: list[Connection] = []
        self.seen = (0, -1)  # epoch and seq of the newest snapshot
        self.status = self.context.socket(zmq.SUB)
        self.status.linger = 0
        self.status.subscribe(b"msd1:")
        self.status.connect(f"tcp://127.0.0.1:{status_port}")
        try:
            self.snapshot = self.next_snapshot()
            self.control = self.connect(self.snapshot["control"])
        except BaseException:
            self.context.destroy(linger=0)
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.context.destroy(linger=0)

    def connect(self, endpoint: str) -> Connection:
        # Only the port counts, on the host where the status socket was reached.
        return Connection(self.context, f"tcp://127.0.0.1:{endpoint.rpartition(':')[2]}")

    def next_snapshot(self) -> Map:
        while self.status.poll(int(SECONDS * 1000)):
            frame = self.status.recv()
            assert frame.startswith(b"msd1:")
            snapshot: Map = msgpack.unpackb(frame[5:])
            if snapshot["epoch"] != self.seen[0] or snapshot["seq"] > self.seen[1]:
                self.seen = snapshot["epoch"], snapshot["seq"]
                return snapshot
        raise TimeoutError

    def hello(self, endpoint: str) -> Connection:
        worker = self.connect(endpoint)
        self.workers.append(worker)
        worker.welcome = worker.ask("hello", version=1, session=self.session)[0]
        return worker

    def hello_all(self) -> None:
        for state in self.snapshot["workers"]:
            if state["state"] == "awake":
                self.hello(state["endpoint"])

    def leave(self, worker: Connection) -> None:
        self.workers.remove(worker)
        worker.close()

    def describe(self, name: str) -> Map:
        """What a worker with the right catalogue says, else what most say; the others are left out."""
        answers: dict[Connection, Map] = {}
        reason: Exception = Lost()
        for worker in list(self.workers):
            try:
                answers[worker] = worker.ask("describe", name=name, id=None)[0]
            except (Refused, Lost) as error:
                reason = error
                self.leave(worker)
        if not answers:
            raise reason
        right = [w for w in answers if w.welcome["catalogue"] == self.snapshot["catalogue"]]
        chosen = Counter(answers[w]["id"] for w in right or answers).most_common(1)[0][0]
        for worker in [w for w in answers if answers[w]["id"] != chosen]:
            self.leave(worker)
        manifest = answers[self.workers[0]]
        assert manifest["segment_size"] == segment_size_of(manifest["size"])
        return manifest

    def digests(self, manifest: Map) -> list[bytes]:
        digests: list[bytes] = []
        while len(digests) < segments_of(manifest["size"]):
            _, page = self.workers[0].ask("digests", id=manifest["id"], start=len(digests))
            assert len(page) in range(32, 8193 * 32, 32)
            digests += [page[at : at + 32] for at in range(0, len(page), 32)]
        assert id_of(manifest["size"], digests) == manifest["id"]
        return digests

    def segments(self, manifest: Map, digests: list[bytes]) -> Iterator[tuple[int, int, bytes]]:
        """The number of the worker, the index and the bytes of each segment, as they arrive."""
        missing = set(range(len(digests)))
        todo = deque(missing)

        def next_for(worker: Connection) -> int | None:
            if todo:
                return todo.popleft()
            if worker.owed:
                return None
            # It has nothing to do: it is asked for what a slower one owes.
            return next((i for other in self.workers for i in other.owed.values() if i in missing), None)

        while missing:
            for worker in self.workers:
                while len(worker.owed) < WINDOW and (wanted := next_for(worker)) is not None:
                    worker.owed[worker.send("get", id=manifest["id"], index=wanted)] = wanted
            for worker in self.ready():
                try:
                    header, payload = worker.receive()
                    if header["rid"] not in worker.owed:
                        continue
                    if header["type"] == "refusal":
                        raise Lost  # for this client, every reason to leave a worker out
                    index = worker.owed[header["rid"]]
                    step = manifest["segment_size"]
                    right_length = min(step, manifest["size"] - index * step)
                    if len(payload) != right_length or blake3(payload).digest() != digests[index]:
                        raise Lost
                    del worker.owed[header["rid"]]
                except Lost:
                    todo.extend(missing.intersection(worker.owed.values()))
                    self.leave(worker)
                    continue
                if index in missing:  # the first right copy wins
                    missing.remove(index)
                    yield worker.welcome["number"], index, payload
            todo = deque(index for index in todo if index in missing)

    def ready(self) -> list[Connection]:
        """The workers that have said something or are gone."""
        poller = zmq.Poller()
        for worker in self.workers:
            poller.register(worker.socket, zmq.POLLIN)
            poller.register(worker.monitor, zmq.POLLIN)
        ready = dict(poller.poll(int(SECONDS * 1000)))
        if not ready:
            raise TimeoutError
        return [w for w in self.workers if w.socket in ready or w.monitor in ready]

    def finish(self) -> None:
        for worker in self.workers:
            worker.send("bye", session=self.session)
            worker.close(linger=1000)
        self.workers.clear()
        assert self.control.ask("done", session=self.session)[0]["type"] == "accepted"

    def entries(self, worker: Connection) -> Iterator[Map]:
        after, more = "", True
        while more:
            catalog, _ = worker.ask("list", after=after)
            yield from catalog["entries"]
            more = catalog["more"]
            after = catalog["entries"][-1]["name"] if more else after

    def state(self, number: int) -> Map:
        report, _ = self.control.ask("status")
        [state] = [s for s in report["status"]["workers"] if s["number"] == number]
        return dict(state)


def download(status_port: int, name: str) -> bytes:
    with Client(status_port) as client:
        client.hello_all()
        assert len(client.workers) == 4
        manifest = client.describe(name)
        digests = client.digests(manifest)
        data = assemble(manifest, [(i, payload) for _, i, payload in client.segments(manifest, digests)])
        client.finish()
        return data


def assemble(manifest: Map, pieces: list[tuple[int, bytes]]) -> bytes:
    data = bytearray(manifest["size"])
    for index, payload in pieces:
        start = index * manifest["segment_size"]
        data[start : start + len(payload)] = payload
    assert len(data) == manifest["size"]
    return bytes(data)


# --- The tests ---


@pytest.fixture
def shared(tmp_path: Path, rng: random.Random) -> Path:
    folder = tmp_path / "shared"
    (folder / "sub").mkdir(parents=True)
    make_file(folder / "film.bin", 13 * MIB + 5, rng)
    make_file(folder / "empty", 0, rng)
    # By code point, "-" is before "/", and U+FFFD before U+1F600 (in UTF-16 it is after).
    for name in ("sub/245 bytes", "sub-way", "\ufffd", "\U0001f600", "Zoë"):
        make_file(folder / name, 245, rng)
    return folder


@pytest.fixture
def port(serve: Serve, shared: Path) -> int:
    """The status socket's."""
    return serve(shared).ports[4]


def test_the_page_s_examples_of_sizes() -> None:
    assert (segment_size_of(245), segments_of(245), 245 - 11 * 21) == (21, 12, 14)
    assert (segment_size_of(0), segments_of(0)) == (0, 0)
    assert (segment_size_of(12 * MIB), segment_size_of(12 * MIB + 1)) == (MIB, MIB)
    assert (segment_size_of(2**40), segment_size_of(2**40 + 1)) == (MIB, 2 * MIB)
    assert segment_size_of(2**46) == 64 * MIB


def test_downloads_are_right_byte_for_byte(port: int, shared: Path) -> None:
    for name in ("film.bin", "empty", "sub/245 bytes"):
        assert download(port, name) == (shared / name).read_bytes()


def test_ids_and_digests_are_as_computed_by_hand(port: int, shared: Path) -> None:
    files = [path for path in shared.rglob("*") if path.is_file()]
    ids = {path.relative_to(shared).as_posix(): id_of_content(path.read_bytes()) for path in files}
    with Client(port) as client:
        client.hello_all()
        assert {w.welcome["number"] for w in client.workers} == {1, 2, 3, 4}
        for worker in client.workers:
            entries = list(client.entries(worker))
            assert [entry["name"] for entry in entries] == sorted(ids)
            assert {entry["name"]: entry["id"] for entry in entries} == ids
            for entry in entries:
                facts = (shared / entry["name"]).stat()
                assert (entry["size"], entry["mtime_ns"]) == (facts.st_size, facts.st_mtime_ns)
            assert worker.welcome["catalogue"] == client.snapshot["catalogue"]
            assert worker.welcome["files"] == client.snapshot["files"] == len(ids)
        assert client.snapshot["catalogue"] == catalogue_digest(list(ids.items()))


def test_a_catalogue_of_more_than_one_page(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    names = [f"{number:04}" for number in range(1030)]  # an array has at most 1024 elements
    for name in names:
        (folder / name).write_bytes(name.encode())
    with Client(serve(folder).ports[4]) as client:
        client.hello_all()
        entries = list(client.entries(client.workers[0]))
        assert [entry["name"] for entry in entries] == names
        assert client.workers[0].ask("list", after="1029")[0]["entries"] == []
        assert client.snapshot["catalogue"] == catalogue_digest([(e["name"], e["id"]) for e in entries])


def test_describe_by_name_by_id_and_by_neither(serve: Serve, shared: Path) -> None:
    path = shared / "film.bin"
    with Client(serve(path).ports[4]) as client:
        client.hello_all()
        worker = client.workers[0]
        wanted = id_of_content(path.read_bytes())
        for name, id_ in (("film.bin", None), (None, wanted), ("film.bin", wanted), (None, None)):
            manifest, _ = worker.ask("describe", name=name, id=id_)
            assert (manifest["type"], manifest["name"], manifest["id"]) == ("manifest", "film.bin", wanted)
        with pytest.raises(Refused) as refused:
            worker.ask("describe", name="film.bin", id=bytes(32))
        assert refused.value.reason == "unknown"


def test_a_page_of_digests_may_begin_anywhere(port: int) -> None:
    with Client(port) as client:
        client.hello_all()
        manifest = client.describe("film.bin")
        digests = client.digests(manifest)
        for start in (5, 13):
            reply, page = client.workers[3].ask("digests", id=manifest["id"], start=start)
            assert (reply["start"], page) == (start, b"".join(digests[start:]))


@pytest.mark.parametrize("before", [0, 1], ids=["before the first segment", "after the first segment"])
def test_a_download_ends_right_when_a_worker_goes_to_sleep(port: int, shared: Path, before: int) -> None:
    with Client(port) as client:
        client.hello_all()
        manifest = client.describe("film.bin")
        stream = client.segments(manifest, client.digests(manifest))
        pieces = [next(stream) for _ in range(before)]
        asleep = 2 if not pieces or pieces[0][0] != 2 else 3
        toggled, _ = client.control.ask("toggle", number=asleep, want="asleep")
        assert (toggled["type"], toggled["number"], toggled["reached"]) == ("toggled", asleep, True)
        pieces += stream
        assert before or asleep not in {number for number, _, _ in pieces}
        data = assemble(manifest, [(index, payload) for _, index, payload in pieces])
        assert data == (shared / "film.bin").read_bytes()
        client.finish()


def ask_for_ever(worker: Connection, id_: bytes) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        segment, payload = worker.ask("get", id=id_, index=0)
        assert (segment["type"], len(payload)) == ("segment", 21)


def test_a_worker_that_goes_to_sleep_says_so_or_closes(port: int) -> None:
    with Client(port) as client:
        client.hello_all()
        id_ = client.describe("sub/245 bytes")["id"]
        worker = client.workers[1]
        order = client.control.send("toggle", number=worker.welcome["number"], want="asleep")
        with pytest.raises((Refused, Lost)) as ended:
            ask_for_ever(worker, id_)
        if isinstance(ended.value, Refused):
            assert ended.value.reason == "sleeping"
            with pytest.raises(Lost):  # its port closes a moment later
                worker.receive()
        answer, _ = client.control.receive()
        assert (answer["rid"], answer["state"]) == (order, "asleep")


def wait_for(client: Client, number: int, key: str, value: object) -> None:
    """Wait for a snapshot that says this of a worker."""
    deadline = time.monotonic() + SECONDS
    while client.snapshot["workers"][number - 1][key] != value:
        assert time.monotonic() < deadline
        client.snapshot = client.next_snapshot()


def test_bye_ends_the_session_on_its_connection(port: int) -> None:
    with Client(port) as client:
        client.hello_all()
        for number in (1, 2, 3, 4):
            wait_for(client, number, "clients", 1)
        client.finish()
        for number in (1, 2, 3, 4):
            wait_for(client, number, "clients", 0)


def test_toggle_and_status(port: int) -> None:
    with Client(port) as client:
        report, _ = client.control.ask("status")
        assert report["type"] == "report"
        assert report["status"].keys() >= client.snapshot.keys() - {"type"}
        assert client.state(2).keys() == client.snapshot["workers"][1].keys()
        assert all(event.keys() == {"time", "text", "bad"} for event in report["events"])
        assert any("alive" in event["text"] for event in report["events"])
        assert len(report["rates"]) == 4

        for want, state in ((None, "asleep"), ("asleep", "asleep"), (None, "awake"), ("awake", "awake")):
            toggled, _ = client.control.ask("toggle", number=2, want=want)
            assert (toggled["number"], toggled["state"], toggled["reached"]) == (2, state, True)
            assert (client.state(2)["state"], client.state(2)["wanted"]) == (state, state)
        client.control.ask("toggle", number=2, want="asleep")
        wait_for(client, 2, "state", "asleep")

        with pytest.raises(Refused) as refused:
            client.control.ask("toggle", number=5, want=None)
        assert refused.value.reason == "rejected"


def test_a_worker_that_woke_up_is_connected_to_anew(port: int, shared: Path) -> None:
    with Client(port) as client:
        client.hello_all()
        worker = client.workers[1]
        client.control.ask("toggle", number=2, want="asleep")
        with pytest.raises(Lost):
            worker.receive()
        client.control.ask("toggle", number=2, want="awake")
        again = client.hello(client.snapshot["workers"][1]["endpoint"])
        assert again.welcome["number"] == 2
        assert client.state(2)["epoch"] == again.welcome["epoch"]
    assert download(port, "film.bin") == (shared / "film.bin").read_bytes()


def test_an_unknown_name_or_id_is_refused(port: int) -> None:
    with Client(port) as client:
        client.hello_all()
        worker = client.workers[0]
        requests: list[tuple[str, Map]] = [
            ("describe", {"name": "nope", "id": None}),
            ("describe", {"name": None, "id": bytes(32)}),
            ("describe", {"name": None, "id": None}),  # it shares more than one file
            ("digests", {"id": bytes(32), "start": 0}),
            ("get", {"id": bytes(32), "index": 0}),
        ]
        for kind, keys in requests:
            with pytest.raises(Refused) as refused:
                worker.ask(kind, **keys)
            assert refused.value.reason == "unknown"
        with pytest.raises(Refused) as refused:
            client.describe("nope")
        assert refused.value.reason == "unknown"


def test_a_segment_out_of_range_is_a_bad_request(port: int) -> None:
    with Client(port) as client:
        client.hello_all()
        manifest = client.describe("film.bin")
        worker = client.workers[0]
        for kind, key, number in (("get", "index", 14), ("get", "index", 2**63 - 1), ("digests", "start", 14)):
            with pytest.raises(Refused) as refused:
                worker.ask(kind, id=manifest["id"], **{key: number})
            assert refused.value.reason == "bad-request"
        segment, payload = worker.ask("get", id=manifest["id"], index=13)  # the last one
        assert (segment["index"], len(payload)) == (13, 5)


def malformed_messages() -> list[list[bytes]]:
    ask = {"type": "list", "rid": 1, "after": ""}
    headers: list[object] = [
        [],
        {},
        {**ask, "type": "nonsense"},
        {"type": "list", "after": ""},
        {**ask, "rid": "1"},
        {**ask, "rid": -1},
        {**ask, "rid": 2**63},
        {**ask, "rid": 1.0},
        {**ask, "rid": True},
        {**ask, "after": b""},
        {**ask, "after": "x" * 8193},
        {**ask, "unknown": [0] * 1025},
        {**ask, "unknown": msgpack.ExtType(1, b"x")},
        {"type": "get", "rid": 1, "id": b"short", "index": 0},
    ]
    frames = [[b""], [b"\xc1"], [b"", msgpack.packb(ask)], [msgpack.packb(ask) + b"\0"]]
    return frames + [[msgpack.packb(header)] for header in headers]


def test_garbage_is_dropped_and_a_request_after_it_is_answered(port: int) -> None:
    with Client(port) as client:
        worker = client.connect(client.snapshot["workers"][0]["endpoint"])
        client.workers.append(worker)
        for connection, request, reply in (
            (worker, {"type": "hello", "version": 1, "session": 1}, "welcome"),
            (worker, {"type": "list", "after": "", "unknown": [{"key": None}]}, "catalog"),
            (client.control, {"type": "status", "unknown": 1}, "report"),
        ):
            for frames in malformed_messages():
                connection.socket.send_multipart(frames)
                rid = secrets.randbits(63)
                connection.socket.send(msgpack.packb({**request, "rid": rid}))
                answer, _ = connection.receive()  # the very next message, so nothing came before it
                assert (answer["type"], answer["rid"]) == (reply, rid)


def test_a_complaint_is_accepted_and_counted(port: int) -> None:
    with Client(port) as client:
        client.hello_all()
        id_ = client.describe("film.bin")["id"]
        accepted, _ = client.control.ask("complaint", number=3, id=id_, index=0)
        assert accepted["type"] == "accepted"
        assert client.state(3)["complaints"] == 1
