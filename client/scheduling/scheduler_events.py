"""The scheduler's events (what happened) and actions (what to do). Plain values.

Each kind of failure has its own event, because each has its own policy (``docs/scheduler.md``).
``TRANSITIONS`` lists how events change the state of a segment. The figure in ``docs/scheduler.md`` is generated from
this table, and the property tests check the scheduler against it.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Stalled, TimePassed

# Events.


class WorkerReady(Struct, frozen=True):
    """A connection to the worker is open; ``epoch`` identifies the run of the worker's process.

    ``round_trip`` (seconds) was measured with ``hello``, before anything was queued on the connection;
    ``catalogue`` is the digest of the catalogue that the worker serves.
    """

    worker: int
    epoch: int
    round_trip: float = 0.0
    catalogue: bytes = b""


class WorkerLost(Struct, frozen=True):
    """The connection is closed, and all requests on it are lost."""

    worker: int


class SegmentWritten(Struct, frozen=True):
    """A segment arrived, was verified, and is in the part file."""

    worker: int
    index: int


class SegmentDuplicate(Struct, frozen=True):
    """A copy of an already verified segment arrived."""

    worker: int
    index: int


class SegmentCorrupt(Struct, frozen=True):
    """A segment arrived, but its data does not match its digest."""

    worker: int
    index: int


class SegmentRefused(Struct, frozen=True):
    """The worker answered a request with a refusal."""

    worker: int
    index: int
    reason: RefusalReason


class SegmentChecked(Struct, frozen=True):
    """The data on the disk for a segment was hashed; ``valid`` is True if the data matches the segment's digest."""

    index: int
    valid: bool


class CataloguePublished(Struct, frozen=True):
    """Server 5 publishes this catalogue, or published it when the manifest was found.

    ``catalogue`` is its digest, empty if unknown. The first value sets the baseline; a later, different value means
    that the catalogue changed.
    """

    catalogue: bytes


Event = (
    WorkerReady
    | WorkerLost
    | SegmentWritten
    | SegmentDuplicate
    | SegmentCorrupt
    | SegmentRefused
    | SegmentChecked
    | CataloguePublished
    | Stalled
    | TimePassed
)


# Actions.


class RequestSegment(Struct, frozen=True):
    """Send a request for the segment to the worker."""

    worker: int
    index: int


class BanReason(enum.StrEnum):
    """Why a worker is banned from this download."""

    CORRUPT = "corrupt"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    BAD_REQUEST = "bad-request"


class Ban(Struct, frozen=True):
    """Close the worker's connection and send it no more requests; its outstanding requests are dropped."""

    worker: int
    reason: BanReason


class Unban(Struct, frozen=True):
    """Lift the worker's ban: connections to the worker are allowed again."""

    worker: int


class Finish(Struct, frozen=True):
    """Every segment is in the part file."""


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
    (SegmentState.OUTSTANDING, SegmentState.UNREQUESTED): (WorkerLost, SegmentRefused, SegmentCorrupt),
    (SegmentState.OUTSTANDING, SegmentState.SUSPECT): (WorkerLost, SegmentRefused, SegmentCorrupt),
    (SegmentState.SUSPECT, SegmentState.OUTSTANDING): (RequestSegment,),
    # Caused by a reply to a request that the scheduler had already dropped.
    (SegmentState.UNREQUESTED, SegmentState.VERIFIED): (SegmentWritten,),
    (SegmentState.SUSPECT, SegmentState.VERIFIED): (SegmentWritten,),
    (SegmentState.UNREQUESTED, SegmentState.SUSPECT): (SegmentCorrupt,),
}
