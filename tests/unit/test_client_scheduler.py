"""client/scheduler.py by example; arbitrary interleavings are played in tests/property/."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from client.happenings import (
    Action,
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
    SetAside,
    TimePassed,
    WorkerLost,
    WorkerReady,
)
from client.pace import FIRST_WINDOW
from client.scheduler import BUSY_PAUSE, SLEEPING_PAUSE, Scheduler
from wire.states import Reason


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


def test_each_arrival_is_followed_by_one_request(scene: Scene) -> None:
    scene.begin(100, 1)
    scene.ready(1)
    assert scene.feed(SegmentWritten(1, 0)) == ask(1, FIRST_WINDOW)
    assert (scene.scheduler.x(1), scene.scheduler.y(1)) == ([0], [1, 2, 3, 4])


def test_what_a_lost_worker_owed_goes_to_the_others_first_and_its_x_is_never_asked_for_again(scene: Scene) -> None:
    """
    1. Worker 1 delivers segment 0 and is lost while it owes 1 to 4.
    2. Worker 2 is asked for 1 before anything fresh; 0 is asked for no more.
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
    scene.feed(SegmentRefused(1, 0, Reason.SLEEPING))
    assert scene.scheduler.y(1) == []
    assert not [a for a in scene.feed(TimePassed(), later=SLEEPING_PAUSE / 2) if a in ask(1, *range(8))]
    assert set(scene.feed(TimePassed(), later=SLEEPING_PAUSE / 2)) <= set(ask(1, *range(8)))


def test_a_busy_worker_keeps_the_rest_of_its_y(scene: Scene) -> None:
    scene.begin(100, 1)
    scene.ready(1)
    assert scene.feed(SegmentRefused(1, 2, Reason.BUSY)) == []
    assert scene.scheduler.y(1) == [0, 1, 3]
    assert scene.feed(TimePassed(), later=BUSY_PAUSE) == ask(1, 2)


@pytest.mark.parametrize("reason", [Reason.UNKNOWN, Reason.CHANGED, Reason.UNREADABLE, Reason.BAD_REQUEST])
def test_a_permanent_refusal_sets_a_worker_aside_until_its_next_process(scene: Scene, reason: Reason) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    assert SetAside(1, Fault(reason.value)) in scene.feed(SegmentRefused(1, 0, reason))
    assert scene.feed(WorkerReady(1, 7)) == []
    assert sorted(a.index for a in scene.feed(WorkerReady(1, 8)) if isinstance(a, RequestSegment)) == [0, 1, 2, 3]


def test_if_all_are_set_aside_the_download_is_given_up(scene: Scene) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    scene.feed(SegmentRefused(1, 0, Reason.CHANGED))
    actions = scene.feed(SegmentRefused(2, 4, Reason.UNREADABLE))
    assert actions[-1] == GiveUp({1: Fault.CHANGED, 2: Fault.UNREADABLE}, 0)
    assert scene.feed(TimePassed()) == []


def test_a_corrupt_segment_goes_to_somebody_else_and_a_third_one_ends_the_liars_part(scene: Scene) -> None:
    scene.begin(100, 2)
    scene.ready(1, 2)
    assert ask(1, 0)[0] not in scene.feed(SegmentCorrupt(1, 0))
    assert ask(2, 0)[0] in scene.feed(SegmentWritten(2, 4))
    scene.feed(SegmentCorrupt(1, 1))
    assert SetAside(1, Fault.CORRUPT) in scene.feed(SegmentCorrupt(1, 2))
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
    assert worker.window == pytest.approx(2 + 2 * 100 * 0.1, abs=2)
    assert len(worker.asked) == worker.window
