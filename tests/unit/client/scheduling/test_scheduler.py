"""The scheduler by example. Arbitrary interleavings of events are tested in tests/property/."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from msd.client.network_events import Ban, BanReason, ConnectionClosed, SnapshotReceived, Unban
from msd.client.scheduling.refusal_policy import REFUSAL_POLICIES
from msd.client.scheduling.scheduler import CATALOGUE_LOAD_PAUSE_S, CATALOGUE_LOAD_S, Scheduler
from msd.client.scheduling.scheduler_events import (
    Action,
    Event,
    Finish,
    GiveUp,
    OutputAdvanced,
    RequestUnit,
    Resumed,
    UnitChecked,
    UnitCorrupt,
    UnitDuplicate,
    UnitRefused,
    UnitWritten,
)
from msd.client.scheduling.worker_pace import INITIAL_WINDOW
from msd.wire.protocol.states import RefusalReason, WorkerState
from msd.wire.support.core import Stalled, TimePassed
from tests.connections import opened
from tests.unit.snapshots import snapshot

OLD, NEW, NEWER, THEIRS = b"old", b"new", b"newer", b"theirs"


class Scene:
    """A scheduler and a clock that the test controls. Checks the invariants after every event."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(0, ())
        self.now = 50.0

    def begin(
        self,
        units: int,
        workers: int,
        unchecked: tuple[int, ...] = (),
        *,
        max_ahead: int | None = None,
        max_rate: float | None = None,
    ) -> None:
        self.scheduler = Scheduler(
            units, range(1, workers + 1), max_ahead=max_ahead, unchecked=unchecked, max_rate=max_rate
        )

    def feed(self, event: Event, later: float = 0.0) -> list[Action]:
        self.now += later
        actions = self.scheduler.handle(event, self.now)
        self.scheduler.check_invariants()
        return actions

    def ready(self, *workers: int) -> list[Action]:
        return [action for worker in workers for action in self.feed(opened(worker))]


def published(catalogue: bytes, *epochs: int) -> SnapshotReceived:
    """A snapshot with this catalogue and the epochs of workers 1, 2 and so on."""
    status = snapshot(*[WorkerState.AWAKE] * len(epochs), catalogue=catalogue) if epochs else snapshot(workers=[])
    workers = [replace(worker, epoch=epoch) for worker, epoch in zip(status.workers, epochs, strict=True)]
    return SnapshotReceived(replace(status, catalogue=catalogue, workers=workers))


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.scheduler.check_invariants()


def requests(worker: int, *units: int) -> list[Action]:
    return [RequestUnit(worker, index) for index in units]


def requested_units(actions: list[Action]) -> list[int]:
    return [action.unit for action in actions if isinstance(action, RequestUnit)]


def test_a_new_worker_gets_requests_for_a_few_segments_in_order(scene: Scene) -> None:
    scene.begin(100, 2)
    assert scene.ready(1) == requests(1, *range(INITIAL_WINDOW))
    assert scene.ready(2) == requests(2, *range(INITIAL_WINDOW, 2 * INITIAL_WINDOW))


def test_unmeasured_workers_share_a_small_file_equally(scene: Scene) -> None:
    scene.begin(12, 4)
    assert scene.ready(1, 2, 3) == requests(1, 0, 1, 2) + requests(2, 3, 4, 5) + requests(3, 6, 7, 8)
    assert scene.ready(4) == requests(4, 9, 10, 11)


def test_the_rate_is_measured_even_if_an_equal_share_is_one_unit(scene: Scene) -> None:
    """Each reply takes 50 ms. An equal share is one request, which is too few in flight to measure a rate."""
    scene.begin(60, 64)
    actions = scene.feed(opened(1, round_trip=0.05))
    requested = requested_units(actions)
    rounds = 0
    while requested:
        scene.now += 0.05
        arrived, requested = requested, []
        for index in arrived:
            requested += requested_units(scene.feed(UnitWritten(1, index)))
        rounds += 1
    assert rounds < 60 / 4


def test_no_worker_is_expected_to_reply_within_its_round_trip(scene: Scene) -> None:
    """
    1. The only unit is requested from worker 1, which has not replied for a while.
    2. Worker 2 connects with a long round trip: it would not deliver the unit sooner, so it gets no request.
    3. Worker 3 connects with a short round trip: it gets a request for the unit.
    """
    scene.begin(1, 3)
    scene.ready(1)
    assert scene.feed(opened(2, round_trip=0.2), later=0.2) == []
    assert scene.feed(opened(3, round_trip=0.01)) == requests(3, 0)


def test_each_arrival_is_followed_by_one_request(scene: Scene) -> None:
    scene.begin(100, 1)
    scene.ready(1)
    assert scene.feed(UnitWritten(1, 0)) == requests(1, INITIAL_WINDOW)
    assert (scene.scheduler.delivered_by(1), scene.scheduler.outstanding(1)) == ([0], [1, 2, 3, 4])


def test_outstanding_segments_of_a_lost_worker_are_requested_first_and_delivered_ones_never_again(scene: Scene) -> None:
    """
    1. Worker 1 delivers unit 0 and is lost while units 1, 2, 3 and 8 are outstanding.
    2. Worker 2 gets requests for these four units before any other unit, and none for unit 0.
    """
    scene.begin(12, 2)
    scene.ready(1, 2)
    scene.feed(UnitWritten(1, 0))
    scene.feed(ConnectionClosed(1))
    assert scene.scheduler.delivered_by(1) == [0]
    actions = []
    while not scene.scheduler.handle(TimePassed(), scene.now) and scene.scheduler.remaining:
        for index in scene.scheduler.outstanding(2):
            actions += scene.feed(UnitWritten(2, index), later=0.01)
    requested = requested_units(actions)
    assert requested[:4] == [1, 2, 3, 8]
    assert 0 not in requested
    assert actions[-1] == Finish()


def test_an_empty_file_is_finished_at_once(scene: Scene) -> None:
    scene.begin(0, 1)
    assert scene.feed(TimePassed()) == [Finish()]


def test_a_sleeping_worker_loses_its_outstanding_segments_and_gets_no_requests_for_a_while(scene: Scene) -> None:
    pause_s = REFUSAL_POLICIES[RefusalReason.SLEEPING].pause_s
    scene.begin(8, 2)
    scene.ready(1, 2)
    scene.feed(UnitRefused(1, 0, RefusalReason.SLEEPING))
    assert scene.scheduler.outstanding(1) == []
    assert not [a for a in scene.feed(TimePassed(), later=pause_s / 2) if a in requests(1, *range(8))]
    assert set(scene.feed(TimePassed(), later=pause_s / 2)) <= set(requests(1, *range(8)))


def test_a_busy_worker_keeps_its_other_outstanding_units(scene: Scene) -> None:
    scene.begin(100, 1)
    scene.ready(1)
    assert scene.feed(UnitRefused(1, 2, RefusalReason.BUSY)) == []
    assert scene.scheduler.outstanding(1) == [0, 1, 3]
    assert scene.feed(TimePassed(), later=REFUSAL_POLICIES[RefusalReason.BUSY].pause_s) == requests(1, 2)


@pytest.mark.parametrize(
    "reason", [RefusalReason.UNKNOWN, RefusalReason.CHANGED, RefusalReason.UNREADABLE, RefusalReason.BAD_REQUEST]
)
def test_a_permanent_refusal_bans_a_worker_until_its_next_process(scene: Scene, reason: RefusalReason) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    assert Ban(1, BanReason(reason.value)) in scene.feed(UnitRefused(1, 0, reason))
    # The first snapshot reports the banned process.
    assert scene.feed(published(OLD, 7)) == []
    assert scene.feed(opened(1)) == []
    assert scene.feed(published(OLD, 8)) == [Unban(1)]
    assert sorted(requested_units(scene.feed(opened(1, epoch=8)))) == [0, 1, 2, 3]


def test_a_worker_of_another_broker_is_not_tried_again_after_each_snapshot(scene: Scene) -> None:
    """Server 5 reports its own worker 1, but the endpoint belongs to another broker's worker."""
    scene.begin(100, 2)
    scene.feed(published(OLD, 8))
    scene.ready(1, 2)
    scene.feed(UnitRefused(1, 0, RefusalReason.UNKNOWN))
    assert [scene.feed(published(OLD, epoch)) for epoch in (8, 8, 9, 9)] == [[], [], [Unban(1)], []]


def test_the_scheduler_gives_up_if_all_workers_are_banned(scene: Scene) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    scene.feed(UnitRefused(1, 0, RefusalReason.CHANGED))
    actions = scene.feed(UnitRefused(2, 4, RefusalReason.UNREADABLE))
    assert actions[-1] == GiveUp({1: BanReason.CHANGED, 2: BanReason.UNREADABLE}, 0)
    assert scene.feed(TimePassed()) == []


def test_after_it_gave_up_the_scheduler_continues_with_the_workers_that_lacked_the_version(scene: Scene) -> None:
    scene.begin(100, 3)
    scene.ready(1, 2, 3)
    scene.feed(UnitWritten(1, 0))
    scene.feed(UnitRefused(1, 1, RefusalReason.CHANGED))
    scene.feed(UnitRefused(3, 8, RefusalReason.UNKNOWN))
    assert isinstance(scene.feed(UnitRefused(2, 4, RefusalReason.UNREADABLE))[-1], GiveUp)
    assert scene.feed(opened(1)) == []
    assert scene.feed(Resumed()) == [Unban(1), Unban(3)]
    assert requested_units(scene.feed(opened(1))) == [5, 6, 7, 4]
    assert scene.feed(opened(2)) == []
    assert isinstance(scene.feed(UnitRefused(1, 1, RefusalReason.CHANGED))[0], Ban)
    assert isinstance(scene.feed(opened(3))[0], RequestUnit)


def test_a_corrupt_segment_goes_to_another_worker_and_the_third_one_bans_its_sender(scene: Scene) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    assert requests(1, 0)[0] not in scene.feed(UnitCorrupt(1, 0))
    assert requests(2, 0)[0] in scene.feed(UnitWritten(2, 4))
    scene.feed(UnitCorrupt(1, 1))
    assert Ban(1, BanReason.CORRUPT) in scene.feed(UnitCorrupt(1, 2))
    assert [scene.feed(published(OLD, epoch)) for epoch in (7, 99)] == [[], []]
    assert scene.feed(opened(1, epoch=99)) == []


def test_an_idle_worker_takes_the_last_segments_of_a_frozen_one(scene: Scene) -> None:
    scene.begin(8, 2)
    scene.ready(1, 2)
    actions = []
    for index in (4, 5, 6, 7):
        actions += scene.feed(UnitWritten(2, index), later=0.05)
    for _ in range(20):
        actions += scene.feed(TimePassed(), later=0.05)
        for index in scene.scheduler.outstanding(2):
            actions += scene.feed(UnitWritten(2, index), later=0.05)
    assert actions[-1] == Finish()
    assert {*requested_units(actions)} == {0, 1, 2, 3}


def test_a_duplicate_is_no_progress_but_gives_credit(scene: Scene) -> None:
    """Worker 1 delivers a unit that worker 2 has already delivered."""
    scene.begin(5, 2)
    scene.ready(1, 2)
    scene.feed(UnitWritten(2, 4), later=0.1)
    for _ in range(100):
        if 3 in scene.scheduler.outstanding(2):
            break
        scene.feed(TimePassed(), later=0.05)
    scene.feed(UnitWritten(2, 3))
    remaining = scene.scheduler.remaining
    scene.feed(UnitDuplicate(1, 3))
    assert scene.scheduler.remaining == remaining
    assert 3 not in scene.scheduler.outstanding(1)
    assert scene.scheduler.delivered_by(2) == [3, 4]


def test_an_unchecked_segment_is_not_requested_before_it_is_checked(scene: Scene) -> None:
    scene.begin(4, 1, unchecked=(0, 1, 2, 3))
    assert scene.ready(1) == []
    assert scene.feed(UnitChecked(0, valid=True)) == []
    assert scene.feed(UnitChecked(1, valid=False)) == requests(1, 1)
    assert scene.feed(UnitChecked(2, valid=True)) == []
    assert scene.feed(UnitChecked(3, valid=True)) == []
    assert scene.feed(UnitWritten(1, 1)) == [Finish()]


def test_a_stall_of_the_client_does_not_make_workers_late(scene: Scene) -> None:
    """The client stalls for 5 s: worker 1 is not considered late, and no unit is requested twice."""
    scene.begin(8, 2)
    scene.ready(1, 2)
    for index in (4, 0, 5, 1, 6, 2, 7):
        scene.feed(UnitWritten(1 if index < 4 else 2, index), later=0.03)
    before = scene.scheduler.outstanding(1), scene.scheduler.outstanding(2)
    scene.now += 5.0
    assert scene.feed(Stalled(5.0)) == []
    assert scene.feed(TimePassed()) == []
    assert (scene.scheduler.outstanding(1), scene.scheduler.outstanding(2)) == before


def test_the_window_grows_with_rate_and_round_trip(scene: Scene) -> None:
    scene.begin(10_000, 1)
    scene.feed(opened(1, round_trip=0.1))
    for _ in range(400):
        scene.feed(UnitWritten(1, scene.scheduler.outstanding(1)[0]), later=0.01)
    worker = scene.scheduler.workers[1]
    assert worker.rate == pytest.approx(100, rel=0.1)
    assert worker.window == pytest.approx(1 + 2 * 100 * 0.1, abs=2)
    assert len(worker.outstanding) == worker.window


def test_the_window_stays_small_on_a_short_round_trip(scene: Scene) -> None:
    """In a large window, units would leave the processor's caches before they are hashed."""
    scene.begin(10_000, 1)
    scene.feed(opened(1, round_trip=0.0001))
    for _ in range(400):
        scene.feed(UnitWritten(1, scene.scheduler.outstanding(1)[0]), later=0.0025)
    worker = scene.scheduler.workers[1]
    assert worker.rate == pytest.approx(400, rel=0.1)
    assert len(worker.outstanding) == worker.window == 2


# Changes to the catalogue.


def begin_with_catalogues(scene: Scene, *catalogues: bytes) -> None:
    """Makes one worker ready for each catalogue; the manifest was found with the old catalogue."""
    scene.begin(100, len(catalogues))
    scene.feed(published(OLD))
    for number, catalogue in enumerate(catalogues, 1):
        scene.feed(opened(number, catalogue=catalogue))


def refuse(scene: Scene, worker: int, reason: RefusalReason) -> list[Action]:
    return scene.feed(UnitRefused(worker, scene.scheduler.outstanding(worker)[0], reason))


def gives_up(actions: list[Action]) -> bool:
    return any(isinstance(action, GiveUp) for action in actions)


@pytest.mark.parametrize("asleep_first", [True, False])
def test_a_worker_of_another_broker_does_not_end_the_download(scene: Scene, asleep_first: bool) -> None:
    """
    1. Workers 1 to 3 serve the file. Worker 4 belongs to another broker and does not know the file.
    2. The catalogue changes. Workers 1 to 3 are put to sleep before or after the change.
    3. Worker 4 is asked again and refuses again. Workers 1 to 3 wake up and get requests.
    """
    begin_with_catalogues(scene, OLD, OLD, OLD, THEIRS)
    scene.now += CATALOGUE_LOAD_S
    assert refuse(scene, 4, RefusalReason.UNKNOWN)[0] == Ban(4, BanReason.UNKNOWN)
    sleep = [ConnectionClosed(1), ConnectionClosed(2), ConnectionClosed(3)]
    steps: list[Event] = [*sleep, published(NEW)] if asleep_first else [published(NEW), *sleep]
    actions = [action for event in steps for action in scene.feed(event)]
    assert Unban(4) in actions
    actions += scene.feed(opened(4, catalogue=THEIRS))
    actions += scene.feed(TimePassed(), later=60.0)
    actions += refuse(scene, 4, RefusalReason.UNKNOWN)
    actions += scene.feed(TimePassed(), later=60.0)
    assert not gives_up(actions)
    assert len(requested_units(scene.feed(opened(1, catalogue=NEW)))) == 4


@pytest.mark.parametrize("reason", [RefusalReason.CHANGED, RefusalReason.UNKNOWN])
@pytest.mark.parametrize("welcome_catalogue", [OLD, NEW])
def test_a_changed_file_ends_the_download_while_the_other_workers_sleep(
    scene: Scene, reason: RefusalReason, welcome_catalogue: bytes
) -> None:
    begin_with_catalogues(scene, OLD, OLD, OLD)
    for number in (2, 3):
        scene.feed(ConnectionClosed(number))
    scene.feed(published(NEW))
    if welcome_catalogue is NEW:
        scene.feed(ConnectionClosed(1))
        scene.feed(opened(1, catalogue=NEW))
    actions = refuse(scene, 1, reason)
    assert actions == [Ban(1, BanReason(reason.value)), GiveUp({1: BanReason(reason.value)}, 0)]


def test_a_worker_that_has_not_loaded_the_published_catalogue_yet_is_asked_again(scene: Scene) -> None:
    """Server 5 publishes a catalogue once one worker has loaded it. The others load it a moment later."""
    begin_with_catalogues(scene, OLD, THEIRS)
    for _ in range(int(CATALOGUE_LOAD_S / CATALOGUE_LOAD_PAUSE_S)):
        for _ in range(4):
            assert not {Ban, RequestUnit} & {*map(type, refuse(scene, 2, RefusalReason.UNKNOWN))}
        assert scene.scheduler.outstanding(2) == []
        assert {*map(type, scene.feed(TimePassed(), later=CATALOGUE_LOAD_PAUSE_S))} == {RequestUnit}
    assert refuse(scene, 2, RefusalReason.UNKNOWN)[0] == Ban(2, BanReason.UNKNOWN)


def test_refusals_before_a_change_to_the_catalogue_do_not_count(scene: Scene) -> None:
    begin_with_catalogues(scene, OLD, OLD)
    refuse(scene, 1, RefusalReason.CHANGED)
    scene.feed(ConnectionClosed(2))
    assert scene.feed(published(NEW)) == [Unban(1)]
    assert not gives_up(scene.feed(TimePassed(), later=60.0))
    # A stale reply from the closed connection.
    assert scene.feed(UnitRefused(1, 1, RefusalReason.CHANGED)) == []
    assert {a.worker for a in scene.feed(opened(1, catalogue=NEW)) if isinstance(a, RequestUnit)} == {1}
    assert gives_up(refuse(scene, 1, RefusalReason.UNKNOWN))


def test_the_scheduler_waits_for_a_lost_worker_that_was_ready_since_the_change(scene: Scene) -> None:
    begin_with_catalogues(scene, OLD, OLD)
    scene.feed(published(NEW))
    scene.feed(ConnectionClosed(2))
    assert not gives_up(refuse(scene, 1, RefusalReason.CHANGED))
    scene.feed(opened(2, catalogue=NEW))
    assert gives_up(refuse(scene, 2, RefusalReason.CHANGED))


def test_each_change_to_the_catalogue_gives_a_banned_worker_one_retry(scene: Scene) -> None:
    begin_with_catalogues(scene, OLD, THEIRS)
    scene.now += CATALOGUE_LOAD_S
    refuse(scene, 2, RefusalReason.UNKNOWN)
    for catalogue in (NEW, NEWER, NEW):
        assert scene.feed(published(catalogue)) == [Unban(2)]
        for same in (catalogue, b""):
            assert scene.feed(published(same)) == []
        scene.feed(opened(2, catalogue=THEIRS))
        scene.now += CATALOGUE_LOAD_S
        refuse(scene, 2, RefusalReason.UNKNOWN)
        # Neither a new connection nor the same catalogue gives another retry.
        assert scene.feed(opened(2, catalogue=THEIRS)) == []
        assert scene.feed(published(catalogue)) == []


@pytest.mark.parametrize("first", [b"", OLD])
def test_the_first_published_catalogue_is_not_a_change(scene: Scene, first: bytes) -> None:
    scene.begin(100, 2)
    scene.feed(published(first))
    scene.feed(opened(1, catalogue=OLD))
    refuse(scene, 1, RefusalReason.CHANGED)
    assert scene.feed(published(OLD)) == []
    assert not gives_up(scene.feed(TimePassed(), later=60.0))


@pytest.mark.parametrize("reason", [RefusalReason.UNREADABLE, RefusalReason.BAD_REQUEST])
def test_other_bans_outlast_a_change_to_the_catalogue(scene: Scene, reason: RefusalReason) -> None:
    begin_with_catalogues(scene, OLD, OLD)
    refuse(scene, 1, reason)
    assert scene.feed(published(NEW)) == []
    assert scene.feed(opened(1, catalogue=NEW)) == []


# A limited rate.


def test_a_limited_download_requests_one_segment_after_another(scene: Scene) -> None:
    scene.begin(10, 2, max_rate=0.5)
    assert scene.ready(1, 2) == [RequestUnit(1, 0)]
    assert scene.scheduler.waits_for_rate_limit(scene.now)
    assert scene.feed(UnitWritten(1, 0), 0.1) == []
    assert scene.scheduler.waits_for_rate_limit(scene.now)
    due = scene.scheduler.next_deadline(scene.now)
    # The bucket was full before the first request: one unit, and a tenth of a second more.
    assert due == pytest.approx(scene.now + 2.0 - 0.1 - 0.1)
    assert scene.feed(TimePassed(), 1.8) == [RequestUnit(2, 1)]


def test_if_all_workers_are_frozen_the_limit_is_not_the_cause_of_a_wait(scene: Scene) -> None:
    """As long as a worker could be asked, a frozen one is no reason to give up."""
    scene.begin(10, 2, max_rate=0.5)
    scene.ready(1, 2)
    assert scene.scheduler.waits_for_rate_limit(scene.now)
    assert scene.feed(TimePassed(), 3.0) == [RequestUnit(2, 1)]
    assert not scene.scheduler.waits_for_rate_limit(scene.now)


@pytest.mark.parametrize("event", [UnitRefused(1, 0, RefusalReason.SLEEPING), ConnectionClosed(1)])
def test_a_request_without_data_does_not_count_towards_the_limit(scene: Scene, event: Event) -> None:
    scene.begin(10, 2, max_rate=0.5)
    scene.ready(1, 2)
    assert scene.feed(event, 0.1) == [RequestUnit(2, 0)]


def test_without_a_usable_worker_the_limit_is_not_the_cause_of_a_wait(scene: Scene) -> None:
    scene.begin(10, 1, max_rate=0.5)
    scene.ready(1)
    scene.feed(UnitWritten(1, 0), 0.1)
    scene.feed(ConnectionClosed(1))
    assert not scene.scheduler.waits_for_rate_limit(scene.now)


# A stream: the output takes the units in order.


def test_only_the_segments_shortly_after_the_position_of_the_output_are_requested(scene: Scene) -> None:
    scene.begin(100, 2, max_ahead=3)
    assert scene.ready(1, 2) == requests(1, 0, 1, 2)
    assert scene.feed(UnitWritten(1, 1)) == []
    assert scene.feed(UnitWritten(1, 0)) == []
    # Each to the worker that has been idle for the longest time.
    assert scene.feed(OutputAdvanced(1), later=0.01) == requests(2, 3)
    assert scene.feed(OutputAdvanced(2)) == requests(1, 4)


def test_an_output_that_does_not_advance_ends_all_requests(scene: Scene) -> None:
    scene.begin(100, 2, max_ahead=2)
    assert scene.ready(1, 2) == requests(1, 0, 1)
    for index in (0, 1):
        scene.feed(UnitWritten(1, index))
    assert scene.scheduler.next_deadline(scene.now) is None
    assert scene.feed(TimePassed(), later=100.0) == []


def test_the_oldest_missing_segment_of_a_frozen_or_lost_worker_is_requested_again(scene: Scene) -> None:
    scene.begin(100, 3, max_ahead=1)
    assert scene.ready(1, 2) == requests(1, 0)
    assert scene.feed(TimePassed(), later=1.0) == requests(2, 0), "a hedge"
    scene.feed(ConnectionClosed(1))
    scene.feed(ConnectionClosed(2))
    assert scene.ready(3) == requests(3, 0)
