"""Which peers a download connects to. The clock is virtual."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from msd.client.network.peer_selection import (
    ANSWER_TIMEOUT_S,
    DIAL_TIMEOUT_S,
    MAX_EXCHANGED,
    MAX_PEERS,
    REST_S,
    REVIEW_S,
    Action,
    ClosePeer,
    Event,
    HoldersReceived,
    OpenPeer,
    PeerSelection,
    PeersUseless,
    SendAnnounce,
)
from msd.client.network_events import FIRST_PEER, Ban, BanReason, ConnectionClosed
from msd.wire.protocol.messages import Holder
from msd.wire.support.core import TimePassed
from tests.connections import opened


def holder(number: int) -> Holder:
    return Holder(f"tcp://10.0.0.{number}:4000", bytes([number]) * 32)


class Scene:
    def __init__(self) -> None:
        self.selection = PeerSelection()
        self.now = 50.0

    def feed(self, event: Event, later: float = 0.0) -> list[Action]:
        self.now += later
        actions = self.selection.handle(event, self.now)
        self.selection.check_invariants()
        return actions

    def receive(self, *numbers: int, seconds: float = 30.0) -> list[Action]:
        return self.feed(HoldersReceived(tuple(map(holder, numbers)), seconds))


def opening(actions: list[Action]) -> dict[Holder, int]:
    return {action.holder: action.peer for action in actions if isinstance(action, OpenPeer)}


def test_the_download_is_announced_at_once_and_then_as_server_5_asks_or_again_without_an_answer() -> None:
    scene = Scene()
    assert scene.feed(TimePassed()) == [SendAnnounce(())]
    assert scene.selection.next_deadline(scene.now) == scene.now + ANSWER_TIMEOUT_S
    assert scene.feed(TimePassed(), later=ANSWER_TIMEOUT_S) == [SendAnnounce(())]
    assert scene.receive(seconds=7.0) == []
    assert scene.selection.next_deadline(scene.now) == scene.now + 7.0
    assert scene.feed(TimePassed(), later=6.9) == []
    assert scene.feed(TimePassed(), later=0.1) == [SendAnnounce(())]


def test_a_limited_number_of_peers_is_connected_each_of_them_once() -> None:
    scene = Scene()
    scene.feed(TimePassed())
    opened_peers = opening(scene.receive(1, 2))
    assert {*opened_peers} == {holder(1), holder(2)}
    assert min(opened_peers.values()) == FIRST_PEER
    further = opening(scene.receive(*range(1, 30)))
    assert len(opened_peers.keys() | further.keys()) == len(opened_peers) + len(further) == MAX_PEERS


def test_a_receiver_that_is_named_twice_is_connected_once() -> None:
    selection = PeerSelection()
    actions = selection.handle(HoldersReceived((holder(1), holder(1)), 9.0), 0.0)
    assert [*opening(actions)] == [holder(1)]
    assert len(selection.peers) == 1
    selection.check_invariants()


def test_a_peer_that_does_not_answer_is_given_up_and_named_in_the_next_announcement() -> None:
    scene = Scene()
    scene.feed(TimePassed())
    peers = opening(scene.receive(1, 2, 3, seconds=2.0))
    scene.feed(opened(peers[holder(1)]))
    scene.feed(ConnectionClosed(peers[holder(3)]))
    assert scene.selection.next_deadline(scene.now) == scene.now + DIAL_TIMEOUT_S
    assert scene.feed(TimePassed(), later=DIAL_TIMEOUT_S) == [ClosePeer(peers[holder(2)])]
    assert scene.feed(TimePassed(), later=1.0) == [SendAnnounce((holder(3), holder(2)))]
    assert opening(scene.receive(1, 2, 3)) == {}
    scene.now += REST_S
    assert opening(scene.receive(1, 2, 3)).keys() == {holder(2), holder(3)}


def test_a_peer_that_closes_a_connection_has_answered() -> None:
    scene = Scene()
    scene.feed(TimePassed())
    peers = opening(scene.receive(1, seconds=1.0))
    scene.feed(opened(peers[holder(1)]))
    scene.feed(ConnectionClosed(peers[holder(1)]))
    assert scene.feed(TimePassed(), later=1.0) == [SendAnnounce(())]


def test_useless_peers_are_exchanged_a_few_at_a_time_if_there_are_others() -> None:
    scene = Scene()
    scene.feed(TimePassed())
    peers = opening(scene.receive(*range(1, 17)))
    for number in peers.values():
        scene.feed(opened(number))
    useless = PeersUseless(tuple(peers.values()))
    assert scene.feed(useless) == []
    scene.receive(*range(17, 33))
    assert scene.selection.next_deadline(scene.now) == scene.now + REVIEW_S
    actions = scene.feed(useless, later=REVIEW_S)
    assert [action.peer for action in actions if isinstance(action, ClosePeer)] == [*peers.values()][:MAX_EXCHANGED]
    assert len(opening(actions)) == MAX_EXCHANGED


def test_a_banned_peer_is_never_connected_again() -> None:
    scene = Scene()
    scene.feed(TimePassed())
    peers = opening(scene.receive(1))
    scene.feed(opened(peers[holder(1)]))
    assert scene.feed(Ban(peers[holder(1)], BanReason.CORRUPT)) == [ClosePeer(peers[holder(1)])]
    scene.now += 1000 * REST_S
    assert opening(scene.receive(1)) == {}


class PeerSelectionMachine(RuleBasedStateMachine):
    """Any events in any order: the connections of the shell match those of the core."""

    @initialize()
    def begin(self) -> None:
        self.scene = Scene()
        #: The connections, and which of them are open.
        self.peers: dict[int, Holder] = {}
        self.open: set[int] = set()

    def feed(self, event: Event, later: float = 0.0) -> None:
        for action in self.scene.feed(event, later):
            match action:
                case OpenPeer(number, holder):
                    assert number not in self.peers
                    assert holder not in self.peers.values()
                    self.peers[number] = holder
                case ClosePeer(number):
                    del self.peers[number]
                    self.open.discard(number)

    @rule(numbers=st.lists(st.integers(1, 40), max_size=16, unique=True), seconds=st.floats(0.1, 60.0))
    def receive(self, numbers: list[int], seconds: float) -> None:
        self.feed(HoldersReceived(tuple(map(holder, numbers)), seconds))

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.feed(TimePassed(), seconds)

    @precondition(lambda self: self.peers)
    @rule(choice=st.integers(0, 99), closed=st.booleans())
    def answer(self, choice: int, closed: bool) -> None:
        number = [*self.peers][choice % len(self.peers)]
        if closed:
            del self.peers[number]
            self.open.discard(number)
            self.feed(ConnectionClosed(number))
        elif number not in self.open:
            self.open.add(number)
            self.feed(opened(number))

    @precondition(lambda self: self.open)
    @rule(choice=st.integers(0, 99), ban=st.booleans())
    def report(self, choice: int, ban: bool) -> None:
        numbers = [*self.open]
        number = numbers[choice % len(numbers)]
        self.feed(Ban(number, BanReason.CORRUPT) if ban else PeersUseless((number, *numbers)))

    @invariant()
    def connections_match(self) -> None:
        assert {n: self.scene.selection.holder_of(n) for n in self.peers} == self.peers
        assert len(self.peers) <= MAX_PEERS
        due = self.scene.selection.next_deadline(self.scene.now)
        assert due is not None
        assert due >= self.scene.now or self.scene.now == 50.0


PeerSelectionMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
test_any_interleaving = PeerSelectionMachine.TestCase
