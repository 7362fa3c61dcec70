"""The life cycle of a worker: when it opens and closes its port, refuses queued requests, joins and sends heartbeats.

Pure. Does not answer requests (``workers/serving/answer.py``) and does not decide whether the worker should be awake:
the broker decides that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum, auto

from msgspec import Struct

from msd.wire.protocol.states import ReportedState, WantedState
from msd.wire.support.core import Core, TimePassed

#: Seconds between two heartbeats; the broker considers a worker silent after three missed heartbeats.
HEARTBEAT_INTERVAL_S = 0.25
#: Seconds until a heartbeat that could not be sent is sent again. Short, because the broker may be waiting for a change
#: of state.
HEARTBEAT_RETRY_S = 0.01
#: After this many attempts the broker is away: the next ones come at the usual interval.
MAX_RETRIES = 20
#: Seconds until a worker tries to join again after the broker has rejected it.
REJOIN_S = 1.0
#: After the order to sleep, a worker keeps its port open for this long (seconds) to refuse requests ("sleeping").
#: Otherwise outstanding requests would get no reply at all; in measurements 0.2 s was enough.
SLEEP_GRACE_S = 0.25
#: How long (seconds) binding a busy port is retried; a ROUTER socket frees its port a moment after it is closed.
BIND_TIMEOUT_S = 5.0
BIND_RETRY_S = 0.01


class LifeState(Enum):
    """The state of a worker's port."""

    ASLEEP = auto()  #: closed
    OPENING = auto()  #: closed; the worker is trying to bind it
    AWAKE = auto()  #: open
    CLOSING = auto()  #: open for ``SLEEP_GRACE_S``, to refuse requests


# Events.


class OrderReceived(Struct, frozen=True):
    """The broker orders the worker to be awake or asleep. The broker repeats its orders."""

    wanted: WantedState


class PortBound(Struct, frozen=True):
    """``OpenPort`` succeeded."""


class PortBusy(Struct, frozen=True):
    """``OpenPort`` failed."""

    reason: str


class EditionLoaded(Struct, frozen=True):
    """The worker now serves another edition of the catalogue."""


class HeartbeatDropped(Struct, frozen=True):
    """``SendHeartbeat`` or ``SendJoin`` failed: there is no connection to the broker, or the broker does not read."""


class JoinAccepted(Struct, frozen=True):
    """The broker has registered this run of the worker, and orders it to be awake or asleep."""

    wanted: WantedState


class JoinRejected(Struct, frozen=True):
    """The broker does not let this worker join, for the time being."""


class JoinOrdered(Struct, frozen=True):
    """The broker does not know this run of the worker, or not on this connection."""


Event = (
    OrderReceived
    | PortBound
    | PortBusy
    | EditionLoaded
    | HeartbeatDropped
    | JoinAccepted
    | JoinRejected
    | JoinOrdered
    | TimePassed
)

# Actions.


class OpenPort(Struct, frozen=True):
    """Bind the port, then report ``PortBound`` or ``PortBusy``."""


class ClosePort(Struct, frozen=True):
    """Close the port, and forget all clients and their requests."""


class RefuseQueued(Struct, frozen=True):
    """Refuse the queued requests as ``sleeping``."""


class SendHeartbeat(Struct, frozen=True):
    """Send a heartbeat with this state."""

    state: ReportedState


class SendJoin(Struct, frozen=True):
    """Send ``join``. Repeated in place of the heartbeats until the broker has accepted it."""


class GiveUp(Struct, frozen=True):
    """Exit: the port cannot be bound."""

    reason: str


Action = OpenPort | ClosePort | RefuseQueued | SendHeartbeat | SendJoin | GiveUp

#: All changes of state, each with the events that cause it.
TRANSITIONS: Mapping[tuple[LifeState, LifeState], tuple[type[Event], ...]] = {
    (LifeState.ASLEEP, LifeState.OPENING): (OrderReceived, JoinAccepted),
    (LifeState.OPENING, LifeState.AWAKE): (PortBound,),
    (LifeState.OPENING, LifeState.ASLEEP): (OrderReceived, JoinAccepted),
    (LifeState.AWAKE, LifeState.CLOSING): (OrderReceived, JoinAccepted),
    (LifeState.CLOSING, LifeState.AWAKE): (OrderReceived, JoinAccepted),
    (LifeState.CLOSING, LifeState.ASLEEP): (TimePassed,),
}


class WorkerLife(Core[Event, Action]):
    """One worker. It is asleep until it receives an order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = LifeState.ASLEEP
        #: When the state began.
        self._since = 0.0
        #: When the next heartbeat or ``join`` is due.
        self._next_heartbeat = 0.0
        #: How many messages in a row could not be sent.
        self._dropped = 0
        #: True if the broker has registered this run.
        self._is_joined = False
        #: When the port must be bound (while opening) or closed (while closing).
        self._port_due = math.inf

    @property
    def is_awake(self) -> bool:
        """True if requests are served; otherwise they are refused."""
        return self.state is LifeState.AWAKE

    def _assert_invariants(self) -> None:
        assert (self._port_due < math.inf) == (self.state in (LifeState.OPENING, LifeState.CLOSING))

    def next_deadline(self, now: float) -> float:  # noqa: ARG002
        return min(self._next_heartbeat, self._port_due)

    def _decide(self, event: Event, now: float) -> list[Action]:
        actions: list[Action] = []
        match event:
            case JoinAccepted(wanted):
                self._is_joined = True
                self._next_heartbeat = now
                self._dropped = 0
                event = OrderReceived(wanted)
            case JoinRejected():
                self._next_heartbeat = now + REJOIN_S
            case JoinOrdered() if self._is_joined:
                self._is_joined = False
                self._next_heartbeat = now
        match event, self.state:
            case OrderReceived(WantedState.AWAKE), LifeState.ASLEEP:
                self._enter(LifeState.OPENING, now, port_due=now)
            case OrderReceived(WantedState.AWAKE), LifeState.CLOSING:
                self._enter(LifeState.AWAKE, now)
            case OrderReceived(WantedState.ASLEEP), LifeState.OPENING:
                self._enter(LifeState.ASLEEP, now)
            case OrderReceived(WantedState.ASLEEP), LifeState.AWAKE:
                self._enter(LifeState.CLOSING, now, port_due=now + SLEEP_GRACE_S)
                actions.append(RefuseQueued())
            case PortBound(), LifeState.OPENING:
                self._enter(LifeState.AWAKE, now)
            case PortBusy(reason), LifeState.OPENING:
                self._port_due = now + BIND_RETRY_S
                if now - self._since > BIND_TIMEOUT_S:
                    actions.append(GiveUp(reason))
            case TimePassed(), LifeState.CLOSING if now >= self._port_due:
                self._enter(LifeState.ASLEEP, now)
                actions.append(ClosePort())
            case EditionLoaded(), _:
                self._next_heartbeat = now
            case HeartbeatDropped(), _:
                self._dropped += 1
                self._next_heartbeat = now + (
                    HEARTBEAT_RETRY_S if self._dropped <= MAX_RETRIES else HEARTBEAT_INTERVAL_S
                )
        if self.state is LifeState.OPENING and now >= self._port_due:
            # No heartbeat: it would report a worker as asleep that is awake in a moment.
            self._port_due = now + BIND_RETRY_S
            actions.append(OpenPort())
        elif now >= self._next_heartbeat:
            self._next_heartbeat = now + HEARTBEAT_INTERVAL_S
            state = ReportedState.AWAKE if self.is_awake else ReportedState.ASLEEP
            actions.append(SendHeartbeat(state) if self._is_joined else SendJoin())
        return actions

    def _enter(self, state: LifeState, now: float, port_due: float = math.inf) -> None:
        self.state, self._since, self._port_due = state, now, port_due
        if state in (LifeState.AWAKE, LifeState.CLOSING):
            self._next_heartbeat = now  # The broker may be waiting for this state.
