"""The supervisor's events (what happened) and actions (what to do). Plain values.

``TRANSITIONS`` lists how events change the state of a worker. The figure in ``docs/architecture.md`` is generated from
this table, and the property tests check the supervisor against it.
"""

from __future__ import annotations

from msgspec import Struct

from msd.wire.protocol.messages import Heartbeat, Join
from msd.wire.protocol.states import WantedState, WorkerState
from msd.wire.support.core import Stalled, TimePassed

#: An operator of whom nothing else is known.
AN_OPERATOR = "an operator"
#: Why a worker is lost whose heartbeats are not missing.
LEFT, REVOKED = "it has left", "its key was revoked or has expired"


# Events.


class CatalogueReady(Struct, frozen=True):
    """This edition of the catalogue is complete: workers can be started with it or switch to it."""

    edition: int


class Spawned(Struct, frozen=True):
    """A worker's process was started."""

    number: int
    pid: int


class Exited(Struct, frozen=True):
    """A worker's process exited, or (pid 0) could not be started. ``reason`` is human-readable."""

    number: int
    pid: int
    reason: str


class WorkerJoined(Struct, frozen=True):
    """A run of a worker has registered with ``join`` as worker ``number``, which ``registration.register`` has chosen.
    ``route`` is the address for orders to it, opaque here; ``host`` is the host from which it has joined, and
    ``admission`` the key with which it has.
    """

    number: int
    join: Join
    route: object = None
    host: str = ""
    admission: bytes = b""


class ReachTried(Struct, frozen=True):
    """The result of ``Reach``. ``reason`` says why the worker could not be reached; empty if it could."""

    number: int
    epoch: int
    reason: str


class KeyRevoked(Struct, frozen=True):
    """The key with which this worker has joined is not admitted any more."""

    number: int


class HeartbeatReceived(Struct, frozen=True):
    """A worker reported its state, from the address ``route``. It counts only if that run has registered from there."""

    heartbeat: Heartbeat
    route: object = None


class ToggleReceived(Struct, frozen=True):
    """An order. ``wanted`` is the new wanted state; None toggles the current one. ``operator`` says for people which
    operator has given it.
    """

    number: int
    wanted: WantedState | None
    operator: str = AN_OPERATOR


class ComplaintReceived(Struct, frozen=True):
    """A client (the name of its key, or its address) received a corrupt segment from this worker."""

    number: int
    client: str


class QuitReceived(Struct, frozen=True):
    """The broker is shutting down: all workers are ordered to exit."""


Event = (
    CatalogueReady
    | Spawned
    | Exited
    | WorkerJoined
    | HeartbeatReceived
    | ReachTried
    | KeyRevoked
    | ToggleReceived
    | ComplaintReceived
    | QuitReceived
    | Stalled
    | TimePassed
)

#: Causes of a state change that are not events but time limits that have passed.
HEARTBEATS_MISSED, BACKOFF_PASSED = "heartbeats missed", "backoff passed"
#: The allowed changes to a worker's state, and their causes. A worker that fails has crashed too often to be restarted.
TRANSITIONS: dict[tuple[WorkerState, WorkerState], tuple[type[Event] | str, ...]] = {
    (WorkerState.STARTING, WorkerState.ASLEEP): (HeartbeatReceived,),
    (WorkerState.AWAKE, WorkerState.ASLEEP): (HeartbeatReceived,),
    (WorkerState.AWAKE, WorkerState.SILENT): (HEARTBEATS_MISSED,),
    (WorkerState.ASLEEP, WorkerState.SILENT): (HEARTBEATS_MISSED,),
    (WorkerState.SILENT, WorkerState.AWAKE): (HeartbeatReceived,),
    (WorkerState.SILENT, WorkerState.ASLEEP): (HeartbeatReceived,),
    (WorkerState.STARTING, WorkerState.AWAKE): (HeartbeatReceived, ReachTried),
    (WorkerState.ASLEEP, WorkerState.AWAKE): (HeartbeatReceived, ReachTried),
    (WorkerState.UNREACHABLE, WorkerState.AWAKE): (ReachTried,),
    (WorkerState.UNREACHABLE, WorkerState.ASLEEP): (HeartbeatReceived,),
    (WorkerState.UNREACHABLE, WorkerState.SILENT): (HEARTBEATS_MISSED,),
    (WorkerState.STARTING, WorkerState.UNREACHABLE): (ReachTried,),
    (WorkerState.ASLEEP, WorkerState.UNREACHABLE): (ReachTried,),
    (WorkerState.STARTING, WorkerState.LOST): (HEARTBEATS_MISSED, HeartbeatReceived, KeyRevoked),
    (WorkerState.SILENT, WorkerState.LOST): (HEARTBEATS_MISSED, HeartbeatReceived, KeyRevoked),
    (WorkerState.AWAKE, WorkerState.LOST): (HeartbeatReceived, KeyRevoked),
    (WorkerState.ASLEEP, WorkerState.LOST): (HeartbeatReceived, KeyRevoked),
    (WorkerState.UNREACHABLE, WorkerState.LOST): (HeartbeatReceived, KeyRevoked),
    (WorkerState.LOST, WorkerState.AWAKE): (HeartbeatReceived,),
    (WorkerState.LOST, WorkerState.ASLEEP): (HeartbeatReceived,),
    (WorkerState.AWAKE, WorkerState.STARTING): (WorkerJoined,),
    (WorkerState.ASLEEP, WorkerState.STARTING): (WorkerJoined,),
    (WorkerState.UNREACHABLE, WorkerState.STARTING): (WorkerJoined,),
    (WorkerState.LOST, WorkerState.STARTING): (WorkerJoined, HeartbeatReceived),
    (WorkerState.SILENT, WorkerState.STARTING): (WorkerJoined, HeartbeatReceived),
    (WorkerState.STARTING, WorkerState.DEAD): (Exited,),
    (WorkerState.AWAKE, WorkerState.DEAD): (Exited,),
    (WorkerState.ASLEEP, WorkerState.DEAD): (Exited,),
    (WorkerState.SILENT, WorkerState.DEAD): (Exited,),
    (WorkerState.STARTING, WorkerState.FAILED): (Exited,),
    (WorkerState.AWAKE, WorkerState.FAILED): (Exited,),
    (WorkerState.ASLEEP, WorkerState.FAILED): (Exited,),
    (WorkerState.SILENT, WorkerState.FAILED): (Exited,),
    (WorkerState.DEAD, WorkerState.STARTING): (BACKOFF_PASSED, ToggleReceived),
    (WorkerState.FAILED, WorkerState.STARTING): (ToggleReceived,),
}


# Actions.


class Spawn(Struct, frozen=True):
    """Start a worker's process. The caller reports the result as ``Spawned`` or ``Exited``."""

    number: int
    wanted: WantedState
    edition: int


class SendOrder(Struct, frozen=True):
    """Send a worker its wanted state and edition. Repeated after every heartbeat that reports other values."""

    number: int
    wanted: WantedState
    edition: int


class SendQuit(Struct, frozen=True):
    """Order a worker to exit."""

    number: int


class Reach(Struct, frozen=True):
    """Connect to the worker's ``endpoint``, as a client would. The caller reports the result as ``ReachTried``."""

    number: int
    epoch: int
    endpoint: str
    key: bytes


class Kill(Struct, frozen=True):
    """Kill a worker's process."""

    number: int


class Abandon(Struct, frozen=True):
    """Report the process of a worker as ``Exited``, although it was killed and has not ended yet."""

    number: int


class Forget(Struct, frozen=True):
    """A worker is not in the list any more: forget what is known of its number."""

    number: int


class StateChanged(Struct, frozen=True):
    """A worker's state has changed. ``reason`` says why it is dead, failed, lost or unreachable. ``operator`` says
    which operator has ordered this change; empty if none has.
    """

    number: int
    before: WorkerState
    after: WorkerState
    reason: str
    operator: str = ""


class ComplaintCounted(Struct, frozen=True):
    """A complaint about a worker was counted; ``complaints`` is the number of complaints so far."""

    number: int
    complaints: int
    client: str


class Publish(Struct, frozen=True):
    """Publish a snapshot now: a state or wanted state has changed."""


class Stop(Struct, frozen=True):
    """All workers have exited after ``QuitReceived``: the broker can exit as well."""


#: The actions that operators see as events.
Change = StateChanged | ComplaintCounted
Action = Spawn | SendOrder | SendQuit | Reach | Kill | Abandon | Forget | Publish | Stop | Change
