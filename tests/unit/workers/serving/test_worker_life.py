"""When a worker opens and closes its port and sends heartbeats, tested without sockets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from msd.wire.protocol.states import ReportedState, WantedState
from msd.wire.support.core import TimePassed
from msd.workers.serving.worker_life import (
    BIND_RETRY_S,
    BIND_TIMEOUT_S,
    HEARTBEAT_INTERVAL_S,
    HEARTBEAT_RETRY_S,
    SLEEP_GRACE_S,
    TRANSITIONS,
    Action,
    ClosePort,
    EditionLoaded,
    Event,
    GiveUp,
    HeartbeatDropped,
    JoinAccepted,
    JoinOrdered,
    LifeState,
    OpenPort,
    OrderReceived,
    PortBound,
    PortBusy,
    RefuseQueued,
    SendHeartbeat,
    SendJoin,
    WorkerLife,
)

#: An arbitrary time other than 0. Rounding errors are negligible when the module's constants are added to it.
START = 1024.0

WAKE, SLEEP = OrderReceived(WantedState.AWAKE), OrderReceived(WantedState.ASLEEP)
SAY_AWAKE, SAY_ASLEEP = SendHeartbeat(ReportedState.AWAKE), SendHeartbeat(ReportedState.ASLEEP)

#: Events that bring a new worker into each state.
PATHS: dict[LifeState, tuple[Event, ...]] = {
    LifeState.ASLEEP: (SLEEP,),
    LifeState.OPENING: (WAKE,),
    LifeState.AWAKE: (WAKE, PortBound()),
    LifeState.CLOSING: (WAKE, PortBound(), SLEEP),
}


def life_in(state: LifeState) -> WorkerLife:
    """A worker that has joined, entered this state at ``START`` and sent a heartbeat at that time."""
    life = WorkerLife()
    for event in (JoinAccepted(WantedState.ASLEEP), *PATHS[state]):
        life.handle(event, START)
    assert life.state is state
    return life


@pytest.mark.parametrize(
    ("state", "event", "actions", "after"),
    [
        (LifeState.ASLEEP, WAKE, [OpenPort()], LifeState.OPENING),
        (LifeState.ASLEEP, SLEEP, [], LifeState.ASLEEP),
        (LifeState.OPENING, PortBound(), [SAY_AWAKE], LifeState.AWAKE),
        (LifeState.OPENING, PortBusy("in use"), [], LifeState.OPENING),
        (LifeState.OPENING, WAKE, [], LifeState.OPENING),
        (LifeState.OPENING, SLEEP, [], LifeState.ASLEEP),
        (LifeState.AWAKE, WAKE, [], LifeState.AWAKE),
        (LifeState.AWAKE, SLEEP, [RefuseQueued(), SAY_ASLEEP], LifeState.CLOSING),
        (LifeState.AWAKE, EditionLoaded(), [SAY_AWAKE], LifeState.AWAKE),
        (LifeState.CLOSING, WAKE, [SAY_AWAKE], LifeState.AWAKE),
        (LifeState.CLOSING, SLEEP, [], LifeState.CLOSING),
        (LifeState.CLOSING, EditionLoaded(), [SAY_ASLEEP], LifeState.CLOSING),
    ],
)
def test_an_event_in_a_state(state: LifeState, event: Event, actions: list[Action], after: LifeState) -> None:
    life = life_in(state)
    assert life.handle(event, START) == actions
    assert life.state is after


def test_the_port_is_closed_after_the_grace_period() -> None:
    life = life_in(LifeState.CLOSING)
    assert life.next_deadline(START) == START + SLEEP_GRACE_S
    assert ClosePort() not in life.handle(TimePassed(), math.nextafter(START + SLEEP_GRACE_S, 0))
    assert ClosePort() in life.handle(TimePassed(), START + SLEEP_GRACE_S)
    assert life.state is LifeState.ASLEEP


def test_a_new_worker_reports_no_state_before_it_has_tried_its_port() -> None:
    """The broker would show a worker that starts as asleep, and say that it woke up."""
    assert WorkerLife().handle(OrderReceived(WantedState.AWAKE), START) == [OpenPort()]


def test_a_busy_port_is_tried_again_until_the_timeout() -> None:
    life, now = life_in(LifeState.OPENING), START
    while now <= START + BIND_TIMEOUT_S:
        assert GiveUp("in use") not in life.handle(PortBusy("in use"), now)
        assert life.next_deadline(now) <= now + BIND_RETRY_S
        now += BIND_RETRY_S
        assert OpenPort() in life.handle(TimePassed(), now)
    assert GiveUp("in use") in life.handle(PortBusy("in use"), now)


def test_heartbeats_are_regular_and_a_dropped_one_is_repeated_soon() -> None:
    life = life_in(LifeState.AWAKE)
    assert life.next_deadline(START) == START + HEARTBEAT_INTERVAL_S
    assert life.handle(TimePassed(), math.nextafter(START + HEARTBEAT_INTERVAL_S, 0)) == []
    assert life.handle(TimePassed(), START + HEARTBEAT_INTERVAL_S) == [SAY_AWAKE]
    life.handle(HeartbeatDropped(), START + HEARTBEAT_INTERVAL_S)
    assert life.next_deadline(START) == START + HEARTBEAT_INTERVAL_S + HEARTBEAT_RETRY_S


def test_a_new_worker_joins_and_then_sends_a_heartbeat_at_once() -> None:
    life = WorkerLife()
    assert life.handle(TimePassed(), START) == [SendJoin()]
    assert life.handle(JoinAccepted(WantedState.ASLEEP), START) == [SAY_ASLEEP]


def test_join_is_repeated_until_it_is_accepted() -> None:
    life = WorkerLife()
    for number in range(3):
        assert life.handle(TimePassed(), START + number * HEARTBEAT_INTERVAL_S) == [SendJoin()]
    life.handle(HeartbeatDropped(), START)
    assert life.next_deadline(START) == START + HEARTBEAT_RETRY_S


def test_a_worker_that_the_broker_does_not_know_joins_again_at_once_and_goes_on() -> None:
    life = life_in(LifeState.AWAKE)
    assert life.handle(JoinOrdered(), START) == [SendJoin()]
    assert life.handle(JoinOrdered(), START) == [], "the answer to an earlier heartbeat"
    assert life.is_awake
    assert life.handle(JoinAccepted(WantedState.AWAKE), START) == [SAY_AWAKE]


def test_the_broker_that_accepts_a_worker_says_whether_it_is_to_be_awake() -> None:
    life = life_in(LifeState.AWAKE)
    assert life.handle(JoinAccepted(WantedState.ASLEEP), START) == [RefuseQueued(), SAY_ASLEEP]


#: All kinds of events, including those that do not fit the current state.
EVENTS: st.SearchStrategy[Event] = st.sampled_from(
    [
        *(WAKE, SLEEP, JoinAccepted(WantedState.AWAKE), JoinAccepted(WantedState.ASLEEP), JoinOrdered()),
        *(PortBound(), PortBusy("in use"), EditionLoaded(), HeartbeatDropped(), TimePassed()),
    ]
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 1))))
def test_every_change_of_state_is_in_the_table(history: list[tuple[Event, float]]) -> None:
    life, now = WorkerLife(), START
    for event, pause in history:
        now += pause
        before = life.state
        life.handle(event, now)
        life.check_invariants()
        assert life.state is before or type(event) in TRANSITIONS[before, life.state]


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [(before, after, cause) for (before, after), causes in TRANSITIONS.items() for cause in causes],
)
def test_every_change_of_state_in_the_table_happens(before: LifeState, after: LifeState, cause: type[Event]) -> None:
    accepted = (JoinAccepted(WantedState.AWAKE), JoinAccepted(WantedState.ASLEEP))
    events = [event for event in (WAKE, SLEEP, *accepted, PortBound(), TimePassed()) if type(event) is cause]
    lives = [life_in(before) for _ in events]
    for life, event in zip(lives, events, strict=True):
        life.handle(event, START + SLEEP_GRACE_S)
    assert after in {life.state for life in lives}


class Shell(RuleBasedStateMachine):
    """Carries out the actions as the worker does, on a port that other programs may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.life = WorkerLife()
        self.now = START
        self.port_is_open = False
        self.port_is_held = False
        self.wanted = WantedState.ASLEEP
        self.last_heartbeat: SendHeartbeat | SendJoin | None = None
        self.is_joined = False
        self.last_heartbeat_at = START

    def handle(self, event: Event) -> None:
        for action in self.life.handle(event, self.now):
            match action:
                case OpenPort():
                    assert not self.port_is_open
                    self.port_is_open = not self.port_is_held
                    self.handle(PortBound() if self.port_is_open else PortBusy("in use"))
                case ClosePort():
                    assert self.port_is_open
                    self.port_is_open = False
                case RefuseQueued():
                    assert self.port_is_open
                case SendHeartbeat() | SendJoin():
                    assert self.is_joined == isinstance(action, SendHeartbeat)
                    self.last_heartbeat, self.last_heartbeat_at = action, self.now
                case GiveUp():
                    assert self.port_is_held

    @rule(wanted=st.sampled_from(WantedState))
    def order(self, wanted: WantedState) -> None:
        self.wanted = wanted
        self.handle(OrderReceived(wanted))

    @rule(wanted=st.sampled_from(WantedState))
    def accept(self, wanted: WantedState) -> None:
        self.wanted, self.is_joined = wanted, True
        self.handle(JoinAccepted(wanted))

    @rule()
    def order_to_join(self) -> None:
        self.is_joined = False
        self.handle(JoinOrdered())

    @rule()
    def load_edition(self) -> None:
        self.handle(EditionLoaded())

    @rule(held=st.booleans())
    def hold_port(self, held: bool) -> None:
        self.port_is_held = held

    @rule(seconds=st.floats(0, 1))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (deadline := self.life.next_deadline(self.now)) <= until:
            self.now = max(self.now, deadline)
            self.handle(TimePassed())
            assert self.life.next_deadline(self.now) > self.now, "handling a due deadline must set a later one"
        self.now = until

    @invariant()
    def is_consistent(self) -> None:
        self.life.check_invariants()
        assert self.port_is_open == (self.life.state in (LifeState.AWAKE, LifeState.CLOSING))
        assert (self.wanted is WantedState.AWAKE) == (self.life.state in (LifeState.AWAKE, LifeState.OPENING))
        assert self.now - self.last_heartbeat_at <= HEARTBEAT_INTERVAL_S
        if self.life.is_awake:
            assert self.last_heartbeat == (SAY_AWAKE if self.is_joined else SendJoin())


TestShell = Shell.TestCase
