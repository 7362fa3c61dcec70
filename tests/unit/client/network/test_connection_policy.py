"""When connections are opened, closed and retried, and when a refusal by the servers is definitive."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from msd.client.network.connection_policy import (
    FIRST_SNAPSHOT_TIMEOUT_S,
    HANDSHAKE_REFUSAL_PERIOD_S,
    MAX_BACKOFF_S,
    MAX_REFUSAL_GAP_S,
    MIN_BACKOFF_S,
    REFUSAL_PERIOD_S,
    RENEWAL_INTERVAL_S,
    RENEWAL_SILENCE_S,
    RESUBSCRIBE_INTERVAL_S,
    TRANSITIONS,
    UNCONFIRMED_REFUSAL_PERIOD_S,
    Action,
    AddressesChanged,
    CloseConnection,
    ConnectionPolicy,
    ConnectionState,
    EndRenewal,
    Event,
    OpenConnection,
    PathsChecked,
    RenewConnection,
    ReportRefusal,
    Resubscribe,
)
from msd.client.network_events import Ban, BanReason, ConnectionClosed, SnapshotReceived, StatusRefused, Unban
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import PROTOCOL_VERSION, Status, WorkerStatus
from msd.wire.protocol.states import ConnectionRefusal, WantedState, WorkerState
from msd.wire.support.core import TimePassed
from tests.connections import opened

START = 1000.0
INTERVAL = 2.0
#: Seconds without a snapshot after which server 5 counts as silent.
STALE = 3 * INTERVAL + 1
HOST = "192.0.2.7"
SERVER_5 = Endpoint(HOST, 39223)
KEY, OTHER_KEY = b"k" * 32, b"o" * 32


def endpoint(number: int, host: str = "127.0.0.1", base: int = 21000) -> Endpoint:
    return Endpoint(host, base + number)


def worker(
    number: int, state: WorkerState, epoch: int = 1, at: Endpoint | None = None, key: bytes = b""
) -> WorkerStatus:
    return WorkerStatus(
        number=number,
        endpoint=(at or endpoint(number)).url,
        key=key,
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
    """The policy of a client with ``workers`` workers, and a clock that the test controls."""

    def __init__(self, workers: int = 1, *, pinned: bool = False, guessed: bool = False) -> None:
        self.now = START
        known = {number: endpoint(number) for number in range(1, workers + 1)}
        self.policy = ConnectionPolicy(known, SERVER_5, pinned=pinned, guessed=guessed, now=self.now)
        self.seq = 0

    def handle(self, event: Event) -> list[Action]:
        return self.policy.handle(event, self.now)

    def snapshot(self, *workers: WorkerStatus) -> list[Action]:
        self.seq += 1
        return self.handle(SnapshotReceived(status(self.seq, *workers)))

    def states(self, *states: WorkerState, epoch: int = 1) -> list[Action]:
        return self.snapshot(*(worker(number, state, epoch) for number, state in enumerate(states, 1)))

    def wait(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.handle(TimePassed())

    def disconnect(self, number: int = 1, refusal: ConnectionRefusal | None = None) -> list[Action]:
        return self.handle(ConnectionClosed(number, refusal))

    @property
    def refusal(self) -> ConnectionRefusal | None:
        """The definitive refusal that the policy reports now, None if there is none."""
        reported = [action.refusal for action in self.wait(0.0) if isinstance(action, ReportRefusal)]
        return reported[0] if reported else None

    def connect(self, number: int = 1) -> list[Action]:
        return self.handle(opened(number))


def open_action(number: int = 1) -> OpenConnection:
    return OpenConnection(number, endpoint(number))


def connected(**options: bool) -> Scene:
    scene = Scene(**options)
    assert scene.states(WorkerState.AWAKE) == [open_action()]
    scene.connect()
    return scene


# The first snapshot.


def test_no_connection_is_opened_before_the_first_snapshot() -> None:
    scene = Scene(4)
    assert scene.wait(FIRST_SNAPSHOT_TIMEOUT_S - 0.01) == []
    assert scene.policy.awaits_first_snapshot


def test_without_a_first_snapshot_every_worker_is_tried() -> None:
    scene = Scene(2)
    assert scene.wait(FIRST_SNAPSHOT_TIMEOUT_S) == [open_action(1), open_action(2)]
    assert not scene.policy.awaits_first_snapshot


def test_the_first_snapshot_opens_every_worker_that_is_awake() -> None:
    scene = Scene(3)
    assert scene.states(WorkerState.AWAKE, WorkerState.ASLEEP, WorkerState.AWAKE) == [open_action(1), open_action(3)]
    assert not scene.policy.awaits_first_snapshot
    assert scene.policy.status is not None


@pytest.mark.parametrize("state", list(WorkerState))
def test_only_awake_and_silent_workers_are_tried(state: WorkerState) -> None:
    assert bool(Scene().states(state)) == (state in (WorkerState.AWAKE, WorkerState.SILENT))


def test_a_late_first_snapshot_does_not_open_a_connection_twice() -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    scene.connect()
    assert scene.states(WorkerState.AWAKE) == []


def test_an_early_attempt_to_connect_to_a_sleeping_worker_is_closed() -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    assert scene.states(WorkerState.ASLEEP) == [CloseConnection(1)]


# Sleep and wake.


@pytest.mark.parametrize("state", [state for state in WorkerState if state is not WorkerState.AWAKE])
def test_no_snapshot_closes_a_working_connection(state: WorkerState) -> None:
    assert connected().states(state) == []


def test_a_sleeping_worker_is_not_retried() -> None:
    scene = connected()
    scene.states(WorkerState.ASLEEP)
    scene.disconnect()
    assert scene.wait(MAX_BACKOFF_S) == []


def test_a_woken_worker_is_connected_at_once() -> None:
    scene = connected()
    scene.disconnect()
    scene.states(WorkerState.ASLEEP)
    assert scene.states(WorkerState.AWAKE) == [open_action()]


def test_a_woken_worker_is_connected_at_once_after_many_failures() -> None:
    scene = Scene()
    scene.states(WorkerState.AWAKE)
    for _ in range(10):
        scene.disconnect()
        scene.wait(MAX_BACKOFF_S)
    scene.disconnect()
    scene.states(WorkerState.ASLEEP)
    assert scene.states(WorkerState.AWAKE) == [open_action()]
    scene.disconnect()
    assert scene.wait(MIN_BACKOFF_S) == [open_action()]


def test_a_woken_worker_gets_a_new_socket_if_the_old_one_is_not_connected() -> None:
    scene = Scene()
    scene.states(WorkerState.SILENT)
    assert scene.states(WorkerState.AWAKE) == [CloseConnection(1), open_action()]


def test_a_snapshot_without_changes_keeps_a_pending_connection() -> None:
    scene = Scene()
    scene.states(WorkerState.AWAKE)
    for _ in range(5):
        assert scene.states(WorkerState.AWAKE) == []


# Failures.


def test_the_backoff_doubles_up_to_its_maximum() -> None:
    scene = Scene()
    scene.states(WorkerState.AWAKE)
    delays = []
    for _ in range(7):
        scene.disconnect()
        before = scene.now
        while not (actions := scene.wait(MIN_BACKOFF_S)):
            scene.states(WorkerState.AWAKE)
        assert actions == [open_action()]
        delays.append(scene.now - before)
    assert delays == [0.25, 0.5, 1, 2, 4, 4, 4]


def test_the_backoff_starts_again_after_a_working_connection() -> None:
    scene = Scene()
    scene.states(WorkerState.AWAKE)
    for _ in range(5):
        scene.disconnect()
        scene.wait(MAX_BACKOFF_S)
    scene.connect()
    scene.disconnect()
    assert scene.wait(MIN_BACKOFF_S) == [open_action()]


def test_the_backoff_stays_at_its_maximum_after_thousands_of_failures() -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    for _ in range(3000):
        scene.disconnect()
        assert open_action() in scene.wait(MAX_BACKOFF_S)


def test_a_new_process_of_a_worker_is_tried_at_once() -> None:
    scene = connected()
    scene.disconnect()
    assert scene.states(WorkerState.AWAKE, epoch=2) == [open_action()]


def test_a_new_epoch_keeps_a_working_connection() -> None:
    assert connected().states(WorkerState.AWAKE, epoch=2) == []


def test_a_new_epoch_replaces_a_connection_that_is_not_connected() -> None:
    scene = Scene()
    scene.states(WorkerState.AWAKE)
    assert scene.states(WorkerState.AWAKE, epoch=2) == [CloseConnection(1), open_action()]


# Silence of server 5.


def test_a_snapshot_counts_until_it_is_stale() -> None:
    scene = Scene()
    scene.states(WorkerState.DEAD)
    assert scene.wait(STALE - 0.01) == []
    assert scene.policy.status is not None


def test_a_stale_snapshot_is_dropped_and_all_workers_are_tried() -> None:
    scene = Scene(2)
    scene.states(WorkerState.DEAD, WorkerState.ASLEEP)
    assert scene.wait(STALE) == [Resubscribe(), open_action(1), open_action(2)]
    assert scene.policy.status is None


def test_a_working_connection_survives_a_silent_server_5() -> None:
    assert connected().wait(STALE) == [Resubscribe()]


def test_every_snapshot_extends_the_status_deadline() -> None:
    scene = connected()
    for _ in range(5):
        assert scene.wait(STALE - 0.1) == []
        scene.states(WorkerState.AWAKE)


def test_the_client_resubscribes_repeatedly_while_server_5_is_silent() -> None:
    scene = connected()
    scene.wait(STALE)
    assert [scene.wait(RESUBSCRIBE_INTERVAL_S) for _ in range(3)] == [[Resubscribe()]] * 3


def test_the_client_resubscribes_at_the_second_timeout_not_at_the_first() -> None:
    scene = Scene()
    assert Resubscribe() not in scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    assert scene.wait(RESUBSCRIBE_INTERVAL_S) == [Resubscribe()]


def test_snapshots_count_again_when_server_5_is_back() -> None:
    scene = connected()
    scene.wait(STALE)
    scene.disconnect()
    assert scene.states(WorkerState.ASLEEP) == []
    assert scene.policy.status is not None
    assert scene.wait(MAX_BACKOFF_S) == []


def test_an_old_snapshot_is_ignored() -> None:
    scene = Scene()
    scene.seq = 10
    scene.states(WorkerState.ASLEEP)
    for seq in (11, 10, 1):
        assert scene.handle(SnapshotReceived(status(seq, worker(1, WorkerState.AWAKE)))) == []


def test_a_new_broker_process_starts_its_sequence_numbers_again() -> None:
    scene = Scene()
    scene.seq = 10
    scene.states(WorkerState.ASLEEP)
    assert scene.handle(SnapshotReceived(status(1, worker(1, WorkerState.AWAKE), epoch=6))) == [open_action()]


# Endpoints.


def test_snapshots_do_not_change_pinned_endpoints() -> None:
    scene = Scene(pinned=True)
    assert scene.snapshot(worker(1, WorkerState.AWAKE, at=endpoint(1, base=50000)), worker(2, WorkerState.AWAKE)) == [
        open_action()
    ]
    assert list(scene.policy.workers) == [1]


def test_pinned_workers_are_matched_by_number() -> None:
    scene = Scene(2, pinned=True)
    assert scene.snapshot(worker(2, WorkerState.AWAKE), worker(1, WorkerState.ASLEEP)) == [open_action(2)]


def test_endpoints_in_snapshots_are_used_if_not_pinned() -> None:
    moved = endpoint(1, base=50000)
    assert Scene().snapshot(worker(1, WorkerState.AWAKE, at=moved)) == [OpenConnection(1, moved)]


def test_the_wildcard_address_is_replaced_by_the_host_of_server_5() -> None:
    assert Scene().snapshot(worker(1, WorkerState.AWAKE, at=endpoint(1, "*"))) == [OpenConnection(1, endpoint(1, HOST))]


def test_workers_known_only_from_snapshots_are_connected() -> None:
    scene = Scene(0)
    assert scene.wait(FIRST_SNAPSHOT_TIMEOUT_S) == []
    assert scene.states(WorkerState.AWAKE, WorkerState.AWAKE) == [open_action(1), open_action(2)]


def test_a_malformed_endpoint_is_skipped() -> None:
    bad = replace(worker(1, WorkerState.AWAKE), endpoint="tcp://nowhere")
    assert Scene(0).snapshot(bad, worker(2, WorkerState.AWAKE)) == [open_action(2)]


# Workers that server 5 does not list.


def test_guessed_workers_are_forgotten_unless_server_5_lists_them() -> None:
    scene = Scene(3, guessed=True)
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    scene.connect(2)
    assert scene.snapshot(worker(3, WorkerState.AWAKE), worker(9, WorkerState.AWAKE)) == [
        CloseConnection(3),
        CloseConnection(1),
        open_action(3),
        open_action(9),
    ]
    # A connection that works is kept.
    assert list(scene.policy.workers) == [2, 3, 9]
    scene.disconnect(2)
    scene.snapshot(worker(3, WorkerState.AWAKE), worker(9, WorkerState.AWAKE))
    assert list(scene.policy.workers) == [3, 9]


def test_workers_that_the_user_gave_are_tried_although_server_5_does_not_list_them() -> None:
    scene = Scene(2)
    assert scene.snapshot(worker(1, WorkerState.AWAKE)) == [open_action(1), open_action(2)]


def test_a_worker_that_server_5_lists_no_more_is_not_tried_again() -> None:
    scene = Scene(0)
    scene.states(WorkerState.AWAKE, WorkerState.AWAKE)
    scene.connect(2)
    assert scene.snapshot() == [CloseConnection(1)]
    scene.disconnect(2)
    assert scene.snapshot() == []
    assert scene.wait(MAX_BACKOFF_S) == []
    assert not scene.policy.workers


def test_a_ban_of_a_worker_that_was_dropped_has_no_effect() -> None:
    scene = Scene(0)
    scene.states(WorkerState.AWAKE)
    scene.connect()
    scene.disconnect()
    scene.snapshot()
    assert scene.handle(Ban(1, BanReason.CORRUPT)) == []
    assert scene.handle(Unban(1)) == []
    assert scene.states(WorkerState.AWAKE) == [open_action()]


# The last known workers.


def recalling(workers: int, *, guessed: bool = True) -> Scene:
    """A client whose guess is ``workers`` workers, and that knows of workers 2, 7 and 8 from an earlier snapshot."""
    scene = Scene()
    scene.policy = ConnectionPolicy(
        {number: endpoint(number) for number in range(1, workers + 1)},
        SERVER_5,
        pinned=False,
        guessed=guessed,
        last_known={
            2: ("tcp://*:5002", b"", 700),
            7: (endpoint(7).url, KEY, 0),
            8: ("nowhere", b"", 0),
            9: (endpoint(9).url, b"9", 0),
        },
        now=START,
    )
    return scene


def test_the_last_known_workers_take_the_place_of_the_guessed_ones_if_the_first_snapshot_is_late() -> None:
    scene = recalling(2)
    assert scene.wait(FIRST_SNAPSHOT_TIMEOUT_S - 0.01) == []
    assert not scene.policy.uses_last_known
    assert scene.wait(0.01) == [OpenConnection(2, Endpoint(HOST, 5002)), OpenConnection(7, endpoint(7), KEY)]
    assert list(scene.policy.workers) == [2, 7]
    assert scene.policy.uses_last_known
    scene.connect(7)
    assert scene.snapshot(worker(1, WorkerState.AWAKE)) == [CloseConnection(2), open_action(1)]
    assert not scene.policy.uses_last_known
    assert list(scene.policy.workers) == [7, 1]


def test_another_process_at_the_address_of_a_last_known_worker_is_not_used() -> None:
    scene = recalling(2)
    assert not scene.policy.is_another_process(2, 701)
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    assert scene.policy.is_another_process(2, 701)
    assert not scene.policy.is_another_process(2, 700)
    assert not scene.policy.is_another_process(7, 701)
    scene.states(WorkerState.AWAKE, WorkerState.AWAKE)
    assert not scene.policy.is_another_process(2, 701)
    given = recalling(2, guessed=False)
    given.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    assert not given.policy.is_another_process(2, 701)


def test_workers_that_were_given_are_tried_beside_the_last_known_ones() -> None:
    actions = recalling(1, guessed=False).wait(FIRST_SNAPSHOT_TIMEOUT_S)
    assert {action.worker for action in actions if isinstance(action, OpenConnection)} == {1, 2, 7}


def test_a_snapshot_in_time_makes_the_last_known_workers_needless() -> None:
    scene = recalling(0)
    assert scene.states(WorkerState.AWAKE) == [open_action(1)]
    assert scene.wait(STALE) == [Resubscribe()]
    assert list(scene.policy.workers) == [1]


# Workers with keys of their own, and workers that move.


@pytest.mark.parametrize("pinned", [False, True])
def test_a_worker_is_connected_with_its_own_key(pinned: bool) -> None:
    scene = Scene(2, pinned=pinned)
    actions = scene.snapshot(worker(1, WorkerState.AWAKE), worker(2, WorkerState.AWAKE, key=KEY))
    assert actions == [open_action(1), OpenConnection(2, endpoint(2), KEY)]
    scene.connect(2)
    assert scene.handle(PathsChecked({2: RENEWAL_SILENCE_S})) == [RenewConnection(2, endpoint(2), KEY)]


def test_a_worker_whose_key_is_malformed_is_skipped() -> None:
    assert Scene(0).snapshot(worker(1, WorkerState.AWAKE, key=b"short"), worker(2, WorkerState.AWAKE)) == [
        open_action(2)
    ]


def test_a_pending_connection_is_replaced_if_the_worker_has_another_key() -> None:
    scene = Scene()
    scene.snapshot(worker(1, WorkerState.AWAKE, key=KEY))
    moved = worker(1, WorkerState.AWAKE, key=OTHER_KEY)
    assert scene.snapshot(moved) == [CloseConnection(1), OpenConnection(1, endpoint(1), OTHER_KEY)]
    assert scene.snapshot(moved) == []


@pytest.mark.parametrize(
    ("at", "key"), [(endpoint(1), OTHER_KEY), (endpoint(1, base=50000), KEY), (endpoint(1, HOST), KEY)]
)
def test_an_open_connection_is_replaced_once_the_worker_answers_elsewhere(at: Endpoint, key: bytes) -> None:
    scene = Scene()
    scene.snapshot(worker(1, WorkerState.AWAKE, key=KEY))
    scene.connect()
    moved = worker(1, WorkerState.AWAKE, at=at, key=key)
    assert scene.snapshot(moved) == [RenewConnection(1, at, key)]
    assert scene.snapshot(moved) == []
    # The open connection works, but the new one goes on being tried.
    assert silent(scene, 0.0) == []
    scene.now += RENEWAL_INTERVAL_S
    assert silent(scene, 0.0) == [RenewConnection(1, at, key)]
    scene.handle(ConnectionClosed(1, is_renewed=True))
    scene.connect()
    scene.now += RENEWAL_INTERVAL_S
    assert silent(scene, 0.0) == []


def test_a_host_with_several_addresses_has_not_moved_if_a_snapshot_names_one_of_them() -> None:
    known = Endpoint("10.0.0.1", 21001, ("10.0.0.2",), "files")
    policy = ConnectionPolicy({1: known}, SERVER_5, pinned=False, now=START)
    policy.handle(TimePassed(), START + FIRST_SNAPSHOT_TIMEOUT_S)
    policy.handle(opened(1), START + 1.0)
    told = worker(1, WorkerState.AWAKE, at=Endpoint("10.0.0.2", 21001))
    assert policy.handle(SnapshotReceived(status(1, told)), START + 1.0) == []


@pytest.mark.parametrize("refusal", list(ConnectionRefusal))
def test_a_worker_with_its_own_key_refuses_only_for_itself(refusal: ConnectionRefusal) -> None:
    scene = Scene()
    scene.snapshot(worker(1, WorkerState.AWAKE, key=KEY))
    for _ in range(10):
        scene.disconnect(1, refusal)
        scene.wait(HANDSHAKE_REFUSAL_PERIOD_S)
        assert scene.refusal is None
        scene.snapshot(worker(1, WorkerState.AWAKE, key=KEY))
    # Without server 5 it is not known whether the servers admit this client.
    scene.wait(STALE)
    scene.disconnect(1, refusal)
    assert scene.policy.refusal is refusal


def test_workers_with_their_own_keys_are_believed_once_server_5_has_refused_this_client() -> None:
    """The key was revoked on the way. Server 5 refuses it once, while a connection is open."""
    scene = Scene()
    told = worker(1, WorkerState.AWAKE, key=KEY)
    scene.snapshot(told)
    scene.connect()
    scene.handle(StatusRefused(ConnectionRefusal.KEY))
    assert scene.refusal is None
    scene.disconnect()
    scene.wait(MIN_BACKOFF_S)
    scene.disconnect(refusal=ConnectionRefusal.KEY)
    scene.now += REFUSAL_PERIOD_S
    assert scene.refusal is ConnectionRefusal.KEY


def test_a_last_known_worker_that_refuses_is_not_believed_while_server_5_may_still_answer() -> None:
    """The key was admitted a moment ago: server 5 admits it, but answers late, and the worker does not know it yet."""
    scene = recalling(2)
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    scene.disconnect(7, ConnectionRefusal.KEY)
    scene.now += UNCONFIRMED_REFUSAL_PERIOD_S - 0.01
    assert scene.refusal is None
    scene.snapshot(worker(7, WorkerState.AWAKE, key=KEY))
    scene.now += UNCONFIRMED_REFUSAL_PERIOD_S
    assert scene.refusal is None
    assert scene.policy.refusal is None


def test_a_last_known_worker_that_refuses_is_believed_after_a_while_without_server_5() -> None:
    scene = recalling(2)
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    scene.disconnect(7, ConnectionRefusal.KEY)
    scene.now += UNCONFIRMED_REFUSAL_PERIOD_S
    assert scene.refusal is ConnectionRefusal.KEY
    scene = recalling(2)
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    scene.handle(StatusRefused(ConnectionRefusal.KEY))
    scene.now += REFUSAL_PERIOD_S
    assert scene.refusal is ConnectionRefusal.KEY, "server 5 itself has refused the client"


def test_a_refusal_counts_no_more_once_a_snapshot_names_the_key_of_the_worker() -> None:
    scene = Scene(pinned=True)
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    scene.disconnect(refusal=ConnectionRefusal.HANDSHAKE)
    assert scene.policy.refusal
    scene.snapshot(worker(1, WorkerState.AWAKE, key=KEY))
    assert not scene.policy.refusal


# Banned workers.


def test_a_banned_worker_is_closed_and_not_opened_again() -> None:
    scene = connected()
    assert scene.handle(Ban(1, BanReason.CHANGED)) == [CloseConnection(1)]
    assert scene.states(WorkerState.ASLEEP) == []
    assert scene.states(WorkerState.AWAKE) == []
    assert OpenConnection(1, endpoint(1)) not in scene.wait(STALE)


def test_a_new_process_does_not_lift_the_ban_of_a_worker() -> None:
    """Only the scheduler lifts bans, because it knows which process is banned, and why."""
    scene = connected()
    scene.handle(Ban(1, BanReason.CHANGED))
    assert scene.states(WorkerState.AWAKE, epoch=2) == []


def test_an_unbanned_worker_is_tried_at_once() -> None:
    scene = connected()
    scene.handle(Ban(1, BanReason.CHANGED))
    assert scene.handle(Unban(1)) == [open_action()]


def test_an_unbanned_worker_is_tried_when_it_is_reachable() -> None:
    scene = connected()
    scene.handle(Ban(1, BanReason.CHANGED))
    scene.states(WorkerState.ASLEEP)
    assert scene.handle(Unban(1)) == []
    assert scene.states(WorkerState.AWAKE) == [open_action()]


# Refusals by the servers.

WITH_REASON = [refusal for refusal in ConnectionRefusal if refusal is not ConnectionRefusal.HANDSHAKE]


@pytest.mark.parametrize("by_server_5", [True, False])
@pytest.mark.parametrize("refusal", WITH_REASON)
def test_a_refusal_with_a_reason_is_definitive_after_a_moment(refusal: ConnectionRefusal, by_server_5: bool) -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    if by_server_5:
        scene.handle(StatusRefused(refusal))
    else:
        scene.disconnect(refusal=refusal)
    assert scene.policy.refusal
    assert scene.refusal is None
    assert scene.policy.next_deadline(scene.now) == scene.now + REFUSAL_PERIOD_S
    scene.wait(REFUSAL_PERIOD_S - 0.01)
    assert scene.refusal is None
    scene.now = START + FIRST_SNAPSHOT_TIMEOUT_S + REFUSAL_PERIOD_S
    assert scene.refusal is refusal


def test_one_failed_handshake_is_never_a_definitive_refusal() -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    scene.disconnect(refusal=ConnectionRefusal.HANDSHAKE)
    for _ in range(100):
        scene.wait(HANDSHAKE_REFUSAL_PERIOD_S)
        assert scene.refusal is None
    assert scene.policy.refusal


def test_repeatedly_failed_handshakes_are_a_definitive_refusal() -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    for _ in range(4):
        scene.handle(StatusRefused(ConnectionRefusal.HANDSHAKE))
        assert scene.refusal is None
        scene.now += HANDSHAKE_REFUSAL_PERIOD_S / 4
    scene.handle(StatusRefused(ConnectionRefusal.HANDSHAKE))
    assert scene.refusal is ConnectionRefusal.HANDSHAKE


@pytest.mark.parametrize("first", [ConnectionRefusal.HANDSHAKE, ConnectionRefusal.KEY])
def test_a_reason_takes_precedence_over_a_failed_handshake(first: ConnectionRefusal) -> None:
    scene = Scene(2)
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    for number, refusal in enumerate((first, *({ConnectionRefusal.HANDSHAKE, ConnectionRefusal.KEY} - {first})), 1):
        scene.disconnect(number, refusal)
    scene.now += REFUSAL_PERIOD_S
    assert scene.refusal is ConnectionRefusal.KEY


@pytest.mark.parametrize("refusal", list(ConnectionRefusal))
def test_refusals_do_not_count_while_a_connection_is_open(refusal: ConnectionRefusal) -> None:
    """Refusals by a restarting worker or by server 5 do not stop a download from other workers."""
    scene = Scene(2)
    scene.states(WorkerState.AWAKE, WorkerState.AWAKE)
    scene.connect(1)
    for _ in range(10):
        scene.disconnect(2, refusal)
        scene.handle(StatusRefused(refusal))
        scene.wait(HANDSHAKE_REFUSAL_PERIOD_S)
        assert scene.refusal is None
        assert not scene.policy.refusal


@pytest.mark.parametrize("refusal", list(ConnectionRefusal))
def test_an_open_connection_ends_a_refusal(refusal: ConnectionRefusal) -> None:
    scene = Scene(2)
    scene.states(WorkerState.AWAKE, WorkerState.AWAKE)
    for _ in range(2):
        scene.disconnect(1, refusal)
        scene.now += HANDSHAKE_REFUSAL_PERIOD_S
    assert scene.policy.refusal
    scene.connect(2)
    assert scene.refusal is None
    assert not scene.policy.refusal
    # A refusal after an open connection starts a new period.
    scene.disconnect(2)
    scene.disconnect(1, refusal)
    assert scene.refusal is None


@pytest.mark.parametrize("gap", [0.0, 0.01])
def test_refusals_after_a_gap_are_unrelated_to_those_before(gap: float) -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    for _ in range(5):
        scene.handle(StatusRefused(ConnectionRefusal.HANDSHAKE))
        assert scene.refusal is None
        scene.now += MAX_REFUSAL_GAP_S + 0.01
    scene.handle(StatusRefused(ConnectionRefusal.HANDSHAKE))
    scene.now += MAX_REFUSAL_GAP_S + gap
    scene.handle(StatusRefused(ConnectionRefusal.HANDSHAKE))
    assert scene.refusal is (None if gap else ConnectionRefusal.HANDSHAKE)


def test_failed_connections_without_a_refusal_do_not_count_as_refused() -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    for _ in range(10):
        scene.disconnect()
        scene.wait(MAX_BACKOFF_S)
    assert not scene.policy.refusal


# Connections whose packets do not arrive.


def silent(scene: Scene, seconds: float) -> list[Action]:
    return scene.handle(PathsChecked({1: seconds}))


def test_a_connection_without_packets_is_renewed_once_until_the_interval_has_passed() -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    scene.connect()
    assert silent(scene, RENEWAL_SILENCE_S - 0.1) == []
    assert silent(scene, RENEWAL_SILENCE_S) == [RenewConnection(1, endpoint(1))]
    scene.now += RENEWAL_INTERVAL_S - 0.1
    assert silent(scene, 12.0) == []
    scene.now += 0.1
    assert silent(scene, 12.5) == [RenewConnection(1, endpoint(1))]


def test_a_renewal_ends_when_packets_arrive_again() -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    scene.connect()
    silent(scene, RENEWAL_SILENCE_S)
    assert silent(scene, 0.1) == [EndRenewal(1)]
    assert silent(scene, 0.1) == []
    assert silent(scene, RENEWAL_SILENCE_S) == [RenewConnection(1, endpoint(1))]


def test_a_renewal_takes_the_place_of_the_connection_without_another_attempt() -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    scene.connect()
    silent(scene, RENEWAL_SILENCE_S)
    assert scene.handle(ConnectionClosed(1, is_renewed=True)) == []
    assert scene.wait(1.0) == []
    # The renewal is not open yet, so it is not renewed itself.
    assert silent(scene, 60.0) == []
    scene.connect()
    assert silent(scene, 60.0) == [RenewConnection(1, endpoint(1))]


def test_only_an_open_connection_is_renewed() -> None:
    scene = Scene()
    scene.wait(FIRST_SNAPSHOT_TIMEOUT_S)
    assert silent(scene, 60.0) == []


def test_a_connection_to_server_5_without_packets_is_renewed_before_a_snapshot_is_missed() -> None:
    scene = Scene()
    assert scene.handle(PathsChecked({}, RENEWAL_SILENCE_S - 0.1)) == []
    assert scene.handle(PathsChecked({}, RENEWAL_SILENCE_S)) == [Resubscribe()]


# Host names whose addresses change.


def named(host: str, port: int) -> Endpoint:
    return Endpoint(host, port, (), "files")


def test_connections_are_opened_at_the_new_addresses_of_a_name() -> None:
    old, new = named("10.0.0.1", 21001), named("10.0.0.2", 21001)
    policy = ConnectionPolicy({1: old}, old.at_port(39223), pinned=True, now=START)
    now = START + FIRST_SNAPSHOT_TIMEOUT_S
    assert policy.handle(TimePassed(), now) == [OpenConnection(1, old)]
    actions = policy.handle(AddressesChanged(new.at_port(39223), {1: new}), now)
    assert actions == [CloseConnection(1), Resubscribe(), OpenConnection(1, new)]


def test_an_open_connection_is_kept_but_renewed_at_the_new_address() -> None:
    old, new = named("10.0.0.1", 21001), named("10.0.0.2", 21001)
    policy = ConnectionPolicy({1: old}, old.at_port(39223), pinned=True, now=START)
    policy.handle(TimePassed(), START + FIRST_SNAPSHOT_TIMEOUT_S)
    now = START + 1.0
    policy.handle(SnapshotReceived(status(1, worker(1, WorkerState.AWAKE))), now)
    policy.handle(opened(1), now)
    assert policy.handle(PathsChecked({1: 3.0}), now) == [RenewConnection(1, old)]
    assert policy.handle(AddressesChanged(old.at_port(39223), {1: new}), now) == []
    assert policy.handle(PathsChecked({1: 3.0}), now) == [RenewConnection(1, new)]


def test_the_subscription_follows_the_name_of_server_5_at_once() -> None:
    server5 = named("10.0.0.1", 39223)
    policy = ConnectionPolicy({}, server5, pinned=True, now=START)
    policy.handle(SnapshotReceived(status(1, worker(1, WorkerState.ASLEEP))), START)
    assert policy.handle(AddressesChanged(Endpoint("10.0.0.1", 39223, (), "files"), {}), START) == []
    assert policy.handle(AddressesChanged(named("10.0.0.2", 39223), {}), START) == [Resubscribe()]


def test_workers_that_listen_on_all_addresses_follow_the_name_of_server_5() -> None:
    policy = ConnectionPolicy({}, named("10.0.0.1", 39223), pinned=False, now=START)
    told = worker(1, WorkerState.AWAKE, at=Endpoint("*", 21001))
    assert policy.handle(SnapshotReceived(status(1, told)), START) == [OpenConnection(1, named("10.0.0.1", 21001))]
    actions = policy.handle(AddressesChanged(named("10.0.0.2", 39223), {}), START)
    assert actions == [CloseConnection(1), Resubscribe(), OpenConnection(1, named("10.0.0.2", 21001))]


# Arbitrary sequences of events.

#: The next state, by the current state and the type of the event or action.
NEXT_STATES = {(start, cause): end for (start, end), causes in TRANSITIONS.items() for cause in causes}


def test_an_event_changes_a_state_to_at_most_one_other() -> None:
    assert len(NEXT_STATES) == sum(map(len, TRANSITIONS.values()))
    assert {start for start, _ in TRANSITIONS} == {end for _, end in TRANSITIONS}
    assert {start for start, _ in TRANSITIONS} == {*ConnectionState}


class PolicyMachine(RuleBasedStateMachine):
    """Server 5 and the network produce arbitrary events."""

    @initialize(workers=st.integers(0, 4), pinned=st.booleans(), guessed=st.booleans())
    def begin(self, workers: int, pinned: bool, guessed: bool) -> None:
        self.now = START
        self.known = {number: endpoint(number) for number in range(1, workers + 1)}
        self.pinned = pinned
        guessed = guessed and not pinned
        self.policy = ConnectionPolicy(dict(self.known), SERVER_5, pinned=pinned, guessed=guessed, now=self.now)
        self.sockets: set[int] = set()
        self.renewals: set[int] = set()
        self.connected: set[int] = set()
        self.banned: set[int] = set()
        self.seq = 0
        self.is_refusal_definitive = False

    def handle(self, event: Event) -> None:
        connected = set(self.connected)
        before = {number: known.state for number, known in self.policy.workers.items()}
        actions = self.policy.handle(event, self.now)
        causes: list[Event | Action] = [event, *actions]
        if isinstance(event, ConnectionClosed) and event.is_renewed:
            causes.insert(1, OpenConnection(event.worker, endpoint(event.worker)))
        self.check_transitions(before, causes)
        for action in actions:
            match action:
                case OpenConnection(number, at, key):
                    assert key == self.policy.workers[number].key
                    assert number not in self.sockets, "opened twice"
                    assert number not in self.banned
                    assert not self.pinned or at == self.known[number]
                    self.sockets.add(number)
                case CloseConnection(number):
                    assert number not in connected or isinstance(event, Ban), "closed a working connection"
                    self.sockets.discard(number)
                    self.connected.discard(number)
                case RenewConnection(number, at, key):
                    assert number in self.connected, "only an open connection is renewed"
                    assert (at, key) == (self.policy.workers[number].endpoint, self.policy.workers[number].key)
                    self.renewals.add(number)
                case EndRenewal(number):
                    assert number in self.renewals, "there is no renewal to end"
                    self.renewals.discard(number)
                case Resubscribe():
                    assert isinstance(event, TimePassed | PathsChecked)
                case ReportRefusal():
                    assert isinstance(event, TimePassed)
        self.is_refusal_definitive = any(isinstance(action, ReportRefusal) for action in actions)

    def check_transitions(self, before: dict[int, ConnectionState], causes: list[Event | Action]) -> None:
        """Checks that the table allows each change of state, caused by the event or by an action that follows it."""
        for number, known in self.policy.workers.items():
            allowed = {before.get(number, ConnectionState.CLOSED)}
            for cause in causes:
                if getattr(cause, "worker", number) == number:
                    after = {NEXT_STATES.get((state, type(cause)), state) for state in allowed}
                    allowed = after
            assert known.state in allowed

    @rule(
        states=st.lists(st.sampled_from(list(WorkerState)), max_size=4),
        epoch=st.integers(1, 2),
        key=st.sampled_from([b"", KEY]),
        is_old=st.booleans(),
    )
    def snapshot(self, states: list[WorkerState], epoch: int, key: bytes, is_old: bool) -> None:
        if is_old and self.seq:
            # An old snapshot in which all workers are awake: it must change nothing.
            before = set(self.sockets)
            old = status(self.seq, *(worker(number, WorkerState.AWAKE, 9) for number in self.policy.workers))
            self.handle(SnapshotReceived(old))
            assert self.sockets >= before
            return
        self.seq += 1
        workers = (worker(number, state, epoch, key=key) for number, state in enumerate(states, 1))
        self.handle(SnapshotReceived(status(self.seq, *workers)))
        assert self.policy.status is not None

    @precondition(lambda self: self.sockets - self.connected)
    @rule(data=st.data())
    def connection_opens(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.sockets - self.connected)))
        self.connected.add(number)
        self.handle(opened(number))

    @precondition(lambda self: self.sockets)
    @rule(data=st.data(), refusal=st.sampled_from([None, *ConnectionRefusal]))
    def connection_closes(self, data: st.DataObject, refusal: ConnectionRefusal | None) -> None:
        number = data.draw(st.sampled_from(sorted(self.sockets)))
        self.connected.discard(number)
        if number in self.renewals:
            self.renewals.discard(number)
            self.handle(ConnectionClosed(number, refusal, is_renewed=True))
            return
        self.sockets.discard(number)
        self.handle(ConnectionClosed(number, refusal))

    @precondition(lambda self: self.connected)
    @rule(seconds=st.lists(st.floats(0, 20), min_size=5, max_size=5))
    def paths_are_checked(self, seconds: list[float]) -> None:
        workers = {number: seconds[number - 1] for number in self.sockets if number <= 4}
        self.handle(PathsChecked(workers, seconds[4]))

    @precondition(lambda self: self.renewals)
    @rule(data=st.data())
    def renewal_opens(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.renewals)))
        self.renewals.discard(number)
        self.connected.discard(number)
        self.handle(ConnectionClosed(number, is_renewed=True))
        self.connected.add(number)
        self.handle(opened(number))

    @rule(refusal=st.sampled_from(list(ConnectionRefusal)))
    def server_5_refuses(self, refusal: ConnectionRefusal) -> None:
        self.handle(StatusRefused(refusal))
        assert self.policy.refusal or self.connected

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def worker_is_banned(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.connected)))
        self.banned.add(number)
        self.renewals.discard(number)
        self.handle(Ban(number, BanReason.CHANGED))

    @precondition(lambda self: self.banned)
    @rule(data=st.data())
    def worker_is_unbanned(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.banned)))
        self.banned.discard(number)
        self.handle(Unban(number))

    @rule(seconds=st.floats(0.001, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.handle(TimePassed())

    @rule()
    def deadline_comes(self) -> None:
        self.now = max(self.now, self.policy.next_deadline(self.now))
        self.handle(TimePassed())
        # After a definitive refusal the client ends, so its next deadline does not matter.
        assert self.is_refusal_definitive or self.policy.next_deadline(self.now) > self.now, "busy loop"

    @invariant()
    def policy_and_network_agree(self) -> None:
        self.policy.check_invariants()
        for number, known in self.policy.workers.items():
            has_socket = known.state in (ConnectionState.CONNECTING, ConnectionState.OPEN)
            assert has_socket == (number in self.sockets)
            assert (known.state is ConnectionState.OPEN) == (number in self.connected)
            assert (known.state is ConnectionState.BANNED) == (number in self.banned)

    @invariant()
    def nothing_is_refused_while_a_worker_is_connected(self) -> None:
        assert not (self.connected and self.policy.refusal)
        assert self.policy.refusal or not self.is_refusal_definitive

    @invariant()
    def every_reachable_worker_has_a_socket_or_a_retry(self) -> None:
        if self.policy.awaits_first_snapshot:
            return
        for number, known in self.policy.workers.items():
            reachable = known.reported_state in (None, WorkerState.AWAKE, WorkerState.SILENT)
            if reachable and number not in self.sockets | self.banned:
                assert self.policy.next_deadline(self.now) <= known.retry_at <= self.now + MAX_BACKOFF_S


TestPolicy = PolicyMachine.TestCase
TestPolicy.settings = settings(max_examples=100, stateful_step_count=40)
