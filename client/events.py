"""What a download tells while it runs, and what it says at the end. Plain values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, field


class Started(Struct, frozen=True):
    """The file is known; the first request follows."""

    name: str
    output: Path
    id: str
    bytes: int
    segments: int


class WorkerProgress(Struct, frozen=True):
    """One worker: bytes of X, bytes of X and Y together, and its rate since the last progress
    (bytes a second).
    """

    name: str
    received: int
    assigned: int
    rate: float


class Progress(Struct, frozen=True):
    """Where the download stands: verified bytes, those of them found on the disk, and the rate of
    verified bytes since the start. ``wasted_bytes`` were received in vain.
    """

    bytes: int
    total: int
    reused_bytes: int
    seconds: float
    rate: float
    workers: tuple[WorkerProgress, ...]
    wasted_bytes: int = 0


class Sampled(Struct, frozen=True):
    """Where the download stands, up to ten times a second, however often ``Progress`` is asked for:
    what reports and pictures are made of.
    """

    progress: Progress


class WorkerChanged(Struct, frozen=True):
    """A worker (or ``server 5``) is now ``ready``, ``lost`` (its connection) or ``set aside``, or server
    5 says that it is ``asleep``, ``silent``, ``dead`` or ``failed``; ``detail`` says why, for people.
    ``segments`` counts those asked of a lost one that go to others.
    """

    name: str
    state: str
    detail: str = ""
    segments: int = 0


class Waiting(Struct, frozen=True):
    """Nothing has moved for ``seconds``, for this reason."""

    reason: str
    seconds: float


class Retried(Struct, frozen=True):
    """A segment will be asked for again: it was refused or corrupt."""

    worker: str
    segment: int
    cause: str
    detail: str = ""


class Syncing(Struct, frozen=True):
    """All is verified; the disk is being waited for."""


class WorkerReport(Struct):
    """What came from one worker. ``failures`` counts lost connections with open requests."""

    bytes: int = 0
    segments: int = 0
    failures: int = 0
    corrupt: int = 0


class Report(Struct, frozen=True):
    """The result of a download. ``seconds`` runs from the first request to the rename.

    ``retries`` counts segments that were asked for again, by cause; ``waited_seconds`` are those in
    which nothing moved for more than one. ``rate_p50`` and ``rate_peak`` are the median and the highest
    rate (bytes a second) of the seconds in which something arrived. ``unchanged`` says that an update
    found the file right as it was, and left it alone.
    """

    file: str
    output: Path
    id: str
    bytes: int
    seconds: float
    received_bytes: int
    wasted_bytes: int
    reused_bytes: int
    workers: dict[str, WorkerReport] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    waited_seconds: float = 0.0
    rate_p50: float = 0.0
    rate_peak: float = 0.0
    unchanged: bool = False


Event = Started | Progress | Sampled | WorkerChanged | Waiting | Retried | Syncing
OnEvent = Callable[[Event], None]
