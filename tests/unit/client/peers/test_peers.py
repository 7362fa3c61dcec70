"""The peers of a download: what is announced, connected to and told to the process that passes on."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from msd.client.network_events import FIRST_PEER, AnnounceAnswered, Ban, BanReason, ConnectionClosed, KeysAdmitted
from msd.client.peers.peers import UNKNOWN_KEYS, Passing, Peers
from msd.wire.errors import MsdError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import Admitted, Announce, Heartbeat, Holder, Holders, Load
from msd.wire.protocol.states import ReportedState
from tests.connections import opened

PLAN, KEY, DIGEST = b"p" * 32, b"k" * 32, b"d" * 32
AWAKE = Heartbeat(number=1, epoch=7, state=ReportedState.AWAKE, edition=1, load=Load(bytes_sent=5), sessions=[])
LEAVING = replace(AWAKE, state=ReportedState.LEAVING, load=Load(bytes_sent=9))
HOLDER = Holder("tcp://192.0.2.7:24018", b"h" * 32)


class FakeProcess:
    def __init__(self) -> None:
        self.heartbeat: Heartbeat | None = None
        self.held: list[int] = []
        self.admitted: list[Admitted] = []
        self.is_closed = False
        self.error: MsdError | None = None

    def fileno(self) -> int:
        return 99

    def read(self) -> None:
        if self.error is not None:
            raise self.error

    def hold(self, units: Iterable[int]) -> None:
        self.held += units

    def admit(self, admitted: Admitted) -> None:
        self.admitted.append(admitted)

    def flush(self) -> bool:
        return True

    def close(self) -> None:
        self.is_closed = True
        self.heartbeat = LEAVING


class Harness:
    """A pool that records what is done, and the task. ``now`` replaces the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, key: bytes = b"", passes_on: bool = True) -> None:
        self.now = 1000.0
        monkeypatch.setattr("msd.client.peers.peers.time", SimpleNamespace(monotonic=lambda: self.now))
        self.announced: list[Announce] = []
        self.opened: list[tuple[int, Endpoint, bytes]] = []
        self.closed: list[int] = []
        self.removed: list[int] = []
        self.warnings: list[str] = []
        self.watched: set[int] = set()
        self.useless: list[int] = []
        transport = SimpleNamespace(
            server5=Endpoint("192.0.2.1", 39223),
            announce=lambda control, announce: self.announced.append(announce),
            open_connection=lambda *arguments: self.opened.append(arguments),
            close_connection=self.closed.append,
            watch=self.watched.add,
            unwatch=self.watched.remove,
        )
        self.pool = SimpleNamespace(transport=transport, peers=None, places={}, control=Endpoint("192.0.2.1", 39224))
        self.forgotten: list[int] = []
        session: Any = SimpleNamespace(pool=self.pool, start=lambda task: None, forget=self.forgotten.append)
        self.process = FakeProcess()
        process: Any = self.process
        self.peers = Peers(
            session,
            PLAN,
            Passing(process, 24018, key) if passes_on else None,
            useless_peers=lambda now: self.useless,
            on_removed=self.removed.append,
            on_warning=self.warnings.append,
        )

    def pass_time(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.peers.pass_time()

    def answer(self, *holders: Holder, seconds: float = 3.0) -> None:
        self.peers.handle(AnnounceAnswered(Holders(rid=1, holders=[*holders], seconds=seconds)))


def test_a_download_announces_itself_and_connects_to_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, passes_on=False)
    harness.pass_time()
    (announce,) = harness.announced
    assert (announce.plan, announce.units, announce.endpoint, announce.admitted) == (PLAN, 0, "", b"")
    local = Holder("tcp://*:24019")
    harness.answer(HOLDER, local)
    assert {(endpoint, key) for _, endpoint, key in harness.opened} == {
        (Endpoint("192.0.2.7", 24018), HOLDER.key),
        (Endpoint("192.0.2.1", 24019), b""),
    }
    assert all(number >= FIRST_PEER for number, _, _ in harness.opened)
    harness.pass_time(3.1)
    assert len(harness.announced) == 2


def test_it_is_a_holder_once_its_process_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch)
    assert harness.watched == {99}
    harness.peers.add_verified(3)
    harness.pass_time()
    harness.process.heartbeat = AWAKE
    harness.pass_time()
    before, after = harness.announced
    assert (before.endpoint, after.endpoint, after.units) == ("", "tcp://*:24018", 1)
    harness.pass_time()
    assert len(harness.announced) == 2
    assert harness.process.held == [3]
    harness.peers.close()
    assert harness.peers.sent_bytes == 9, "as the process says at its end"


def test_with_keys_it_is_a_holder_once_its_process_admits_those_whom_the_broker_admits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness(monkeypatch, key=KEY)
    harness.process.heartbeat = AWAKE
    harness.pass_time()
    assert (harness.announced[0].endpoint, harness.announced[0].admitted) == ("", UNKNOWN_KEYS)
    admitted = Admitted(digest=DIGEST, keys=[])
    harness.peers.handle(KeysAdmitted(admitted))
    assert harness.process.admitted == [admitted]
    assert harness.announced[-1].endpoint == "", "the process has not taken it yet"
    harness.process.heartbeat = replace(AWAKE, admitted=DIGEST)
    harness.answer(seconds=1.0)
    harness.pass_time(1.1)
    last = harness.announced[-1]
    assert (last.endpoint, last.key, last.admitted) == ("tcp://*:24018", KEY, DIGEST)


def test_peers_that_do_not_answer_or_lie_are_named_to_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, passes_on=False)
    harness.pass_time()
    other = Holder("tcp://192.0.2.8:24018", b"o" * 32)
    harness.answer(HOLDER, other, seconds=2.0)
    numbers = {endpoint.host: number for number, endpoint, _ in harness.opened}
    wrong, silent = numbers["192.0.2.7"], numbers["192.0.2.8"]
    harness.peers.handle(opened(wrong))
    assert harness.peers.address_of(wrong) == "192.0.2.7:24018"
    harness.peers.on_ban(Ban(wrong, BanReason.CORRUPT))
    assert not harness.closed, "the scheduler still handles an event"
    harness.pass_time()
    harness.peers.handle(ConnectionClosed(silent))
    assert harness.closed == [wrong]
    assert harness.removed == harness.forgotten == [wrong, silent]
    assert harness.pool.places == {}, "what is known of peers is bounded"
    harness.pass_time(2.1)
    assert (harness.announced[-1].corrupt, harness.announced[-1].silent) == ([HOLDER], [other])
    harness.answer(HOLDER, other, seconds=2.0)
    assert len(harness.opened) == 2, "both are left alone"


def test_useless_peers_are_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, passes_on=False)
    harness.pass_time()
    many = [Holder(f"tcp://192.0.2.{number}:1") for number in range(1, 17)]
    harness.answer(*many)
    for number, _, _ in harness.opened:
        harness.peers.handle(opened(number))
    harness.answer(HOLDER)
    harness.useless = [harness.opened[4][0]]
    harness.pass_time(1.5)
    assert harness.closed == harness.removed == [harness.opened[4][0]]
    assert harness.opened[-1][1:] == (Endpoint("192.0.2.7", 24018), HOLDER.key)


def test_without_server_5_nothing_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch)
    harness.pool.control = None
    harness.pass_time()
    assert not harness.announced


def test_a_download_goes_on_if_its_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch)
    harness.process.error = MsdError("the process that passes on has ended: code -9")
    harness.pass_time()
    harness.pass_time()
    assert harness.warnings == [
        "the process that passes on has ended: code -9: this download passes nothing on any more"
    ]
    assert harness.process.is_closed
    assert not harness.watched
    harness.answer(HOLDER)
    harness.peers.close()
    assert harness.peers.is_done
    assert harness.closed == harness.removed == [FIRST_PEER]
