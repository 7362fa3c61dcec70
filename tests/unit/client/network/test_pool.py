"""The connections of one client: stalls of the client process, and the events that the pool returns."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from msd.client.events import Event, Waiting, WorkerChanged
from msd.client.network.pool import ConnectionPool
from msd.client.network_events import (
    Ban,
    BanReason,
    ConnectionClosed,
    NetworkEvent,
    ReplyReceived,
    SnapshotReceived,
    StatusRefused,
)
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.errors import NoAnswerError, NotAllowedError
from msd.wire.net import name_lookup
from msd.wire.net.contacts import UNREACHABLE_DELAY_S, Probed
from msd.wire.net.diagnosis import Outcome
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import PROTOCOL_VERSION, Get, Segment
from msd.wire.protocol.states import ConnectionRefusal, WorkerState
from msd.wire.support.core import TimePassed
from tests.connections import opened, poll
from tests.unit.snapshots import snapshot

SECONDS = 60.0
SEGMENT = ReplyReceived(1, Get(rid=1, id=bytes(32), index=0), Segment(rid=1, epoch=7, index=0), None)
ASLEEP = [WorkerState.ASLEEP] * 4


class Scene:
    """A pool whose transport yields ``incoming``, one event per poll, and a clock that the test and waits advance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path = Path(os.devnull)) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        self.now = 1000.0
        self.incoming: list[NetworkEvent] = []
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        self.events: list[Event] = []
        servers = locate_servers(Config(), host="127.0.0.1", ports=None, server5=None)
        self.pool = ConnectionPool(servers, download=False, timeout=30.0, on_event=self.events.append)
        monkeypatch.setattr(self.pool.transport, "wait", self.advance)
        monkeypatch.setattr(self.pool.transport, "read", lambda: iter([self.incoming.pop(0)] if self.incoming else []))

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def poll(self, *, seconds: float = 0.0) -> list[NetworkEvent]:
        """Polls once. The client takes ``seconds`` to handle each event."""
        self.pool.wait(self.now)
        events = []
        for event in self.pool.events():
            events.append(event)
            self.now += seconds
        return events


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene(monkeypatch)
    with closing(scene.pool):
        scene.incoming = [SnapshotReceived(snapshot(*ASLEEP, interval=0.2))]
        assert scene.poll()
        yield scene


def test_a_blocking_disk_is_not_taken_for_a_silent_server_5(scene: Scene) -> None:
    scene.incoming = [SEGMENT, SnapshotReceived(snapshot(*ASLEEP, interval=0.2))]
    assert scene.poll(seconds=SECONDS) == [SEGMENT]
    assert scene.pool.status is not None
    assert len(scene.poll()) == 1, "the snapshot received during the stall is missing"
    assert scene.pool.stalled_seconds == SECONDS
    assert not [event for event in scene.events if isinstance(event, WorkerChanged)]


def test_server_5_is_silent_if_no_snapshot_arrived_during_a_stall(scene: Scene) -> None:
    scene.incoming = [SEGMENT]
    scene.poll(seconds=SECONDS)
    assert scene.poll() == []
    assert scene.pool.status is None
    scene.poll()
    changes = [event.state for event in scene.events if isinstance(event, WorkerChanged)]
    assert changes == ["lost"], "the change was not reported once"


def test_all_that_had_arrived_has_been_read_only_once_the_events_are_handled(scene: Scene) -> None:
    scene.poll()
    before = scene.pool.read_until
    scene.incoming = [SEGMENT]
    scene.pool.wait(None)
    events = scene.pool.events()
    next(events)
    assert scene.pool.read_until == before, "further replies wait to be read"
    assert not [*events]
    assert scene.pool.read_until > before


def test_a_connected_worker_is_ready_until_its_connection_is_closed_or_it_is_banned(scene: Scene) -> None:
    scene.incoming = [opened(1), ConnectionClosed(1), opened(2)]
    scene.poll()
    assert [*scene.pool.ready] == [1]
    scene.poll()
    scene.poll()
    assert [*scene.pool.ready] == [2]
    scene.pool.handle_ban(Ban(2, BanReason.CHANGED))
    assert scene.pool.ready == {}


def test_the_current_state_is_the_latest_snapshot_and_the_open_connections(scene: Scene) -> None:
    scene.incoming = [opened(1), opened(2), ConnectionClosed(1)]
    events = [scene.poll()[0] for _ in range(3)]
    assert scene.pool.status is not None
    assert scene.pool.current_state() == [SnapshotReceived(scene.pool.status), events[1]]


def test_with_explicit_ports_only_the_workers_of_these_ports_are_in_a_snapshot() -> None:
    ports = (9001, 9002, 9003, 9004, 9005)
    pool = ConnectionPool(locate_servers(Config(), host="127.0.0.1", ports=ports, server5=None), download=False)
    with closing(pool):
        received = SnapshotReceived(snapshot(*[WorkerState.AWAKE] * 6))
        pool.transport.read = lambda: iter([received])  # type: ignore[method-assign]
        (event,) = pool.events()
        assert isinstance(event, SnapshotReceived)
        assert [worker.number for worker in event.status.workers] == pool.worker_numbers == [1, 2, 3, 4]


def test_a_worker_of_another_protocol_version_is_refused(scene: Scene) -> None:
    closed = ConnectionClosed(1, ConnectionRefusal.VERSION, PROTOCOL_VERSION + 1)
    scene.incoming = [closed]
    assert scene.poll() == [closed]
    scene.now += 1.0
    with pytest.raises(
        NotAllowedError,
        match=rf"worker 1 at .*:21018 uses protocol version {PROTOCOL_VERSION + 1}, .*: update the older",
    ):
        scene.poll()


def test_a_server_5_of_another_protocol_version_is_reported_once(scene: Scene) -> None:
    refused = StatusRefused(ConnectionRefusal.VERSION, PROTOCOL_VERSION + 1)
    scene.incoming = [SnapshotReceived(snapshot(WorkerState.AWAKE)), opened(1), *[refused] * 3]
    for _ in range(5):
        scene.poll()
    scene.now += 10.0
    scene.poll()
    detail = f"it uses protocol version {PROTOCOL_VERSION + 1}, but this client uses version {PROTOCOL_VERSION}: "
    assert scene.events == [WorkerChanged("server 5", "lost", detail + "update the older side")]
    scene.incoming = [SnapshotReceived(snapshot(*ASLEEP))]
    scene.poll()
    assert scene.events[1:] == [WorkerChanged("server 5", "ready")]


def test_the_waiting_reason_lists_the_states_of_the_workers(scene: Scene) -> None:
    assert scene.pool.waiting_reason().startswith("all 4 workers are asleep: ")
    scene.incoming = [opened(1)]
    scene.poll()
    assert scene.pool.waiting_reason() == "connected to 1 of 4 workers, but receiving no data"


@pytest.mark.parametrize(("awake", "workers"), [(1, "1 worker"), (4, "4 workers")])
def test_the_waiting_reason_counts_workers_that_are_alive_but_not_reachable(
    scene: Scene, awake: int, workers: str
) -> None:
    scene.incoming = [SnapshotReceived(snapshot(*[WorkerState.AWAKE] * awake, *ASLEEP[awake:]))]
    scene.poll()
    assert scene.pool.waiting_reason().startswith(
        f"server 5 reports {workers} alive, but none is reachable: server 5 a"
    )


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (ConnectionRefusal.HANDSHAKE, "does not have this server key: compare it with the key that msd serve prints"),
        (ConnectionRefusal.KEY, "does not admit this key: ask the operator to run msd keys admit"),
        (
            ConnectionRefusal.MECHANISM,
            "requires a key: give the server key that its msd serve prints, or its config.toml",
        ),
    ],
)
def test_the_waiting_reason_explains_a_refusal(scene: Scene, refusal: ConnectionRefusal, reason: str) -> None:
    scene.incoming = [SnapshotReceived(snapshot(WorkerState.AWAKE, *ASLEEP[1:]))]
    scene.poll()
    scene.incoming = [ConnectionClosed(1, refusal)]
    scene.poll()
    assert scene.pool.waiting_reason().endswith(f"; worker 1 at 127.0.0.1:21018 {reason}")


def test_a_server_5_that_ended_together_with_its_workers_does_not_answer(unprobed: Scene) -> None:
    """Its last snapshot counts until the next ones are overdue."""
    scene = unprobed
    awake = snapshot(WorkerState.AWAKE, *ASLEEP[1:], interval=2.0)
    refused = [Probed(Endpoint("127.0.0.1", port), Outcome.REFUSED) for port in (39223, 21018)]
    scene.incoming = [SnapshotReceived(awake), opened(1)]
    scene.poll()
    scene.now += 0.5
    scene.poll()
    scene.incoming = [ConnectionClosed(1)]
    scene.poll()
    assert "server 5 at 127.0.0.1:39223 answers" in scene.pool.waiting_reason()
    scene.incoming = [*refused]
    scene.poll()
    scene.poll()
    assert scene.pool.status is not None
    assert scene.pool.waiting_reason().startswith("server 5 at 127.0.0.1:39223 and worker 1 at 127.0.0.1:21018 refuse")
    scene.incoming = [SnapshotReceived(replace(awake, seq=awake.seq + 1))]
    scene.poll()
    assert "server 5 at 127.0.0.1:39223 answers" in scene.pool.waiting_reason()


@pytest.mark.parametrize("is_zeromq", [True, False])
def test_only_a_server_of_zeromq_has_a_wrong_key(scene: Scene, is_zeromq: bool) -> None:
    """Another program, too, may close every connection during the handshake."""
    endpoint = Endpoint("127.0.0.1", 21018)
    scene.incoming = [SnapshotReceived(snapshot(WorkerState.AWAKE, *ASLEEP[1:]))]
    scene.poll()
    scene.incoming = [Probed(endpoint, Outcome.NO_REPLY if is_zeromq else Outcome.CLOSED)]
    scene.poll()
    scene.incoming = [ConnectionClosed(1, ConnectionRefusal.HANDSHAKE)]
    expected = ConnectionRefusal.HANDSHAKE if is_zeromq else None
    assert scene.poll() == [ConnectionClosed(1, expected)]
    assert ("server key" in scene.pool.waiting_reason()) is is_zeromq


def miss(scene: Scene, *events: NetworkEvent) -> None:
    """The client receives ``events`` and examines the addresses again for so long that the others count as missing."""
    scene.incoming = [*events]
    for _ in range(len(events) + 2):
        scene.poll()
        scene.now += UNREACHABLE_DELAY_S / 2


@pytest.fixture
def unprobed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A scene without real probes."""
    monkeypatch.setattr(scene.pool.transport, "start_probe", lambda endpoint: iter([]))
    monkeypatch.setattr(scene.pool.transport, "stop_probes", list)
    return scene


def test_a_worker_that_cannot_be_reached_is_named_once_while_others_are_connected(unprobed: Scene) -> None:
    scene = unprobed
    awake = snapshot(WorkerState.AWAKE, WorkerState.AWAKE, WorkerState.ASLEEP, interval=60.0)
    workers = [replace(worker, name="attic", host="192.0.2.7") for worker in awake.workers]
    scene.incoming = [SnapshotReceived(replace(awake, workers=workers)), opened(1)]
    scene.poll()
    scene.poll()
    expected = WorkerChanged("2", "unreachable", "127.0.0.1:27215 refuses the connection", place="attic, 192.0.2.7")
    refused = Probed(Endpoint("127.0.0.1", 27215), Outcome.REFUSED)
    scene.incoming = [refused]
    scene.poll()
    assert scene.events == [], "it may be about to connect"
    for _ in range(2):
        miss(scene, refused)
        assert scene.events == [expected]
    # Once it was connected, a further failure is named again.
    miss(scene, opened(2), ConnectionClosed(2), refused, refused)
    assert scene.events == [expected] * 2


def test_a_worker_that_does_not_admit_the_key_any_more_is_named(unprobed: Scene) -> None:
    scene = unprobed
    awake = snapshot(WorkerState.AWAKE, WorkerState.AWAKE, interval=60.0)
    scene.incoming = [SnapshotReceived(awake), opened(1), opened(2)]
    for _ in range(3):
        scene.poll()
    no_reply = Probed(Endpoint("127.0.0.1", 27215), Outcome.NO_REPLY)
    miss(scene, ConnectionClosed(2), ConnectionClosed(2, ConnectionRefusal.KEY), no_reply)
    assert scene.events == [WorkerChanged("2", "unreachable", "127.0.0.1:27215 does not admit this key")]


def test_addresses_are_not_examined_at_each_poll_while_workers_are_connected(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.incoming = [SnapshotReceived(snapshot(WorkerState.AWAKE, WorkerState.AWAKE)), opened(1)]
    scene.poll()
    scene.poll()
    examined: list[object] = []
    monkeypatch.setattr(scene.pool, "_apply_contacts", examined.append)
    for _ in range(100):
        scene.incoming = [SEGMENT]
        scene.poll()
    assert not examined


def test_the_workers_that_server_5_listed_last_are_used_while_it_is_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attic = replace(snapshot().workers[1], name="attic", host="192.0.2.7")
    first = Scene(monkeypatch, tmp_path)
    with closing(first.pool):
        first.incoming = [SnapshotReceived(snapshot(workers=[attic]))]
        first.poll()
    second = Scene(monkeypatch, tmp_path)
    with closing(second.pool):
        second.now += 1.0
        second.poll()
        assert second.pool.worker_numbers == [2]
        # Another program has the port of the worker.
        second.incoming = [opened(2, epoch=9)]
        assert second.poll() == [ConnectionClosed(2)]
        assert not second.pool.ready
        second.now += 1.0
        second.incoming = [opened(2, epoch=702)]
        second.poll()
        assert second.pool.places == {2: "attic, 192.0.2.7"}
        used = WorkerChanged("server 5", "lost", "it does not answer; using the workers that it listed last")
        assert second.events == [used]
        second.incoming = [SnapshotReceived(snapshot())]
        second.poll()
        assert second.events == [used, WorkerChanged("server 5", "ready")]
        assert second.pool.worker_numbers == [1, 2, 3, 4]


def test_a_reason_for_waiting_is_emitted_once_until_the_timeout_expires(scene: Scene) -> None:
    start = scene.now
    for _ in range(2):
        scene.incoming = [SnapshotReceived(snapshot(*ASLEEP, interval=9.0))]
        # Each poll lasts until the next deadline: one second, then a missing snapshot.
        poll(scene.pool, None)
    (waiting,) = scene.events
    assert isinstance(waiting, Waiting)
    assert (waiting.reason, waiting.seconds, waiting.timeout) == (scene.pool.waiting_reason(), 1.0, 30.0)
    assert [(contact.name, contact.outcome) for contact in waiting.addresses] == [("server 5", Outcome.ANSWERS)]
    scene.incoming = [SnapshotReceived(snapshot(*ASLEEP, interval=9.0))]
    with pytest.raises(NoAnswerError, match="gave up after 30 s without progress: "):
        poll(scene.pool, None)
    assert scene.now == start + 30.0


def test_names_are_looked_up_again_while_the_servers_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name moves to another address after the first look-up."""
    later = itertools.repeat(("127.0.0.8", "127.0.0.9"))
    answers = itertools.chain([("127.0.0.8",), ("127.0.0.9", "127.0.0.8")], later)
    monkeypatch.setattr(name_lookup, "addresses_of", lambda name: next(answers))
    servers = locate_servers(Config(), host="files", ports=(1, 2, 3, 4, 5), server5=None)
    with closing(ConnectionPool(servers, download=False)) as pool:
        monkeypatch.setattr(pool.transport, "wait", lambda seconds: None)
        tried: list[tuple[str, ...]] = []
        monkeypatch.setattr(
            pool.transport,
            "open_connection",
            lambda worker, endpoint, key: tried.append(tuple(address.host for address in endpoint.addresses)),
        )
        for minutes in (1, 2, 3):
            pool._apply(TimePassed(), time.monotonic() + 60 * minutes)
            if pool._lookup is not None:
                assert pool._lookup.wait(10.0)
            poll(pool, None)
        assert tried == [("127.0.0.8",)] * 4 + [("127.0.0.9", "127.0.0.8")] * 4
        assert pool.transport.status_endpoint == Endpoint("127.0.0.9", 5, ("127.0.0.8",), "files")
