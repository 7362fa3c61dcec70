"""A client written from docs/protocol.md alone shows that the document is complete and correct.

The client imports none of the project's code; only the helpers that start the servers do. If a test fails, either the
document or the servers are wrong.
"""

from __future__ import annotations

import random
import secrets
import struct
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgpack
import pytest
import zmq
from blake3 import blake3

from tests.processes import MIB, Serve, make_file

Map = dict[str, Any]
TIMEOUT_S = 10.0  # seconds for each wait
WINDOW = 2  # requests in flight per worker

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


def catalogue_digest(entries: list[Map]) -> bytes:
    """The digest of a catalogue with these entries, in any order."""
    return blake3(
        b"".join(
            entry["name"].encode()
            + b"\0"
            + struct.pack("!qH", entry["mtime_ns"], entry.get("mode", 0))
            + (entry.get("id") or bytes(32))
            for entry in sorted(entries, key=lambda entry: entry["name"])
        )
    ).digest()


# --- The client ---


class Lost(Exception):
    """The connection is closed, or the client no longer uses the worker."""


class Refused(Exception):
    def __init__(self, header: Map) -> None:
        super().__init__(header)
        self.header = header
        self.reason = header.get("reason", "rejected")


class Connection:
    """A DEALER socket connected to a worker or to the control socket. It never reconnects."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.reconnect_ivl = -1
        self.socket.maxmsgsize = 64 * MIB
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.socket.connect(endpoint)
        self.welcome: Map = {}
        self.outstanding: dict[int, int] = {}  # rid -> index of the requested segment

    def close(self, linger: int = 0) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(linger)

    def send(self, kind: str, **keys: object) -> int:
        rid = secrets.randbits(63)
        with suppress(zmq.Again):  # the connection is closed, as the monitor will report
            self.socket.send(msgpack.packb({"type": kind, "rid": rid, **keys}), zmq.DONTWAIT)
        return rid

    def receive(self) -> tuple[Map, bytes]:
        """Returns the next message of the worker's epoch. Raises Lost only once all received messages are read."""
        deadline = time.monotonic() + TIMEOUT_S
        poller = zmq.Poller()
        poller.register(self.socket, zmq.POLLIN)
        poller.register(self.monitor, zmq.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(poller.poll(int(left * 1000) + 1))
            if self.socket in ready:
                head, *payload = self.socket.recv_multipart()
                header: Map = msgpack.unpackb(head)
                if header["type"] == "hello":
                    raise Lost("the socket is connected to itself")
                if not self.welcome or header["epoch"] == self.welcome["epoch"]:
                    return header, b"".join(payload)
            elif ready:
                raise Lost
        raise TimeoutError

    def request(self, kind: str, **keys: object) -> tuple[Map, bytes]:
        rid = self.send(kind, **keys)
        while True:
            header, payload = self.receive()
            if header["rid"] == rid:
                if header["type"] in ("refusal", "rejected"):
                    raise Refused(header)
                return header, payload


class Client:
    """Downloads a file from all workers that are awake."""

    def __init__(self, status_port: int) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.session = secrets.randbits(63)
        self.workers: list[Connection] = []
        self.last_seq = (0, -1)  # epoch and seq of the newest snapshot
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
        # Take only the port from the endpoint; the host is that of the status socket.
        return Connection(self.context, f"tcp://127.0.0.1:{endpoint.rpartition(':')[2]}")

    def next_snapshot(self) -> Map:
        while self.status.poll(int(TIMEOUT_S * 1000)):
            frame = self.status.recv()
            assert frame.startswith(b"msd1:")
            snapshot: Map = msgpack.unpackb(frame[5:])
            if snapshot["epoch"] != self.last_seq[0] or snapshot["seq"] > self.last_seq[1]:
                self.last_seq = snapshot["epoch"], snapshot["seq"]
                return snapshot
        raise TimeoutError

    def hello(self, endpoint: str) -> Connection:
        worker = self.connect(endpoint)
        self.workers.append(worker)
        worker.welcome = worker.request("hello", version=2, session=self.session)[0]
        return worker

    def hello_all(self) -> None:
        for state in self.snapshot["workers"]:
            if state["state"] == "awake":
                self.hello(state["endpoint"])

    def drop(self, worker: Connection) -> None:
        self.workers.remove(worker)
        worker.close()

    def describe(self, name: str) -> Map:
        """Returns the most frequent manifest of the workers with the current catalogue; of all workers if none has it.

        Drops the workers that sent another manifest.
        """
        answers: dict[Connection, Map] = {}
        reason: Exception = Lost()
        for worker in list(self.workers):
            try:
                answers[worker] = worker.request("describe", name=name, id=None)[0]
            except (Refused, Lost) as error:
                reason = error
                self.drop(worker)
        if not answers:
            raise reason
        current = [w for w in answers if w.welcome["catalogue"] == self.snapshot["catalogue"]]
        chosen = Counter(answers[w]["id"] for w in current or answers).most_common(1)[0][0]
        for worker in [w for w in answers if answers[w]["id"] != chosen]:
            self.drop(worker)
        manifest = answers[self.workers[0]]
        assert manifest["segment_size"] == segment_size_of(manifest["size"])
        return manifest

    def digests(self, manifest: Map) -> list[bytes]:
        digests: list[bytes] = []
        while len(digests) < segments_of(manifest["size"]):
            _, page = self.workers[0].request("digests", id=manifest["id"], start=len(digests))
            assert len(page) in range(32, 8193 * 32, 32)
            digests += [page[at : at + 32] for at in range(0, len(page), 32)]
        assert id_of(manifest["size"], digests) == manifest["id"]
        return digests

    def segments(self, manifest: Map, digests: list[bytes]) -> Iterator[tuple[int, int, bytes]]:
        """Yields the worker number, index and content of each segment in order of arrival."""
        missing = set(range(len(digests)))
        todo = deque(missing)

        def next_for(worker: Connection) -> int | None:
            if todo:
                return todo.popleft()
            if worker.outstanding:
                return None
            # The worker is idle: request a segment that is outstanding at a slower worker.
            return next((i for other in self.workers for i in other.outstanding.values() if i in missing), None)

        while missing:
            for worker in self.workers:
                while len(worker.outstanding) < WINDOW and (wanted := next_for(worker)) is not None:
                    worker.outstanding[worker.send("get", id=manifest["id"], index=wanted)] = wanted
            for worker in self.ready():
                try:
                    header, payload = worker.receive()
                    if header["rid"] not in worker.outstanding:
                        continue
                    if header["type"] == "refusal":
                        raise Lost  # this client drops a worker on any refusal
                    index = worker.outstanding[header["rid"]]
                    step = manifest["segment_size"]
                    expected_length = min(step, manifest["size"] - index * step)
                    if len(payload) != expected_length or blake3(payload).digest() != digests[index]:
                        raise Lost
                    del worker.outstanding[header["rid"]]
                except Lost:
                    todo.extend(missing.intersection(worker.outstanding.values()))
                    self.drop(worker)
                    continue
                if index in missing:  # the first valid copy counts
                    missing.remove(index)
                    yield worker.welcome["number"], index, payload
            todo = deque(index for index in todo if index in missing)

    def ready(self) -> list[Connection]:
        """Waits until a message arrives or a connection is closed, and returns the connections concerned."""
        poller = zmq.Poller()
        for worker in self.workers:
            poller.register(worker.socket, zmq.POLLIN)
            poller.register(worker.monitor, zmq.POLLIN)
        ready = dict(poller.poll(int(TIMEOUT_S * 1000)))
        if not ready:
            raise TimeoutError
        return [w for w in self.workers if w.socket in ready or w.monitor in ready]

    def finish(self) -> None:
        for worker in self.workers:
            worker.send("bye", session=self.session)
            worker.close(linger=1000)
        self.workers.clear()
        assert self.control.request("done", session=self.session)[0]["type"] == "accepted"

    def entries(self, worker: Connection, prefix: str = "") -> Iterator[Map]:
        page, _ = worker.request("list", prefix=prefix)
        catalogue = page["catalogue"]
        while True:
            assert page["catalogue"] == catalogue
            yield from page["entries"]
            if not page["more"]:
                return
            after = page["entries"][-1]["name"]
            page, _ = worker.request("list", prefix=prefix, after=after, catalogue=catalogue)

    def state(self, number: int) -> Map:
        report, _ = self.control.request("status")
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
    # By code point, "-" sorts before "/", and U+FFFD before U+1F600 (in UTF-16, after it).
    for name in ("sub/245 bytes", "sub-way", "\ufffd", "\U0001f600", "Zoë"):
        make_file(folder / name, 245, rng)
    return folder


@pytest.fixture
def port(serve: Serve, shared: Path) -> int:
    """The port of the status socket."""
    return serve(shared).ports[4]


def test_the_size_examples_of_the_document_are_correct() -> None:
    assert (segment_size_of(245), segments_of(245), 245 - 11 * 21) == (21, 12, 14)
    assert (segment_size_of(0), segments_of(0)) == (0, 0)
    assert (segment_size_of(12 * MIB), segment_size_of(12 * MIB + 1)) == (MIB, MIB)
    assert (segment_size_of(2**40), segment_size_of(2**40 + 1)) == (MIB, 2 * MIB)
    assert segment_size_of(2**46) == 64 * MIB


def test_downloaded_content_is_correct(port: int, shared: Path) -> None:
    for name in ("film.bin", "empty", "sub/245 bytes"):
        assert download(port, name) == (shared / name).read_bytes()


def test_ids_and_digests_are_computed_as_documented(port: int, shared: Path) -> None:
    expected: list[Map] = [{"name": "sub/", "size": 0, "mtime_ns": 0, "id": None}]
    for path in shared.rglob("*"):
        if path.is_file():
            facts = path.stat()
            name, id_ = path.relative_to(shared).as_posix(), id_of_content(path.read_bytes())
            expected.append({"name": name, "size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "id": id_})
    for entry in expected:
        entry["mode"] = (shared / entry["name"]).stat().st_mode & 0o777
    with Client(port) as client:
        client.hello_all()
        assert {w.welcome["number"] for w in client.workers} == {1, 2, 3, 4}
        for worker in client.workers:
            assert list(client.entries(worker)) == sorted(expected, key=lambda entry: str(entry["name"]))
            assert worker.welcome["catalogue"] == client.snapshot["catalogue"]
            assert worker.welcome["files"] == client.snapshot["files"] == len(expected) - 1
        assert client.snapshot["catalogue"] == catalogue_digest(expected)


def test_a_listing_may_be_of_a_prefix(port: int) -> None:
    with Client(port) as client:
        client.hello_all()
        worker = client.workers[0]
        assert [entry["name"] for entry in client.entries(worker, prefix="sub/")] == ["sub/", "sub/245 bytes"]
        assert [entry["name"] for entry in client.entries(worker, prefix="sub")] == ["sub-way", "sub/", "sub/245 bytes"]
        assert list(client.entries(worker, prefix="nope")) == []


def test_a_catalogue_may_have_more_than_one_page(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    names = [f"{number:04}{'x' * 250}" for number in range(3200)]  # more than 1 MiB of entries
    for name in names:
        (folder / name).write_bytes(b"")
    with Client(serve(folder).ports[4]) as client:
        client.hello_all()
        worker = client.workers[0]
        entries = list(client.entries(worker))
        assert [entry["name"] for entry in entries] == names
        assert client.snapshot["catalogue"] == catalogue_digest(entries)
        page, _ = worker.request("list")
        assert page["more"]
        # The catalogue that the client began with can be listed for another minute.
        (folder / "another").write_bytes(b"")
        while worker.request("list", after=names[-1])[0]["catalogue"] == page["catalogue"]:
            client.next_snapshot()
        rest, _ = worker.request("list", after=page["entries"][-1]["name"], catalogue=page["catalogue"])
        assert [entry["name"] for entry in page["entries"] + rest["entries"]] == names
        with pytest.raises(Refused) as refused:
            worker.request("list", catalogue=bytes(32))
        assert refused.value.reason == "unknown"


def test_describe_takes_a_name_an_id_both_or_neither(serve: Serve, shared: Path) -> None:
    path = shared / "film.bin"
    with Client(serve(path).ports[4]) as client:
        client.hello_all()
        worker = client.workers[0]
        wanted = id_of_content(path.read_bytes())
        for name, id_ in (("film.bin", None), (None, wanted), ("film.bin", wanted), (None, None)):
            manifest, _ = worker.request("describe", name=name, id=id_)
            assert (manifest["type"], manifest["name"], manifest["id"]) == ("manifest", "film.bin", wanted)
        with pytest.raises(Refused) as refused:
            worker.request("describe", name="film.bin", id=bytes(32))
        assert refused.value.reason == "unknown"


def test_a_page_of_digests_may_start_at_any_segment(port: int) -> None:
    with Client(port) as client:
        client.hello_all()
        manifest = client.describe("film.bin")
        digests = client.digests(manifest)
        for start in (5, 13):
            reply, page = client.workers[3].request("digests", id=manifest["id"], start=start)
            assert (reply["start"], page) == (start, b"".join(digests[start:]))


@pytest.mark.parametrize("before", [0, 1], ids=["before the first segment", "after the first segment"])
def test_a_download_succeeds_when_a_worker_goes_to_sleep(port: int, shared: Path, before: int) -> None:
    with Client(port) as client:
        client.hello_all()
        manifest = client.describe("film.bin")
        stream = client.segments(manifest, client.digests(manifest))
        pieces = [next(stream) for _ in range(before)]
        asleep = 2 if not pieces or pieces[0][0] != 2 else 3
        toggled, _ = client.control.request("toggle", number=asleep, want="asleep")
        assert (toggled["type"], toggled["number"], toggled["reached"]) == ("toggled", asleep, True)
        pieces += stream
        assert before or asleep not in {number for number, _, _ in pieces}
        data = assemble(manifest, [(index, payload) for _, index, payload in pieces])
        assert data == (shared / "film.bin").read_bytes()
        client.finish()


def request_repeatedly(worker: Connection, id_: bytes) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        segment, payload = worker.request("get", id=id_, index=0)
        assert (segment["type"], len(payload)) == ("segment", 21)


def test_a_worker_that_goes_to_sleep_refuses_requests_or_closes(port: int) -> None:
    with Client(port) as client:
        client.hello_all()
        id_ = client.describe("sub/245 bytes")["id"]
        worker = client.workers[1]
        toggle_rid = client.control.send("toggle", number=worker.welcome["number"], want="asleep")
        with pytest.raises((Refused, Lost)) as ended:
            request_repeatedly(worker, id_)
        if isinstance(ended.value, Refused):
            assert ended.value.reason == "sleeping"
            with pytest.raises(Lost):  # the worker closes its port a moment later
                worker.receive()
        answer, _ = client.control.receive()
        assert (answer["rid"], answer["state"]) == (toggle_rid, "asleep")


def wait_for(client: Client, number: int, key: str, value: object) -> None:
    """Waits for a snapshot in which ``key`` of worker ``number`` has this value."""
    deadline = time.monotonic() + TIMEOUT_S
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


def test_toggle_changes_the_status(port: int) -> None:
    with Client(port) as client:
        report, _ = client.control.request("status")
        assert report["type"] == "report"
        assert report["status"].keys() >= client.snapshot.keys() - {"type"}
        assert client.state(2).keys() == client.snapshot["workers"][1].keys()
        assert all(event.keys() == {"seq", "time", "text", "bad"} for event in report["events"])
        numbers = [event["seq"] for event in report["events"]]
        assert numbers == sorted(set(numbers), reverse=True)
        assert all(event["time"] <= report["time"] for event in report["events"])
        assert any("alive" in event["text"] for event in report["events"])
        assert len(report["rates"]) == 4

        for want, state in ((None, "asleep"), ("asleep", "asleep"), (None, "awake"), ("awake", "awake")):
            toggled, _ = client.control.request("toggle", number=2, want=want)
            assert (toggled["number"], toggled["state"], toggled["reached"]) == (2, state, True)
            assert (client.state(2)["state"], client.state(2)["wanted"]) == (state, state)
        client.control.request("toggle", number=2, want="asleep")
        wait_for(client, 2, "state", "asleep")

        with pytest.raises(Refused) as refused:
            client.control.request("toggle", number=5, want=None)
        assert refused.value.reason == "rejected"


def test_a_client_can_reconnect_to_a_worker_that_woke_up(port: int, shared: Path) -> None:
    with Client(port) as client:
        client.hello_all()
        worker = client.workers[1]
        client.control.request("toggle", number=2, want="asleep")
        with pytest.raises(Lost):
            worker.receive()
        client.control.request("toggle", number=2, want="awake")
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
            ("describe", {"name": None, "id": None}),  # ambiguous: more than one file is shared
            ("digests", {"id": bytes(32), "start": 0}),
            ("get", {"id": bytes(32), "index": 0}),
        ]
        for kind, keys in requests:
            with pytest.raises(Refused) as refused:
                worker.request(kind, **keys)
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
                worker.request(kind, id=manifest["id"], **{key: number})
            assert refused.value.reason == "bad-request"
        segment, payload = worker.request("get", id=manifest["id"], index=13)  # the last segment
        assert (segment["index"], len(payload)) == (13, 5)


LIST = {"type": "list", "rid": 1, "after": ""}
#: Messages without a readable ``rid``.
UNREADABLE: list[list[bytes]] = [[b""], [b"\xc1"], [b"", msgpack.packb(LIST)], [msgpack.packb(LIST) + b"\0"]] + [
    [msgpack.packb(header)]
    for header in (
        [],
        {},
        {"type": "list", "after": ""},
        *[{**LIST, "rid": rid} for rid in ("1", -1, 2**63, 1.0, True)],
        {**LIST, "after": "x" * 8193},
        {**LIST, "unknown": [0] * 8193},
        {**LIST, "unknown": msgpack.ExtType(1, b"x")},
    )
]
#: Malformed messages with ``rid`` 1, and the key that is wrong.
MALFORMED: list[tuple[Map, str]] = [
    ({**LIST, "type": "nonsense"}, "type"),
    ({"type": "get", "rid": 1, "id": b"short", "index": 0}, "id"),
    ({"type": "complaint", "rid": 1, "number": 1.0, "id": bytes(32), "index": 0}, "number"),
]


def test_malformed_messages_are_answered_if_their_rid_is_readable(port: int) -> None:
    with Client(port) as client:
        worker = client.hello(client.snapshot["workers"][0]["endpoint"])
        for connection, request, reply, error, text in (
            (worker, {"type": "list", "after": "", "unknown": [{"key": None}]}, "catalog", "refusal", "detail"),
            (client.control, {"type": "status", "unknown": 1}, "report", "rejected", "message"),
        ):
            for frames in UNREADABLE:
                connection.socket.send_multipart(frames)
                rid = secrets.randbits(63)
                connection.socket.send(msgpack.packb({**request, "rid": rid}))
                answer, _ = connection.receive()
                assert (answer["type"], answer["rid"]) == (reply, rid)
            for header, key in MALFORMED:
                connection.socket.send(msgpack.packb(header))
                answer, _ = connection.receive()
                assert (answer["type"], answer["rid"]) == (error, 1)
                assert answer.get("reason", "bad-request") == "bad-request"
                assert key in answer[text] or "type" in answer[text]


def test_another_version_is_refused_with_the_versions_that_are_spoken(port: int) -> None:
    with Client(port) as client:
        assert client.snapshot["version"] == 2
        for version in (0, 1, 3):
            worker = client.connect(client.snapshot["workers"][0]["endpoint"])
            with closing(worker), pytest.raises(Refused) as refused:
                worker.request("hello", version=version)
            assert (refused.value.reason, refused.value.header["versions"]) == ("version", [2])
            with pytest.raises(Refused) as refused:
                client.control.request("status", version=version)
            assert refused.value.header["versions"] == [2]


def test_parts_of_a_segment(port: int) -> None:
    with Client(port) as client:
        client.hello_all()
        id_ = client.describe("film.bin")["id"]
        worker = client.workers[0]
        _, segment = worker.request("get", id=id_, index=2)
        header, part = worker.request("get", id=id_, index=2, start=1000, length=50)
        assert (header["index"], header["start"], part) == (2, 1000, segment[1000:1050])
        _, rest = worker.request("get", id=id_, index=2, start=1000)
        assert rest == segment[1000:]
        for start, length in (0, 0), (MIB, None), (0, MIB + 1), (MIB - 1, 2):
            with pytest.raises(Refused) as refused:
                worker.request("get", id=id_, index=2, start=start, length=length)
            assert refused.value.reason == "bad-request"


def test_a_complaint_is_accepted_and_counted(port: int) -> None:
    with Client(port) as client:
        client.hello_all()
        id_ = client.describe("film.bin")["id"]
        accepted, _ = client.control.request("complaint", number=3, id=id_, index=0)
        assert accepted["type"] == "accepted"
        assert client.state(3)["complaints"] == 1
