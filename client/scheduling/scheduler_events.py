"""The scheduler's own events (what happened) and actions (what to do). Plain values.

Each kind of failure has its own event, because each has its own policy (``docs/scheduler.md``).
``TRANSITIONS`` lists how events change the state of a unit. The figure in ``docs/scheduler.md`` is generated from
this table, and the property tests check the scheduler against it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from msgspec import Struct

from msd.client.network_events import Ban, BanReason, ConnectionClosed, ConnectionOpened, SnapshotReceived, Unban
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Stalled, TimePassed

# Events, in addition to the network events.


class UnitsAdded(Struct, frozen=True):
    """The caller adds units of these sizes in bytes. Units are numbered from 0, in the order in which they are added.

    They are a *group*, for example a file: if a worker lacks one of them, it is asked for none of them. Groups are
    numbered from 0, too. The disk may hold the ``unchecked`` units: none of them is requested before its
    ``UnitChecked`` event. ``catalogue`` is the digest of the catalogue that server 5 published when the group was
    found; empty if unknown.
    """

    sizes: Sequence[int]
    unchecked: Sequence[int] = ()
    catalogue: bytes = b""


class UnitsFollow(Struct, frozen=True):
    """``follow`` is True while the caller is about to add further groups: workers that have nothing to do will soon
    have, so nothing is hedged but what only stalled workers have.
    """

    follow: bool


class GroupRemoved(Struct, frozen=True):
    """The caller does not need the missing units of the group any more."""

    group: int


class UnitWritten(Struct, frozen=True, gc=False):
    """A whole unit arrived in one reply, was verified, and is in the part file or waits to be written to a stream."""

    worker: int
    unit: int


class PartReceived(Struct, frozen=True):
    """A part of a unit arrived: ``length`` bytes from ``start`` on. The caller keeps them."""

    worker: int
    unit: int
    start: int
    length: int


class PartsChecked(Struct, frozen=True):
    """The caller carried out ``CheckUnit``. If the unit is valid, it is in the part file or waits to be written to a
    stream; otherwise the caller has discarded it.
    """

    worker: int
    unit: int
    valid: bool


class UnitDuplicate(Struct, frozen=True):
    """A reply contained only bytes that had arrived before, or a unit that is verified."""

    worker: int
    unit: int
    start: int = 0


class UnitCorrupt(Struct, frozen=True):
    """A whole unit arrived in one reply, but does not match its digest. The caller has discarded all parts of it."""

    worker: int
    unit: int


class UnitRefused(Struct, frozen=True):
    """The worker answered a request with a refusal."""

    worker: int
    unit: int
    reason: RefusalReason
    start: int = 0


class UnitsHeld(Struct, frozen=True):
    """A worker that holds some of the units only has answered ``RequestHolds``: the bits of ``units`` are set for the
    units that it has.
    """

    worker: int
    units: int


class WorkerRemoved(Struct, frozen=True):
    """The caller has closed the connection to the worker and does not open it again, for example because another one is
    more useful.
    """

    worker: int


class LimitMoved(Struct, frozen=True):
    """The caller wants only the units before ``limit`` to be requested for now. It never decreases."""

    limit: int


class UnitChecked(Struct, frozen=True):
    """The data on the disk for a unit was hashed; ``valid`` is True if the data matches the unit's digest."""

    unit: int
    valid: bool


class Resumed(Struct, frozen=True):
    """The caller continues after ``GroupLost``: workers that did not have this version of a file may have it now."""

    group: int


PlanEvent = UnitsAdded | UnitsFollow | GroupRemoved
UnitReply = UnitWritten | PartReceived | UnitDuplicate | UnitCorrupt | UnitRefused
HolderEvent = UnitsHeld | WorkerRemoved
OutputEvent = PartsChecked | UnitChecked | LimitMoved
LocalEvent = OutputEvent | Resumed | Stalled | TimePassed
Event = PlanEvent | UnitReply | HolderEvent | LocalEvent | ConnectionOpened | ConnectionClosed | SnapshotReceived


# Actions, in addition to ``Ban`` and ``Unban``.


class RequestUnit(Struct, frozen=True, gc=False):
    """Send the worker a request for a part of the unit, or for all of it: ``length`` bytes from ``start`` on."""

    worker: int
    unit: int
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


class RequestHolds(Struct, frozen=True):
    """Ask the worker which units it holds. ``UnitsHeld`` follows, or the connection is closed."""

    worker: int


class CheckUnit(Struct, frozen=True):
    """All bytes of a unit have arrived in parts, the last ones from ``worker``, all of them from the ``senders``: hash
    the unit, and write it if it is valid. ``PartsChecked`` must follow.
    """

    worker: int
    unit: int
    senders: frozenset[int]


class GroupBan(Struct, frozen=True):
    """The worker will not be asked for the units of the group until ``GroupUnban``."""

    worker: int
    group: int
    reason: BanReason


class GroupUnban(Struct, frozen=True):
    """The worker may be asked for the units of the group again."""

    worker: int
    group: int


class GroupLost(Struct, frozen=True):
    """No worker can be expected to have the missing units of the group. They are not requested until ``Resumed``.

    ``bans`` holds the reason for each worker's ban, and ``unit`` is the first missing unit.
    """

    group: int
    bans: dict[int, BanReason]
    unit: int


Action = RequestUnit | RequestHolds | CheckUnit | Ban | Unban | GroupBan | GroupUnban | GroupLost


class UnitState(enum.StrEnum):
    """The state of a unit. In all states but the last three the unit is missing."""

    UNCHECKED = "unchecked"  #: the disk may hold it; not hashed yet
    UNREQUESTED = "unrequested"  #: no worker has a request for it
    STARTED = "started"  #: in the Y of one or more workers, or some of its bytes have arrived
    SUSPECT = "suspect"  #: arrived corrupt; not requested again yet
    VERIFIED = "verified"  #: in the X of a worker
    REUSED = "reused"  #: found on disk and valid
    REMOVED = "removed"  #: not needed any more


#: The allowed state transitions of a unit, and the events that cause them. ``RequestUnit`` is an action, but is
#: listed like an event, because it may follow any event in the same step.
TRANSITIONS: dict[tuple[UnitState, UnitState], tuple[type[Event] | type[Action], ...]] = {
    (UnitState.UNCHECKED, UnitState.REUSED): (UnitChecked,),
    (UnitState.UNCHECKED, UnitState.UNREQUESTED): (UnitChecked,),
    (UnitState.UNREQUESTED, UnitState.STARTED): (RequestUnit, PartReceived),
    (UnitState.STARTED, UnitState.VERIFIED): (UnitWritten, PartsChecked),
    (UnitState.STARTED, UnitState.UNREQUESTED): (
        *(ConnectionClosed, WorkerRemoved, UnitRefused, UnitCorrupt, PartsChecked),
    ),
    (UnitState.STARTED, UnitState.SUSPECT): (
        *(ConnectionClosed, WorkerRemoved, UnitRefused, UnitCorrupt, PartsChecked),
    ),
    (UnitState.SUSPECT, UnitState.STARTED): (RequestUnit, PartReceived),
    (UnitState.UNCHECKED, UnitState.REMOVED): (GroupRemoved,),
    (UnitState.UNREQUESTED, UnitState.REMOVED): (GroupRemoved,),
    (UnitState.STARTED, UnitState.REMOVED): (GroupRemoved,),
    (UnitState.SUSPECT, UnitState.REMOVED): (GroupRemoved,),
    # Caused by a reply to a request that the scheduler had already dropped.
    (UnitState.UNREQUESTED, UnitState.VERIFIED): (UnitWritten,),
    (UnitState.SUSPECT, UnitState.VERIFIED): (UnitWritten,),
    (UnitState.UNREQUESTED, UnitState.SUSPECT): (UnitCorrupt,),
}
