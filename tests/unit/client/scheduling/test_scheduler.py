"""The scheduler by example. Arbitrary interleavings of events are tested in tests/property/."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from msgspec.structs import replace

from msd.client.network_events import Ban, BanReason, ConnectionClosed, SnapshotReceived, Unban
from msd.client.scheduling.refusal_policy import REFUSAL_POLICIES
from msd.client.scheduling.scheduler import (
    CATALOGUE_LOAD_PAUSE_S,
    CATALOGUE_LOAD_S,
    HOLDS_INTERVAL_PER_UNIT_S,
    HOLDS_INTERVAL_S,
    MAX_CORRUPT_UNITS,
    RUN_UNITS,
    USELESS_AFTER_S,
    Scheduler,
)
from msd.client.scheduling.scheduler_events import (
    Action,
    CheckUnit,
    Event,
    GroupBan,
    GroupLost,
    GroupRemoved,
    GroupUnban,
    LimitMoved,
    PartReceived,
    PartsChecked,
    RequestHolds,
    RequestUnit,
    Resumed,
    UnitChecked,
    UnitCorrupt,
    UnitDuplicate,
    UnitRefused,
    UnitsAdded,
    UnitsFollow,
    UnitsHeld,
    UnitState,
    UnitWritten,
    WorkerRemoved,
)
from msd.client.scheduling.worker_pace import MIN_PART, PART_GROWTH, STORE_AHEAD, STORE_RUN_S, STORE_RUN_UNITS
from msd.wire.protocol.messages import PASSES_ON, READS_STORE
from msd.wire.protocol.states import RefusalReason, WorkerState
from msd.wire.support.core import Stalled, TimePassed
from tests.connections import opened
from tests.unit.snapshots import snapshot

#: The size of a unit in bytes: two parts of the smallest size.
SIZE = 2 * MIN_PART
OLD, NEW, NEWER, THEIRS = b"old", b"new", b"newer", b"theirs"
#: The refusals that concern one group only.
GROUP_REFUSALS = [RefusalReason.UNKNOWN, RefusalReason.CHANGED, RefusalReason.UNREADABLE, RefusalReason.OTHER]


class Scene:
    """A scheduler and a clock that the test controls. Checks the invariants after every event."""

    def __init__(self) -> None:
        self.scheduler = Scheduler((), memory=0)
        self.now = 50.0

    def begin(
        self,
        units: int | Sequence[int],
        workers: int,
        unchecked: tuple[int, ...] = (),
        *,
        catalogue: bytes = b"",
        limit: int | None = None,
        max_rate: float | None = None,
        memory: int = 1 << 30,
        are_fast: bool = True,
        are_slow: bool = False,
    ) -> None:
        """``units`` are sizes, or a number of units of ``SIZE`` bytes. ``max_rate`` is in such units per second.

        With ``are_fast``, the workers have delivered before, fast enough for whole units: each may have two. With
        ``are_slow``, they have not, but are known to be slow.
        """
        are_fast = are_fast and not are_slow
        max_rate = max_rate * SIZE if max_rate is not None else None
        self.scheduler = Scheduler(range(1, workers + 1), memory=memory, max_rate=max_rate)
        self.sizes = [SIZE] * units if isinstance(units, int) else [*units]
        for worker in self.scheduler.workers.values():
            worker.has_delivered = are_fast
            worker.is_growing = not are_slow
            worker.whole_size = worker.part_for_rate = 1e9 if are_fast else MIN_PART
        if limit is not None:
            self.feed(LimitMoved(limit))
        self.feed(UnitsAdded(self.sizes, unchecked, catalogue))

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
    return [RequestUnit(worker, unit, 0, SIZE) for unit in units]


def alternately(first: list[Action], second: list[Action]) -> list[Action]:
    return [action for pair in zip(first, second, strict=True) for action in pair]


def is_lost(actions: list[Action], group: int = 0) -> bool:
    return any(isinstance(action, GroupLost) and action.group == group for action in actions)


def requested_units(actions: list[Action]) -> list[int]:
    return [action.unit for action in actions if isinstance(action, RequestUnit)]


def test_a_worker_gets_requests_for_two_units_in_order(scene: Scene) -> None:
    scene.begin(100, 2)
    assert scene.ready(1) == requests(1, 0, 1)
    assert scene.ready(2) == requests(2, 2, 3)


def test_units_that_are_added_one_by_one_go_to_the_workers_in_turn(scene: Scene) -> None:
    scene.begin(1, 3)
    assert scene.ready(1, 2, 3) == requests(1, 0)
    assert [action for _ in range(3) for action in scene.feed(UnitsAdded([SIZE]))] == [
        *requests(2, 1),
        *requests(3, 2),
        *requests(1, 3),
    ]


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
    assert scene.feed(UnitWritten(1, 0)) == requests(1, 2)
    assert (scene.scheduler.delivered_by(1), scene.scheduler.outstanding(1)) == ([0], [1, 2])
    assert scene.scheduler.outstanding_bytes(1) == 2 * SIZE


def test_outstanding_units_of_a_lost_worker_are_requested_first_and_delivered_ones_never_again(scene: Scene) -> None:
    """
    1. Worker 1 delivers unit 0 and is lost while units 1 and 4 are outstanding.
    2. Worker 2 gets requests for these two units before any other unit, and none for unit 0.
    """
    scene.begin(12, 2)
    scene.ready(1, 2)
    scene.feed(UnitWritten(1, 0))
    scene.feed(ConnectionClosed(1))
    assert scene.scheduler.delivered_by(1) == [0]
    actions = []
    while not scene.scheduler.handle(TimePassed(), scene.now) and scene.scheduler.remaining:
        for unit in scene.scheduler.outstanding(2):
            actions += scene.feed(UnitWritten(2, unit), later=0.01)
    requested = requested_units(actions)
    assert requested[:2] == [1, 4]
    assert 0 not in requested
    assert not scene.scheduler.remaining


def test_the_windows_fit_the_memory_but_each_worker_may_have_a_request(scene: Scene) -> None:
    scene.begin(100, 2, memory=3 * SIZE)
    assert scene.ready(1, 2) == requests(1, 0) + requests(2, 1)
    scene.begin(100, 2, memory=0)
    assert scene.ready(1, 2) == requests(1, 0) + requests(2, 1)


def test_units_are_requested_as_they_are_added(scene: Scene) -> None:
    scene.scheduler = Scheduler([1], memory=1 << 30)
    scene.ready(1)
    assert scene.feed(UnitsAdded([5])) == [RequestUnit(1, 0, 0, 5)]
    assert scene.feed(UnitWritten(1, 0)) == []
    assert scene.feed(UnitsAdded([6, 7])) == [RequestUnit(1, 1, 0, 6), RequestUnit(1, 2, 0, 7)]
    assert scene.feed(UnitWritten(1, 1)) == scene.feed(UnitWritten(1, 2)) == []
    assert not scene.scheduler.remaining


def test_an_empty_file_is_finished_at_once(scene: Scene) -> None:
    scene.scheduler = Scheduler([1], memory=1)
    assert scene.feed(UnitsAdded([])) == []
    assert not scene.scheduler.remaining


def test_a_sleeping_worker_loses_its_outstanding_units_and_gets_no_requests_for_a_while(scene: Scene) -> None:
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
    assert scene.feed(UnitRefused(1, 0, RefusalReason.BUSY)) == []
    assert scene.scheduler.outstanding(1) == [1]
    assert scene.feed(TimePassed(), later=REFUSAL_POLICIES[RefusalReason.BUSY].pause_s) == requests(1, 0)


def test_an_invalid_request_bans_a_worker_until_its_next_process(scene: Scene) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    assert Ban(1, BanReason.BAD_REQUEST) in scene.feed(UnitRefused(1, 0, RefusalReason.BAD_REQUEST))
    # The first snapshot reports the banned process.
    assert scene.feed(published(OLD, 7)) == []
    assert scene.feed(opened(1)) == []
    assert scene.feed(published(OLD, 8)) == [Unban(1)]
    assert requested_units(scene.feed(opened(1, epoch=8))) == [0, 1]


@pytest.mark.parametrize("reason", GROUP_REFUSALS)
def test_a_permanent_refusal_bans_a_worker_from_the_group_until_its_next_process(
    scene: Scene, reason: RefusalReason
) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    ban = GroupBan(1, 0, BanReason(reason.value))
    assert scene.feed(UnitRefused(1, 0, reason))[0] == ban
    assert scene.scheduler.outstanding(1) == []
    # The first snapshot reports the banned process; a lost connection is no new process.
    assert scene.feed(published(OLD, 7)) == []
    scene.feed(ConnectionClosed(1))
    assert scene.feed(opened(1)) == []
    assert scene.feed(published(OLD, 8)) == [GroupUnban(1, 0), *requests(1, 0, 1)]


@pytest.mark.parametrize("reason", GROUP_REFUSALS)
def test_a_connection_to_a_new_process_ends_a_ban_from_a_group(scene: Scene, reason: RefusalReason) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    scene.feed(UnitRefused(1, 0, reason))
    scene.feed(ConnectionClosed(1))
    assert scene.feed(opened(1, epoch=8)) == [GroupUnban(1, 0), *requests(1, 0, 1)]
    assert scene.feed(published(OLD, 8)) == []


def test_a_worker_of_another_broker_is_not_tried_again_after_each_snapshot(scene: Scene) -> None:
    """Server 5 reports its own worker 1, but the endpoint belongs to another broker's worker."""
    scene.begin(100, 2)
    scene.feed(published(OLD, 8))
    scene.ready(1, 2)
    scene.feed(UnitRefused(1, 0, RefusalReason.UNKNOWN))
    actions = [scene.feed(published(OLD, epoch)) for epoch in (8, 8, 9, 9)]
    assert actions == [[], [], [GroupUnban(1, 0), *requests(1, 0, 1)], []]


def test_a_group_is_lost_if_all_workers_are_banned(scene: Scene) -> None:
    scene.begin(100, 3)
    scene.ready(1, 2, 3)
    scene.feed(UnitRefused(1, 0, RefusalReason.CHANGED))
    scene.feed(UnitRefused(3, 4, RefusalReason.BAD_REQUEST))
    bans = {1: BanReason.CHANGED, 2: BanReason.UNREADABLE, 3: BanReason.BAD_REQUEST}
    actions = scene.feed(UnitRefused(2, 2, RefusalReason.UNREADABLE))
    assert actions == [GroupBan(2, 0, BanReason.UNREADABLE), GroupLost(0, bans, 0)]
    assert scene.feed(TimePassed(), later=60.0) == []


def test_a_lost_group_continues_with_the_workers_that_lacked_the_version(scene: Scene) -> None:
    scene.begin(100, 3)
    scene.ready(1, 2, 3)
    scene.feed(UnitWritten(1, 0))
    scene.feed(UnitRefused(1, 1, RefusalReason.CHANGED))
    scene.feed(UnitRefused(3, 4, RefusalReason.UNKNOWN))
    assert is_lost(scene.feed(UnitRefused(2, 2, RefusalReason.UNREADABLE)))
    assert scene.feed(opened(1)) == []
    actions = scene.feed(Resumed(0))
    assert actions == [GroupUnban(1, 0), GroupUnban(3, 0), *alternately(requests(1, 1, 3), requests(3, 2, 4))]
    assert scene.feed(opened(2)) == []
    assert scene.feed(UnitRefused(1, 1, RefusalReason.CHANGED))[0] == GroupBan(1, 0, BanReason.CHANGED)
    assert is_lost(scene.feed(UnitRefused(3, 2, RefusalReason.CHANGED)))


def test_a_resumed_group_that_no_worker_has_is_lost_again(scene: Scene) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    for worker, unit in ((1, 0), (2, 2)):
        actions = scene.feed(UnitRefused(worker, unit, RefusalReason.UNREADABLE))
    assert is_lost(actions)
    assert scene.feed(Resumed(0)) == [GroupLost(0, dict.fromkeys((1, 2), BanReason.UNREADABLE), 0)]


def test_a_corrupt_unit_goes_to_another_worker_and_the_third_one_bans_its_sender(scene: Scene) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    assert requests(1, 0)[0] not in scene.feed(UnitCorrupt(1, 0))
    assert requests(2, 0)[0] in scene.feed(UnitWritten(2, 2))
    scene.feed(UnitCorrupt(1, 1))
    assert Ban(1, BanReason.CORRUPT) in scene.feed(UnitCorrupt(1, 4))
    assert [scene.feed(published(OLD, epoch)) for epoch in (7, 99)] == [[], []]
    assert scene.feed(opened(1, epoch=99)) == []


def test_an_idle_worker_takes_the_last_units_of_a_frozen_one(scene: Scene) -> None:
    scene.begin(4, 2)
    scene.ready(1, 2)
    actions = []
    for unit in (2, 3):
        actions += scene.feed(UnitWritten(2, unit), later=0.05)
    for _ in range(20):
        actions += scene.feed(TimePassed(), later=0.05)
        for unit in scene.scheduler.outstanding(2):
            actions += scene.feed(UnitWritten(2, unit), later=0.05)
    assert not scene.scheduler.remaining
    assert {*requested_units(actions)} == {0, 1}


def test_an_idle_worker_helps_although_its_rate_was_measured_while_it_was_frozen(scene: Scene) -> None:
    """Worker 2 has sent one byte in ten seconds. By this rate, it would need two days for the part of worker 1."""
    scene.begin([1, MIN_PART], 2, are_fast=False)
    scene.ready(2, 1)
    assert scene.scheduler.outstanding(2) == [0]
    assert scene.feed(UnitWritten(2, 0), later=10.0) == [RequestUnit(2, 1, 0, MIN_PART)]


def test_a_duplicate_is_no_progress_but_gives_credit(scene: Scene) -> None:
    """Worker 1 delivers a unit that worker 2 has already delivered."""
    scene.begin(3, 2)
    scene.ready(1, 2)
    scene.feed(UnitWritten(2, 2), later=0.1)
    for _ in range(100):
        if 1 in scene.scheduler.outstanding(2):
            break
        scene.feed(TimePassed(), later=0.05)
    scene.feed(UnitWritten(2, 1))
    remaining = scene.scheduler.remaining
    assert len(scene.scheduler.workers[1].outstanding) == 2
    scene.feed(UnitDuplicate(1, 1))
    assert scene.scheduler.remaining == remaining
    assert len(scene.scheduler.workers[1].outstanding) == 1
    assert scene.scheduler.delivered_by(2) == [1, 2]


def test_an_unchecked_unit_is_not_requested_before_it_is_checked(scene: Scene) -> None:
    scene.begin(4, 1, unchecked=(0, 1, 2, 3))
    assert scene.ready(1) == []
    assert scene.feed(UnitChecked(0, valid=True)) == []
    assert scene.feed(UnitChecked(1, valid=False)) == requests(1, 1)
    assert scene.feed(UnitChecked(2, valid=True)) == []
    assert scene.feed(UnitChecked(3, valid=True)) == []
    assert scene.feed(UnitWritten(1, 1)) == []
    assert not scene.scheduler.remaining


def test_a_stall_of_the_client_does_not_make_workers_late(scene: Scene) -> None:
    """The client stalls for 5 s: worker 1 is not considered late, and no unit is requested twice."""
    scene.begin(4, 2)
    scene.ready(1, 2)
    for worker, unit in ((2, 2), (1, 0), (2, 3)):
        scene.feed(UnitWritten(worker, unit), later=0.03)
    before = scene.scheduler.outstanding(1), scene.scheduler.outstanding(2)
    scene.now += 5.0
    assert scene.feed(Stalled(5.0)) == []
    assert scene.feed(TimePassed()) == []
    assert (scene.scheduler.outstanding(1), scene.scheduler.outstanding(2)) == before


def test_the_window_grows_with_rate_and_round_trip(scene: Scene) -> None:
    scene.begin(1000, 1)
    scene.feed(opened(1, round_trip=0.1))
    for _ in range(400):
        scene.feed(UnitWritten(1, scene.scheduler.outstanding(1)[0]), later=0.01)
    worker = scene.scheduler.workers[1]
    assert worker.rate == pytest.approx(100 * SIZE, rel=0.1)
    assert len(worker.outstanding) == pytest.approx(1 + 2 * 100 * 0.1, abs=2)


def test_the_window_stays_small_on_a_short_round_trip(scene: Scene) -> None:
    """In a large window, units would leave the processor's caches before they are hashed."""
    scene.begin(1000, 1)
    scene.feed(opened(1, round_trip=0.0001))
    for _ in range(400):
        scene.feed(UnitWritten(1, scene.scheduler.outstanding(1)[0]), later=0.0025)
    worker = scene.scheduler.workers[1]
    assert worker.rate == pytest.approx(400 * SIZE, rel=0.1)
    assert len(worker.outstanding) == 2


# Parts.


def parts(worker: int, *ranges: tuple[int, int], unit: int = 0) -> list[Action]:
    """Requests for parts of a unit: the start and length of each as a multiple of the smallest part."""
    return [RequestUnit(worker, unit, start * MIN_PART, length * MIN_PART) for start, length in ranges]


def receive(scene: Scene, request: Action, later: float = 0.0) -> list[Action]:
    """The reply to the request arrives."""
    assert isinstance(request, RequestUnit)
    if request.length == scene.sizes[request.unit]:
        return scene.feed(UnitWritten(request.worker, request.unit), later)
    return scene.feed(PartReceived(request.worker, request.unit, request.start, request.length), later)


def test_the_first_part_is_small_and_the_next_ones_grow_fourfold_until_they_are_whole_units(scene: Scene) -> None:
    scene.begin([64 * MIN_PART] * 10, 1, are_fast=False)
    first = scene.ready(1)
    assert first == parts(1, (0, 1))
    assert PART_GROWTH == 4
    second = receive(scene, first[0], 0.001)
    assert second == parts(1, (1, 4), (5, 4))
    assert receive(scene, second[0], 0.001) == parts(1, (9, 16))
    third = receive(scene, second[1])
    assert third == parts(1, (25, 39)) + parts(1, (0, 64), unit=1), "the rest of the unit, and a whole one"


def test_a_slow_worker_has_two_parts_of_half_a_second_in_flight(scene: Scene) -> None:
    """The worker sends four of the smallest parts per second."""
    scene.begin([100 * MIN_PART], 1, are_fast=False)
    requested = scene.ready(1)
    for _ in range(20):
        part = requested.pop(0)
        assert isinstance(part, RequestUnit)
        requested += receive(scene, part, part.length / MIN_PART / 4)
    assert [action.length // MIN_PART for action in requested if isinstance(action, RequestUnit)] == [2, 2]


def test_a_known_rate_survives_a_lost_connection(scene: Scene) -> None:
    scene.begin([64 * MIN_PART] * 10, 1, are_fast=False)
    part = scene.ready(1)[0]
    for _ in range(3):
        part = receive(scene, part, 0.01)[0]
    scene.feed(ConnectionClosed(1))
    lengths = [action.length for action in scene.ready(1) if isinstance(action, RequestUnit)]
    assert min(lengths) > MIN_PART


def test_a_link_that_becomes_slow_makes_parts_small_at_once(scene: Scene) -> None:
    scene.begin([64 * MIN_PART] * 10, 1)
    requested = scene.ready(1)
    assert [*map(type, requested)] == [RequestUnit] * 2
    # A unit takes 16 seconds.
    assert receive(scene, requested[0], 16.0) == [], "the other unit is more than the worker may have now"
    assert receive(scene, requested[1], 16.0) == parts(1, (0, 2), (2, 2), unit=2)


def test_all_slow_workers_complete_the_oldest_unit(scene: Scene) -> None:
    scene.begin([4 * MIN_PART] * 10, 3, are_slow=True)
    assert scene.ready(1, 2, 3) == parts(1, (0, 1)) + parts(2, (1, 1)) + parts(3, (2, 1))
    scene.feed(ConnectionClosed(1))
    # The part of the lost worker comes first.
    assert receive(scene, parts(2, (1, 1))[0], 0.5) == parts(2, (0, 1), (3, 1))


def test_workers_that_may_be_fast_begin_units_of_their_own(scene: Scene) -> None:
    scene.begin([4 * MIN_PART] * 3, 2, are_fast=False)
    assert scene.ready(1, 2) == parts(1, (0, 1)) + parts(2, (0, 1), unit=1)
    assert receive(scene, parts(1, (0, 1))[0], 0.001) == parts(1, (1, 3)) + parts(1, (0, 4), unit=2)
    # Nothing unrequested is left but the rest of the unit of worker 2.
    assert receive(scene, parts(1, (1, 3))[0], 0.001)[:1] == parts(1, (1, 3), unit=1)


def test_the_unit_of_a_lost_worker_comes_first(scene: Scene) -> None:
    scene.begin([4 * MIN_PART] * 3, 2, are_fast=False)
    scene.ready(1, 2)
    scene.feed(PartReceived(2, 1, 0, MIN_PART), later=0.001)
    scene.feed(ConnectionClosed(2))
    assert receive(scene, parts(1, (0, 1))[0])[:2] == [*parts(1, (1, 3)), *parts(1, (1, 3), unit=1)]


def test_a_unit_is_checked_once_all_parts_have_arrived(scene: Scene) -> None:
    scene.begin([2 * MIN_PART, MIN_PART], 2, are_slow=True)
    assert scene.ready(1, 2) == parts(1, (0, 1)) + parts(2, (1, 1))
    assert receive(scene, parts(2, (1, 1))[0], 0.5) == parts(2, (0, 1), unit=1)
    # The next request comes before the check.
    assert receive(scene, parts(1, (0, 1))[0])[-1] == CheckUnit(1, 0, frozenset({1, 2}))
    assert scene.scheduler.remaining == 2
    scene.feed(PartsChecked(1, 0, valid=True))
    assert scene.scheduler.delivered_by(1) == [0]
    assert scene.feed(UnitWritten(2, 1)) == []
    assert not scene.scheduler.remaining


def test_no_worker_is_blamed_for_a_corrupt_unit_of_several_senders(scene: Scene) -> None:
    scene.begin([2 * MIN_PART] * 4, 2, are_slow=True)
    for number, request in enumerate(scene.ready(1, 2)):
        actions = receive(scene, request, 0.1 * number)
    assert isinstance(actions[-1], CheckUnit)
    scene.feed(ConnectionClosed(2))
    actions = scene.feed(PartsChecked(2, 0, valid=False))
    assert not any(worker.corrupt_count for worker in scene.scheduler.workers.values())
    # Worker 1 has what it may have; it is asked for the whole unit next, although its parts are smaller.
    outstanding = [*scene.scheduler.workers[1].outstanding.values()]
    for request in outstanding:
        actions += receive(scene, request, 1.5)
    assert RequestUnit(1, 0, 0, 2 * MIN_PART) in actions
    assert scene.scheduler.workers[1].part_size < 2 * MIN_PART


def test_hedges_do_not_mix_the_senders_of_a_unit_that_is_to_be_requested_as_a_whole(scene: Scene) -> None:
    """
    1. Workers 1 and 2 are both asked for the last two parts. Each delivers one of them, and the unit is corrupt.
    2. Their other replies are still outstanding. Neither worker is asked for parts of the unit again.
    3. Worker 1 answers its other request, and is asked for the whole unit.
    """
    scene.begin([4 * MIN_PART], 2, are_fast=False)
    first, second = scene.ready(1, 2)
    assert receive(scene, first, 0.5) == parts(1, (2, 1), (3, 1))
    assert receive(scene, second) == parts(2, (3, 1))
    assert receive(scene, parts(2, (3, 1))[0], 3.0) == parts(2, (2, 1))
    assert receive(scene, parts(1, (2, 1))[0]) == [CheckUnit(1, 0, frozenset({1, 2}))]
    assert scene.feed(PartsChecked(1, 0, valid=False)) == []
    scene.scheduler.workers[1].waiting_since -= 10.0
    assert scene.feed(TimePassed()) == []
    assert receive(scene, parts(1, (3, 1))[0]) == parts(1, (0, 4))


def test_the_only_sender_of_a_corrupt_unit_is_blamed(scene: Scene) -> None:
    scene.begin([2 * MIN_PART] * 4, 2, are_slow=True)
    request = scene.ready(1)[0]
    actions = receive(scene, request, 1.0)
    check = receive(scene, actions[0], 1.0)[-1]
    assert check == CheckUnit(1, 0, frozenset({1}))
    scene.feed(PartsChecked(1, 0, valid=False))
    assert scene.scheduler.workers[1].corrupt_count == 1
    assert requested_units(scene.ready(2)) == [0]


def test_nothing_but_the_units_of_stalled_workers_is_hedged_while_further_units_follow(scene: Scene) -> None:
    """Worker 1 is slow and has both units; worker 2 has nothing to do."""
    scene.begin([MIN_PART] * 2, 2)
    scene.scheduler.workers[1].rate, scene.scheduler.workers[2].rate = MIN_PART / 4, 100.0 * MIN_PART
    scene.scheduler.workers[1].part_for_rate = MIN_PART
    assert scene.feed(UnitsFollow(True)) == []
    assert requested_units(scene.ready(1)) == [0, 1]
    assert scene.ready(2) == []
    assert requested_units(scene.feed(UnitsFollow(False))) != [], "a fast worker does not help a slow one at the end"
    scene.feed(UnitsFollow(True))
    assert scene.scheduler.workers[1].outstanding


def test_the_units_of_a_frozen_worker_are_hedged_while_further_units_follow(scene: Scene) -> None:
    scene.begin([MIN_PART] * 2, 2)
    scene.feed(UnitsFollow(True))
    assert requested_units(scene.ready(1)) == [0, 1]
    assert scene.ready(2) == []
    assert requested_units(scene.feed(TimePassed(), later=10.0)) != []


def test_a_reply_is_not_late_for_the_time_in_which_the_caller_has_not_read(scene: Scene) -> None:
    """Worker 1 has both units. The caller writes files for ten seconds: the reply may have arrived long ago."""
    scene.begin([MIN_PART] * 2, 2)
    scene.scheduler.workers[1].rate = scene.scheduler.workers[2].rate = 100.0 * MIN_PART
    assert requested_units(scene.ready(1)) == [0, 1]
    assert scene.ready(2) == []
    scene.scheduler.read_until = scene.now
    assert scene.feed(TimePassed(), later=10.0) == []
    scene.scheduler.read_until = scene.now
    assert requested_units(scene.feed(TimePassed())) != []


def test_a_hedge_is_no_larger_than_a_part_of_the_worker_that_is_asked(scene: Scene) -> None:
    """Worker 2 is slow; worker 1 was asked for the last unit and is frozen."""
    scene.begin([8 * MIN_PART], 2)
    scene.scheduler.workers[2].whole_size = 6 * MIN_PART
    scene.scheduler.workers[2].part_for_rate = 3 * MIN_PART
    scene.scheduler.workers[2].rate = 6.0 * MIN_PART
    assert scene.ready(1) == parts(1, (0, 8))
    assert scene.feed(opened(2), later=10.0) == parts(2, (0, 3), (3, 3))
    assert scene.scheduler.missing_bytes(0, 0, 8 * MIN_PART) == 8 * MIN_PART
    assert receive(scene, parts(2, (0, 3))[0], 0.5) == parts(2, (6, 2))
    # The frozen worker answers after all: what the other one has sent was of no use.
    assert scene.scheduler.missing_bytes(0, 0, 8 * MIN_PART) == 5 * MIN_PART
    assert scene.feed(UnitWritten(1, 0)) == []
    assert not scene.scheduler.remaining


# Changes to the catalogue.


def begin_with_catalogues(scene: Scene, *catalogues: bytes) -> None:
    """Makes one worker ready for each catalogue; the manifest was found with the old catalogue."""
    scene.begin(100, len(catalogues), catalogue=OLD)
    scene.feed(published(OLD))
    for number, catalogue in enumerate(catalogues, 1):
        scene.feed(opened(number, catalogue=catalogue))


def refuse(scene: Scene, worker: int, reason: RefusalReason) -> list[Action]:
    return scene.feed(UnitRefused(worker, scene.scheduler.outstanding(worker)[0], reason))


@pytest.mark.parametrize("asleep_first", [True, False])
def test_a_worker_of_another_broker_does_not_end_the_download(scene: Scene, asleep_first: bool) -> None:
    """
    1. Workers 1 to 3 serve the file. Worker 4 belongs to another broker and does not know the file.
    2. The catalogue changes. Workers 1 to 3 are put to sleep before or after the change.
    3. Worker 4 is asked again and refuses again. Workers 1 to 3 wake up and get requests.
    """
    begin_with_catalogues(scene, OLD, OLD, OLD, THEIRS)
    scene.now += CATALOGUE_LOAD_S
    assert refuse(scene, 4, RefusalReason.UNKNOWN)[0] == GroupBan(4, 0, BanReason.UNKNOWN)
    sleep = [ConnectionClosed(1), ConnectionClosed(2), ConnectionClosed(3)]
    steps: list[Event] = [*sleep, published(NEW)] if asleep_first else [published(NEW), *sleep]
    actions = [action for event in steps for action in scene.feed(event)]
    assert GroupUnban(4, 0) in actions
    actions += scene.feed(TimePassed(), later=60.0)
    actions += refuse(scene, 4, RefusalReason.UNKNOWN)
    actions += scene.feed(TimePassed(), later=60.0)
    assert not is_lost(actions)
    assert requested_units(scene.feed(opened(1, catalogue=NEW))) == [0, 1]


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
    assert actions == [GroupBan(1, 0, BanReason(reason.value)), GroupLost(0, {1: BanReason(reason.value)}, 0)]


def test_a_worker_that_has_not_loaded_the_published_catalogue_yet_is_asked_again(scene: Scene) -> None:
    """Server 5 publishes a catalogue once one worker has loaded it. The others load it a moment later."""
    begin_with_catalogues(scene, OLD, THEIRS)
    for _ in range(int(CATALOGUE_LOAD_S / CATALOGUE_LOAD_PAUSE_S)):
        for _ in range(2):
            assert not {GroupBan, RequestUnit} & {*map(type, refuse(scene, 2, RefusalReason.UNKNOWN))}
        assert scene.scheduler.outstanding(2) == []
        assert {*map(type, scene.feed(TimePassed(), later=CATALOGUE_LOAD_PAUSE_S))} == {RequestUnit}
    assert refuse(scene, 2, RefusalReason.UNKNOWN)[0] == GroupBan(2, 0, BanReason.UNKNOWN)


@pytest.mark.parametrize("catalogues", [(b"", THEIRS), (OLD, b""), (OLD, OLD)])
def test_only_a_worker_with_another_known_catalogue_may_load_the_group(
    scene: Scene, catalogues: tuple[bytes, bytes]
) -> None:
    scene.begin(100, 1, catalogue=catalogues[0])
    scene.feed(opened(1, catalogue=catalogues[1]))
    assert refuse(scene, 1, RefusalReason.UNKNOWN)[0] == GroupBan(1, 0, BanReason.UNKNOWN)


def test_a_worker_that_has_delivered_a_unit_of_the_group_does_not_load_it(scene: Scene) -> None:
    begin_with_catalogues(scene, THEIRS)
    scene.feed(UnitWritten(1, 0))
    assert refuse(scene, 1, RefusalReason.UNKNOWN)[0] == GroupBan(1, 0, BanReason.UNKNOWN)


def test_a_worker_may_also_load_a_group_that_was_added_after_its_connection_was_opened(scene: Scene) -> None:
    begin_with_catalogues(scene, THEIRS)
    scene.now += 60.0
    assert refuse(scene, 1, RefusalReason.UNKNOWN)[0] == GroupBan(1, 0, BanReason.UNKNOWN)
    scene.feed(UnitsAdded([SIZE], catalogue=NEW))
    assert refuse(scene, 1, RefusalReason.UNKNOWN) == []
    assert scene.scheduler.next_deadline(scene.now) == pytest.approx(scene.now + CATALOGUE_LOAD_PAUSE_S)
    assert scene.feed(TimePassed(), later=CATALOGUE_LOAD_PAUSE_S) == requests(1, 100)
    assert refuse(scene, 1, RefusalReason.CHANGED)[0] == GroupBan(1, 1, BanReason.CHANGED)


def test_refusals_before_a_change_to_the_catalogue_do_not_count(scene: Scene) -> None:
    begin_with_catalogues(scene, OLD, OLD)
    refuse(scene, 1, RefusalReason.CHANGED)
    scene.feed(ConnectionClosed(2))
    # The reply to the other request to worker 1: it says nothing new.
    assert scene.feed(UnitRefused(1, 1, RefusalReason.CHANGED)) == []
    assert scene.feed(published(NEW)) == [GroupUnban(1, 0), *requests(1, 0, 1)]
    assert not is_lost(scene.feed(TimePassed(), later=60.0))
    assert is_lost(refuse(scene, 1, RefusalReason.UNKNOWN))


def test_the_scheduler_waits_for_a_lost_worker_that_was_ready_since_the_change(scene: Scene) -> None:
    begin_with_catalogues(scene, OLD, OLD)
    scene.feed(published(NEW))
    scene.feed(ConnectionClosed(2))
    assert not is_lost(refuse(scene, 1, RefusalReason.CHANGED))
    scene.feed(opened(2, catalogue=NEW))
    assert is_lost(refuse(scene, 2, RefusalReason.CHANGED))


def test_a_banned_worker_that_turns_out_to_belong_to_this_broker_ends_the_wait(scene: Scene) -> None:
    """Worker 2 sleeps since before the change. Worker 1 serves the published catalogue only after a new connection."""
    begin_with_catalogues(scene, THEIRS)
    scene.feed(opened(2, catalogue=OLD))
    scene.feed(ConnectionClosed(2))
    scene.feed(published(NEW))
    scene.now += CATALOGUE_LOAD_S
    assert refuse(scene, 1, RefusalReason.UNKNOWN) == [GroupBan(1, 0, BanReason.UNKNOWN)]
    scene.feed(ConnectionClosed(1))
    assert scene.feed(opened(1, catalogue=NEW)) == [GroupLost(0, {1: BanReason.UNKNOWN}, 0)]


def test_a_change_to_the_catalogue_of_a_worker_gives_only_that_worker_a_retry(scene: Scene) -> None:
    """Server 5 vouches for no catalogue."""

    def of_workers(*catalogues: bytes) -> SnapshotReceived:
        received = published(b"", *(7 for _ in catalogues))
        workers = [replace(w, catalogue=c) for w, c in zip(received.status.workers, catalogues, strict=True)]
        return SnapshotReceived(replace(received.status, workers=workers))

    scene.begin(100, 3)
    scene.feed(of_workers(OLD, OLD, THEIRS))
    for number, catalogue in ((1, OLD), (2, OLD), (3, THEIRS)):
        scene.feed(opened(number, catalogue=catalogue))
    for number in (1, 2):
        scene.feed(UnitRefused(number, number - 1, RefusalReason.CHANGED))
    assert scene.feed(of_workers(OLD, OLD, THEIRS)) == []
    actions = scene.feed(of_workers(NEW, OLD, THEIRS))
    assert actions[0] == GroupUnban(1, 0)
    assert {getattr(action, "worker", 0) for action in actions} == {1}
    assert scene.feed(of_workers(NEW, OLD, THEIRS)) == []


def test_each_change_to_the_catalogue_gives_a_banned_worker_one_retry(scene: Scene) -> None:
    begin_with_catalogues(scene, OLD, THEIRS)
    scene.now += CATALOGUE_LOAD_S
    refuse(scene, 2, RefusalReason.UNKNOWN)
    for catalogue in (NEW, NEWER, NEW):
        assert scene.feed(published(catalogue)) == [GroupUnban(2, 0), *requests(2, 2, 3)]
        for same in (catalogue, b""):
            assert scene.feed(published(same)) == []
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
    assert not is_lost(scene.feed(TimePassed(), later=60.0))


@pytest.mark.parametrize("reason", [RefusalReason.UNREADABLE, RefusalReason.BAD_REQUEST])
def test_other_bans_outlast_a_change_to_the_catalogue(scene: Scene, reason: RefusalReason) -> None:
    begin_with_catalogues(scene, OLD, OLD)
    refuse(scene, 1, reason)
    assert scene.feed(published(NEW)) == []
    assert scene.feed(opened(1, catalogue=NEW)) == []


def test_a_pause_ends_in_time_even_if_only_another_worker_gets_credit(scene: Scene) -> None:
    """Worker 1 pauses with the group; worker 2 delivers a unit at the end of the pause."""
    begin_with_catalogues(scene, THEIRS, OLD)
    for _ in range(2):
        assert refuse(scene, 1, RefusalReason.UNKNOWN) == []
    assert scene.scheduler.outstanding(2) == [2, 3]
    assert scene.feed(UnitWritten(2, 2), later=CATALOGUE_LOAD_PAUSE_S) == [
        *alternately(requests(1, 0), requests(2, 1)),
        *requests(1, 4),
    ]


# Several groups: each worker may lack some of them.


def begin_with_groups(scene: Scene, workers: int, groups: int = 3) -> None:
    """Adds groups of two units each: 0 and 1, 2 and 3, and so on."""
    scene.begin(2, workers)
    for _ in range(1, groups):
        scene.feed(UnitsAdded([SIZE] * 2))
        scene.sizes += [SIZE] * 2


@pytest.mark.parametrize("reason", GROUP_REFUSALS)
def test_a_worker_that_lacks_one_group_serves_the_others_on_the_same_connection(
    scene: Scene, reason: RefusalReason
) -> None:
    """Worker 1 is never asked for units 2 and 3 again, not even as a hedge; worker 2 delivers them."""
    begin_with_groups(scene, 2)
    scene.ready(1)
    assert scene.feed(UnitWritten(1, 0)) == requests(1, 2)
    assert scene.feed(UnitRefused(1, 2, reason)) == [GroupBan(1, 1, BanReason(reason.value)), *requests(1, 4)]
    assert scene.scheduler.outstanding(1) == [1, 4]
    assert scene.ready(2) == requests(2, 2, 3)
    actions = [action for unit in (1, 4, 5) for action in scene.feed(UnitWritten(1, unit), later=0.01)]
    actions += [action for _ in range(20) for action in scene.feed(TimePassed(), later=1.0)]
    assert actions == requests(1, 5)
    assert scene.feed(UnitWritten(2, 2)) == scene.feed(UnitWritten(2, 3)) == []
    assert not scene.scheduler.remaining


def test_a_lost_group_leaves_the_others_to_go_on(scene: Scene) -> None:
    begin_with_groups(scene, 1)
    scene.ready(1)
    actions = scene.feed(UnitRefused(1, 0, RefusalReason.CHANGED))
    bans = {1: BanReason.CHANGED}
    assert actions == [GroupBan(1, 0, BanReason.CHANGED), *requests(1, 2, 3), GroupLost(0, bans, 0)]
    for unit in (2, 3, 4, 5):
        actions = scene.feed(UnitWritten(1, unit))
    assert actions == []
    # The download is not finished: its owner may resume the group or remove it.
    assert scene.scheduler.remaining == 2
    assert scene.feed(GroupRemoved(0)) == []
    assert not scene.scheduler.remaining


def test_a_worker_that_is_banned_altogether_is_missing_in_each_group(scene: Scene) -> None:
    """Each group needs one worker. Worker 2 is all that is left of two groups, and worker 1 of the third."""
    begin_with_groups(scene, 2)
    scene.ready(1, 2)
    assert GroupBan(1, 0, BanReason.UNREADABLE) in scene.feed(UnitRefused(1, 0, RefusalReason.UNREADABLE))
    actions = scene.feed(UnitRefused(2, 2, RefusalReason.BAD_REQUEST))
    bans = {1: BanReason.UNREADABLE, 2: BanReason.BAD_REQUEST}
    assert [action for action in actions if isinstance(action, GroupLost)] == [GroupLost(0, bans, 0)]
    actions = scene.feed(UnitRefused(1, 4, RefusalReason.BAD_REQUEST))
    bans = dict.fromkeys((1, 2), BanReason.BAD_REQUEST)
    assert actions == [Ban(1, BanReason.BAD_REQUEST), GroupLost(1, bans, 2), GroupLost(2, bans, 4)]
    # A group that is added now has no worker, either.
    assert scene.feed(UnitsAdded([SIZE])) == [GroupLost(3, bans, 6)]
    # The bans end with the process of a worker, and the owner continues with a group.
    assert scene.feed(published(OLD, 8)) == [GroupUnban(1, 0), Unban(1)]
    assert scene.feed(opened(1, epoch=8)) == []
    assert scene.feed(Resumed(2)) == requests(1, 4, 5)


def test_a_group_is_lost_once_a_check_of_the_disk_shows_that_it_is_missing(scene: Scene) -> None:
    scene.begin(2, 1, unchecked=(1,))
    scene.ready(1)
    scene.feed(UnitsAdded([SIZE]))
    scene.feed(UnitWritten(1, 0))
    scene.feed(UnitRefused(1, 2, RefusalReason.BAD_REQUEST))
    bans = {1: BanReason.BAD_REQUEST}
    assert scene.feed(UnitChecked(1, valid=False)) == [GroupLost(0, bans, 1)]


def test_a_corrupt_unit_goes_to_its_sender_again_if_no_other_worker_has_the_group(scene: Scene) -> None:
    begin_with_groups(scene, 2)
    scene.ready(1, 2)
    scene.feed(UnitRefused(2, 2, RefusalReason.UNREADABLE))
    # Worker 2 is not banned, but only worker 1 has units 2 and 3.
    scene.feed(UnitWritten(1, 0))
    assert scene.scheduler.outstanding(1) == [1, 2]
    assert requests(1, 2)[0] in scene.feed(UnitCorrupt(1, 2))


def test_a_removed_group_is_needed_no_more(scene: Scene) -> None:
    """
    1. Worker 1 has verified unit 0 and has requests for units 1 and 2. Units 0 and 1 are removed.
    2. It is asked for unit 3 at once, and what it sends of unit 1 is of no use.
    """
    begin_with_groups(scene, 1)
    scene.ready(1)
    scene.feed(UnitWritten(1, 0))
    assert scene.feed(GroupRemoved(0)) == requests(1, 3)
    assert scene.scheduler.outstanding(1) == [2, 3]
    assert [scene.scheduler.state_of(unit) for unit in (0, 1)] == [UnitState.VERIFIED, UnitState.REMOVED]
    assert scene.scheduler.missing_bytes(1, 0, SIZE) == 0
    for late in (UnitDuplicate(1, 1), UnitWritten(1, 1), UnitRefused(1, 1, RefusalReason.CHANGED)):
        assert scene.feed(late) == []
    assert scene.scheduler.delivered_by(1) == [0]
    assert scene.scheduler.remaining == 4


def test_a_new_version_of_a_file_replaces_the_old_one(scene: Scene) -> None:
    begin_with_groups(scene, 1, groups=1)
    scene.ready(1)
    assert is_lost(scene.feed(UnitRefused(1, 0, RefusalReason.CHANGED)))
    assert scene.feed(UnitsAdded([SIZE, SIZE], unchecked=[2], catalogue=NEW)) == requests(1, 3)
    assert scene.feed(GroupRemoved(0)) == []
    assert scene.feed(UnitChecked(2, valid=True)) == []
    assert scene.feed(UnitWritten(1, 3)) == []
    assert not scene.scheduler.remaining


def test_a_change_to_the_catalogue_counts_for_the_groups_that_were_found_before(scene: Scene) -> None:
    """
    1. Group 0 was found in the old catalogue and group 1 in the new one. Worker 2 sleeps since before the change.
    2. Worker 1 has no version of either: group 0 is lost, but worker 2 may return with group 1.
    """
    scene.begin(1, 2, catalogue=OLD)
    scene.feed(published(OLD))
    scene.feed(opened(1, catalogue=OLD))
    scene.feed(published(NEW))
    assert scene.feed(UnitsAdded([SIZE], catalogue=NEW)) == requests(1, 1)
    assert is_lost(scene.feed(UnitRefused(1, 0, RefusalReason.CHANGED)))
    assert scene.feed(UnitRefused(1, 1, RefusalReason.CHANGED)) == [GroupBan(1, 1, BanReason.CHANGED)]
    assert not is_lost(scene.feed(TimePassed(), later=60.0), 1)
    # A group that was found before the change but added after it.
    assert scene.feed(UnitsAdded([SIZE], catalogue=OLD)) == requests(1, 2)
    assert is_lost(scene.feed(UnitRefused(1, 2, RefusalReason.CHANGED)), 2)


def test_the_catalogue_of_a_group_was_published_even_if_only_the_next_one_is_known(scene: Scene) -> None:
    """The worker serves the catalogue in which the group was found, so it belongs to this broker."""
    scene.scheduler = Scheduler([1, 2], memory=1 << 30)
    scene.feed(published(NEW))
    scene.feed(opened(1, catalogue=OLD))
    request = scene.feed(UnitsAdded([SIZE], catalogue=OLD))[0]
    assert request == RequestUnit(1, 0, 0, MIN_PART)
    assert is_lost(scene.feed(UnitRefused(1, 0, RefusalReason.UNKNOWN)))


def test_a_worker_without_a_group_is_not_asked_for_its_parts(scene: Scene) -> None:
    """Worker 1 has sent a part of unit 0. What is left of it waits for worker 2; worker 1 sends unit 1 meanwhile."""
    scene.begin([4 * MIN_PART], 2, are_fast=False)
    scene.feed(UnitsAdded([MIN_PART]))
    scene.sizes += [MIN_PART]
    actions = receive(scene, scene.ready(1)[0], 1.0)
    assert isinstance(actions[0], RequestUnit)
    refused = UnitRefused(1, 0, RefusalReason.UNREADABLE, actions[0].start)
    assert scene.feed(refused) == [GroupBan(1, 0, BanReason.UNREADABLE), RequestUnit(1, 1, 0, MIN_PART)]
    assert scene.ready(2) == parts(2, (1, 1))
    assert scene.scheduler.missing_bytes(0, 0, 4 * MIN_PART) == 3 * MIN_PART


# A limited rate.


def test_a_limited_download_requests_one_unit_after_another(scene: Scene) -> None:
    scene.begin([MIN_PART] * 10, 2, max_rate=0.25)
    assert scene.ready(1, 2) == [RequestUnit(1, 0, 0, MIN_PART)]
    assert scene.scheduler.waits_for_rate_limit(scene.now)
    assert scene.feed(UnitWritten(1, 0), 0.1) == []
    assert scene.scheduler.waits_for_rate_limit(scene.now)
    due = scene.scheduler.next_deadline(scene.now)
    # The bucket was full before the first request: one unit, and a tenth of a second more.
    assert due == pytest.approx(scene.now + 2.0 - 0.1 - 0.1)
    assert scene.feed(TimePassed(), 1.8) == [RequestUnit(2, 1, 0, MIN_PART)]


def test_if_all_workers_are_frozen_the_limit_is_not_the_cause_of_a_wait(scene: Scene) -> None:
    """As long as a worker could be asked, a frozen one is no reason to give up."""
    scene.begin([MIN_PART] * 10, 2, max_rate=0.25)
    scene.ready(1, 2)
    assert scene.scheduler.waits_for_rate_limit(scene.now)
    assert scene.feed(TimePassed(), 3.0) == [RequestUnit(2, 1, 0, MIN_PART)]
    assert not scene.scheduler.waits_for_rate_limit(scene.now)


@pytest.mark.parametrize("event", [UnitRefused(1, 0, RefusalReason.SLEEPING), ConnectionClosed(1)])
def test_a_request_without_data_does_not_count_towards_the_limit(scene: Scene, event: Event) -> None:
    scene.begin([MIN_PART] * 10, 2, max_rate=0.25)
    scene.ready(1, 2)
    assert scene.feed(event, 0.1) == [RequestUnit(2, 0, 0, MIN_PART)]


def test_without_a_usable_worker_the_limit_is_not_the_cause_of_a_wait(scene: Scene) -> None:
    scene.begin([MIN_PART] * 10, 1, max_rate=0.25)
    scene.ready(1)
    scene.feed(UnitWritten(1, 0), 0.1)
    scene.feed(ConnectionClosed(1))
    assert not scene.scheduler.waits_for_rate_limit(scene.now)


def test_at_a_low_limit_parts_take_about_a_second(scene: Scene) -> None:
    scene.begin([10 * MIN_PART] * 2, 1, max_rate=1.0)
    assert scene.ready(1) == [RequestUnit(1, 0, 0, SIZE)]
    assert scene.feed(PartReceived(1, 0, 0, SIZE), later=1.0) == [RequestUnit(1, 0, SIZE, SIZE)]


# A stream: the output takes the units in order.


def test_only_the_units_shortly_after_the_position_of_the_output_are_requested(scene: Scene) -> None:
    scene.begin(100, 2, limit=3)
    assert scene.ready(1, 2) == requests(1, 0, 1) + requests(2, 2)
    assert scene.feed(UnitWritten(2, 2)) == []
    assert scene.feed(UnitWritten(1, 1)) == []
    assert scene.feed(UnitWritten(1, 0)) == []
    # Each to the worker that has been idle for the longest time.
    scene.scheduler.workers[2].waiting_since -= 1.0
    assert scene.feed(LimitMoved(4), later=0.01) == requests(2, 3)
    assert scene.feed(LimitMoved(5)) == requests(1, 4)


def test_an_output_that_does_not_advance_ends_all_requests(scene: Scene) -> None:
    scene.begin(100, 2, limit=2)
    assert scene.ready(1, 2) == requests(1, 0, 1)
    for unit in (0, 1):
        scene.feed(UnitWritten(1, unit))
    assert scene.scheduler.next_deadline(scene.now) is None
    assert scene.feed(TimePassed(), later=100.0) == []


def test_the_oldest_missing_unit_of_a_frozen_or_lost_worker_is_requested_again(scene: Scene) -> None:
    scene.begin(100, 3, limit=1)
    assert scene.ready(1, 2) == requests(1, 0)
    assert scene.feed(TimePassed(), later=1.0) == requests(2, 0), "a hedge"
    scene.feed(ConnectionClosed(1))
    scene.feed(ConnectionClosed(2))
    assert scene.ready(3) == requests(3, 0)


# Workers that hold some of the units only.


def bits(*units: int) -> int:
    return sum(1 << unit for unit in units)


def hold(scene: Scene, worker: int, *units: int) -> list[Action]:
    """Connects a worker that holds these units."""
    assert RequestHolds(worker) in scene.feed(opened(worker, features=[PASSES_ON]))
    return scene.feed(UnitsHeld(worker, bits(*units)))


def test_a_holder_is_asked_only_for_units_that_it_has(scene: Scene) -> None:
    scene.begin(10, 1, are_fast=False)
    assert hold(scene, 20, 3) == [RequestUnit(20, 3, 0, MIN_PART)]
    assert scene.feed(PartReceived(20, 3, 0, MIN_PART)) == [RequestUnit(20, 3, MIN_PART, MIN_PART)]
    assert requested_units(scene.feed(PartReceived(20, 3, MIN_PART, MIN_PART))) == []
    assert scene.feed(PartsChecked(20, 3, valid=True)) == []
    assert not requested_units(scene.feed(UnitsHeld(20, bits(3))))
    assert requested_units(scene.feed(UnitsHeld(20, bits(3, 7)))) == [7]


def test_a_part_is_not_requested_from_a_holder_without_the_unit(scene: Scene) -> None:
    scene.begin(10, 1, are_fast=False)
    scene.feed(opened(1))
    assert scene.scheduler.outstanding(1) == [0]
    assert requested_units(hold(scene, 20, 5)) == [5]


def test_where_there_are_holders_units_are_requested_in_random_runs(scene: Scene) -> None:
    requested: list[int] = []
    starts = {0: 40, 4: 70, 8: 98}
    scene.scheduler = Scheduler([1], memory=1 << 30, choose=lambda count: starts.get(len(requested), 7))
    scene.feed(UnitsAdded([MIN_PART] * 100))
    hold(scene, 20)
    requested += requested_units(scene.feed(opened(1)))
    while len(requested) < 12:
        requested += requested_units(scene.feed(UnitWritten(1, requested[-1])))
    assert requested == [40, 41, 42, 43, 70, 71, 72, 73, 98, 99, 0, 1]
    assert RUN_UNITS == 4


def test_after_the_last_holder_has_gone_units_are_requested_in_order(scene: Scene) -> None:
    scene.scheduler = Scheduler([1], memory=1 << 30, choose=lambda count: 50)
    scene.feed(UnitsAdded([MIN_PART] * 100))
    hold(scene, 20)
    assert requested_units(scene.feed(opened(1))) == [50]
    scene.feed(WorkerRemoved(20))
    assert requested_units(scene.feed(UnitWritten(1, 50)))[0] == 0


def test_a_unit_that_a_holder_lacks_is_no_fault(scene: Scene) -> None:
    """The holder is asked for another unit at once, and for the refused one only after it says that it has it."""
    scene.begin(10, 1)
    assert requested_units(hold(scene, 20, 2, 5)) == [2]
    assert requested_units(scene.feed(UnitRefused(20, 2, RefusalReason.MISSING))) == [5]
    assert requested_units(scene.feed(UnitRefused(20, 5, RefusalReason.MISSING))) == []
    assert scene.feed(ConnectionClosed(20)) == []
    assert requested_units(hold(scene, 20, 2)) == [2]


def test_where_there_are_holders_a_busy_one_is_asked_less_and_less_often_until_it_sends_something(scene: Scene) -> None:
    scene.begin(10, 1)
    assert requested_units(hold(scene, 20, 2)) == [2]
    for pause_s in (0.1, 0.2, 0.4, 0.4):
        scene.feed(UnitRefused(20, 2, RefusalReason.BUSY))
        assert requested_units(scene.feed(TimePassed(), later=pause_s - 0.01)) == []
        assert requested_units(scene.feed(TimePassed(), later=0.02)) == [2]
    scene.feed(PartReceived(20, 2, 0, MIN_PART))
    scene.feed(UnitRefused(20, 2, RefusalReason.BUSY, MIN_PART))
    assert requested_units(scene.feed(TimePassed(), later=0.11)) == [2]


def test_a_complete_worker_that_lacks_a_unit_is_banned_from_its_group(scene: Scene) -> None:
    scene.begin(10, 2)
    scene.ready(1, 2)
    assert GroupBan(1, 0, BanReason.OTHER) in scene.feed(UnitRefused(1, 0, RefusalReason.MISSING))


def test_holders_are_asked_for_what_they_have_until_nothing_is_missing(scene: Scene) -> None:
    """
    1. A holder is asked again after 0.2 s, but not before it has answered.
    2. When nothing is missing, it is not asked any more.
    """
    scene.begin(2, 1)
    assert hold(scene, 20) == []
    assert scene.scheduler.next_deadline(scene.now) == pytest.approx(scene.now + HOLDS_INTERVAL_S)
    assert scene.feed(TimePassed(), later=HOLDS_INTERVAL_S) == [RequestHolds(20)]
    assert scene.feed(TimePassed(), later=1.0) == []
    assert requested_units(scene.feed(UnitsHeld(20, bits(0, 1)))) == [0]
    assert RequestHolds(20) in scene.feed(TimePassed(), later=HOLDS_INTERVAL_S)
    scene.feed(UnitsHeld(20, bits(0, 1)))
    scene.feed(PartReceived(20, 0, 0, MIN_PART))
    scene.feed(PartReceived(20, 0, MIN_PART, MIN_PART))
    scene.feed(PartsChecked(20, 0, valid=True))
    scene.feed(UnitWritten(20, 1))
    assert not scene.scheduler.remaining
    assert scene.feed(TimePassed(), later=10.0) == []
    assert scene.scheduler.next_deadline(scene.now) is None


@pytest.mark.parametrize("added", [50_000, 10])
def test_the_answers_of_holders_of_many_units_take_little_of_the_rate(scene: Scene, added: int) -> None:
    """However few of the units of the plan are added yet."""
    units = 50_000
    scene.begin(added, 1)
    scene.scheduler.plan_units = units
    hold(scene, 20)
    scene.feed(UnitsHeld(20, 0))
    interval = units * HOLDS_INTERVAL_PER_UNIT_S
    assert interval > HOLDS_INTERVAL_S
    assert RequestHolds(20) not in scene.feed(TimePassed(), later=interval - 0.1)
    assert RequestHolds(20) in scene.feed(TimePassed(), later=0.2)


def test_what_was_requested_from_a_removed_worker_is_requested_from_others(scene: Scene) -> None:
    scene.begin(10, 1, are_fast=False)
    assert requested_units(hold(scene, 20, 4)) == [4]
    assert requested_units(hold(scene, 21, 4)) == [4]
    scene.feed(WorkerRemoved(20))
    assert [*scene.scheduler.workers] == [1, 21]
    assert requested_units(scene.feed(PartReceived(21, 4, MIN_PART, MIN_PART))) == [4]


def test_a_stalled_holder_does_not_hold_up_its_unit_while_others_are_unrequested(scene: Scene) -> None:
    scene.begin(10, 1, are_fast=False)
    assert requested_units(hold(scene, 20, 4)) == [4]
    hold(scene, 21, 4)
    scene.feed(WorkerRemoved(1))
    scene.feed(PartReceived(21, 4, MIN_PART, MIN_PART), later=0.1)
    actions: list[Action] = []
    for _ in range(20):
        actions += scene.feed(TimePassed(), later=0.1)
    assert RequestUnit(21, 4, 0, MIN_PART) in actions


def test_holders_neither_lose_a_group_nor_keep_it(scene: Scene) -> None:
    """
    1. A holder is banned from the group: the group is not lost, because worker 1 may have it.
    2. Worker 1 is banned, too: the group is lost although another holder has some of its units.
    """
    scene.begin(10, 1)
    hold(scene, 20, 4)
    hold(scene, 21, 5)
    assert not is_lost(scene.feed(UnitRefused(20, 4, RefusalReason.UNKNOWN)))
    scene.feed(opened(1))
    refused = scene.scheduler.outstanding(1)[0]
    actions = scene.feed(UnitRefused(1, refused, RefusalReason.UNREADABLE))
    assert [action.bans for action in actions if isinstance(action, GroupLost)] == [{1: BanReason.UNREADABLE}]


def test_holders_that_send_nothing_are_useless_those_that_have_sent_nothing_for_longest_first(scene: Scene) -> None:
    scene.begin(10, 1)
    hold(scene, 20, 3)
    hold(scene, 21)
    scene.now += 0.1
    hold(scene, 22)
    assert scene.scheduler.useless_holders(scene.now) == []
    assert scene.scheduler.useless_holders(scene.now + USELESS_AFTER_S + 0.01) == [21, 22]
    assert scene.scheduler.useless_holders(scene.now + 10.0) == [20, 21, 22]


def test_a_holder_that_sends_corrupt_units_is_banned(scene: Scene) -> None:
    scene.begin(10, 1)
    hold(scene, 20, *range(10))
    scene.scheduler.workers[20].whole_size = 1e9
    actions: list[Action] = []
    for _ in range(MAX_CORRUPT_UNITS):
        actions += scene.feed(UnitCorrupt(20, scene.scheduler.outstanding(20)[0]))
    assert actions[-1] == Ban(20, BanReason.CORRUPT)


def test_a_worker_that_reads_from_a_store_gets_several_requests_at_once(scene: Scene) -> None:
    scene.begin(10, 1)
    assert scene.feed(opened(1, features=[READS_STORE])) == requests(1, *range(1 + STORE_AHEAD))


def test_a_worker_that_reads_from_a_fast_store_gets_runs_of_units(scene: Scene) -> None:
    """Two runs are outstanding, and the next one is requested when a whole one has arrived."""
    scene.begin(22, 2)
    for worker in scene.scheduler.workers.values():
        worker.rate = STORE_RUN_UNITS * SIZE / STORE_RUN_S
    assert scene.feed(opened(1, features=[READS_STORE])) == requests(1, *range(8))
    assert scene.feed(opened(2, features=[READS_STORE])) == requests(2, *range(8, 16))
    for unit in (0, 1, 2):
        assert scene.feed(UnitWritten(1, unit)) == []
    assert scene.feed(UnitWritten(1, 3)) == requests(1, *range(16, 20))
    for unit in (8, 9, 10):
        scene.feed(UnitWritten(2, unit))
    assert scene.feed(UnitWritten(2, 11)) == requests(2, 20, 21), "there are no more"
