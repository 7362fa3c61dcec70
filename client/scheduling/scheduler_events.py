"""The scheduler's own events (what happened) and actions (what to do). Plain values.

Each kind of failure has its own event, because each has its own policy (``docs/scheduler.md``).
``TRANSITIONS`` lists how events change the state of a segment. The figure in ``docs/scheduler.md`` is generated from
this table, and the property tests check the scheduler against it.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from msd.client.network_events import Ban, BanReason, ConnectionClosed, ConnectionOpened, SnapshotReceived, Unban
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Stalled, TimePassed

# Events, in addition to the network events.


class SegmentEvent(Struct, frozen=True):
    """Base class of the replies of a worker to the request for a segment."""

    worker: int
    index: int


class SegmentWritten(SegmentEvent, frozen=True):
    """A segment arrived, was verified, and is in the part file or waits to be written to a stream."""


class SegmentDuplicate(SegmentEvent, frozen=True):
    """A copy of an already verified segment arrived."""


class SegmentCorrupt(SegmentEvent, frozen=True):
    """A segment arrived, but its data does not match its digest."""


class SegmentRefused(SegmentEvent, frozen=True):
    """The worker answered a request with a refusal."""

    reason: RefusalReason


class OutputAdvanced(Struct, frozen=True):
    """A stream has received all segments before ``position``."""

    position: int


class SegmentChecked(Struct, frozen=True):
    """The data on the disk for a segment was hashed; ``valid`` is True if the data matches the segment's digest."""

    index: int
    valid: bool


class Resumed(Struct, frozen=True):
    """The caller continues after a ``GiveUp``: workers that did not have this version of the file may have it now."""


SegmentReply = SegmentWritten | SegmentDuplicate | SegmentCorrupt | SegmentRefused
OutputEvent = SegmentChecked | OutputAdvanced
LocalEvent = OutputEvent | Resumed | Stalled | TimePassed
Event = SegmentReply | LocalEvent | ConnectionOpened | ConnectionClosed | SnapshotReceived


# Actions, in addition to ``Ban`` and ``Unban``.


class RequestSegment(Struct, frozen=True):
    """Send a request for the segment to the worker."""

    worker: int
    index: int


class Finish(Struct, frozen=True):
    """Every segment is verified, and the output has it."""


class GiveUp(Struct, frozen=True):
    """No worker can be expected to have the missing segments.

    ``bans`` holds the reason for each worker's ban, and ``segment`` is the first missing segment.
    """

    bans: dict[int, BanReason]
    segment: int


Action = RequestSegment | Ban | Unban | Finish | GiveUp


class SegmentState(enum.StrEnum):
    """The state of a segment. In all states but the last two the segment is missing."""

    UNCHECKED = "unchecked"  #: the disk may hold it; not hashed yet
    UNREQUESTED = "unrequested"  #: no worker has a request for it
    OUTSTANDING = "outstanding"  #: in the Y of one or more workers
    SUSPECT = "suspect"  #: arrived corrupt; not requested again yet
    VERIFIED = "verified"  #: in the X of a worker
    REUSED = "reused"  #: found on disk and valid


#: The allowed state transitions of a segment, and the events that cause them. ``RequestSegment`` is an action, but is
#: listed like an event, because it may follow any event in the same step.
TRANSITIONS: dict[tuple[SegmentState, SegmentState], tuple[type[Event] | type[Action], ...]] = {
    (SegmentState.UNCHECKED, SegmentState.REUSED): (SegmentChecked,),
    (SegmentState.UNCHECKED, SegmentState.UNREQUESTED): (SegmentChecked,),
    (SegmentState.UNREQUESTED, SegmentState.OUTSTANDING): (RequestSegment,),
    (SegmentState.OUTSTANDING, SegmentState.VERIFIED): (SegmentWritten,),
    (SegmentState.OUTSTANDING, SegmentState.UNREQUESTED): (ConnectionClosed, SegmentRefused, SegmentCorrupt),
    (SegmentState.OUTSTANDING, SegmentState.SUSPECT): (ConnectionClosed, SegmentRefused, SegmentCorrupt),
    (SegmentState.SUSPECT, SegmentState.OUTSTANDING): (RequestSegment,),
    # Caused by a reply to a request that the scheduler had already dropped.
    (SegmentState.UNREQUESTED, SegmentState.VERIFIED): (SegmentWritten,),
    (SegmentState.SUSPECT, SegmentState.VERIFIED): (SegmentWritten,),
    (SegmentState.UNREQUESTED, SegmentState.SUSPECT): (SegmentCorrupt,),
}
