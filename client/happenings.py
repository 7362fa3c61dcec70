"""What can happen to a download, and what its scheduler can decide: events and actions. Plain values.

Each way to fail is an event of its own, for each has a policy of its own (``docs/scheduler.md``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from wire.states import Reason

# Events: what happened.


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A connection to the worker is up; ``epoch`` names the run of its process.

    ``round_trip`` (seconds) is that of its ``hello``, before anything queued on the connection.
    """

    worker: int
    epoch: int
    round_trip: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The connection is gone, and with it all requests on it."""

    worker: int


@dataclass(frozen=True, slots=True)
class SegmentWritten:
    """A segment arrived, verified and is in the part file."""

    worker: int
    index: int


@dataclass(frozen=True, slots=True)
class SegmentLate:
    """A segment arrived that had been written already."""

    worker: int
    index: int


@dataclass(frozen=True, slots=True)
class SegmentCorrupt:
    """A segment arrived that does not match its digest."""

    worker: int
    index: int


@dataclass(frozen=True, slots=True)
class SegmentRefused:
    """The worker answered a request with a refusal."""

    worker: int
    index: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class SegmentChecked:
    """What the disk held of a segment was hashed: ``good`` says whether it is right."""

    index: int
    good: bool


@dataclass(frozen=True, slots=True)
class ClientStalled:
    """The client itself did nothing for this many seconds: no silence in them is the workers'."""

    seconds: float


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened but time."""


Event = (
    WorkerReady
    | WorkerLost
    | SegmentWritten
    | SegmentLate
    | SegmentCorrupt
    | SegmentRefused
    | SegmentChecked
    | ClientStalled
    | TimePassed
)


# Actions: what to do.


@dataclass(frozen=True, slots=True)
class RequestSegment:
    worker: int
    index: int


class Fault(enum.StrEnum):
    """Why a worker is set aside."""

    CORRUPT = "corrupt"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    BAD_REQUEST = "bad-request"


@dataclass(frozen=True, slots=True)
class SetAside:
    """The worker is not asked any more: its requests are forgotten, close its connection."""

    worker: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Finish:
    """Every segment is in the part file."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Every worker has been set aside; ``faults`` says why, ``segment`` which one lacks."""

    faults: dict[int, Fault]
    segment: int


Action = RequestSegment | SetAside | Finish | GiveUp
