"""The scheduler's own events (what happened) and actions (what to do). Plain values.

Each kind of failure has its own event, because each has its own policy (``docs/scheduler.md``).
``TRANSITIONS`` lists how events change the state of a unit. The figure in ``docs/scheduler.md`` is generated from
this table, and the property tests check the scheduler against it.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from msd.client.network_events import Ban, BanReason, ConnectionClosed, ConnectionOpened, SnapshotReceived, Unban
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Stalled, TimePassed

# Events, in addition to the network events.


class UnitEvent(Struct, frozen=True):
    """Base class of the replies of a worker to the request for a unit."""

    worker: int
    unit: int


class UnitWritten(UnitEvent, frozen=True):
    """A unit arrived, was verified, and is in the part file or waits to be written to a stream."""


class UnitDuplicate(UnitEvent, frozen=True):
    """A copy of an already verified unit arrived."""


class UnitCorrupt(UnitEvent, frozen=True):
    """A unit arrived, but its data does not match its digest."""


class UnitRefused(UnitEvent, frozen=True):
    """The worker answered a request with a refusal."""

    reason: RefusalReason


class OutputAdvanced(Struct, frozen=True):
    """A stream has received all units before ``position``."""

    position: int


class UnitChecked(Struct, frozen=True):
    """The data on the disk for a unit was hashed; ``valid`` is True if the data matches the unit's digest."""

    unit: int
    valid: bool


class Resumed(Struct, frozen=True):
    """The caller continues after a ``GiveUp``: workers that did not have this version of the file may have it now."""


UnitReply = UnitWritten | UnitDuplicate | UnitCorrupt | UnitRefused
OutputEvent = UnitChecked | OutputAdvanced
LocalEvent = OutputEvent | Resumed | Stalled | TimePassed
Event = UnitReply | LocalEvent | ConnectionOpened | ConnectionClosed | SnapshotReceived


# Actions, in addition to ``Ban`` and ``Unban``.


class RequestUnit(Struct, frozen=True):
    """Send a request for the unit to the worker."""

    worker: int
    unit: int


class Finish(Struct, frozen=True):
    """Every unit is verified, and the output has it."""


class GiveUp(Struct, frozen=True):
    """No worker can be expected to have the missing units.

    ``bans`` holds the reason for each worker's ban, and ``unit`` is the first missing unit.
    """

    bans: dict[int, BanReason]
    unit: int


Action = RequestUnit | Ban | Unban | Finish | GiveUp


class UnitState(enum.StrEnum):
    """The state of a unit. In all states but the last two the unit is missing."""

    UNCHECKED = "unchecked"  #: the disk may hold it; not hashed yet
    UNREQUESTED = "unrequested"  #: no worker has a request for it
    OUTSTANDING = "outstanding"  #: in the Y of one or more workers
    SUSPECT = "suspect"  #: arrived corrupt; not requested again yet
    VERIFIED = "verified"  #: in the X of a worker
    REUSED = "reused"  #: found on disk and valid


#: The allowed state transitions of a unit, and the events that cause them. ``RequestUnit`` is an action, but is
#: listed like an event, because it may follow any event in the same step.
TRANSITIONS: dict[tuple[UnitState, UnitState], tuple[type[Event] | type[Action], ...]] = {
    (UnitState.UNCHECKED, UnitState.REUSED): (UnitChecked,),
    (UnitState.UNCHECKED, UnitState.UNREQUESTED): (UnitChecked,),
    (UnitState.UNREQUESTED, UnitState.OUTSTANDING): (RequestUnit,),
    (UnitState.OUTSTANDING, UnitState.VERIFIED): (UnitWritten,),
    (UnitState.OUTSTANDING, UnitState.UNREQUESTED): (ConnectionClosed, UnitRefused, UnitCorrupt),
    (UnitState.OUTSTANDING, UnitState.SUSPECT): (ConnectionClosed, UnitRefused, UnitCorrupt),
    (UnitState.SUSPECT, UnitState.OUTSTANDING): (RequestUnit,),
    # Caused by a reply to a request that the scheduler had already dropped.
    (UnitState.UNREQUESTED, UnitState.VERIFIED): (UnitWritten,),
    (UnitState.SUSPECT, UnitState.VERIFIED): (UnitWritten,),
    (UnitState.UNREQUESTED, UnitState.SUSPECT): (UnitCorrupt,),
}
