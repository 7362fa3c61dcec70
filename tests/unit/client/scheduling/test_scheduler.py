"""client/scheduling/scheduler.py by example; arbitrary interleavings are played in tests/property/."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from msd.client.scheduling.events import (
    Action,
    Ban,
    CatalogueVouched,
    ClientStalled,
    Event,
    Fault,
    Finish,
    GiveUp,
    RequestSegment,
    SegmentChecked,
    SegmentCorrupt,
    SegmentLate,
    SegmentRefused,
    SegmentWritten,
    Unban,
    WorkerLost,
    WorkerReady,
)
from msd.client.scheduling.scheduler import BUSY_PAUSE, SLEEPING_PAUSE, Scheduler
from msd.client.scheduling.worker_pace import FIRST_WINDOW
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.time_passed import TimePassed


class Scene:
    """A scheduler, and a clock that the test moves. Invariants are checked after every event."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(0, ())
        self.now = 50.0

    def begin(self, segments: int, workers: int, unchecked: tuple[int, ...] = ()) -> None:
        self.scheduler = Scheduler(segments, range(1, workers + 1), unchecked=unchecked)

    def feed(self, event: Event, later: float = 0.0) -> list[Action]:
        self.now += later
        actions = self.scheduler.handle(event, self.now)
        self.scheduler.check_invariants()
        return actions

    def ready(self, *workers: int) -> list[Action]:
        return [action for worker in workers for action in self.feed(WorkerReady(worker, 7))]


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.scheduler.check_invariants()


def ask(worker: int, *segments: int) -> list[Action]:
    return [RequestSegment(worker, index) for index in segments]


def test_a_new_worker_is_asked_for_a_few_segments_in_order(scene: Scene) -> None:
    scene.begin(100, 2)
    assert scene.ready(1) == ask(1, *range(FIRST_WINDOW))
    assert scene.ready(2) == ask(2, *range(FIRST_WINDOW, 2 * FIRST_WINDOW))


def test_of_a_small_file_something_is_left_for_who_comes_later(scene: Scene) -> None:
    scene.begin(12, 4)
    assert scene.ready(1, 2, 3) == ask(1, 0, 1, 2) + ask(2, 3, 4, 5) + ask(3, 6, 7, 8)
    assert scene.ready(4) == ask(4, 9, 10, 11)


def test_one_of_many_workers_is_measured_also_where_an_equal_share_is_one_segment(scene: Scene) -> None:
    """Each request is answered 50 ms later; with one at a time none would ever be measured."""
    scene.begin(60, 64)
    actions = scene.feed(WorkerReady(1, 7, round_trip=0.05))
    asked = [action.index for action in actions if isinstance(action, RequestSegment)]
    rounds = 0
    while asked:
        scene.now += 0.05
        arrived, asked = asked, []
        for index in arrived:
            actions = scene.feed(SegmentWritten(1, index))
            asked += [action.index for action in actions if isinstance(action, RequestSegment)]
        rounds += 1
    assert rounds < 60 / 4


def test_nobody_is_expected_to_beat_his_round_trip(scene: Scene) -> None:
    """
    1. WorkerPace 1 is asked for everything, and nothing has come for a while.
    2. WorkerPace 2 comes. What it could take over would be here no sooner than what is awaited.
    3. WorkerPace 3 is near: it takes what is predicted latest.
    """
    scene.begin(1, 3)
    scene.ready(1)
    assert scene.feed(WorkerReady(2, 7, round_trip=0.2), later=0.1) == []
    assert scene.feed(WorkerReady(3, 7, round_trip=0.01)) == ask(3, 0)


def test_each_arrival_is_followed_by_one_request(scene: Scene) -> None:
    scene.begin(100, 1)
    scene.ready(1)
    assert scene.feed(SegmentWritten(1, 0)) == ask(1, FIRST_WINDOW)
    assert (scene.scheduler.x(1), scene.scheduler.y(1)) == ([0], [1, 2, 3, 4])


def test_what_a_lost_worker_owed_goes_to_the_others_first_and_its_x_is_never_asked_for_again(scene: Scene) -> None:
    """
    1. WorkerPace 1 delivers segment 0 and is lost while it owes 1 to 4.
    2. WorkerPace 2 is asked for 1 before anything fresh; 0 is asked for no more.
    """
    scene.begin(12, 2)
    scene.ready(1, 2)
    scene.feed(SegmentWritten(1, 0))
    scene.feed(WorkerLost(1))
    assert scene.scheduler.x(1) == [0]
    asked = []
    while not scene.scheduler.handle(TimePassed(), scene.now) and scene.scheduler.remaining:
        for index in scene.scheduler.y(2):
            asked += scene.feed(SegmentWritten(2, index), later=0.01)
    numbers = [action.index for action in asked if isinstance(action, RequestSegment)]
    assert numbers[:4] == [1, 2, 3, 8]
    assert 0 not in numbers
    assert asked[-1] == Finish()


def test_an_empty_file_is_finished_at_once(scene: Scene) -> None:
    scene.begin(0, 1)
    assert scene.feed(TimePassed()) == [Finish()]


def test_a_sleeping_worker_gives_back_all_and_is_left_alone_for_a_while(scene: Scene) -> None:
    scene.begin(8, 2)
    scene.ready(1, 2)
    scene.feed(SegmentRefused(1, 0, RefusalReason.SLEEPING))
    assert scene.scheduler.y(1) == []
    assert not [a for a in scene.feed(TimePassed(), later=SLEEPING_PAUSE / 2) if a in ask(1, *range(8))]
    assert set(scene.feed(TimePassed(), later=SLEEPING_PAUSE / 2)) <= set(ask(1, *range(8)))


def test_a_busy_worker_keeps_the_rest_of_its_y(scene: Scene) -> None:
    scene.begin(100, 1)
    scene.ready(1)
    assert scene.feed(SegmentRefused(1, 2, RefusalReason.BUSY)) == []
    assert scene.scheduler.y(1) == [0, 1, 3]
    assert scene.feed(TimePassed(), later=BUSY_PAUSE) == ask(1, 2)


@pytest.mark.parametrize(
    "reason", [RefusalReason.UNKNOWN, RefusalReason.CHANGED, RefusalReason.UNREADABLE, RefusalReason.BAD_REQUEST]
)
def test_a_permanent_refusal_sets_a_worker_aside_until_its_next_process(scene: Scene, reason: RefusalReason) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    assert Ban(1, Fault(reason.value)) in scene.feed(SegmentRefused(1, 0, reason))
    assert scene.feed(WorkerReady(1, 7)) == []
    assert sorted(a.index for a in scene.feed(WorkerReady(1, 8)) if isinstance(a, RequestSegment)) == [0, 1, 2, 3]


def test_if_all_are_set_aside_the_download_is_given_up(scene: Scene) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    scene.feed(SegmentRefused(1, 0, RefusalReason.CHANGED))
    actions = scene.feed(SegmentRefused(2, 4, RefusalReason.UNREADABLE))
    assert actions[-1] == GiveUp({1: Fault.CHANGED, 2: Fault.UNREADABLE}, 0)
    assert scene.feed(TimePassed()) == []


def test_a_corrupt_segment_goes_to_somebody_else_and_a_third_one_ends_the_liars_part(scene: Scene) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    assert ask(1, 0)[0] not in scene.feed(SegmentCorrupt(1, 0))
    assert ask(2, 0)[0] in scene.feed(SegmentWritten(2, 4))
    scene.feed(SegmentCorrupt(1, 1))
    assert Ban(1, Fault.CORRUPT) in scene.feed(SegmentCorrupt(1, 2))
    assert scene.feed(WorkerReady(1, 99)) == []


def test_the_last_segments_of_a_frozen_worker_go_to_one_that_is_idle(scene: Scene) -> None:
    scene.begin(8, 2)
    scene.ready(1, 2)
    asked = []
    for index in (4, 5, 6, 7):
        asked += scene.feed(SegmentWritten(2, index), later=0.05)
    for _ in range(20):
        asked += scene.feed(TimePassed(), later=0.05)
        for index in scene.scheduler.y(2):
            asked += scene.feed(SegmentWritten(2, index), later=0.05)
    assert asked[-1] == Finish()
    assert {action.index for action in asked if isinstance(action, RequestSegment)} == {0, 1, 2, 3}


def test_a_late_copy_is_no_progress_but_gives_credit(scene: Scene) -> None:
    """Worker 1 answers at last what worker 2 has delivered meanwhile."""
    scene.begin(5, 2)
    scene.ready(1, 2)
    scene.feed(SegmentWritten(2, 4), later=0.1)
    for _ in range(100):
        if 3 in scene.scheduler.y(2):
            break
        scene.feed(TimePassed(), later=0.05)
    scene.feed(SegmentWritten(2, 3))
    remaining = scene.scheduler.remaining
    scene.feed(SegmentLate(1, 3))
    assert scene.scheduler.remaining == remaining
    assert 3 not in scene.scheduler.y(1)
    assert scene.scheduler.x(2) == [3, 4]


def test_what_the_disk_may_have_is_not_asked_for_before_it_is_checked(scene: Scene) -> None:
    scene.begin(4, 1, unchecked=(0, 1, 2, 3))
    assert scene.ready(1) == []
    assert scene.feed(SegmentChecked(0, good=True)) == []
    assert scene.feed(SegmentChecked(1, good=False)) == ask(1, 1)
    assert scene.feed(SegmentChecked(2, good=True)) == []
    assert scene.feed(SegmentChecked(3, good=True)) == []
    assert scene.feed(SegmentWritten(1, 1)) == [Finish()]


def test_the_clients_own_stall_is_nobodys_silence(scene: Scene) -> None:
    """After 5 s of sleep of the client itself, worker 1 is not late, and nothing is asked twice."""
    scene.begin(8, 2)
    scene.ready(1, 2)
    for index in (4, 5, 6, 0, 1):
        scene.feed(SegmentWritten(1 if index < 4 else 2, index), later=0.05)
    before = scene.scheduler.y(1), scene.scheduler.y(2)
    scene.now += 5.0
    assert scene.feed(ClientStalled(5.0)) == []
    assert scene.feed(TimePassed()) == []
    assert (scene.scheduler.y(1), scene.scheduler.y(2)) == before


def test_the_window_grows_with_rate_and_round_trip(scene: Scene) -> None:
    scene.begin(10_000, 1)
    scene.feed(WorkerReady(1, 7, round_trip=0.1))
    for _ in range(400):
        scene.feed(SegmentWritten(1, scene.scheduler.y(1)[0]), later=0.01)
    worker = scene.scheduler.workers[1]
    assert worker.rate == pytest.approx(100, rel=0.1)
    assert worker.window == pytest.approx(1 + 2 * 100 * 0.1, abs=2)
    assert len(worker.asked) == worker.window


def test_on_a_short_link_little_is_asked_at_a_time(scene: Scene) -> None:
    """However fast it is: what waits has left the processor's caches when it is hashed."""
    scene.begin(10_000, 1)
    scene.feed(WorkerReady(1, 7, round_trip=0.0001))
    for _ in range(400):
        scene.feed(SegmentWritten(1, scene.scheduler.y(1)[0]), later=0.0025)
    worker = scene.scheduler.workers[1]
    assert worker.rate == pytest.approx(400, rel=0.1)
    assert len(worker.asked) == worker.window == 2


# When what is shared changes.

OLD, NEW, NEWER, THEIRS = b"old", b"new", b"newer", b"theirs"


def begin_shared(scene: Scene, *catalogues: bytes) -> None:
    """A worker for each of the catalogues, all ready; the file was found with the old one."""
    scene.begin(100, len(catalogues))
    scene.feed(CatalogueVouched(OLD))
    for number, catalogue in enumerate(catalogues, 1):
        scene.feed(WorkerReady(number, 7, catalogue=catalogue))


def refuse(scene: Scene, worker: int, reason: RefusalReason) -> list[Action]:
    return scene.feed(SegmentRefused(worker, scene.scheduler.y(worker)[0], reason))


def gives_up(actions: list[Action]) -> bool:
    return any(isinstance(action, GiveUp) for action in actions)


@pytest.mark.parametrize("asleep_first", [True, False])
def test_a_worker_of_other_servers_ends_nothing_when_the_catalogue_changes(scene: Scene, asleep_first: bool) -> None:
    """
    1. Workers 1 to 3 serve the file, worker 4 of other servers does not know it.
    2. Something else is shared, too; 1 to 3 are put to sleep, before or after it.
    3. WorkerPace 4, asked once more, says the same. 1 to 3 wake up, and are asked.
    """
    begin_shared(scene, OLD, OLD, OLD, THEIRS)
    assert refuse(scene, 4, RefusalReason.UNKNOWN)[0] == Ban(4, Fault.UNKNOWN)
    sleep = [WorkerLost(1), WorkerLost(2), WorkerLost(3)]
    steps: list[Event] = [*sleep, CatalogueVouched(NEW)] if asleep_first else [CatalogueVouched(NEW), *sleep]
    actions = [action for event in steps for action in scene.feed(event)]
    assert Unban(4) in actions
    actions += scene.feed(WorkerReady(4, 7, catalogue=THEIRS))
    actions += refuse(scene, 4, RefusalReason.UNKNOWN)
    actions += scene.feed(TimePassed(), later=60.0)
    assert not gives_up(actions)
    assert len([a for a in scene.feed(WorkerReady(1, 7, catalogue=NEW)) if isinstance(a, RequestSegment)]) == 4


@pytest.mark.parametrize("reason", [RefusalReason.CHANGED, RefusalReason.UNKNOWN])
@pytest.mark.parametrize("welcomed", [OLD, NEW])
def test_a_file_that_changed_is_given_up_while_the_others_sleep(
    scene: Scene, reason: RefusalReason, welcomed: bytes
) -> None:
    begin_shared(scene, OLD, OLD, OLD)
    for number in (2, 3):
        scene.feed(WorkerLost(number))
    scene.feed(CatalogueVouched(NEW))
    if welcomed is NEW:
        scene.feed(WorkerLost(1))
        scene.feed(WorkerReady(1, 7, catalogue=NEW))
    actions = refuse(scene, 1, reason)
    assert actions == [Ban(1, Fault(reason.value)), GiveUp({1: Fault(reason.value)}, 0)]


def test_what_was_said_before_the_catalogue_changed_counts_no_more(scene: Scene) -> None:
    begin_shared(scene, OLD, OLD)
    refuse(scene, 1, RefusalReason.CHANGED)
    scene.feed(WorkerLost(2))
    assert scene.feed(CatalogueVouched(NEW)) == [Unban(1)]
    assert not gives_up(scene.feed(TimePassed(), later=60.0))
    # An old word, of the connection that was closed.
    assert scene.feed(SegmentRefused(1, 1, RefusalReason.CHANGED)) == []
    assert {a.worker for a in scene.feed(WorkerReady(1, 7, catalogue=NEW)) if isinstance(a, RequestSegment)} == {1}
    assert gives_up(refuse(scene, 1, RefusalReason.UNKNOWN))


def test_while_one_that_was_there_since_the_change_may_come_back_nothing_is_given_up(scene: Scene) -> None:
    begin_shared(scene, OLD, OLD)
    scene.feed(CatalogueVouched(NEW))
    scene.feed(WorkerLost(2))
    assert not gives_up(refuse(scene, 1, RefusalReason.CHANGED))
    scene.feed(WorkerReady(2, 7, catalogue=NEW))
    assert gives_up(refuse(scene, 2, RefusalReason.CHANGED))


def test_each_change_of_the_catalogue_is_one_chance(scene: Scene) -> None:
    begin_shared(scene, OLD, THEIRS)
    refuse(scene, 2, RefusalReason.UNKNOWN)
    for catalogue in (NEW, NEWER, NEW):
        assert scene.feed(CatalogueVouched(catalogue)) == [Unban(2)]
        for same in (catalogue, b""):
            assert scene.feed(CatalogueVouched(same)) == []
        scene.feed(WorkerReady(2, 7, catalogue=THEIRS))
        refuse(scene, 2, RefusalReason.UNKNOWN)
        # Neither another connection nor the same word of server 5 is another one.
        assert scene.feed(WorkerReady(2, 7, catalogue=THEIRS)) == []
        assert scene.feed(CatalogueVouched(catalogue)) == []


@pytest.mark.parametrize("first", [b"", OLD])
def test_the_first_word_of_server_5_is_no_change(scene: Scene, first: bytes) -> None:
    scene.begin(100, 2)
    scene.feed(CatalogueVouched(first))
    scene.feed(WorkerReady(1, 7, catalogue=OLD))
    refuse(scene, 1, RefusalReason.CHANGED)
    assert scene.feed(CatalogueVouched(OLD)) == []
    assert not gives_up(scene.feed(TimePassed(), later=60.0))


@pytest.mark.parametrize("reason", [RefusalReason.UNREADABLE, RefusalReason.BAD_REQUEST])
def test_what_is_wrong_whatever_is_shared_is_not_forgiven(scene: Scene, reason: RefusalReason) -> None:
    begin_shared(scene, OLD, OLD)
    refuse(scene, 1, reason)
    assert scene.feed(CatalogueVouched(NEW)) == []
    assert scene.feed(WorkerReady(1, 7, catalogue=NEW)) == []
