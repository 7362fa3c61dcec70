"""Workers that join from anywhere: real processes on loopback. tests/environments has the hosts in a network."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec.structs import replace

from msd.wire.config.links import Link
from msd.wire.config.toml_file import MAX_WORKERS
from msd.wire.errors import NotAllowedError, NotFoundError
from msd.wire.protocol.codec import STATUS_TOPIC, decode, encode
from msd.wire.protocol.messages import (
    ControlReply,
    DataReply,
    Describe,
    Heartbeat,
    Hello,
    Join,
    Joined,
    JoinOrder,
    List,
    Load,
    Order,
    Rejected,
    Status,
    Toggle,
    Welcome,
    WorkerMessage,
)
from msd.wire.protocol.states import RefusalReason, ReportedState, WorkerState
from msd.wire.security.keys import Credentials, Role
from tests.hostile_clients import Keyring, MessageFuzzer, Peer, memory_of
from tests.hosts import Broker
from tests.processes import MIB, TIMEOUT, Source, files_equal, free_ports, run_msd, wait_for

pytestmark = pytest.mark.usefixtures("runtime_folder")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_file_comes_from_workers_that_joined_and_one_of_them_is_killed(
    stack: ExitStack, source: Source, tmp_path: Path
) -> None:
    """
    1. Two workers join a broker that has neither files nor workers; a download gets its file from both.
    2. One is killed: the download goes on. The other one is put to sleep, killed and started again under its name:
       it has its number and its wanted state.
    3. It ends in order after SIGTERM, and is gone at once.
    """
    path = source(24 * MIB)
    broker = stack.enter_context(Broker(tmp_path / "b"))
    attic = stack.enter_context(broker.worker("attic", str(path), "--rate", "8MiB"))
    attic.wait_until_serving()
    cellar = stack.enter_context(broker.worker("cellar", str(path), "--rate", "8MiB"))
    workers = broker.wait_for_states(attic="awake", cellar="awake")
    assert [(w["number"], w["host"], w["files"], w["pid"]) for w in workers.values()] == [
        (1, "127.0.0.1", 1, 0),
        (2, "127.0.0.1", 1, 0),
    ]
    with broker.download("-o", "copy.bin", cwd=tmp_path) as download:
        download.wait_until_verified(0.2)
        cellar.signal(signal.SIGKILL)
        done = download.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    assert all(worker["bytes"] for worker in done["workers"].values())
    # On a busy machine, a worker may seem to be late.
    assert done["wasted_bytes"] <= 2 * MIB
    broker.toggle(1)
    attic.signal(signal.SIGKILL)
    attic = stack.enter_context(broker.worker("attic", str(path))).wait_until_shown("joined as worker 1 (attic)")
    again = broker.wait_for_states(attic="asleep")["attic"]
    assert (again["number"], again["wanted"]) == (1, "asleep")
    attic.signal(signal.SIGTERM)
    assert attic.wait() == 0
    assert broker.wait_for_states(attic="lost")["attic"]["reason"] == "it has left"
    yard = stack.enter_context(broker.worker("yard", str(path))).wait_until_serving()
    yard.signal(signal.SIGINT)
    assert yard.wait() == 130
    broker.signal(signal.SIGTERM)
    assert broker.wait() == 143


def test_the_broker_may_be_killed_and_started_again_under_a_download(
    stack: ExitStack, source: Source, tmp_path: Path
) -> None:
    """
    1. The broker is killed under a download: the workers serve on, and no connection to them is lost.
    2. Started again, it shows all workers with their numbers and wishes within 2 s, and a toggle works.
    """
    path = source(24 * MIB)
    broker = stack.enter_context(Broker(tmp_path / "b"))
    for name in ("attic", "cellar", "yard"):
        worker = stack.enter_context(broker.worker(name, str(path), "--rate", "4MiB"))
        broker.wait_for_states(**{name: "awake"})
    broker.toggle(2)
    with broker.download("-o", "copy.bin", cwd=tmp_path) as download:
        download.wait_until_verified(0.2)
        broker.signal(signal.SIGKILL)
        broker.wait()
        done = download.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    assert done["wasted_bytes"] <= 2 * MIB
    assert all(worker["failures"] == 0 for worker in done["workers"].values())
    began = time.monotonic()
    broker.start_again()
    workers = broker.wait_for_states(attic="awake", cellar="asleep", yard="awake")
    print(f"all workers are shown {time.monotonic() - began:.2f} s after the broker was started")
    assert time.monotonic() < began + 5.0, "not 2 s, because this machine may be busy"
    assert [(w["name"], w["number"]) for w in workers.values()] == [("attic", 1), ("cellar", 2), ("yard", 3)]
    broker.toggle(2)
    broker.wait_for_states(cellar="awake")
    assert "answers again" in worker.err.text


def test_server_5_vouches_for_the_files_of_its_authority(stack: ExitStack, tmp_path: Path) -> None:
    """The authority has the right version, also if most workers have another one, and also after a change."""
    broker = stack.enter_context(Broker(tmp_path / "b", settings='authority = "attic"\n'))
    for name in ("attic", "cellar", "yard"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "film").write_bytes(b"right" * 1000 if name == "attic" else b"wrong" * 1000)
        stack.enter_context(broker.worker(name, str(folder))).wait_until_serving()
    workers = broker.wait_for_states(attic="awake", cellar="awake", yard="awake")
    assert workers["attic"]["catalogue"] != workers["cellar"]["catalogue"]

    def downloaded() -> bytes:
        with broker.download("film", "-o", "copy", "--force", cwd=tmp_path) as download:
            download.wait_until_done()
        return (tmp_path / "copy").read_bytes()

    assert downloaded() == b"right" * 1000
    (tmp_path / "attic" / "film").write_bytes(b"newer" * 2000)
    before = workers["attic"]["catalogue"]
    wait_for("the new version", lambda: broker.workers()["attic"]["catalogue"] != before)
    assert downloaded() == b"newer" * 2000


def test_a_worker_that_clients_cannot_reach_is_named_with_the_reason(
    stack: ExitStack, source: Source, tmp_path: Path
) -> None:
    path = source(MIB)
    broker = stack.enter_context(Broker(tmp_path / "b"))
    closed, *_ = free_ports()
    hidden = broker.worker("hidden", str(path), "--advertise", f"127.0.0.1:{closed}")
    stack.enter_context(hidden)
    stack.enter_context(broker.worker("attic", str(path)))
    thief = broker.worker("thief", str(path), "--advertise", f"127.0.0.1:{broker.port}")
    stack.enter_context(thief)
    workers = broker.wait_for_states(hidden="unreachable", attic="awake", thief="unreachable")
    assert workers["hidden"]["reason"].startswith(f"at 127.0.0.1:{closed}: nothing listens there")
    hidden.wait_until_shown(f"clients cannot reach tcp://127.0.0.1:{closed}: nothing listens there")
    with broker.download("-o", "copy.bin", cwd=tmp_path) as download:
        download.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    second = broker.worker("attic", str(path))
    stack.enter_context(second)
    second.wait_until_shown("the name attic is in use by a worker on 127.0.0.1")
    wait_for("the event", lambda: "refused worker attic from 127.0.0.1: the name attic is in use" in broker.out.text)


def test_keys_decide_who_joins_who_is_served_and_for_how_long(stack: ExitStack, source: Source, tmp_path: Path) -> None:
    """
    1. A host joins with its key, a client downloads with its own. Neither may do what the other does.
    2. A peer with the key of a host claims the name, then the address and the serving key of another worker.
    3. The client's key is revoked: the worker, which never saw the folder of keys, refuses it within 2 s.
    4. The host's key is revoked: its worker is lost.
    """
    keys = Keyring(tmp_path / "keys")
    host, alice = (keys.create_key(name, role) for name, role in (("host", Role.WORKER), ("alice", Role.CLIENT)))
    path = source(MIB)
    broker = stack.enter_context(Broker(tmp_path / "b", keys=keys))
    attic = stack.enter_context(broker.worker("attic", str(path), owner="host"))
    worker = broker.wait_for_states(attic="awake")["attic"]
    attic.wait_until_serving()
    assert "cannot reach" not in attic.err.text, "it had the admitted keys too late"
    with broker.download("-o", "copy.bin", cwd=tmp_path, owner="alice") as download:
        download.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    with broker.download("-o", "none.bin", cwd=tmp_path, owner="host") as download:
        assert download.wait() == NotAllowedError.exit_code, download.out.text
    impostor = stack.enter_context(broker.worker("mallory", str(path), owner="alice"))
    impostor.wait_until_shown("this key is admitted as client: admit it with --role worker to join")
    # The serving key and the endpoint of a worker are in every snapshot.
    claims = {"endpoint": worker["endpoint"], "key": bytes.fromhex(worker["key"]), "token": os.urandom(16)}
    with Peer(zmq.DEALER, broker.port + 1, host) as peer:
        reply = peer.request(Join(rid=1, name="attic", epoch=worker["epoch"], **claims), ControlReply | Joined)
        assert isinstance(reply, Rejected)
        joined = peer.request(Join(rid=2, name="twin", epoch=9, **claims), ControlReply | Joined)
        assert isinstance(joined, Joined)
        beat = Heartbeat(number=joined.number, epoch=9, state=ReportedState.AWAKE, edition=1, load=Load(), sessions=[])

        def is_unreachable() -> bool:
            peer.socket.send(encode(beat))
            return str(broker.workers()["twin"]["state"]) == "unreachable"

        wait_for("the discovery of the twin", is_unreachable)
        peer.drain()
        peer.socket.send(encode(replace(beat, number=worker["number"], epoch=worker["epoch"])))
        assert decode(peer.socket.recv(), JoinOrder) == JoinOrder()
    assert broker.workers()["attic"]["state"] == "awake"
    port = int(worker["endpoint"].rpartition(":")[2])
    serving = Credentials(alice.own, bytes.fromhex(worker["key"]))
    with Peer(zmq.DEALER, port, serving) as client:
        assert client.is_accepted()
    keys.key_folder("servers").revoke("alice")

    def is_refused() -> bool:
        with Peer(zmq.DEALER, port, serving) as client:
            return not client.is_accepted()

    wait_for(
        "the refusal of a revoked key", is_refused, timeout=2.0 + 2.0
    )  # two more, because this machine may be busy
    keys.key_folder("servers").revoke("host")
    assert broker.wait_for_states(attic="lost")["attic"]["reason"] == "its key was revoked or has expired"
    attic.wait_until_shown("waiting: ")


@pytest.mark.parametrize("count", [4_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_malformed_messages_of_a_host_harm_nothing(
    stack: ExitStack, source: Source, tmp_path: Path, rng: random.Random, count: int
) -> None:
    """A peer with the key of a host sends damaged joins and heartbeats, some of which are valid by chance."""
    keys = Keyring(tmp_path / "keys")
    mallory, _ = (keys.create_key("mallory", Role.WORKER), keys.create_key("host", Role.WORKER))
    broker = stack.enter_context(Broker(tmp_path / "b", keys=keys))
    stack.enter_context(broker.worker("attic", str(source(MIB)), owner="host"))
    before = broker.wait_for_states(attic="awake")["attic"]
    memory = memory_of(broker.pid)
    join = Join(rid=1, name="twin", epoch=7, token=bytes(16), endpoint="tcp://127.0.0.1:9", key=bytes(32))
    beat = Heartbeat(number=1, epoch=before["epoch"], state=ReportedState.ASLEEP, edition=1, load=Load(), sessions=[1])
    fuzzer = MessageFuzzer(rng, [join, beat], 60_000)
    with Peer(zmq.DEALER, broker.port + 1, mallory) as peer:
        for number in range(count):
            peer.socket.send_multipart(fuzzer.message())
            if number % 100 == 0:
                peer.drain()
        peer.request(Join(rid=99, name="last", epoch=8, token=bytes(16), endpoint="tcp://127.0.0.1:9"), Any)
    workers = broker.workers()
    attic = workers["attic"]
    assert (attic["state"], attic["epoch"], attic["number"]) == ("awake", before["epoch"], before["number"])
    assert len(workers) <= MAX_WORKERS
    assert memory_of(broker.pid) - memory < 20 * MIB


def test_a_link_is_enough_for_a_machine_without_keys(stack: ExitStack, tmp_path: Path) -> None:
    """
    1. An invitation to a folder, on the servers' machine: elsewhere the link alone downloads the folder from a host.
    2. Its key gets nothing else, whatever a client of its own asks for.
    3. Revoked: refused, with the reason.
    """
    keys = Keyring(tmp_path / "keys")
    keys.create_key("host", Role.WORKER)
    folder = tmp_path / "share"
    (folder / "photos").mkdir(parents=True)
    for name in ("photos/1.jpg", "photos/2.jpg", "secret"):
        (folder / name).write_bytes(name.encode() * 1000)
    broker = stack.enter_context(Broker(tmp_path / "b", keys=keys))
    stack.enter_context(broker.worker("attic", str(folder), owner="host"))
    worker = broker.wait_for_states(attic="awake")["attic"]
    servers: dict[str, Any] = {"env": keys.env("servers")}
    nothing: dict[str, Any] = {"env": {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "nothing")}}
    texts = []
    wrong = run_msd("invite", "photo", "-c", str(broker.config), **servers)
    assert (wrong.returncode, wrong.stdout) == (NotFoundError.exit_code, ""), wrong.stderr
    for name, target in (("photos", "d/"), (".", "all/")):
        invited = run_msd("invite", name, "-c", str(broker.config), "--for", "1h", **servers)
        assert invited.returncode == 0, invited.stderr
        texts.append(invited.stdout.strip())
        ended = run_msd("download", texts[-1], "-o", target, cwd=tmp_path, **nothing)
        assert ended.returncode == 0, ended.stderr
    text = texts[0]
    refused = broker.workers()["attic"]["refused"]
    assert refused == 0, "the broker tells the worker of a new key before the client learns of the worker"
    assert sorted(path.name for path in (tmp_path / "d" / "photos").iterdir()) == ["1.jpg", "2.jpg"]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["photos", "secret"]
    listed = run_msd("list", text, **nothing)
    assert [line.split()[-1] for line in listed.stdout.splitlines()] == ["photos/1.jpg", "photos/2.jpg"], listed.stderr
    verified = run_msd("verify", "d/photos", text, cwd=tmp_path, **nothing)
    assert verified.returncode == 0, verified.stderr
    link = Link.parse(text)
    assert link.key_pair is not None
    serving = Credentials(link.key_pair, bytes.fromhex(worker["key"]))
    with Peer(zmq.DEALER, int(worker["endpoint"].rpartition(":")[2]), serving) as peer:
        page = peer.request(List(rid=1), DataReply)
        assert [entry.name for entry in page.entries] == ["photos/", "photos/1.jpg", "photos/2.jpg"]
        refused = peer.request(Describe(rid=2, name="secret"), DataReply)
        assert (refused.reason, refused.detail) == (RefusalReason.UNKNOWN, "this invitation is for photos/ only")
    with broker.download("-o", "f", cwd=tmp_path, owner="host") as download:
        assert download.wait() == NotAllowedError.exit_code
        assert "admits this key for msd worker only" in download.events[-1]["message"]
    (name,) = [key.name for key in keys.key_folder("servers").admitted_keys() if key.scope == "photos/"]
    assert run_msd("keys", "revoke", name, "-c", str(broker.config), **servers).returncode == 0

    def refusal() -> str:
        result = run_msd("download", text, "-o", "e/", "--timeout", "5", cwd=tmp_path, **nothing)
        return result.stderr if result.returncode == NotAllowedError.exit_code else ""

    assert "it has expired or was revoked; ask for another one" in wait_for("the refusal", refusal)


def test_the_flags_of_a_worker_may_come_from_the_environment_and_errors_are_one_line(
    stack: ExitStack, source: Source, tmp_path: Path
) -> None:
    broker = stack.enter_context(Broker(tmp_path / "b"))
    variables = {"MSD_JOIN": f"127.0.0.1:{broker.port}", "MSD_NAME": "attic", "MSD_RATE": "4MiB"}
    worker = broker.worker("ignored", str(source(MIB)), env={**os.environ, **variables})
    stack.enter_context(worker)
    broker.wait_for_states(ignored="awake")
    for arguments, code in (
        (["worker", str(tmp_path)], 2),
        (["worker", "--join", "127.0.0.1", str(tmp_path / "missing")], 2),
        (["worker", "--join", "127.0.0.1", "--listen", str(broker.port), str(tmp_path)], 2),
        (["serve", "-n", "0", str(tmp_path)], 2),
    ):
        result = run_msd(*arguments)
        assert result.returncode == code, arguments
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stdout == ""


def test_without_a_flag_the_name_of_a_worker_is_made_of_its_host_and_port(
    stack: ExitStack, source: Source, tmp_path: Path
) -> None:
    broker = stack.enter_context(Broker(tmp_path / "b"))
    port, *_ = free_ports()
    stack.enter_context(broker.worker("", "--listen", str(port), str(source(MIB)))).wait_until_serving()
    ((name, worker),) = broker.workers().items()
    assert name.endswith(f"-{port}")
    assert worker["endpoint"] == f"tcp://127.0.0.1:{port}"


class FakeHost:
    """A worker that joins, sends heartbeats and answers ``hello``, but serves nothing."""

    def __init__(self, stack: ExitStack, context: zmq.Context[zmq.Socket[bytes]], number: int, port: int) -> None:
        self.router = stack.enter_context(context.socket(zmq.ROUTER))
        self.router.linger = 0
        self.endpoint = f"tcp://127.0.0.1:{self.router.bind_to_random_port('tcp://127.0.0.1')}"
        self.control = stack.enter_context(context.socket(zmq.DEALER))
        self.control.linger = 0
        self.control.connect(f"tcp://127.0.0.1:{port}")
        self.epoch = 1000 + number
        self.number = 0
        self.wanted = ReportedState.AWAKE
        join = Join(rid=1, name=f"a-long-host-name-{number}", epoch=self.epoch, token=bytes(16), endpoint=self.endpoint)
        self.control.send(encode(join))

    def beat(self) -> None:
        if self.number:
            sessions = [*range(self.number, self.number + 20)]
            load = Load(bytes_sent=self.number, clients=20)
            beat = Heartbeat(
                number=self.number,
                epoch=self.epoch,
                state=self.wanted,
                edition=1,
                load=load,
                sessions=sessions,
                catalogue=bytes([self.number]) * 32,
                files=5,
            )
            self.control.send(encode(beat), zmq.NOBLOCK)

    def handle(self) -> None:
        while self.control.poll(0):
            match decode(self.control.recv(), WorkerMessage):
                case Joined(number=number):
                    self.number = number
                case Order(wanted=wanted):
                    self.wanted = ReportedState(wanted.value)
                    self.beat()
        while self.router.poll(0):
            ident, frame = self.router.recv_multipart()
            hello = decode(frame, Hello)
            welcome = Welcome(rid=hello.rid, version=2, epoch=self.epoch, number=1, files=5, catalogue=b"")
            self.router.send_multipart([ident, encode(welcome)])


@pytest.mark.soak
@pytest.mark.alone
def test_64_workers_and_200_subscribers_are_little_work(stack: ExitStack, tmp_path: Path) -> None:
    """The snapshot stays under 64 KiB, the broker under a tenth of a processor, a change reaches all within 0.5 s."""
    broker = stack.enter_context(Broker(tmp_path / "b"))
    wait_for("the broker", lambda: broker.out.text)
    context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
    context.set(zmq.MAX_SOCKETS, 2048)
    fakes = [FakeHost(stack, context, number, broker.port + 1) for number in range(64)]
    subscribers = [stack.enter_context(context.socket(zmq.SUB)) for _ in range(200)]
    for subscriber in subscribers:
        subscriber.linger = 0
        subscriber.connect(f"tcp://127.0.0.1:{broker.port}")
        subscriber.subscribe(STATUS_TOPIC)

    def snapshots(index: int) -> Iterator[tuple[int, Status]]:
        while subscribers[index].poll(0):
            frame = subscribers[index].recv()
            yield len(frame), decode(frame[len(STATUS_TOPIC) :], Status)

    def run(until: float, condition: Callable[[], object] = lambda: False) -> bool:
        next_beat = time.monotonic()
        while time.monotonic() < until:
            if time.monotonic() >= next_beat:
                next_beat += 0.25
                for fake in fakes:
                    fake.beat()
            for fake in fakes:
                fake.handle()
            if condition():
                return True
        return False

    sizes: list[int] = []

    def all_awake() -> bool:
        found = [*snapshots(0)]
        sizes.extend(size for size, _ in found)
        return bool(found) and [w.state for w in found[-1][1].workers] == [WorkerState.AWAKE] * 64

    assert run(time.monotonic() + TIMEOUT, all_awake)
    before, began = cpu_seconds(broker.pid), time.monotonic()
    run(began + 10.0)
    share = (cpu_seconds(broker.pid) - before) / (time.monotonic() - began)
    for index in range(200):
        sizes.extend(size for size, _ in snapshots(index))
    with Peer(zmq.DEALER, broker.port + 1) as operator:
        operator.socket.send(encode(Toggle(rid=5, number=7)))
        toggled = time.monotonic()
        told: set[int] = set()

        def all_told() -> bool:
            for index in {*range(200)} - told:
                if any(s.workers[6].state is WorkerState.ASLEEP for _, s in snapshots(index)):
                    told.add(index)
            return len(told) == 200

        assert run(toggled + TIMEOUT, all_told)
    seconds = time.monotonic() - toggled
    print(f"largest snapshot {max(sizes):,} bytes, broker {share:.1%} of a processor, all told after {seconds:.2f} s")
    assert max(sizes) < 64 << 10
    assert share < 0.1
    assert seconds < 0.5 + 1.0, "one more second, because this machine may be busy"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
