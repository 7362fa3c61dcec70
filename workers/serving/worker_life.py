"""The life cycle of a worker: when it opens and closes its port, refuses queued requests and sends heartbeats.

Pure. Does not answer requests (``workers/serving/answer.py``) and does not decide whether the worker should be awake:
the broker decides that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto

from msgspec import Struct

from msd.wire.protocol.states import ReportedState, WantedState
from msd.wire.support.core import Core, TimePassed

#: Seconds between two heartbeats; the broker considers a worker silent after three missed heartbeats.
HEARTBEAT_INTERVAL_S = 0.25
#: Seconds until a heartbeat that could not be sent is sent again. Short, because the broker may be waiting for a change
#: of state.
HEARTBEAT_RETRY_S = 0.01
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


class KeysRevoked(Struct, frozen=True):
    """A key lost rights: all connections must be closed. Clients that are still admitted reconnect."""


class EditionLoaded(Struct, frozen=True):
    """The worker now serves another edition of the catalogue."""


class HeartbeatDropped(Struct, frozen=True):
    """``SendHeartbeat`` failed: there is no connection to the broker, or the broker does not read."""


Event = OrderReceived | PortBound | PortBusy | KeysRevoked | EditionLoaded | HeartbeatDropped | TimePassed

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


class GiveUp(Struct, frozen=True):
    """Exit: the port cannot be bound."""

    reason: str


Action = OpenPort | ClosePort | RefuseQueued | SendHeartbeat | GiveUp

#: All changes of state, each with the events that cause it.
TRANSITIONS: Mapping[tuple[LifeState, LifeState], tuple[type[Event], ...]] = {
    (LifeState.ASLEEP, LifeState.OPENING): (OrderReceived,),
    (LifeState.OPENING, LifeState.AWAKE): (PortBound,),
    (LifeState.OPENING, LifeState.ASLEEP): (OrderReceived,),
    (LifeState.AWAKE, LifeState.CLOSING): (OrderReceived,),
    (LifeState.AWAKE, LifeState.OPENING): (KeysRevoked,),
    (LifeState.CLOSING, LifeState.AWAKE): (OrderReceived,),
    (LifeState.CLOSING, LifeState.ASLEEP): (TimePassed, KeysRevoked),
}


class WorkerLife(Core[Event, Action]):
    """One worker. It is asleep until it receives an order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = LifeState.ASLEEP
        self._next_heartbeat = 0.0
        #: When the state began.
        self._since = 0.0
        #: While opening: when to try to bind the port.
        self._bind_at = 0.0

    @property
    def is_awake(self) -> bool:
        """True if requests are served; otherwise they are refused."""
        return self.state is LifeState.AWAKE

    def _assert_invariants(self) -> None:
        assert self.state is not LifeState.OPENING or self._bind_at > self._since

    def next_deadline(self, now: float) -> float:  # noqa: ARG002
        return min(deadline for deadline, _ in self._deadlines())

    def _deadlines(self) -> Iterator[tuple[float, Callable[[float], list[Action]]]]:
        """Yields each deadline with the function to call then."""
        yield self._next_heartbeat, self._send_heartbeat
        if self.state is LifeState.OPENING:
            yield self._bind_at, self._open
        elif self.state is LifeState.CLOSING:
            yield self._since + SLEEP_GRACE_S, self._fall_asleep

    def _decide(self, event: Event, now: float) -> list[Action]:
        match event, self.state:
            case TimePassed(), _:
                return [action for deadline, step in self._deadlines() if now >= deadline for action in step(now)]
            case OrderReceived(WantedState.AWAKE), LifeState.ASLEEP:
                self._enter(LifeState.OPENING, now)
                return self._open(now)
            case OrderReceived(WantedState.AWAKE), LifeState.CLOSING:
                self._enter(LifeState.AWAKE, now)
                return self._send_heartbeat(now)
            case OrderReceived(WantedState.ASLEEP), LifeState.OPENING:
                self._enter(LifeState.ASLEEP, now)
            case OrderReceived(WantedState.ASLEEP), LifeState.AWAKE:
                self._enter(LifeState.CLOSING, now)
                return [RefuseQueued(), *self._send_heartbeat(now)]
            case PortBound(), LifeState.OPENING:
                self._enter(LifeState.AWAKE, now)
                return self._send_heartbeat(now)
            case PortBusy(reason), LifeState.OPENING if now - self._since > BIND_TIMEOUT_S:
                return [GiveUp(reason)]
            case KeysRevoked(), LifeState.AWAKE:
                self._enter(LifeState.OPENING, now)
                self._bind_at = now + BIND_RETRY_S
                return [ClosePort()]
            case KeysRevoked(), LifeState.CLOSING:
                return self._fall_asleep(now)
            case EditionLoaded(), _:
                return self._send_heartbeat(now)
            case HeartbeatDropped(), _:
                self._next_heartbeat = now + HEARTBEAT_RETRY_S
        return []

    def _enter(self, state: LifeState, now: float) -> None:
        self.state, self._since = state, now

    def _open(self, now: float) -> list[Action]:
        self._bind_at = now + BIND_RETRY_S
        return [OpenPort()]

    def _fall_asleep(self, now: float) -> list[Action]:
        self._enter(LifeState.ASLEEP, now)
        return [ClosePort()]

    def _send_heartbeat(self, now: float) -> list[Action]:
        self._next_heartbeat = now + HEARTBEAT_INTERVAL_S
        return [SendHeartbeat(ReportedState.AWAKE if self.is_awake else ReportedState.ASLEEP)]
