"""Each edge of the state diagram of ``broker/supervision/supervisor.py``, then all of them at random."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from msd.broker.supervision.supervisor import (
    BACKOFF_FIRST,
    BACKOFF_LAST,
    CRASH_WINDOW,
    CRASHES,
    QUIT_GRACE,
    SILENT_AFTER,
    STEADY,
    Action,
    CatalogueReady,
    Event,
    Exited,
    HeartbeatReceived,
    Kill,
    Publish,
    QuitReceived,
    SendOrder,
    SendQuit,
    Spawn,
    Spawned,
    Stalled,
    Stop,
    Supervisor,
    ToggleReceived,
)
from msd.wire.protocol.messages import Load
from msd.wire.protocol.states import WantedState, WorkerState
from msd.wire.support.time_passed import TimePassed

HANG_LIMIT = 60.0
#: Any moment but 0, which would hide a time that was never set.
START = 1000.0
#: The edition of the catalogue that there is first.
EDITION = 3


class Scene:
    """A supervisor, the shell's part played for it, and a clock that the test moves."""

    def __init__(self, workers: int = 1, hang_limit: float = HANG_LIMIT) -> None:
        self.supervisor = Supervisor(range(1, workers + 1), hang_limit)
        self.now = START
        self._pids = iter(range(100, 100000))

    def handle(self, event: Event) -> list[Action]:
        actions = self.supervisor.handle(event, self.now)
        self.supervisor.check_invariants()
        return actions

    def spawned(self, number: int = 1) -> list[Action]:
        return self.handle(Spawned(number, next(self._pids)))

    def beat(
        self, state: WorkerState = WorkerState.AWAKE, number: int = 1, pid: int | None = None, edition: int = EDITION
    ) -> list[Action]:
        pid = self.pid(number) if pid is None else pid
        return self.handle(HeartbeatReceived(number, pid, 7000 + pid, state, edition, Load(), frozenset()))

    def exit(self, number: int = 1, reason: str = "killed by SIGKILL") -> list[Action]:
        return self.handle(Exited(number, self.pid(number), reason))

    def stall(self, seconds: float) -> list[Action]:
        """The broker's process, or all of them, stand still for so long."""
        self.now += seconds
        return self.handle(Stalled(seconds)) + self.handle(TimePassed())

    def order(self, want: WantedState | None = None, number: int = 1) -> list[Action]:
        return self.handle(ToggleReceived(number, want))

    def wait(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.handle(TimePassed())

    def wait_for_deadline(self) -> list[Action]:
        """Lets time pass to the next deadline, which must lead to another one."""
        deadline = self.supervisor.next_deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        actions = self.handle(TimePassed())
        after = self.supervisor.next_deadline()
        assert after is None or after > self.now
        return actions

    def pid(self, number: int = 1) -> int:
        return self.supervisor.workers[number].pid

    def state(self, number: int = 1) -> WorkerState:
        return self.supervisor.workers[number].state

    def wanted(self, number: int = 1) -> WantedState:
        return self.supervisor.workers[number].wanted

    def crash(self, number: int = 1) -> list[Action]:
        """The running process ends; the restart comes in its time, unless it is given up."""
        actions = self.exit(number)
        restart_at = self.supervisor.workers[number].restart_at
        if restart_at is not None:
            self.now = restart_at
            self.handle(TimePassed())
            self.spawned(number)
        return actions


Make = Callable[[], Scene]


def starting(workers: int = 1, hang_limit: float = HANG_LIMIT) -> Scene:
    scene = Scene(workers, hang_limit)
    scene.handle(CatalogueReady(EDITION))
    for number in scene.supervisor.workers:
        scene.spawned(number)
    return scene


def awake(workers: int = 1, hang_limit: float = HANG_LIMIT) -> Scene:
    scene = starting(workers, hang_limit)
    for number in scene.supervisor.workers:
        scene.beat(number=number)
    return scene


def asleep() -> Scene:
    scene = awake()
    scene.order(WantedState.ASLEEP)
    scene.beat(WorkerState.ASLEEP)
    return scene


def silent() -> Scene:
    scene = awake()
    scene.wait(SILENT_AFTER)
    return scene


def dead() -> Scene:
    scene = awake()
    scene.exit()
    return scene


def failed() -> Scene:
    scene = awake()
    for _ in range(CRASHES):
        scene.crash()
    return scene


# The start.


def test_nothing_is_spawned_before_the_catalogue_is_ready() -> None:
    scene = Scene(4)
    assert scene.supervisor.next_deadline() is None
    assert scene.wait(1000) == []


def test_the_catalogue_spawns_every_worker() -> None:
    assert Scene(3).handle(CatalogueReady(EDITION)) == [
        Spawn(number, WantedState.AWAKE, EDITION) for number in (1, 2, 3)
    ]


def test_a_worker_put_to_sleep_during_indexing_is_spawned_asleep() -> None:
    scene = Scene(2)
    assert scene.order(number=2) == [Publish()]
    assert scene.handle(CatalogueReady(EDITION)) == [
        Spawn(1, WantedState.AWAKE, EDITION),
        Spawn(2, WantedState.ASLEEP, EDITION),
    ]


def test_the_helpers_lead_to_the_states_they_are_named_for() -> None:
    scenes = [starting(), awake(), asleep(), silent(), dead(), failed()]
    assert [scene.state() for scene in scenes] == [
        WorkerState.STARTING,
        WorkerState.AWAKE,
        WorkerState.ASLEEP,
        WorkerState.SILENT,
        WorkerState.DEAD,
        WorkerState.FAILED,
    ]


def test_all_awake_is_true_only_when_every_worker_is() -> None:
    scene = starting(2)
    scene.beat(number=1)
    assert not scene.supervisor.all_awake
    scene.beat(number=2)
    assert scene.supervisor.all_awake


# The edges of the diagram.


def test_starting_to_awake_with_its_first_heartbeat() -> None:
    scene = starting()
    assert scene.beat() == [Publish()]
    assert scene.state() is WorkerState.AWAKE
    assert scene.supervisor.workers[1].epoch == 7000 + scene.pid()


def test_awake_to_asleep_as_the_worker_reports() -> None:
    scene = awake()
    assert scene.order(WantedState.ASLEEP) == [SendOrder(1, WantedState.ASLEEP, EDITION), Publish()]
    assert scene.state() is WorkerState.AWAKE
    assert scene.beat(WorkerState.ASLEEP) == [Publish()]
    assert scene.state() is WorkerState.ASLEEP


def test_asleep_to_awake_as_the_worker_reports() -> None:
    scene = asleep()
    assert scene.order(WantedState.AWAKE) == [SendOrder(1, WantedState.AWAKE, EDITION), Publish()]
    assert scene.state() is WorkerState.ASLEEP
    assert scene.beat(WorkerState.AWAKE) == [Publish()]
    assert scene.state() is WorkerState.AWAKE


@pytest.mark.parametrize("make", [awake, asleep])
def test_awake_and_asleep_to_silent_after_three_missed_heartbeats(make: Make) -> None:
    scene = make()
    assert scene.wait(SILENT_AFTER - 0.01) == []
    assert scene.wait(0.01) == [Publish()]
    assert scene.state() is WorkerState.SILENT


def test_a_heartbeat_in_time_keeps_a_worker_from_being_silent() -> None:
    scene = awake()
    for _ in range(20):
        assert scene.wait(SILENT_AFTER - 0.05) == []
        assert scene.beat() == []


@pytest.mark.parametrize("state", [WorkerState.AWAKE, WorkerState.ASLEEP])
def test_silent_to_what_its_heartbeat_says(state: WorkerState) -> None:
    scene = silent()
    scene.beat(state)
    assert scene.state() is state


def test_silent_to_dead_by_a_kill_at_the_hang_limit() -> None:
    scene = silent()
    assert scene.wait(HANG_LIMIT - SILENT_AFTER - 0.01) == []
    assert scene.wait(0.01) == [Kill(1)]
    assert scene.state() is WorkerState.SILENT
    assert scene.exit() == [Publish()]
    assert scene.state() is WorkerState.DEAD


def test_starting_to_dead_by_a_kill_at_the_hang_limit() -> None:
    scene = starting()
    assert scene.wait(HANG_LIMIT - 0.01) == []
    assert scene.wait(0.01) == [Kill(1)]
    scene.exit()
    assert scene.state() is WorkerState.DEAD


@pytest.mark.parametrize("make", [starting, awake, asleep, silent])
def test_a_stall_of_the_broker_is_not_the_workers_silence(make: Make) -> None:
    scene = make()
    state = scene.state()
    assert scene.stall(1000 * HANG_LIMIT) == []
    assert scene.state() is state


def test_a_stall_does_not_shorten_a_silence_either() -> None:
    scene = awake()
    scene.wait(SILENT_AFTER - 0.1)
    scene.stall(1000)
    assert scene.wait(0.05) == []
    assert scene.wait(0.06) == [Publish()]
    scene.stall(1000)
    assert scene.wait(HANG_LIMIT - SILENT_AFTER) == [Kill(1)]


def test_a_stall_said_too_long_hears_nobody_in_the_future() -> None:
    scene = awake()
    scene.handle(Stalled(1000))
    assert scene.wait(SILENT_AFTER) == [Publish()]


def test_a_stall_does_not_take_the_workers_time_to_end() -> None:
    scene = awake()
    scene.handle(QuitReceived())
    assert scene.stall(1000) == []
    assert scene.wait(QUIT_GRACE - 0.01) == []
    assert scene.wait(0.02) == [Kill(1)]


def test_a_stall_puts_no_restart_off() -> None:
    scene = dead()
    assert scene.stall(BACKOFF_FIRST) == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]


def test_hang_limit_kills_a_process_once() -> None:
    scene = silent()
    assert Kill(1) in scene.wait(HANG_LIMIT)
    assert scene.supervisor.next_deadline() is None
    assert scene.wait(HANG_LIMIT) == []


def test_hang_limit_kills_the_next_process_too() -> None:
    scene = starting()
    scene.wait(HANG_LIMIT)
    scene.crash()
    assert scene.wait(HANG_LIMIT) == [Kill(1)]


@pytest.mark.parametrize("make", [starting, awake, asleep, silent])
def test_any_to_dead_when_its_process_ends(make: Make) -> None:
    scene = make()
    assert scene.exit(reason="Segmentation fault") == [Publish()]
    worker = scene.supervisor.workers[1]
    assert (worker.state, worker.pid, worker.epoch) == (WorkerState.DEAD, 0, 0)
    assert worker.reason == "Segmentation fault"


def test_a_dead_worker_has_no_load_and_no_sessions() -> None:
    scene = awake()
    load = Load(bytes_sent=5, clients=1, malformed_messages=0)
    scene.handle(HeartbeatReceived(1, scene.pid(), 7, WorkerState.AWAKE, EDITION, load, frozenset({9})))
    assert scene.supervisor.workers[1].sessions == {9}
    scene.exit()
    worker = scene.supervisor.workers[1]
    assert (worker.load, worker.sessions) == (Load(), frozenset())


def test_dead_to_starting_after_the_back_off() -> None:
    scene = dead()
    assert scene.wait(BACKOFF_FIRST - 0.01) == []
    assert scene.wait(0.01) == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]
    assert scene.state() is WorkerState.STARTING
    assert scene.supervisor.workers[1].restarts == 1


def test_a_worker_that_cannot_be_spawned_is_dead_and_tried_again() -> None:
    scene = Scene()
    scene.handle(CatalogueReady(EDITION))
    scene.handle(Exited(1, 0, "cannot be started: Cannot allocate memory"))
    assert scene.state() is WorkerState.DEAD
    assert scene.wait_for_deadline() == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]


def test_a_worker_that_can_never_be_spawned_is_given_up() -> None:
    """Its last good start, or none, lies far back: that does not make it steady."""
    scene = awake()
    scene.now += 10 * STEADY
    scene.exit()
    for _ in range(CRASHES - 1):
        scene.wait_for_deadline()
        scene.handle(Exited(1, 0, "cannot be started"))
    assert scene.state() is WorkerState.FAILED


def test_dead_to_failed_after_too_many_crashes() -> None:
    scene = awake()
    for _ in range(CRASHES - 1):
        scene.crash()
        assert scene.state() is WorkerState.STARTING
    assert scene.exit() == [Publish()]
    assert scene.state() is WorkerState.FAILED
    assert scene.supervisor.next_deadline() is None
    assert scene.wait(10 * CRASH_WINDOW) == []


@pytest.mark.parametrize("want", [None, WantedState.AWAKE])
def test_failed_to_starting_by_a_toggle_or_a_wake(want: WantedState | None) -> None:
    scene = failed()
    assert scene.order(want) == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]
    assert scene.state() is WorkerState.STARTING


def test_a_worker_started_by_hand_has_its_crashes_forgiven() -> None:
    scene = failed()
    scene.order()
    scene.spawned()
    for _ in range(CRASHES - 1):
        scene.crash()
    assert scene.state() is WorkerState.STARTING


# Crashes and patience.


def test_the_back_off_doubles() -> None:
    scene = awake()
    delays = []
    for _ in range(CRASHES - 1):
        scene.exit()
        deadline = scene.supervisor.next_deadline()
        assert deadline is not None
        delays.append(round(deadline - scene.now, 6))
        scene.wait_for_deadline()
        scene.spawned()
    assert delays == [min(BACKOFF_FIRST * 2**n, BACKOFF_LAST) for n in range(CRASHES - 1)] == [0.2, 0.4, 0.8, 1.6]


def test_a_steady_run_forgives_crashes() -> None:
    scene = awake()
    for _ in range(CRASHES - 1):
        scene.crash()
    scene.now += STEADY
    scene.exit()
    assert scene.state() is WorkerState.DEAD
    assert scene.supervisor.next_deadline() == scene.now + BACKOFF_FIRST


def test_a_run_just_short_of_steady_forgives_nothing() -> None:
    scene = awake()
    for _ in range(CRASHES - 1):
        scene.crash()
    scene.now += STEADY - 0.01
    scene.exit()
    assert scene.state() is WorkerState.FAILED


def test_crashes_outside_the_window_do_not_count() -> None:
    scene = awake()
    for _ in range(3 * CRASHES):
        scene.now += CRASH_WINDOW / (CRASHES - 1) + 1
        scene.crash()
    assert scene.state() is WorkerState.STARTING


def test_one_workers_crashes_leave_the_others_alone() -> None:
    scene = awake(2)
    for _ in range(CRASHES):
        scene.crash(1)
        scene.beat(number=2)
    assert (scene.state(1), scene.state(2)) == (WorkerState.FAILED, WorkerState.AWAKE)


# Who may speak.


def test_the_heartbeat_of_a_stale_pid_is_ignored() -> None:
    scene = awake()
    old = scene.pid()
    scene.crash()
    assert scene.beat(pid=old) == []
    assert scene.state() is WorkerState.STARTING


def test_orders_go_to_the_process_that_runs_now() -> None:
    """A heartbeat of the one before may come late: it does not say where orders go."""

    def beat(pid: int, route: bytes) -> None:
        scene.handle(
            HeartbeatReceived(1, pid, 7, WorkerState.AWAKE, EDITION, Load(bytes_sent=pid), frozenset({pid}), route)
        )

    def route() -> object:
        return worker.route

    scene = awake()
    worker = scene.supervisor.workers[1]
    old = scene.pid()
    beat(old, b"old")
    assert (route(), worker.load.bytes_sent) == (b"old", old)
    scene.crash()
    assert route() is None
    beat(old, b"old")
    assert (route(), worker.load, worker.sessions) == (None, Load(), frozenset())
    beat(scene.pid(), b"new")
    beat(old, b"old")
    assert (route(), worker.load.bytes_sent, worker.sessions) == (b"new", scene.pid(), frozenset({scene.pid()}))


def test_the_heartbeat_of_a_dead_worker_is_ignored() -> None:
    scene = awake()
    old = scene.pid()
    scene.exit()
    assert scene.beat(pid=old) == []
    assert scene.state() is WorkerState.DEAD


def test_the_heartbeat_of_an_unknown_worker_is_ignored() -> None:
    assert awake().handle(HeartbeatReceived(9, 100, 1, WorkerState.AWAKE, EDITION, Load(), frozenset())) == []


def test_the_exit_of_a_stale_pid_is_ignored() -> None:
    scene = awake()
    old = scene.pid()
    scene.crash()
    assert scene.handle(Exited(1, old, "again")) == []
    assert scene.state() is WorkerState.STARTING


# Orders.


def test_toggle_of_an_awake_worker_puts_it_to_sleep() -> None:
    assert awake().order() == [SendOrder(1, WantedState.ASLEEP, EDITION), Publish()]


def test_toggle_of_an_asleep_worker_wakes_it() -> None:
    assert asleep().order() == [SendOrder(1, WantedState.AWAKE, EDITION), Publish()]


@pytest.mark.parametrize("make", [starting, silent])
def test_toggle_of_a_starting_or_silent_worker_flips_what_is_wanted(make: Make) -> None:
    scene = make()
    assert scene.order() == [SendOrder(1, WantedState.ASLEEP, EDITION), Publish()]
    assert scene.order() == [SendOrder(1, WantedState.AWAKE, EDITION), Publish()]


def test_toggle_of_a_dead_worker_starts_it_now() -> None:
    scene = dead()
    assert scene.order() == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]
    assert scene.wait(BACKOFF_LAST) == []  # The restart that was pending is this one.


def test_toggle_of_a_dead_worker_wanted_asleep_starts_it_awake() -> None:
    scene = asleep()
    scene.exit()
    assert scene.order() == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]


def test_toggle_twice_before_the_worker_reacts_changes_nothing_in_the_end() -> None:
    scene = awake()
    scene.order()
    scene.order()
    assert scene.wanted() is WantedState.AWAKE
    assert scene.beat() == []


@pytest.mark.parametrize("want", [WantedState.ASLEEP, WantedState.AWAKE])
@pytest.mark.parametrize("make", [starting, awake, asleep, silent])
def test_sleep_and_wake_orders_are_idempotent(make: Make, want: WantedState) -> None:
    scene = make()
    for _ in range(3):
        assert SendOrder(1, want, EDITION) in scene.order(want)
        assert scene.wanted() is want


def test_sleep_of_a_dead_worker_leaves_its_restart_where_it_was() -> None:
    scene = dead()
    assert scene.order(WantedState.ASLEEP) == [Publish()]
    assert scene.state() is WorkerState.DEAD
    assert scene.wait_for_deadline() == [Spawn(1, WantedState.ASLEEP, EDITION), Publish()]


def test_sleep_of_a_failed_worker_does_not_start_it() -> None:
    scene = failed()
    assert scene.order(WantedState.ASLEEP) == [Publish()]
    assert scene.state() is WorkerState.FAILED
    assert scene.wait(1000) == []


def test_a_worker_wanted_asleep_is_restarted_asleep() -> None:
    scene = asleep()
    scene.exit()
    assert scene.wait_for_deadline() == [Spawn(1, WantedState.ASLEEP, EDITION), Publish()]
    scene.spawned()
    assert scene.beat(WorkerState.ASLEEP) == [Publish()]


def test_orders_are_repeated_until_heartbeats_agree() -> None:
    scene = awake()
    scene.order()
    for _ in range(5):
        assert scene.beat(WorkerState.AWAKE) == [SendOrder(1, WantedState.ASLEEP, EDITION)]
    assert SendOrder(1, WantedState.ASLEEP, EDITION) not in scene.beat(WorkerState.ASLEEP)
    assert scene.beat(WorkerState.ASLEEP) == []


def test_a_worker_that_falls_asleep_by_itself_is_woken() -> None:
    scene = awake()
    assert scene.beat(WorkerState.ASLEEP) == [SendOrder(1, WantedState.AWAKE, EDITION), Publish()]


# Editions of the catalogue.


def test_a_later_edition_is_ordered_of_every_worker_that_has_a_process() -> None:
    scene = awake(4)
    scene.exit(2)
    scene.order(WantedState.ASLEEP, 3)
    scene.crash(4)
    assert scene.handle(CatalogueReady(EDITION + 1)) == [
        SendOrder(1, WantedState.AWAKE, EDITION + 1),
        SendOrder(3, WantedState.ASLEEP, EDITION + 1),
        SendOrder(4, WantedState.AWAKE, EDITION + 1),
    ]


@pytest.mark.parametrize("make", [starting, awake, silent])
def test_a_worker_that_serves_an_old_edition_is_told_until_it_serves_the_latest(make: Make) -> None:
    scene = make()
    scene.handle(CatalogueReady(EDITION + 1))
    for _ in range(3):
        assert scene.beat()[0] == SendOrder(1, WantedState.AWAKE, EDITION + 1)
    assert scene.beat(edition=EDITION + 1) == []
    scene.handle(CatalogueReady(EDITION + 2))
    assert scene.beat(edition=EDITION + 1) == [SendOrder(1, WantedState.AWAKE, EDITION + 2)]


def test_a_worker_that_sleeps_is_told_of_a_later_edition_and_sleeps_on() -> None:
    scene = asleep()
    scene.handle(CatalogueReady(EDITION + 1))
    assert scene.beat(WorkerState.ASLEEP) == [SendOrder(1, WantedState.ASLEEP, EDITION + 1)]
    assert scene.beat(WorkerState.ASLEEP, edition=EDITION + 1) == []


def test_a_worker_is_restarted_with_the_latest_edition() -> None:
    scene = dead()
    assert scene.handle(CatalogueReady(EDITION + 1)) == []
    assert scene.wait_for_deadline() == [Spawn(1, WantedState.AWAKE, EDITION + 1), Publish()]


def test_a_later_edition_starts_no_worker_that_was_given_up_but_it_has_it_when_woken() -> None:
    scene = failed()
    assert scene.handle(CatalogueReady(EDITION + 1)) == []
    assert scene.order() == [Spawn(1, WantedState.AWAKE, EDITION + 1), Publish()]


def test_nobody_turns_to_a_later_edition_while_all_is_ended() -> None:
    scene = awake(2)
    scene.handle(QuitReceived())
    assert scene.handle(CatalogueReady(EDITION + 1)) == []
    assert scene.beat() == [SendQuit(1)]


# The end.


def test_quit_is_ordered_of_every_living_worker() -> None:
    scene = awake(3)
    scene.exit(2)
    assert scene.handle(QuitReceived()) == [SendQuit(1), SendQuit(3)]
    assert scene.supervisor.quitting


def test_quit_stops_when_the_last_worker_has_ended() -> None:
    scene = awake(2)
    scene.handle(QuitReceived())
    assert Stop() not in scene.exit(1)
    assert scene.exit(2)[-1] == Stop()


def test_quit_kills_after_the_grace() -> None:
    scene = awake(2)
    scene.handle(QuitReceived())
    scene.exit(1)
    assert scene.wait(QUIT_GRACE - 0.01) == []
    assert scene.wait(0.01) == [Kill(2)]
    assert scene.wait(1000) == []
    assert Stop() in scene.exit(2)


def test_quit_during_indexing_stops_at_once_and_spawns_nothing() -> None:
    scene = Scene(4)
    assert scene.handle(QuitReceived()) == [Stop()]
    assert scene.handle(CatalogueReady(EDITION)) == [Stop()]


def test_quit_with_every_worker_gone_stops_at_once() -> None:
    scene = failed()
    assert scene.handle(QuitReceived()) == [Stop()]


def test_quit_restarts_nobody() -> None:
    scene = awake(2)
    scene.exit(1)
    scene.handle(QuitReceived())
    scene.exit(2)
    assert scene.supervisor.next_deadline() is None
    assert all(not isinstance(action, Spawn) for action in scene.wait(1000))


def test_quit_is_repeated_until_the_worker_ends() -> None:
    scene = awake()
    scene.handle(QuitReceived())
    assert scene.beat() == [SendQuit(1)]
    assert scene.beat() == [SendQuit(1)]


def test_a_second_quit_does_not_move_the_grace() -> None:
    scene = awake()
    scene.handle(QuitReceived())
    scene.wait(QUIT_GRACE / 2)
    assert scene.handle(QuitReceived()) == []
    assert scene.wait(QUIT_GRACE / 2) == [Kill(1)]


def test_orders_during_quit_are_ignored() -> None:
    scene = awake()
    scene.handle(QuitReceived())
    assert scene.order() == []
    assert scene.wanted() is WantedState.AWAKE


def test_a_process_that_was_just_started_at_quit_is_ended_too() -> None:
    scene = awake(2)
    scene.exit(1)
    scene.wait(BACKOFF_FIRST)
    scene.handle(QuitReceived())
    assert scene.spawned(1) == [SendQuit(1)]
    scene.exit(2)
    assert Stop() in scene.exit(1)


# Deadlines.


@pytest.mark.parametrize("make", [starting, awake, asleep, silent, dead])
@pytest.mark.parametrize("offset", [0.0, 0.1, 1 / 3, 12345.678])
def test_every_deadline_leads_to_a_later_one_or_none(make: Make, offset: float) -> None:
    scene = make()
    scene.now += offset
    if scene.pid():
        scene.beat()
    for _ in range(20):
        if scene.supervisor.next_deadline() is None:
            return
        scene.wait_for_deadline()
    pytest.fail("the deadlines never end")


def test_a_hang_limit_below_the_missed_heartbeats_is_no_busy_loop() -> None:
    scene = awake(hang_limit=0.3)
    assert scene.wait_for_deadline() == [Kill(1), Publish()]
    assert scene.supervisor.next_deadline() is None


# Anything in any order.


class Supervision(RuleBasedStateMachine):
    """Workers that do what they like, an operator who does, too, and time."""

    pids: Bundle[tuple[int, int]] = Bundle("pids")

    @initialize(workers=st.integers(1, 4), hang_limit=st.sampled_from([0.3, 2.0, 60.0]))
    def begin(self, workers: int, hang_limit: float) -> None:
        self.supervisor = Supervisor(range(1, workers + 1), hang_limit)
        self.now = START
        self.running: dict[int, int] = {}
        self.next_pid = 100
        self.stopped = False
        self.killed: set[int] = set()
        self.edition = 0

    def handle(self, event: Event) -> list[Action]:
        before = {n: (w.state, w.wanted, w.epoch) for n, w in self.supervisor.workers.items()}
        actions = self.supervisor.handle(event, self.now)
        after = {n: (w.state, w.wanted, w.epoch) for n, w in self.supervisor.workers.items()}
        assert (Publish() in actions) == (before != after), "published when, and only when, something changed"
        for action in actions:
            match action:
                case Spawn(number, wanted, edition):
                    assert number not in self.running
                    assert wanted is self.supervisor.workers[number].wanted
                    assert edition == self.edition > 0
                    assert not self.supervisor.quitting
                    self.spawn(number)
                case Kill(number):
                    assert self.running[number] not in self.killed, "killed once"
                    self.killed.add(self.running[number])
                case SendOrder(number, wanted, edition):
                    assert number in self.running
                    assert wanted is self.supervisor.workers[number].wanted
                    assert edition == self.edition
                case SendQuit(number):
                    assert number in self.running
                case Stop():
                    assert not self.running
                    self.stopped = True
        return actions

    def spawn(self, number: int) -> None:
        if self.next_pid % 5 == 4:
            self.next_pid += 1
            self.handle(Exited(number, 0, "cannot be started"))
            return
        self.running[number] = self.next_pid
        self.next_pid += 1
        self.handle(Spawned(number, self.running[number]))

    @rule()
    def catalogue(self) -> None:
        running = set(self.running) if self.edition and not self.supervisor.quitting else set()
        self.edition += 1
        actions = self.handle(CatalogueReady(self.edition))
        assert {action.number for action in actions if isinstance(action, SendOrder)} == running

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        state=st.sampled_from([WorkerState.AWAKE, WorkerState.ASLEEP]),
        behind=st.integers(0, 1),
        target=pids,
    )
    def heartbeat(self, data: st.DataObject, state: WorkerState, behind: int) -> tuple[int, int]:
        number = data.draw(st.sampled_from(sorted(self.running)))
        pid = self.running[number]
        beat = HeartbeatReceived(number, pid, 7000 + pid, state, self.edition - behind, Load(), frozenset())
        actions = self.handle(beat)
        worker = self.supervisor.workers[number]
        assert worker.state is state
        agrees = not behind and state.value == worker.wanted.value
        assert any(isinstance(action, SendOrder) for action in actions) == (not agrees and not self.supervisor.quitting)
        return number, pid

    @rule(old=pids, state=st.sampled_from([WorkerState.AWAKE, WorkerState.ASLEEP]))
    def late_heartbeat(self, old: tuple[int, int], state: WorkerState) -> None:
        number, pid = old
        self.handle(HeartbeatReceived(number, pid, 7000 + pid, state, self.edition, Load(), frozenset()))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def process_ends(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        self.handle(Exited(number, self.running.pop(number), "it ended"))

    @rule(data=st.data(), want=st.sampled_from([None, *WantedState]))
    def order(self, data: st.DataObject, want: WantedState | None) -> None:
        number = data.draw(st.sampled_from(sorted(self.supervisor.workers)))
        self.handle(ToggleReceived(number, want))
        if want is not None and not self.supervisor.quitting:
            assert self.supervisor.workers[number].wanted is want

    @rule(seconds=st.floats(0.01, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.handle(TimePassed())

    @rule(seconds=st.floats(0.01, 100), counted=st.floats(0, 1.1))
    def stall(self, seconds: float, counted: float) -> None:
        killed = set(self.killed)
        self.now += seconds
        self.handle(Stalled(counted * seconds))
        assert killed == self.killed
        assert all(worker.heard_at <= self.now for worker in self.supervisor.workers.values())

    @rule()
    def deadline_comes(self) -> None:
        deadline = self.supervisor.next_deadline()
        if deadline is None:
            return
        self.now = max(self.now, deadline)
        self.handle(TimePassed())
        after = self.supervisor.next_deadline()
        assert after is None or after > self.now, "no busy loop"

    @rule(sure=st.sampled_from([False, False, False, True]))
    def quit(self, sure: bool) -> None:
        if sure:
            self.handle(QuitReceived())

    @invariant()
    def holds(self) -> None:
        self.supervisor.check_invariants()
        assert {n: w.pid for n, w in self.supervisor.workers.items() if w.pid} == self.running
        assert self.stopped == (self.supervisor.quitting and not self.running)
        if self.edition and not self.supervisor.quitting:
            gone = [w for w in self.supervisor.workers.values() if not w.pid and w.state is not WorkerState.FAILED]
            assert all(w.restart_at is not None for w in gone), "whoever is gone comes back"


TestSupervision = Supervision.TestCase
TestSupervision.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
