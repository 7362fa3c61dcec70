"""When which connection is opened, closed and tried again."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from msd.client.network.connection_policy import (
    BACKOFF_FIRST,
    BACKOFF_LAST,
    BROKEN_OFF_FOR,
    FIRST_WORD,
    REFUSED_FOR,
    REFUSED_GAP,
    Action,
    CloseConnection,
    ConnectionPolicy,
    Event,
    LinkDown,
    LinkUp,
    OpenConnection,
    Resubscribe,
    SnapshotArrived,
    StatusRefused,
    WorkerBanned,
    WorkerUnbanned,
)
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import PROTOCOL_VERSION, Status, WorkerStatus
from msd.wire.protocol.states import ConnectionRefusal, WantedState, WorkerState
from msd.wire.support.time_passed import TimePassed

START = 1000.0
INTERVAL = 2.0
STALE = 3 * INTERVAL + 1
HOST = "192.0.2.7"


def endpoint(number: int, host: str = "127.0.0.1", base: int = 21000) -> Endpoint:
    return Endpoint(host, base + number)


def worker(number: int, state: WorkerState, epoch: int = 1, at: Endpoint | None = None) -> WorkerStatus:
    return WorkerStatus(
        number=number,
        endpoint=(at or endpoint(number)).url,
        state=state,
        wanted=WantedState.AWAKE,
        epoch=epoch,
        pid=100,
        restarts=0,
        clients=0,
        bytes_sent=0,
        rate=0.0,
        complaints=0,
    )


def status(seq: int, *workers: WorkerStatus, epoch: int = 5) -> Status:
    return Status(
        version=PROTOCOL_VERSION,
        epoch=epoch,
        seq=seq,
        interval=INTERVAL,
        control="tcp://127.0.0.1:39224",
        catalogue=b"",
        files=1,
        workers=list(workers),
    )


class Scene:
    """The connections of a client to ``workers`` workers, and a clock that the test moves."""

    def __init__(self, workers: int = 1, *, pinned: bool = False) -> None:
        self.now = START
        known = {number: endpoint(number) for number in range(1, workers + 1)}
        self.links = ConnectionPolicy(known, HOST, pinned=pinned, now=self.now)
        self.seq = 0

    def handle(self, event: Event) -> list[Action]:
        return self.links.handle(event, self.now)

    def hear(self, *workers: WorkerStatus) -> list[Action]:
        self.seq += 1
        return self.handle(SnapshotArrived(status(self.seq, *workers)))

    def states(self, *states: WorkerState, epoch: int = 1) -> list[Action]:
        return self.hear(*(worker(number, state, epoch) for number, state in enumerate(states, 1)))

    def wait(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.handle(TimePassed())

    def down(self, number: int = 1, refused: ConnectionRefusal | None = None) -> list[Action]:
        return self.handle(LinkDown(number, refused))

    @property
    def refusal(self) -> ConnectionRefusal | None:
        return self.links.refusal(self.now)

    def up(self, number: int = 1) -> list[Action]:
        return self.handle(LinkUp(number))


def opened(number: int = 1) -> OpenConnection:
    return OpenConnection(number, endpoint(number))


def connected(**options: bool) -> Scene:
    scene = Scene(**options)
    assert scene.states(WorkerState.AWAKE) == [opened()]
    scene.up()
    return scene


# The first word.


def test_nothing_is_opened_before_the_first_word() -> None:
    scene = Scene(4)
    assert scene.wait(FIRST_WORD - 0.01) == []
    assert not scene.links.knows


def test_without_a_first_word_every_worker_is_tried() -> None:
    scene = Scene(2)
    assert scene.wait(FIRST_WORD) == [opened(1), opened(2)]
    assert scene.links.knows


def test_the_first_snapshot_opens_every_worker_that_is_awake() -> None:
    scene = Scene(3)
    assert scene.states(WorkerState.AWAKE, WorkerState.ASLEEP, WorkerState.AWAKE) == [opened(1), opened(3)]
    assert scene.links.knows
    assert scene.links.status is not None


@pytest.mark.parametrize("state", list(WorkerState))
def test_connecting_makes_sense_to_the_awake_and_the_silent(state: WorkerState) -> None:
    assert bool(Scene().states(state)) == (state in (WorkerState.AWAKE, WorkerState.SILENT))


def test_a_late_first_word_does_not_open_a_link_twice() -> None:
    scene = Scene()
    scene.wait(FIRST_WORD)
    scene.up()
    assert scene.states(WorkerState.AWAKE) == []


def test_an_early_try_at_a_worker_that_turns_out_asleep_is_given_up() -> None:
    scene = Scene()
    scene.wait(FIRST_WORD)
    assert scene.states(WorkerState.ASLEEP) == [CloseConnection(1)]


# Sleep and wake.


@pytest.mark.parametrize("state", [state for state in WorkerState if state is not WorkerState.AWAKE])
def test_a_connection_that_works_is_never_closed_on_server_5s_word(state: WorkerState) -> None:
    assert connected().states(state) == []


def test_a_worker_that_fell_asleep_is_not_tried_again() -> None:
    scene = connected()
    scene.states(WorkerState.ASLEEP)
    scene.down()
    assert scene.wait(BACKOFF_LAST) == []


def test_a_woken_worker_is_connected_at_once() -> None:
    scene = connected()
    scene.down()
    scene.states(WorkerState.ASLEEP)
    assert scene.states(WorkerState.AWAKE) == [opened()]


def test_a_woken_worker_is_connected_at_once_after_many_failures() -> None:
    scene = Scene()
    scene.states(WorkerState.AWAKE)
    for _ in range(10):
        scene.down()
        scene.wait(BACKOFF_LAST)
    scene.down()
    scene.states(WorkerState.ASLEEP)
    assert scene.states(WorkerState.AWAKE) == [opened()]
    scene.down()
    assert scene.wait(BACKOFF_FIRST) == [opened()]


def test_a_woken_worker_gets_a_new_socket_if_the_old_one_is_not_up() -> None:
    scene = Scene()
    scene.states(WorkerState.SILENT)
    assert scene.states(WorkerState.AWAKE) == [CloseConnection(1), opened()]


def test_a_calm_snapshot_leaves_a_pending_connection_alone() -> None:
    scene = Scene()
    scene.states(WorkerState.AWAKE)
    for _ in range(5):
        assert scene.states(WorkerState.AWAKE) == []


# Failures.


def test_the_back_off_doubles_up_to_its_limit() -> None:
    scene = Scene()
    scene.states(WorkerState.AWAKE)
    delays = []
    for _ in range(7):
        scene.down()
        before = scene.now
        while not (actions := scene.wait(BACKOFF_FIRST)):
            scene.states(WorkerState.AWAKE)
        assert actions == [opened()]
        delays.append(scene.now - before)
    assert delays == [0.25, 0.5, 1, 2, 4, 4, 4]


def test_a_connection_that_worked_is_tried_again_soon() -> None:
    scene = Scene()
    scene.states(WorkerState.AWAKE)
    for _ in range(5):
        scene.down()
        scene.wait(BACKOFF_LAST)
    scene.up()
    scene.down()
    assert scene.wait(BACKOFF_FIRST) == [opened()]


def test_thousands_of_failures_are_still_only_the_longest_wait() -> None:
    scene = Scene()
    scene.wait(FIRST_WORD)
    for _ in range(3000):
        scene.down()
        assert opened() in scene.wait(BACKOFF_LAST)


def test_a_worker_back_under_another_epoch_is_tried_at_once() -> None:
    scene = connected()
    scene.down()
    assert scene.states(WorkerState.AWAKE, epoch=2) == [opened()]


def test_another_epoch_leaves_a_connection_that_works_alone() -> None:
    assert connected().states(WorkerState.AWAKE, epoch=2) == []


def test_another_epoch_renews_a_connection_that_is_not_up() -> None:
    scene = Scene()
    scene.states(WorkerState.AWAKE)
    assert scene.states(WorkerState.AWAKE, epoch=2) == [CloseConnection(1), opened()]


# Server 5 says nothing.


def test_server_5_is_believed_until_it_is_stale() -> None:
    scene = Scene()
    scene.states(WorkerState.DEAD)
    assert scene.wait(STALE - 0.01) == []
    assert scene.links.status is not None


def test_stale_means_unknown_and_asks_anew() -> None:
    scene = Scene(2)
    scene.states(WorkerState.DEAD, WorkerState.ASLEEP)
    assert scene.wait(STALE) == [Resubscribe(), opened(1), opened(2)]
    assert scene.links.status is None


def test_a_connection_that_works_survives_server_5() -> None:
    assert connected().wait(STALE) == [Resubscribe()]


def test_every_snapshot_puts_staleness_off() -> None:
    scene = connected()
    for _ in range(5):
        assert scene.wait(STALE - 0.1) == []
        scene.states(WorkerState.AWAKE)


def test_status_is_renewed_again_and_again_while_nobody_answers() -> None:
    scene = connected()
    scene.wait(STALE)
    assert [scene.wait(5.0) for _ in range(3)] == [[Resubscribe()]] * 3


def test_the_first_silence_renews_nothing_and_the_second_does() -> None:
    scene = Scene()
    assert Resubscribe() not in scene.wait(FIRST_WORD)
    assert scene.wait(5.0) == [Resubscribe()]


def test_server_5_is_believed_again_when_it_is_back() -> None:
    scene = connected()
    scene.wait(STALE)
    scene.down()
    assert scene.states(WorkerState.ASLEEP) == []
    assert scene.links.status is not None
    assert scene.wait(BACKOFF_LAST) == []


def test_an_old_snapshot_is_ignored() -> None:
    scene = Scene()
    scene.seq = 10
    scene.states(WorkerState.ASLEEP)
    for seq in (11, 10, 1):
        assert scene.handle(SnapshotArrived(status(seq, worker(1, WorkerState.AWAKE)))) == []


def test_another_broker_starts_counting_anew() -> None:
    scene = Scene()
    scene.seq = 10
    scene.states(WorkerState.ASLEEP)
    assert scene.handle(SnapshotArrived(status(1, worker(1, WorkerState.AWAKE), epoch=6))) == [opened()]


# Endpoints.


def test_pinned_endpoints_are_kept_whatever_server_5_says() -> None:
    scene = Scene(pinned=True)
    assert scene.hear(worker(1, WorkerState.AWAKE, at=endpoint(1, base=50000)), worker(2, WorkerState.AWAKE)) == [
        opened()
    ]
    assert list(scene.links.links) == [1]


def test_pinned_workers_are_matched_by_number() -> None:
    scene = Scene(2, pinned=True)
    assert scene.hear(worker(2, WorkerState.AWAKE), worker(1, WorkerState.ASLEEP)) == [opened(2)]


def test_server_5s_endpoints_are_used_if_not_pinned() -> None:
    moved = endpoint(1, base=50000)
    assert Scene().hear(worker(1, WorkerState.AWAKE, at=moved)) == [OpenConnection(1, moved)]


def test_every_address_means_the_host_of_server_5() -> None:
    assert Scene().hear(worker(1, WorkerState.AWAKE, at=endpoint(1, "*"))) == [OpenConnection(1, endpoint(1, HOST))]


def test_workers_that_only_server_5_knows_are_connected() -> None:
    scene = Scene(0)
    assert scene.wait(FIRST_WORD) == []
    assert scene.states(WorkerState.AWAKE, WorkerState.AWAKE) == [opened(1), opened(2)]


def test_an_endpoint_that_is_none_is_passed_over() -> None:
    bad = replace(worker(1, WorkerState.AWAKE), endpoint="tcp://nowhere")
    assert Scene(0).hear(bad, worker(2, WorkerState.AWAKE)) == [opened(2)]


# Shunned workers.


def test_a_shunned_worker_is_closed_and_never_opened_again() -> None:
    scene = connected()
    assert scene.handle(WorkerBanned(1)) == [CloseConnection(1)]
    assert scene.states(WorkerState.ASLEEP) == []
    assert scene.states(WorkerState.AWAKE) == []
    assert OpenConnection(1, endpoint(1)) not in scene.wait(STALE)


def test_a_shunned_worker_is_given_another_chance_as_another_process() -> None:
    scene = connected()
    scene.handle(WorkerBanned(1))
    assert scene.states(WorkerState.AWAKE, epoch=2) == [opened()]


def test_a_shunned_worker_that_is_readmitted_is_tried_at_once() -> None:
    scene = connected()
    scene.handle(WorkerBanned(1))
    assert scene.handle(WorkerUnbanned(1)) == [opened()]


def test_a_readmitted_worker_is_tried_when_it_can_be_reached() -> None:
    scene = connected()
    scene.handle(WorkerBanned(1))
    scene.states(WorkerState.ASLEEP)
    assert scene.handle(WorkerUnbanned(1)) == []
    assert scene.states(WorkerState.AWAKE) == [opened()]


# Servers that do not let this client in.

DEFINITE = [why for why in ConnectionRefusal if why is not ConnectionRefusal.HANDSHAKE]


@pytest.mark.parametrize("by_server_5", [True, False])
@pytest.mark.parametrize("why", DEFINITE)
def test_a_definite_refusal_is_believed_after_a_moment(why: ConnectionRefusal, by_server_5: bool) -> None:
    scene = Scene()
    scene.wait(FIRST_WORD)
    if by_server_5:
        scene.handle(StatusRefused(why))
    else:
        scene.down(refused=why)
    assert scene.links.is_refused
    assert scene.refusal is None
    assert scene.links.next_deadline() == scene.now + REFUSED_FOR
    scene.wait(REFUSED_FOR - 0.01)
    assert scene.refusal is None
    scene.now = START + FIRST_WORD + REFUSED_FOR
    assert scene.refusal is why


def test_a_handshake_broken_off_once_is_never_believed() -> None:
    scene = Scene()
    scene.wait(FIRST_WORD)
    scene.down(refused=ConnectionRefusal.HANDSHAKE)
    for _ in range(100):
        scene.wait(BROKEN_OFF_FOR)
        assert scene.refusal is None
    assert scene.links.is_refused


def test_handshakes_broken_off_again_and_again_are_believed() -> None:
    scene = Scene()
    scene.wait(FIRST_WORD)
    for _ in range(4):
        scene.handle(StatusRefused(ConnectionRefusal.HANDSHAKE))
        assert scene.refusal is None
        scene.now += BROKEN_OFF_FOR / 4
    scene.handle(StatusRefused(ConnectionRefusal.HANDSHAKE))
    assert scene.refusal is ConnectionRefusal.HANDSHAKE


@pytest.mark.parametrize("first", [ConnectionRefusal.HANDSHAKE, ConnectionRefusal.KEY])
def test_a_definite_reason_wins_over_a_handshake_broken_off(first: ConnectionRefusal) -> None:
    scene = Scene(2)
    scene.wait(FIRST_WORD)
    for number, why in enumerate((first, *({ConnectionRefusal.HANDSHAKE, ConnectionRefusal.KEY} - {first})), 1):
        scene.down(number, why)
    scene.now += REFUSED_FOR
    assert scene.refusal is ConnectionRefusal.KEY


@pytest.mark.parametrize("why", list(ConnectionRefusal))
def test_nothing_is_refused_while_a_link_is_up(why: ConnectionRefusal) -> None:
    """One worker that starts anew, or server 5 alone, is no reason to give up what works."""
    scene = Scene(2)
    scene.states(WorkerState.AWAKE, WorkerState.AWAKE)
    scene.up(1)
    for _ in range(10):
        scene.down(2, why)
        scene.handle(StatusRefused(why))
        scene.wait(BROKEN_OFF_FOR)
        assert scene.refusal is None
        assert not scene.links.is_refused


@pytest.mark.parametrize("why", list(ConnectionRefusal))
def test_a_link_that_comes_up_ends_a_refusal(why: ConnectionRefusal) -> None:
    scene = Scene(2)
    scene.states(WorkerState.AWAKE, WorkerState.AWAKE)
    for _ in range(2):
        scene.down(1, why)
        scene.now += BROKEN_OFF_FOR
    assert scene.links.is_refused
    scene.up(2)
    assert scene.refusal is None
    assert not scene.links.is_refused
    # And a refusal after that begins anew.
    scene.down(2)
    scene.down(1, why)
    assert scene.refusal is None


@pytest.mark.parametrize("gap", [0.0, 0.01])
def test_after_a_gap_refusals_begin_anew(gap: float) -> None:
    scene = Scene()
    scene.wait(FIRST_WORD)
    for _ in range(5):
        scene.handle(StatusRefused(ConnectionRefusal.HANDSHAKE))
        assert scene.refusal is None
        scene.now += REFUSED_GAP + 0.01
    scene.handle(StatusRefused(ConnectionRefusal.HANDSHAKE))
    scene.now += REFUSED_GAP + gap
    scene.handle(StatusRefused(ConnectionRefusal.HANDSHAKE))
    assert scene.refusal is (None if gap else ConnectionRefusal.HANDSHAKE)


def test_failures_without_a_reason_are_no_refusal() -> None:
    scene = Scene()
    scene.wait(FIRST_WORD)
    for _ in range(10):
        scene.down()
        scene.wait(BACKOFF_LAST)
    assert not scene.links.is_refused


# Anything in any order.


class LinksMachine(RuleBasedStateMachine):
    """Server 5 and the network do what they like."""

    @initialize(workers=st.integers(0, 4), pinned=st.booleans())
    def begin(self, workers: int, pinned: bool) -> None:
        self.now = START
        self.known = {number: endpoint(number) for number in range(1, workers + 1)}
        self.pinned = pinned
        self.links = ConnectionPolicy(dict(self.known), HOST, pinned=pinned, now=self.now)
        self.open: set[int] = set()
        self.up: set[int] = set()
        self.banned: set[int] = set()
        self.epochs: dict[int, int] = {}
        self.seq = 0

    def handle(self, event: Event) -> None:
        working = set(self.up)
        for action in self.links.handle(event, self.now):
            match action:
                case OpenConnection(number, at):
                    assert number not in self.open, "opened once"
                    assert number not in self.banned
                    assert not self.pinned or at == self.known[number]
                    self.open.add(number)
                case CloseConnection(number):
                    assert number not in working or isinstance(event, WorkerBanned), "it works"
                    self.open.discard(number)
                    self.up.discard(number)
                case Resubscribe():
                    assert isinstance(event, TimePassed)
        if isinstance(event, WorkerBanned):
            self.open.discard(event.worker)

    @rule(states=st.lists(st.sampled_from(list(WorkerState)), max_size=4), epoch=st.integers(1, 2), again=st.booleans())
    def snapshot(self, states: list[WorkerState], epoch: int, again: bool) -> None:
        if again and self.seq:
            # An old one, in which everybody is awake: it must change nothing.
            was_open = set(self.open)
            old = status(self.seq, *(worker(number, WorkerState.AWAKE, 9) for number in self.links.links))
            self.handle(SnapshotArrived(old))
            assert self.open >= was_open
            return
        self.seq += 1
        for number, _ in enumerate(states, 1):
            if self.epochs.get(number, 0) != epoch:
                self.epochs[number] = epoch
                self.banned.discard(number)
        told = (worker(number, state, epoch) for number, state in enumerate(states, 1))
        self.handle(SnapshotArrived(status(self.seq, *told)))
        assert self.links.status is not None

    @precondition(lambda self: self.open - self.up)
    @rule(data=st.data())
    def link_comes_up(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.open - self.up)))
        self.up.add(number)
        self.handle(LinkUp(number))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), refused=st.sampled_from([None, *ConnectionRefusal]))
    def link_goes_down(self, data: st.DataObject, refused: ConnectionRefusal | None) -> None:
        number = data.draw(st.sampled_from(sorted(self.open)))
        self.open.discard(number)
        self.up.discard(number)
        self.handle(LinkDown(number, refused))

    @rule(why=st.sampled_from(list(ConnectionRefusal)))
    def server_5_refuses(self, why: ConnectionRefusal) -> None:
        self.handle(StatusRefused(why))
        assert self.links.is_refused or self.up

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def worker_is_shunned(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.up)))
        self.banned.add(number)
        self.handle(WorkerBanned(number))

    @precondition(lambda self: self.banned)
    @rule(data=st.data())
    def worker_is_readmitted(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.banned)))
        self.banned.discard(number)
        self.handle(WorkerUnbanned(number))

    @rule(seconds=st.floats(0.001, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.handle(TimePassed())

    @rule()
    def deadline_comes(self) -> None:
        self.now = max(self.now, self.links.next_deadline())
        self.handle(TimePassed())
        # A refusal ends it all.
        assert self.links.refusal(self.now) or self.links.next_deadline() > self.now, "no busy loop"

    @invariant()
    def both_sides_agree(self) -> None:
        assert {number for number, link in self.links.links.items() if link.is_open} == self.open
        assert {number for number, link in self.links.links.items() if link.is_up} == self.up

    @invariant()
    def nothing_is_refused_while_something_works(self) -> None:
        if self.up:
            assert not self.links.is_refused
        if not self.links.is_refused:
            assert self.links.refusal(self.now) is None

    @invariant()
    def whoever_can_be_reached_is_connected_or_tried_in_time(self) -> None:
        if not self.links.knows:
            return
        for number, link in self.links.links.items():
            reachable = link.said in (None, WorkerState.AWAKE, WorkerState.SILENT)
            if reachable and number not in self.open | self.banned:
                assert self.links.next_deadline() <= link.retry_at <= self.now + BACKOFF_LAST


TestLinks = LinksMachine.TestCase
TestLinks.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
