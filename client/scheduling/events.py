"""What can happen to a download, and what its scheduler can decide: events and actions. Plain values.

Each way to fail is an event of its own, for each has a policy of its own (``docs/scheduler.md``).
``TRANSITIONS`` says what they do to a segment: the figure in that page is drawn from it, and the
property tests hold the scheduler to it.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from msd.wire.protocol.states import RefusalReason
from msd.wire.support.time_passed import TimePassed

# Events: what happened.


class WorkerReady(Struct, frozen=True):
    """A connection to the worker is up; ``epoch`` names the run of its process.

    ``round_trip`` (seconds) is that of its ``hello``, before anything queued on the connection;
    ``catalogue`` is the one it serves.
    """

    worker: int
    epoch: int
    round_trip: float = 0.0
    catalogue: bytes = b""


class WorkerLost(Struct, frozen=True):
    """The connection is gone, and with it all requests on it."""

    worker: int


class SegmentWritten(Struct, frozen=True):
    """A segment arrived, verified and is in the part file."""

    worker: int
    index: int


class SegmentLate(Struct, frozen=True):
    """A segment arrived that had been written already."""

    worker: int
    index: int


class SegmentCorrupt(Struct, frozen=True):
    """A segment arrived that does not match its digest."""

    worker: int
    index: int


class SegmentRefused(Struct, frozen=True):
    """The worker answered a request with a refusal."""

    worker: int
    index: int
    reason: RefusalReason


class SegmentChecked(Struct, frozen=True):
    """What the disk held of a segment was hashed: ``good`` says whether it is right."""

    index: int
    good: bool


class CatalogueVouched(Struct, frozen=True):
    """Server 5 vouches for this catalogue, or did when the file was found: the first one told is no
    change, another one after it is.
    """

    catalogue: bytes


class ClientStalled(Struct, frozen=True):
    """The client itself did nothing for this many seconds: no silence in them is the workers'."""

    seconds: float


Event = (
    WorkerReady
    | WorkerLost
    | SegmentWritten
    | SegmentLate
    | SegmentCorrupt
    | SegmentRefused
    | SegmentChecked
    | CatalogueVouched
    | ClientStalled
    | TimePassed
)


# Actions: what to do.


class RequestSegment(Struct, frozen=True):
    worker: int
    index: int


class Fault(enum.StrEnum):
    """Why a worker is set aside."""

    CORRUPT = "corrupt"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    BAD_REQUEST = "bad-request"


class Ban(Struct, frozen=True):
    """The worker is not asked any more: its requests are forgotten, close its connection."""

    worker: int
    fault: Fault


class Unban(Struct, frozen=True):
    """A worker that was set aside may be connected to again."""

    worker: int


class Finish(Struct, frozen=True):
    """Every segment is in the part file."""


class GiveUp(Struct, frozen=True):
    """Nobody can be expected to have what is missing; ``faults`` says why workers were set aside,
    ``segment`` which one lacks.
    """

    faults: dict[int, Fault]
    segment: int


Action = RequestSegment | Ban | Unban | Finish | GiveUp


class SegmentState(enum.StrEnum):
    """Where a segment is. All but the last two are missing."""

    UNCHECKED = "unchecked"  #: the disk may have it; not hashed yet
    UNASKED = "unasked"  #: nobody is asked for it
    ASKED = "asked"  #: in the Y of one worker or of several
    DISPUTED = "disputed"  #: came corrupt, and waits for somebody else
    HERE = "here"  #: in the X of a worker
    ON_DISK = "on disk"  #: found there, and right


#: What may become of a segment, and by which events. Being asked for (``RequestSegment``) may follow
#: on any event in the same step, so it is listed as an event, too.
TRANSITIONS: dict[tuple[SegmentState, SegmentState], tuple[type[Event] | type[Action], ...]] = {
    (SegmentState.UNCHECKED, SegmentState.ON_DISK): (SegmentChecked,),
    (SegmentState.UNCHECKED, SegmentState.UNASKED): (SegmentChecked,),
    (SegmentState.UNASKED, SegmentState.ASKED): (RequestSegment,),
    (SegmentState.ASKED, SegmentState.HERE): (SegmentWritten,),
    (SegmentState.ASKED, SegmentState.UNASKED): (WorkerLost, SegmentRefused, SegmentCorrupt),
    (SegmentState.ASKED, SegmentState.DISPUTED): (WorkerLost, SegmentRefused, SegmentCorrupt),
    (SegmentState.DISPUTED, SegmentState.ASKED): (RequestSegment,),
    # It was asked for before its worker was given up, and comes all the same.
    (SegmentState.UNASKED, SegmentState.HERE): (SegmentWritten,),
    (SegmentState.DISPUTED, SegmentState.HERE): (SegmentWritten,),
    (SegmentState.UNASKED, SegmentState.DISPUTED): (SegmentCorrupt,),
}
