"""The supervisor makes every transition in its table ``TRANSITIONS``, and no others in random sequences of events."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from msd.broker.supervision.registration import register
from msd.broker.supervision.supervisor import (
    ABANDON_AFTER_S,
    CRASH_WINDOW_S,
    FORGET_AFTER_S,
    LOST_AFTER_S,
    MAX_BACKOFF_S,
    MAX_CRASHES,
    MAX_DEPARTED,
    MAX_REACH_S,
    MIN_BACKOFF_S,
    MIN_REACH_S,
    NO_HEARTBEATS,
    QUIT_GRACE_S,
    SILENT_AFTER_S,
    STEADY_AFTER_S,
    Supervisor,
)
from msd.broker.supervision.supervisor_events import (
    AN_OPERATOR,
    LEFT,
    REVOKED,
    TRANSITIONS,
    Abandon,
    Action,
    CatalogueReady,
    ComplaintCounted,
    ComplaintReceived,
    Event,
    Exited,
    Forget,
    KeyRevoked,
    Kill,
    Publish,
    QuitReceived,
    Reach,
    ReachTried,
    SendOrder,
    SendQuit,
    Spawn,
    Spawned,
    StateChanged,
    Stop,
    ToggleReceived,
    WorkerJoined,
)
from msd.broker.supervision.worker_record import NO_HEARTBEAT
from msd.wire.protocol.messages import Join, Load
from msd.wire.protocol.states import ReportedState, WantedState, WorkerState
from msd.wire.support.core import Stalled, TimePassed
from tests.unit.snapshots import heard, joined

HANG_LIMIT = 60.0
#: Not 0, so that a time that was never set (0) is detected.
START = 1000.0
#: The states of a worker that does not leave.
STATES = (ReportedState.AWAKE, ReportedState.ASLEEP)
#: The first edition of the catalogue.
EDITION = 3
#: Each change of state in the table, with the type of the event that causes it.
LISTED = {
    (change, TimePassed if isinstance(cause, str) else cause)
    for change, causes in TRANSITIONS.items()
    for cause in causes
}


class Scenario:
    """A supervisor, a clock that the test advances, and methods that pass events to the supervisor."""

    def __init__(self, workers: int = 1, hang_limit: float = HANG_LIMIT) -> None:
        self.supervisor = Supervisor([""] * workers, hang_limit)
        self.now = START
        self.changes: list[StateChanged] = []
        self._pids = iter(range(100, 100000))

    def handle(self, event: Event) -> list[Action]:
        """Returns the actions without the changes of state, which are appended to ``changes``."""
        actions = self.supervisor.handle(event, self.now)
        self.supervisor.check_invariants()
        self.changes += [action for action in actions if isinstance(action, StateChanged)]
        return [action for action in actions if not isinstance(action, StateChanged)]

    def spawned(self, number: int = 1) -> list[Action]:
        return self.handle(Spawned(number, next(self._pids)))

    def heartbeat(
        self,
        state: ReportedState = ReportedState.AWAKE,
        number: int = 1,
        pid: int | None = None,
        edition: int = EDITION,
    ) -> list[Action]:
        pid = self.pid(number) if pid is None else pid
        if pid and pid == self.pid(number):
            assert self.join(number) == []
        return self.handle(heard(number, pid, state, edition=edition))

    def join(self, number: int = 1, route: object = None) -> list[Action]:
        return self.handle(joined(number, self.pid(number), route=route))

    def join_from_elsewhere(self, epoch: int = 9, number: int = 2, name: str = "attic") -> list[Action]:
        return self.handle(joined(number, 0, epoch=epoch, name=name, host="192.0.2.7", route=epoch))

    def heartbeat_from_elsewhere(
        self, epoch: int = 9, number: int = 2, state: ReportedState = ReportedState.AWAKE, reach: str | None = ""
    ) -> list[Action]:
        """If the broker tries to reach the worker, the result is ``reach``; None if there is none yet."""
        actions = self.handle(heard(number, 0, state, epoch=epoch, edition=40, route=epoch))
        attempts = [action for action in actions if isinstance(action, Reach)]
        if attempts and reach is not None:
            worker = self.supervisor.workers[number]
            assert attempts == [Reach(number, epoch, worker.endpoint, worker.key)]
            actions += self.handle(ReachTried(number, epoch, reach))
        return [action for action in actions if not isinstance(action, Reach)]

    def exit(self, number: int = 1, reason: str = "killed by SIGKILL") -> list[Action]:
        return self.handle(Exited(number, self.pid(number), reason))

    def stall(self, seconds: float) -> list[Action]:
        """The broker's event loop stalls for ``seconds``."""
        self.now += seconds
        return self.handle(Stalled(seconds)) + self.handle(TimePassed())

    def toggle(self, wanted: WantedState | None = None, number: int = 1) -> list[Action]:
        return self.handle(ToggleReceived(number, wanted))

    def wait(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.handle(TimePassed())

    def wait_for_deadline(self) -> list[Action]:
        """Advances the clock to the next deadline. Asserts that the following deadline, if any, is later."""
        deadline = self.supervisor.next_deadline(self.now)
        assert deadline is not None
        self.now = max(self.now, deadline)
        actions = self.handle(TimePassed())
        after = self.supervisor.next_deadline(self.now)
        assert after is None or after > self.now
        return actions

    def pid(self, number: int = 1) -> int:
        return self.supervisor.workers[number].pid

    def state(self, number: int = 1) -> WorkerState:
        return self.supervisor.workers[number].state

    def wanted(self, number: int = 1) -> WantedState:
        return self.supervisor.workers[number].wanted

    def crash(self, number: int = 1) -> list[Action]:
        """The process exits and, unless the worker has failed, is restarted after the backoff."""
        actions = self.exit(number)
        process = self.supervisor.workers[number].process
        assert process is not None
        restart_at = process.restart_at
        if restart_at is not None:
            self.now = restart_at
            self.handle(TimePassed())
            self.spawned(number)
        return actions


MakeScenario = Callable[[], Scenario]


def starting(workers: int = 1, hang_limit: float = HANG_LIMIT) -> Scenario:
    scenario = Scenario(workers, hang_limit)
    scenario.handle(CatalogueReady(EDITION))
    for number in scenario.supervisor.workers:
        scenario.spawned(number)
    return scenario


def awake(workers: int = 1, hang_limit: float = HANG_LIMIT) -> Scenario:
    scenario = starting(workers, hang_limit)
    for number in scenario.supervisor.workers:
        scenario.heartbeat(number=number)
    return scenario


def asleep() -> Scenario:
    scenario = awake()
    scenario.toggle(WantedState.ASLEEP)
    scenario.heartbeat(ReportedState.ASLEEP)
    return scenario


def silent() -> Scenario:
    scenario = awake()
    scenario.wait(SILENT_AFTER_S)
    return scenario


def dead() -> Scenario:
    scenario = awake()
    scenario.exit()
    return scenario


def elsewhere() -> Scenario:
    """Worker 1 is a process of the broker; worker 2 has joined from another host and is awake."""
    scenario = awake()
    scenario.join_from_elsewhere()
    scenario.heartbeat_from_elsewhere()
    return scenario


def lost() -> Scenario:
    scenario = elsewhere()
    for _ in range(int(LOST_AFTER_S / 0.25)):
        scenario.now += 0.25
        scenario.heartbeat()
        scenario.handle(TimePassed())
    return scenario


def failed() -> Scenario:
    scenario = awake()
    for _ in range(MAX_CRASHES):
        scenario.crash()
    return scenario


# Starting.


def test_nothing_is_spawned_before_the_catalogue_is_ready() -> None:
    scenario = Scenario(4)
    assert scenario.supervisor.next_deadline(scenario.now) is None
    assert scenario.wait(1000) == []


def test_the_catalogue_spawns_every_worker() -> None:
    assert Scenario(3).handle(CatalogueReady(EDITION)) == [
        Spawn(number, WantedState.AWAKE, EDITION) for number in (1, 2, 3)
    ]


def test_a_worker_put_to_sleep_during_indexing_is_spawned_asleep() -> None:
    scenario = Scenario(2)
    assert scenario.toggle(number=2) == [Publish()]
    assert scenario.handle(CatalogueReady(EDITION)) == [
        Spawn(1, WantedState.AWAKE, EDITION),
        Spawn(2, WantedState.ASLEEP, EDITION),
    ]


def test_each_helper_produces_the_state_in_its_name() -> None:
    scenarios = [starting(), awake(), asleep(), silent(), dead(), failed()]
    assert [scenario.state() for scenario in scenarios] == [
        WorkerState.STARTING,
        WorkerState.AWAKE,
        WorkerState.ASLEEP,
        WorkerState.SILENT,
        WorkerState.DEAD,
        WorkerState.FAILED,
    ]


# The transitions of the table.


def test_starting_to_awake_at_the_first_heartbeat() -> None:
    scenario = starting()
    assert scenario.heartbeat() == [Publish()]
    assert scenario.state() is WorkerState.AWAKE
    assert scenario.supervisor.workers[1].heartbeat.epoch == 7000 + scenario.pid()


def test_awake_to_asleep_when_the_worker_reports_it() -> None:
    scenario = awake()
    assert scenario.toggle(WantedState.ASLEEP) == [SendOrder(1, WantedState.ASLEEP, EDITION), Publish()]
    assert scenario.state() is WorkerState.AWAKE
    assert scenario.heartbeat(ReportedState.ASLEEP) == [Publish()]
    assert scenario.state() is WorkerState.ASLEEP


def test_asleep_to_awake_when_the_worker_reports_it() -> None:
    scenario = asleep()
    assert scenario.toggle(WantedState.AWAKE) == [SendOrder(1, WantedState.AWAKE, EDITION), Publish()]
    assert scenario.state() is WorkerState.ASLEEP
    assert scenario.heartbeat(ReportedState.AWAKE) == [Publish()]
    assert scenario.state() is WorkerState.AWAKE


@pytest.mark.parametrize("make", [awake, asleep])
def test_awake_and_asleep_to_silent_after_three_missed_heartbeats(make: MakeScenario) -> None:
    scenario = make()
    assert scenario.wait(SILENT_AFTER_S - 0.01) == []
    assert scenario.wait(0.01) == [Publish()]
    assert scenario.state() is WorkerState.SILENT


def test_a_worker_whose_heartbeats_are_in_time_is_not_silent() -> None:
    scenario = awake()
    for _ in range(20):
        assert scenario.wait(SILENT_AFTER_S - 0.05) == []
        assert scenario.heartbeat() == []


@pytest.mark.parametrize("state", STATES)
def test_silent_to_the_state_that_the_heartbeat_reports(state: ReportedState) -> None:
    scenario = silent()
    scenario.heartbeat(state)
    assert scenario.state().value == state.value


def test_silent_to_dead_after_a_kill_at_the_hang_limit() -> None:
    scenario = silent()
    assert scenario.wait(HANG_LIMIT - SILENT_AFTER_S - 0.01) == []
    assert scenario.wait(0.01) == [Kill(1)]
    assert scenario.state() is WorkerState.SILENT
    assert scenario.exit() == [Publish()]
    assert scenario.state() is WorkerState.DEAD


def test_starting_to_dead_after_a_kill_at_the_hang_limit() -> None:
    scenario = starting()
    assert scenario.wait(HANG_LIMIT - 0.01) == []
    assert scenario.wait(0.01) == [Kill(1)]
    scenario.exit()
    assert scenario.state() is WorkerState.DEAD


@pytest.mark.parametrize("make", [starting, awake, asleep, silent])
def test_a_stall_of_the_broker_does_not_make_workers_silent(make: MakeScenario) -> None:
    scenario = make()
    state = scenario.state()
    assert scenario.stall(1000 * HANG_LIMIT) == []
    assert scenario.state() is state


def test_a_stall_does_not_reset_the_time_without_heartbeats() -> None:
    scenario = awake()
    scenario.wait(SILENT_AFTER_S - 0.1)
    scenario.stall(1000)
    assert scenario.wait(0.05) == []
    assert scenario.wait(0.06) == [Publish()]
    scenario.stall(1000)
    assert scenario.wait(HANG_LIMIT - SILENT_AFTER_S) == [Kill(1)]


def test_an_overestimated_stall_does_not_date_heartbeats_in_the_future() -> None:
    scenario = awake()
    scenario.handle(Stalled(1000))
    assert scenario.wait(SILENT_AFTER_S) == [Publish()]


def test_a_stall_does_not_shorten_the_quit_grace() -> None:
    scenario = awake()
    scenario.handle(QuitReceived())
    assert scenario.stall(1000) == []
    assert scenario.wait(QUIT_GRACE_S - 0.01) == []
    assert scenario.wait(0.02) == [Kill(1)]


def test_a_stall_does_not_delay_a_restart() -> None:
    scenario = dead()
    assert scenario.stall(MIN_BACKOFF_S) == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]


def test_hang_limit_kills_a_process_once() -> None:
    scenario = silent()
    assert Kill(1) in scenario.wait(HANG_LIMIT)
    assert scenario.supervisor.next_deadline(scenario.now) is None
    assert scenario.wait(HANG_LIMIT) == []


def test_hang_limit_kills_the_next_process_too() -> None:
    scenario = starting()
    scenario.wait(HANG_LIMIT)
    scenario.crash()
    assert scenario.wait(HANG_LIMIT) == [Kill(1)]


@pytest.mark.parametrize("make", [starting, awake, asleep, silent])
def test_any_to_dead_when_the_process_exits(make: MakeScenario) -> None:
    scenario = make()
    assert scenario.exit(reason="Segmentation fault") == [Publish()]
    worker = scenario.supervisor.workers[1]
    assert (worker.state, worker.pid, worker.heartbeat) == (WorkerState.DEAD, 0, NO_HEARTBEAT)
    assert worker.reason == "Segmentation fault"


def test_a_dead_worker_has_no_load_and_no_sessions() -> None:
    scenario = awake()
    load = Load(bytes_sent=5, clients=1, malformed_messages=0)
    scenario.handle(heard(1, scenario.pid(), edition=EDITION, load=load, sessions=[9]))
    assert scenario.supervisor.workers[1].heartbeat.sessions == [9]
    scenario.exit()
    worker = scenario.supervisor.workers[1]
    assert worker.heartbeat is NO_HEARTBEAT


def test_dead_to_starting_after_the_backoff() -> None:
    scenario = dead()
    assert scenario.wait(MIN_BACKOFF_S - 0.01) == []
    assert scenario.wait(0.01) == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]
    assert scenario.state() is WorkerState.STARTING
    process = scenario.supervisor.workers[1].process
    assert process is not None
    assert process.restarts == 1


def test_a_worker_that_cannot_be_spawned_is_dead_and_retried() -> None:
    scenario = Scenario()
    scenario.handle(CatalogueReady(EDITION))
    scenario.handle(Exited(1, 0, "cannot start: Cannot allocate memory"))
    assert scenario.state() is WorkerState.DEAD
    assert scenario.wait_for_deadline() == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]


def test_a_worker_that_can_never_be_spawned_fails() -> None:
    """The time since the last successful start does not count as uptime."""
    scenario = awake()
    scenario.now += 10 * STEADY_AFTER_S
    scenario.exit()
    for _ in range(MAX_CRASHES - 1):
        scenario.wait_for_deadline()
        scenario.handle(Exited(1, 0, "cannot start"))
    assert scenario.state() is WorkerState.FAILED


def test_dead_to_failed_after_too_many_crashes() -> None:
    scenario = awake()
    for _ in range(MAX_CRASHES - 1):
        scenario.crash()
        assert scenario.state() is WorkerState.STARTING
    assert scenario.exit() == [Publish()]
    assert scenario.state() is WorkerState.FAILED
    assert scenario.supervisor.next_deadline(scenario.now) is None
    assert scenario.wait(10 * CRASH_WINDOW_S) == []


@pytest.mark.parametrize("wanted", [None, WantedState.AWAKE])
def test_failed_to_starting_after_a_toggle_or_a_wake_order(wanted: WantedState | None) -> None:
    scenario = failed()
    assert scenario.toggle(wanted) == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]
    assert scenario.state() is WorkerState.STARTING


def test_restarting_a_failed_worker_clears_its_crashes() -> None:
    scenario = failed()
    scenario.toggle()
    scenario.spawned()
    for _ in range(MAX_CRASHES - 1):
        scenario.crash()
    assert scenario.state() is WorkerState.STARTING


# Crashes and backoff.


def test_the_backoff_doubles() -> None:
    scenario = awake()
    delays = []
    for _ in range(MAX_CRASHES - 1):
        scenario.exit()
        deadline = scenario.supervisor.next_deadline(scenario.now)
        assert deadline is not None
        delays.append(round(deadline - scenario.now, 6))
        scenario.wait_for_deadline()
        scenario.spawned()
    assert delays == [min(MIN_BACKOFF_S * 2**n, MAX_BACKOFF_S) for n in range(MAX_CRASHES - 1)] == [0.2, 0.4, 0.8, 1.6]


def test_a_steady_run_clears_the_crashes() -> None:
    scenario = awake()
    for _ in range(MAX_CRASHES - 1):
        scenario.crash()
    scenario.now += STEADY_AFTER_S
    scenario.exit()
    assert scenario.state() is WorkerState.DEAD
    assert scenario.supervisor.next_deadline(scenario.now) == scenario.now + MIN_BACKOFF_S


def test_a_run_just_short_of_steady_does_not_clear_the_crashes() -> None:
    scenario = awake()
    for _ in range(MAX_CRASHES - 1):
        scenario.crash()
    scenario.now += STEADY_AFTER_S - 0.01
    scenario.exit()
    assert scenario.state() is WorkerState.FAILED


def test_crashes_outside_the_window_do_not_count() -> None:
    scenario = awake()
    for _ in range(3 * MAX_CRASHES):
        scenario.now += CRASH_WINDOW_S / (MAX_CRASHES - 1) + 1
        scenario.crash()
    assert scenario.state() is WorkerState.STARTING


def test_crashes_of_one_worker_do_not_affect_the_others() -> None:
    scenario = awake(2)
    for _ in range(MAX_CRASHES):
        scenario.crash(1)
        scenario.heartbeat(number=2)
    assert (scenario.state(1), scenario.state(2)) == (WorkerState.FAILED, WorkerState.AWAKE)


# Stale heartbeats and exits.


def test_the_heartbeat_of_a_stale_pid_is_ignored() -> None:
    scenario = awake()
    old = scenario.pid()
    scenario.crash()
    assert scenario.heartbeat(pid=old) == []
    assert scenario.state() is WorkerState.STARTING


def test_orders_go_to_the_running_process() -> None:
    """A late heartbeat from the previous process does not change the address to which orders are sent."""

    def beat(pid: int, route: bytes) -> None:
        if pid == scenario.pid():
            scenario.join(route=route)
        scenario.handle(heard(1, pid, edition=EDITION, load=Load(bytes_sent=pid), sessions=[pid], route=route))

    def route() -> object:
        return worker.route

    scenario = awake()
    worker = scenario.supervisor.workers[1]
    old = scenario.pid()
    beat(old, b"old")
    assert (route(), worker.heartbeat.load.bytes_sent) == (b"old", old)
    scenario.crash()
    assert route() is None
    beat(old, b"old")
    assert (route(), worker.heartbeat) == (None, NO_HEARTBEAT)
    beat(scenario.pid(), b"new")
    beat(old, b"old")
    assert (route(), worker.heartbeat.epoch, worker.heartbeat.sessions) == (
        b"new",
        7000 + scenario.pid(),
        [scenario.pid()],
    )


def test_the_heartbeat_of_a_dead_worker_is_ignored() -> None:
    scenario = awake()
    old = scenario.pid()
    scenario.exit()
    assert scenario.heartbeat(pid=old) == []
    assert scenario.state() is WorkerState.DEAD


def test_the_heartbeat_of_an_unknown_worker_is_ignored() -> None:
    assert awake().handle(heard(9, 100, edition=EDITION)) == []


def test_the_exit_of_a_stale_pid_is_ignored() -> None:
    scenario = awake()
    old = scenario.pid()
    scenario.crash()
    assert scenario.handle(Exited(1, old, "again")) == []
    assert scenario.state() is WorkerState.STARTING


# Workers that the broker did not start.


def test_a_worker_that_joins_is_starting_until_its_first_heartbeat() -> None:
    scenario = awake()
    assert scenario.join_from_elsewhere() == [Publish()]
    assert scenario.state(2) is WorkerState.STARTING
    assert scenario.heartbeat_from_elsewhere() == [Publish()]
    assert scenario.state(2) is WorkerState.AWAKE


def test_a_worker_that_joins_twice_from_the_same_run_changes_only_its_route() -> None:
    scenario = elsewhere()
    assert scenario.handle(joined(2, 0, epoch=9, name="attic", route="new")) == []
    assert scenario.state(2) is WorkerState.AWAKE
    assert scenario.heartbeat_from_elsewhere(state=ReportedState.ASLEEP) == [], "a heartbeat from the old route"
    assert scenario.state(2) is WorkerState.AWAKE


@pytest.mark.parametrize("moved", [{"endpoint": "tcp://192.0.2.9:21018"}, {"key": b"another".ljust(32)}])
def test_a_run_that_joins_again_from_elsewhere_or_with_another_key_has_to_be_reached_again(
    moved: dict[str, Any],
) -> None:
    """Otherwise a worker that was reached once could name the address of any other machine."""
    scenario = elsewhere()
    assert scenario.handle(joined(2, 0, epoch=9, name="attic", host="192.0.2.7", route=9, **moved)) == [Publish()]
    assert scenario.state(2) is WorkerState.STARTING
    assert scenario.heartbeat_from_elsewhere(reach="no answer") == [Publish()]
    assert scenario.state(2) is WorkerState.UNREACHABLE


def test_silent_to_lost_after_the_limit_and_nothing_is_killed_or_restarted() -> None:
    scenario = elsewhere()
    scenario.exit(1)  # Its restart is not what this test waits for.
    scenario.handle(QuitReceived())
    scenario.wait(SILENT_AFTER_S)
    assert scenario.state(2) is WorkerState.SILENT
    assert scenario.wait(LOST_AFTER_S - SILENT_AFTER_S - 0.01) == [Stop()]
    assert scenario.wait(0.01) == [Publish(), Stop()]
    assert (scenario.state(2), scenario.supervisor.workers[2].reason) == (WorkerState.LOST, NO_HEARTBEATS)
    assert scenario.supervisor.next_deadline(scenario.now) is None
    assert scenario.supervisor.workers[2].heartbeat is NO_HEARTBEAT


def test_starting_to_lost_if_no_heartbeat_follows() -> None:
    scenario = awake()
    scenario.join_from_elsewhere()
    scenario.now += LOST_AFTER_S
    scenario.handle(TimePassed())
    assert scenario.state(2) is WorkerState.LOST


@pytest.mark.parametrize("state", STATES)
def test_a_lost_worker_that_was_only_cut_off_returns_with_its_heartbeats(state: ReportedState) -> None:
    scenario = lost()
    assert scenario.state(2) is WorkerState.LOST
    scenario.heartbeat_from_elsewhere(state=state)
    assert (scenario.state(2).value, scenario.supervisor.workers[2].reason) == (state.value, "")


def test_a_lost_worker_that_was_started_again_has_its_wanted_state() -> None:
    scenario = lost()
    assert scenario.toggle(WantedState.ASLEEP, 2) == [Publish()]
    assert scenario.join_from_elsewhere(epoch=10) == [Publish()]
    assert (scenario.state(2), scenario.wanted(2)) == (WorkerState.STARTING, WantedState.ASLEEP)
    assert scenario.heartbeat_from_elsewhere(epoch=10) == [SendOrder(2, WantedState.ASLEEP, 40), Publish()]
    assert scenario.heartbeat_from_elsewhere(epoch=9) == [], "a heartbeat of the run before"


def test_the_workers_stay_in_the_order_of_their_numbers() -> None:
    scenario = awake()
    for number in (9, 4):
        scenario.join_from_elsewhere(number, number, f"host-{number}")
    assert [*scenario.supervisor.workers] == [1, 4, 9]


def test_a_worker_of_another_name_inherits_only_the_number_of_a_lost_one() -> None:
    scenario = lost()
    scenario.toggle(WantedState.ASLEEP, 2)
    scenario.join_from_elsewhere(epoch=10, name="cellar")
    worker = scenario.supervisor.workers[2]
    assert (worker.name, worker.state, worker.wanted) == ("cellar", WorkerState.STARTING, WantedState.AWAKE)


def test_the_toggle_of_a_lost_worker_is_carried_out_when_it_returns() -> None:
    scenario = lost()
    scenario.toggle(WantedState.ASLEEP, 2)
    assert scenario.toggle(None, 2) == [Publish()], "it is to be awake, as a dead worker would be"
    assert scenario.wanted(2) is WantedState.AWAKE


def test_a_later_edition_and_a_shutdown_are_not_sent_to_a_worker_that_the_broker_did_not_start() -> None:
    scenario = elsewhere()
    assert scenario.handle(CatalogueReady(EDITION + 1)) == [SendOrder(1, WantedState.AWAKE, EDITION + 1)]
    assert scenario.handle(QuitReceived()) == [SendQuit(1)]
    assert scenario.heartbeat_from_elsewhere() == []
    assert scenario.exit(1) == [Publish(), Stop()]


def test_a_worker_counts_as_awake_only_once_the_broker_has_reached_it() -> None:
    scenario = awake()
    scenario.join_from_elsewhere()
    assert scenario.heartbeat_from_elsewhere(reach=None) == []
    assert scenario.heartbeat_from_elsewhere(reach=None) == [], "a second attempt at the same time"
    assert scenario.state(2) is WorkerState.STARTING
    assert scenario.handle(ReachTried(2, 8, "")) == [], "the result for an earlier run"
    assert scenario.handle(ReachTried(2, 9, "at 192.0.2.7:1: no answer")) == [Publish()]
    worker = scenario.supervisor.workers[2]
    assert (worker.state, worker.reason) == (WorkerState.UNREACHABLE, "at 192.0.2.7:1: no answer")
    assert scenario.heartbeat_from_elsewhere() == [], "the next attempt is not due"
    scenario.now += MIN_REACH_S
    assert scenario.heartbeat_from_elsewhere() == [Publish()]
    assert (worker.state, worker.reason) == (WorkerState.AWAKE, "")


def test_attempts_to_reach_a_worker_become_rare() -> None:
    scenario = awake()
    scenario.join_from_elsewhere()
    times = []
    for _ in range(400):
        failures = scenario.supervisor.workers[2].failed_attempts
        scenario.heartbeat_from_elsewhere(reach="no answer")
        if scenario.supervisor.workers[2].failed_attempts > failures:
            times.append(scenario.now)
        scenario.now += 0.25
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[:4] == [MIN_REACH_S, 2 * MIN_REACH_S, 4 * MIN_REACH_S, 8 * MIN_REACH_S]
    assert set(gaps[6:]) == {MAX_REACH_S}


def test_a_worker_that_leaves_is_lost_at_once_and_its_next_run_may_join() -> None:
    scenario = elsewhere()
    assert scenario.heartbeat_from_elsewhere(state=ReportedState.LEAVING) == [Publish()]
    worker = scenario.supervisor.workers[2]
    assert (worker.state, worker.reason) == (WorkerState.LOST, LEFT)
    assert scenario.heartbeat_from_elsewhere() == [], "a late heartbeat of the run that has left"
    assert scenario.join_from_elsewhere(epoch=10) == [Publish()]


def forget(scenario: Scenario) -> list[Action]:
    """The worker elsewhere leaves; returns the actions a moment before and at the time at which it is forgotten."""
    scenario.handle(QuitReceived())  # Otherwise the process of the broker would be killed meanwhile.
    scenario.exit(1)
    scenario.heartbeat_from_elsewhere(state=ReportedState.LEAVING)
    assert scenario.wait(FORGET_AFTER_S - 0.01) == [Stop()]
    return scenario.wait(0.01)


def test_a_worker_that_has_left_is_listed_for_a_minute() -> None:
    scenario = elsewhere()
    assert forget(scenario) == [Forget(2), Publish(), Stop()]
    assert [*scenario.supervisor.workers] == [1]
    assert scenario.supervisor.next_deadline(scenario.now) is None
    assert scenario.handle(ReachTried(2, 9, "")) == [Stop()], "a late result"


@pytest.mark.parametrize("make", [lost, elsewhere])
def test_a_worker_that_is_lost_stays_in_the_list(make: MakeScenario) -> None:
    scenario = make()
    scenario.handle(KeyRevoked(2))
    scenario.wait(10 * FORGET_AFTER_S)
    assert scenario.state(2) is WorkerState.LOST


def test_a_worker_that_was_forgotten_returns_with_its_number_and_its_wanted_state() -> None:
    scenario = elsewhere()
    scenario.toggle(WantedState.ASLEEP, 2)
    forget(scenario)
    join = Join(rid=1, name="attic", epoch=10, token=bytes(16))
    recalled = scenario.supervisor.recall(join)
    assert (recalled.number, recalled.wanted) == (2, WantedState.ASLEEP)
    own = replace(join, number=7)
    assert scenario.supervisor.recall(own) == own, "it brings what it had last"
    other = replace(join, name="cellar")
    assert scenario.supervisor.recall(other) == other
    scenario.handle(WorkerJoined(2, recalled, route=10, host="192.0.2.7"))
    assert scenario.wanted(2) is WantedState.ASLEEP
    assert scenario.supervisor.recall(join) == join


def test_a_worker_whose_number_was_taken_returns_with_its_wanted_state() -> None:
    scenario = lost()
    scenario.toggle(WantedState.ASLEEP, 2)
    scenario.join_from_elsewhere(epoch=10, name="cellar")
    assert scenario.supervisor.recall(Join(rid=1, name="attic", epoch=11, token=bytes(16))).wanted is WantedState.ASLEEP


def test_a_limited_number_of_names_is_remembered() -> None:
    scenario = lost()
    for number in range(MAX_DEPARTED + 2):
        scenario.join_from_elsewhere(epoch=10 + number, name=f"host-{number}")
        scenario.handle(KeyRevoked(2))
    for name, has_number in (("attic", False), ("host-0", False), ("host-1", True)):
        recalled = scenario.supervisor.recall(Join(rid=1, name=name, epoch=5, token=bytes(16)))
        assert (recalled.number is not None) == has_number, name


def test_a_worker_whose_key_is_revoked_is_lost() -> None:
    scenario = elsewhere()
    assert scenario.handle(KeyRevoked(2)) == [Publish()]
    worker = scenario.supervisor.workers[2]
    assert (worker.state, worker.reason) == (WorkerState.LOST, REVOKED)


def test_a_process_of_the_broker_does_not_leave() -> None:
    scenario = awake()
    assert scenario.heartbeat(ReportedState.LEAVING) == []
    assert scenario.state() is WorkerState.AWAKE


def test_a_stall_of_the_broker_loses_no_worker() -> None:
    scenario = elsewhere()
    scenario.stall(10 * LOST_AFTER_S)
    assert scenario.state(2) is WorkerState.AWAKE


# Toggles and orders.


def test_toggle_of_an_awake_worker_puts_it_to_sleep() -> None:
    assert awake().toggle() == [SendOrder(1, WantedState.ASLEEP, EDITION), Publish()]


def test_toggle_of_an_asleep_worker_wakes_it() -> None:
    assert asleep().toggle() == [SendOrder(1, WantedState.AWAKE, EDITION), Publish()]


@pytest.mark.parametrize("make", [starting, silent])
def test_toggle_of_a_starting_or_silent_worker_flips_its_wanted_state(make: MakeScenario) -> None:
    scenario = make()
    assert scenario.toggle() == [SendOrder(1, WantedState.ASLEEP, EDITION), Publish()]
    assert scenario.toggle() == [SendOrder(1, WantedState.AWAKE, EDITION), Publish()]


def test_toggle_of_a_dead_worker_starts_it_now() -> None:
    scenario = dead()
    assert scenario.toggle() == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]
    assert scenario.wait(MAX_BACKOFF_S) == []  # The toggle has replaced the pending restart.


def test_toggle_of_a_dead_worker_wanted_asleep_starts_it_awake() -> None:
    scenario = asleep()
    scenario.exit()
    assert scenario.toggle() == [Spawn(1, WantedState.AWAKE, EDITION), Publish()]


def test_two_toggles_before_the_worker_reacts_cancel_out() -> None:
    scenario = awake()
    scenario.toggle()
    scenario.toggle()
    assert scenario.wanted() is WantedState.AWAKE
    assert scenario.heartbeat() == []


@pytest.mark.parametrize("wanted", [WantedState.ASLEEP, WantedState.AWAKE])
@pytest.mark.parametrize("make", [starting, awake, asleep, silent])
def test_sleep_and_wake_orders_are_idempotent(make: MakeScenario, wanted: WantedState) -> None:
    scenario = make()
    for _ in range(3):
        assert SendOrder(1, wanted, EDITION) in scenario.toggle(wanted)
        assert scenario.wanted() is wanted


def test_sleep_of_a_dead_worker_does_not_change_its_restart_time() -> None:
    scenario = dead()
    assert scenario.toggle(WantedState.ASLEEP) == [Publish()]
    assert scenario.state() is WorkerState.DEAD
    assert scenario.wait_for_deadline() == [Spawn(1, WantedState.ASLEEP, EDITION), Publish()]


def test_sleep_of_a_failed_worker_does_not_start_it() -> None:
    scenario = failed()
    assert scenario.toggle(WantedState.ASLEEP) == [Publish()]
    assert scenario.state() is WorkerState.FAILED
    assert scenario.wait(1000) == []


def test_a_worker_wanted_asleep_is_restarted_asleep() -> None:
    scenario = asleep()
    scenario.exit()
    assert scenario.wait_for_deadline() == [Spawn(1, WantedState.ASLEEP, EDITION), Publish()]
    scenario.spawned()
    assert scenario.heartbeat(ReportedState.ASLEEP) == [Publish()]


def test_orders_are_repeated_until_heartbeats_agree() -> None:
    scenario = awake()
    scenario.toggle()
    for _ in range(5):
        assert scenario.heartbeat(ReportedState.AWAKE) == [SendOrder(1, WantedState.ASLEEP, EDITION)]
    assert SendOrder(1, WantedState.ASLEEP, EDITION) not in scenario.heartbeat(ReportedState.ASLEEP)
    assert scenario.heartbeat(ReportedState.ASLEEP) == []


def test_a_worker_that_falls_asleep_without_an_order_is_woken() -> None:
    scenario = awake()
    assert scenario.heartbeat(ReportedState.ASLEEP) == [SendOrder(1, WantedState.AWAKE, EDITION), Publish()]


# Editions of the catalogue.


def test_a_later_edition_is_sent_to_every_worker_that_has_a_process() -> None:
    scenario = awake(4)
    scenario.exit(2)
    scenario.toggle(WantedState.ASLEEP, 3)
    scenario.crash(4)
    assert scenario.handle(CatalogueReady(EDITION + 1)) == [
        SendOrder(1, WantedState.AWAKE, EDITION + 1),
        SendOrder(3, WantedState.ASLEEP, EDITION + 1),
        SendOrder(4, WantedState.AWAKE, EDITION + 1),
    ]


@pytest.mark.parametrize("make", [starting, awake, silent])
def test_a_worker_that_serves_an_old_edition_receives_orders_until_it_serves_the_latest(make: MakeScenario) -> None:
    scenario = make()
    scenario.handle(CatalogueReady(EDITION + 1))
    for _ in range(3):
        assert scenario.heartbeat()[0] == SendOrder(1, WantedState.AWAKE, EDITION + 1)
    assert scenario.heartbeat(edition=EDITION + 1) == []
    scenario.handle(CatalogueReady(EDITION + 2))
    assert scenario.heartbeat(edition=EDITION + 1) == [SendOrder(1, WantedState.AWAKE, EDITION + 2)]


def test_a_sleeping_worker_is_sent_a_later_edition_and_stays_asleep() -> None:
    scenario = asleep()
    scenario.handle(CatalogueReady(EDITION + 1))
    assert scenario.heartbeat(ReportedState.ASLEEP) == [SendOrder(1, WantedState.ASLEEP, EDITION + 1)]
    assert scenario.heartbeat(ReportedState.ASLEEP, edition=EDITION + 1) == []


def test_a_worker_is_restarted_with_the_latest_edition() -> None:
    scenario = dead()
    assert scenario.handle(CatalogueReady(EDITION + 1)) == []
    assert scenario.wait_for_deadline() == [Spawn(1, WantedState.AWAKE, EDITION + 1), Publish()]


def test_a_later_edition_does_not_start_a_failed_worker_but_is_used_at_its_restart() -> None:
    scenario = failed()
    assert scenario.handle(CatalogueReady(EDITION + 1)) == []
    assert scenario.toggle() == [Spawn(1, WantedState.AWAKE, EDITION + 1), Publish()]


def test_no_worker_is_sent_a_later_edition_during_a_shutdown() -> None:
    scenario = awake(2)
    scenario.handle(QuitReceived())
    assert scenario.handle(CatalogueReady(EDITION + 1)) == []
    assert scenario.heartbeat() == [SendQuit(1)]


# Quitting.


def test_quit_is_sent_to_every_running_worker() -> None:
    scenario = awake(3)
    scenario.exit(2)
    assert scenario.handle(QuitReceived()) == [SendQuit(1), SendQuit(3)]
    assert scenario.supervisor.quitting


def test_quit_stops_when_the_last_worker_has_exited() -> None:
    scenario = awake(2)
    scenario.handle(QuitReceived())
    assert Stop() not in scenario.exit(1)
    assert scenario.exit(2)[-1] == Stop()


def test_quit_kills_after_the_grace() -> None:
    scenario = awake(2)
    scenario.handle(QuitReceived())
    scenario.exit(1)
    assert scenario.wait(QUIT_GRACE_S - 0.01) == []
    assert scenario.wait(0.01) == [Kill(2)]
    assert scenario.wait(ABANDON_AFTER_S - 0.01) == []
    assert Stop() in scenario.exit(2)


def test_quit_does_not_wait_for_a_process_that_cannot_be_killed() -> None:
    scenario = awake(2)
    scenario.handle(QuitReceived())
    scenario.exit(1)
    scenario.wait(QUIT_GRACE_S)
    assert scenario.wait(ABANDON_AFTER_S) == [Abandon(2)]
    assert scenario.wait(1000) == []
    assert Stop() in scenario.exit(2)


def test_quit_during_indexing_stops_at_once_and_spawns_nothing() -> None:
    scenario = Scenario(4)
    assert scenario.handle(QuitReceived()) == [Stop()]
    assert scenario.handle(CatalogueReady(EDITION)) == [Stop()]


def test_quit_without_a_running_worker_stops_at_once() -> None:
    scenario = failed()
    assert scenario.handle(QuitReceived()) == [Stop()]


def test_quit_restarts_no_worker() -> None:
    scenario = awake(2)
    scenario.exit(1)
    scenario.handle(QuitReceived())
    scenario.exit(2)
    assert scenario.supervisor.next_deadline(scenario.now) is None
    assert all(not isinstance(action, Spawn) for action in scenario.wait(1000))


def test_quit_is_repeated_until_the_worker_exits() -> None:
    scenario = awake()
    scenario.handle(QuitReceived())
    assert scenario.heartbeat() == [SendQuit(1)]
    assert scenario.heartbeat() == [SendQuit(1)]


def test_a_second_quit_does_not_extend_the_grace() -> None:
    scenario = awake()
    scenario.handle(QuitReceived())
    scenario.wait(QUIT_GRACE_S / 2)
    assert scenario.handle(QuitReceived()) == []
    assert scenario.wait(QUIT_GRACE_S / 2) == [Kill(1)]


def test_toggles_during_quit_are_ignored() -> None:
    scenario = awake()
    scenario.handle(QuitReceived())
    assert scenario.toggle() == []
    assert scenario.wanted() is WantedState.AWAKE


def test_a_process_that_is_being_started_at_quit_is_sent_quit_too() -> None:
    scenario = awake(2)
    scenario.exit(1)
    scenario.wait(MIN_BACKOFF_S)
    scenario.handle(QuitReceived())
    assert scenario.spawned(1) == [SendQuit(1)]
    scenario.exit(2)
    assert Stop() in scenario.exit(1)


# Deadlines.


@pytest.mark.parametrize("make", [starting, awake, asleep, silent, dead])
@pytest.mark.parametrize("offset", [0.0, 0.1, 1 / 3, 12345.678])
def test_every_deadline_is_followed_by_a_later_one_or_none(make: MakeScenario, offset: float) -> None:
    scenario = make()
    scenario.now += offset
    if scenario.pid():
        scenario.heartbeat()
    for _ in range(20):
        if scenario.supervisor.next_deadline(scenario.now) is None:
            return
        scenario.wait_for_deadline()
    pytest.fail("there is always another deadline")


def test_a_hang_limit_below_the_silence_limit_causes_no_busy_loop() -> None:
    scenario = awake(hang_limit=0.3)
    assert scenario.wait_for_deadline() == [Kill(1), Publish()]
    assert scenario.supervisor.next_deadline(scenario.now) is None


# Complaints.


def test_complaints_are_counted() -> None:
    scenario = awake(2)
    for count in (1, 2):
        assert scenario.handle(ComplaintReceived(2, "alice")) == [ComplaintCounted(2, count, "alice")]
    assert [worker.complaints for worker in scenario.supervisor.workers.values()] == [0, 2]


# Changes of state, which operators see as events.


def test_each_change_of_state_is_reported_with_its_reason() -> None:
    scenario = awake()
    scenario.crash()
    scenario.heartbeat(ReportedState.ASLEEP)
    scenario.wait(SILENT_AFTER_S)
    assert scenario.changes == [
        StateChanged(1, WorkerState.STARTING, WorkerState.AWAKE, ""),
        StateChanged(1, WorkerState.AWAKE, WorkerState.DEAD, "killed by SIGKILL"),
        StateChanged(1, WorkerState.DEAD, WorkerState.STARTING, "killed by SIGKILL"),
        StateChanged(1, WorkerState.STARTING, WorkerState.ASLEEP, ""),
        StateChanged(1, WorkerState.ASLEEP, WorkerState.SILENT, ""),
    ]


def test_a_change_that_an_operator_has_ordered_names_the_operator() -> None:
    """Anna puts the worker to sleep, its process is restarted in its sleep, and Ben wakes it up."""
    scenario = awake()
    scenario.handle(ToggleReceived(1, None, "anna"))
    scenario.heartbeat(ReportedState.ASLEEP)
    scenario.crash()
    scenario.heartbeat(ReportedState.ASLEEP)
    scenario.handle(ToggleReceived(1, WantedState.AWAKE, "ben"))
    scenario.heartbeat()
    scenario.exit()
    scenario.handle(ToggleReceived(1, None, "carla"))
    assert [(change.after, change.operator) for change in scenario.changes[1:]] == [
        (WorkerState.ASLEEP, "anna"),
        (WorkerState.DEAD, ""),
        (WorkerState.STARTING, ""),
        (WorkerState.ASLEEP, "anna"),
        (WorkerState.AWAKE, "ben"),
        (WorkerState.DEAD, ""),
        (WorkerState.STARTING, "carla"),
    ]


def test_a_worker_that_wakes_up_late_was_not_woken_up_by_the_operator_who_wants_it_to_sleep_again() -> None:
    """Its heartbeat answers the order before the last one."""
    scenario = awake()
    scenario.handle(ToggleReceived(1, WantedState.ASLEEP, "anna"))
    scenario.heartbeat(ReportedState.ASLEEP)
    scenario.handle(ToggleReceived(1, WantedState.AWAKE, "ben"))
    scenario.handle(ToggleReceived(1, WantedState.ASLEEP, "carla"))
    scenario.heartbeat()
    assert [(change.after, change.operator) for change in scenario.changes[2:]] == [(WorkerState.AWAKE, "")]


def test_a_worker_that_brings_the_order_to_sleep_does_not_say_who_gave_it() -> None:
    scenario = awake()
    scenario.supervisor.workers[1].wanted = WantedState.ASLEEP
    scenario.heartbeat(ReportedState.ASLEEP)
    scenario.supervisor.workers[1].wanted = WantedState.AWAKE
    scenario.heartbeat()
    scenario.heartbeat(ReportedState.ASLEEP)
    assert [change.operator for change in scenario.changes[1:]] == [AN_OPERATOR, "", ""], "the last one was no order"


def test_a_worker_that_cannot_be_started_is_reported_as_restarting_and_then_as_dead() -> None:
    """Performing ``Spawn`` causes the second change, so the first change must come before ``Spawn``."""
    scenario = awake()
    scenario.exit()
    scenario.now += MIN_BACKOFF_S
    actions = scenario.supervisor.handle(TimePassed(), scenario.now)
    assert [type(action) for action in actions] == [StateChanged, Spawn, Publish]


# Random sequences of events.


def test_random_events_cause_all_listed_changes_of_state_and_no_others() -> None:
    random = Random(1)
    scenario = starting()
    occurred = set()
    epoch = 9
    for _ in range(20000):
        worker = scenario.supervisor.workers.get(2)  # It is elsewhere.
        may_be_new = worker is not None and worker.state in (WorkerState.SILENT, WorkerState.LOST)
        epoch += may_be_new and random.random() < 0.3
        state = random.choice([ReportedState.AWAKE, *ReportedState])
        events: list[Event] = [ToggleReceived(1, random.choice([None, *WantedState])), *[TimePassed()] * 4]
        endpoint = "" if worker is None or random.random() < 0.9 else "tcp://192.0.2.9:1"
        events += [joined(2, 0, epoch=epoch, name="attic", endpoint=endpoint), *[heard(2, 0, state, epoch=epoch)] * 2]
        if worker is not None:
            events += [ReachTried(2, epoch, random.choice(["", "no answer"]))] * (8 if worker.is_reaching else 1)
            events += [KeyRevoked(2)] * (random.random() < 0.2)
        if pid := scenario.pid():
            scenario.join()
            report = heard(1, pid, state, edition=EDITION)
            events += [report, report, report, Exited(1, pid, "killed by SIGKILL")]
        event = random.choice(events)
        scenario.now += random.choice([0.01, MIN_BACKOFF_S, SILENT_AFTER_S, 2 * SILENT_AFTER_S, LOST_AFTER_S / 2])
        scenario.changes.clear()
        actions = scenario.handle(event)
        occurred |= {((change.before, change.after), type(event)) for change in scenario.changes}
        if any(isinstance(action, Spawn) for action in actions):
            scenario.spawned()
    assert occurred == LISTED


class Supervision(RuleBasedStateMachine):
    """Events from workers and from an operator, and the passing of time, in any order."""

    pids: Bundle[tuple[int, int]] = Bundle("pids")

    @initialize(workers=st.integers(1, 4), hang_limit=st.sampled_from([0.3, 2.0, 60.0]))
    def start(self, workers: int, hang_limit: float) -> None:
        self.supervisor = Supervisor([""] * workers, hang_limit)
        self.now = START
        self.running: dict[int, int] = {}
        self.next_pid = 100
        self.stopped = False
        self.killed: set[int] = set()
        self.edition = 0
        #: The epochs of the runs elsewhere that have joined, by name.
        self.elsewhere: dict[str, tuple[int, int]] = {}
        self.next_epoch = 1
        #: The attempts to reach a worker that have no result yet: its epoch, by its number. A further attempt ends the
        #: one before.
        self.attempts: dict[int, int] = {}

    def handle(self, event: Event) -> list[Action]:
        before = {n: (w.state, w.wanted) for n, w in self.supervisor.workers.items()}
        actions = self.supervisor.handle(event, self.now)
        after = {n: (w.state, w.wanted) for n, w in self.supervisor.workers.items()}
        assert (Publish() in actions) == (before != after), (
            "published without a change, or changed without being published"
        )
        for number in after:
            state = before[number][0] if number in before else WorkerState.STARTING
            for change in actions:
                if isinstance(change, StateChanged) and change.number == number:
                    assert change.before is state
                    assert ((state, change.after), type(event)) in LISTED
                    state = change.after
            assert state is after[number][0], "a change of state was not reported"
        for action in actions:
            match action:
                case Spawn(number, wanted, edition):
                    assert number not in self.running
                    assert wanted is self.supervisor.workers[number].wanted
                    assert edition == self.edition > 0
                    assert not self.supervisor.quitting
                    self.spawn(number)
                case Kill(number):
                    assert self.running[number] not in self.killed, "killed twice"
                    self.killed.add(self.running[number])
                case Abandon(number):
                    assert self.supervisor.quitting
                    assert self.running[number] in self.killed
                case SendOrder(number, wanted, edition):
                    worker = self.supervisor.workers[number]
                    assert wanted is worker.wanted
                    if worker.process is not None:
                        assert number in self.running
                        assert edition == self.edition
                    else:
                        assert worker.state is not WorkerState.LOST
                case SendQuit(number):
                    assert number in self.running
                case Forget(number):
                    assert number not in self.supervisor.workers
                    assert before[number][0] is WorkerState.LOST
                    self.elsewhere = {name: run for name, run in self.elsewhere.items() if run[0] != number}
                case Reach(number, epoch):
                    assert self.supervisor.workers[number].process is None
                    self.attempts[number] = epoch
                case Stop():
                    assert not self.running
                    self.stopped = True
        return actions

    def spawn(self, number: int) -> None:
        if self.next_pid % 5 == 4:
            self.next_pid += 1
            self.handle(Exited(number, 0, "cannot start"))
            return
        self.running[number] = self.next_pid
        self.next_pid += 1
        self.handle(Spawned(number, self.running[number]))

    @rule()
    def catalogue_ready(self) -> None:
        running = set(self.running) if self.edition and not self.supervisor.quitting else set()
        self.edition += 1
        actions = self.handle(CatalogueReady(self.edition))
        assert {action.number for action in actions if isinstance(action, SendOrder)} == running

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        state=st.sampled_from(STATES),
        behind=st.integers(0, 1),
        target=pids,
    )
    def heartbeat(self, data: st.DataObject, state: ReportedState, behind: int) -> tuple[int, int]:
        number = data.draw(st.sampled_from(sorted(self.running)))
        pid = self.running[number]
        self.handle(joined(number, pid))
        beat = heard(number, pid, state, edition=self.edition - behind)
        actions = self.handle(beat)
        worker = self.supervisor.workers[number]
        assert worker.state.value == state.value
        agrees = not behind and state.value == worker.wanted.value
        assert any(isinstance(action, SendOrder) for action in actions) == (not agrees and not self.supervisor.quitting)
        return number, pid

    @rule(old=pids, state=st.sampled_from(ReportedState))
    def late_heartbeat(self, old: tuple[int, int], state: ReportedState) -> None:
        number, pid = old
        self.handle(heard(number, pid, state, edition=self.edition))

    @rule(name=st.sampled_from(["attic", "cellar", "1"]), is_new_run=st.booleans(), wish=st.integers(1, 6))
    def join_from_elsewhere(self, name: str, is_new_run: bool, wish: int) -> None:
        _, epoch = self.elsewhere.get(name, (0, 0))
        if is_new_run or not epoch:
            epoch, self.next_epoch = self.next_epoch, self.next_epoch + 1
        join = Join(rid=1, name=name, epoch=epoch, token=bytes(16), number=wish)
        number = register(join, self.supervisor.workers, b"broker".ljust(16))
        if isinstance(number, str):
            holder = next(w for w in self.supervisor.workers.values() if w.name == name)
            is_held = holder.state not in (WorkerState.LOST, WorkerState.SILENT) and holder.epoch != epoch
            assert holder.process is not None or is_held
            return
        self.handle(WorkerJoined(number, join))
        self.elsewhere[name] = number, epoch

    @precondition(lambda self: self.elsewhere)
    @rule(data=st.data(), state=st.sampled_from(ReportedState))
    def heartbeat_from_elsewhere(self, data: st.DataObject, state: ReportedState) -> None:
        number, epoch = self.elsewhere[data.draw(st.sampled_from(sorted(self.elsewhere)))]
        worker = self.supervisor.workers[number]
        is_known = worker.epoch == epoch
        self.handle(heard(number, 0, state, epoch=epoch))
        if is_known and state is ReportedState.LEAVING:
            assert worker.state is WorkerState.LOST
        elif is_known and state is ReportedState.AWAKE and not worker.is_reached:
            waiting = (WorkerState.STARTING, WorkerState.UNREACHABLE, WorkerState.ASLEEP)
            assert worker.state in waiting
        elif is_known:
            assert worker.state.value == state.value

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), reason=st.sampled_from(["", "no answer"]))
    def attempt_ends(self, data: st.DataObject, reason: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.attempts)))
        self.handle(ReachTried(number, self.attempts.pop(number), reason))

    @precondition(lambda self: self.elsewhere)
    @rule(data=st.data())
    def key_is_revoked(self, data: st.DataObject) -> None:
        number, _ = self.elsewhere[data.draw(st.sampled_from(sorted(self.elsewhere)))]
        self.handle(KeyRevoked(number))
        assert self.supervisor.workers[number].state is WorkerState.LOST

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def process_exits(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        self.handle(Exited(number, self.running.pop(number), "exited with code 1"))

    @rule(data=st.data(), wanted=st.sampled_from([None, *WantedState]))
    def toggle(self, data: st.DataObject, wanted: WantedState | None) -> None:
        number = data.draw(st.sampled_from(sorted(self.supervisor.workers)))
        self.handle(ToggleReceived(number, wanted))
        if wanted is not None and not self.supervisor.quitting:
            assert self.supervisor.workers[number].wanted is wanted

    @rule(seconds=st.floats(0.01, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.handle(TimePassed())

    @rule(seconds=st.floats(0.01, 100), reported_share=st.floats(0, 1.1))
    def stall(self, seconds: float, reported_share: float) -> None:
        killed = set(self.killed)
        self.now += seconds
        self.handle(Stalled(reported_share * seconds))
        assert killed == self.killed
        assert all(worker.last_heartbeat_at <= self.now for worker in self.supervisor.workers.values())

    @rule()
    def deadline_passes(self) -> None:
        deadline = self.supervisor.next_deadline(self.now)
        if deadline is None:
            return
        self.now = max(self.now, deadline)
        self.handle(TimePassed())
        after = self.supervisor.next_deadline(self.now)
        assert after is None or after > self.now, "busy loop"

    @rule(quits=st.sampled_from([False, False, False, True]))
    def quit(self, quits: bool) -> None:
        if quits:
            self.handle(QuitReceived())

    @invariant()
    def invariants_hold(self) -> None:
        self.supervisor.check_invariants()
        assert {n: w.pid for n, w in self.supervisor.workers.items() if w.pid} == self.running
        assert self.stopped == (self.supervisor.quitting and not self.running)
        if self.edition and not self.supervisor.quitting:
            dead = [w for w in self.supervisor.workers.values() if w.state is WorkerState.DEAD]
            assert all(w.process and w.process.restart_at is not None for w in dead), (
                "a dead worker has no restart time"
            )
            assert {w.number for w in self.supervisor.workers.values() if w.process is None} == {
                number for number, _ in self.elsewhere.values()
            }


TestSupervision = Supervision.TestCase
TestSupervision.settings = settings(max_examples=60, stateful_step_count=40)
