"""The events of a download, and the report at its end. Plain values.

Their text is written by ``client/display/printers.py``, their JSON by ``client/report/json_values.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, field


class Started(Struct, frozen=True):
    """The file is known; the first request follows. ``bytes`` is the file's size."""

    name: str
    output: Path
    id: str
    bytes: int
    segments: int


class WorkerProgress(Struct, frozen=True):
    """The progress of one worker.

    ``received`` are the verified bytes it delivered, ``assigned`` also includes the outstanding bytes. ``rate`` is in
    bytes a second since the last progress event.
    """

    name: str
    received: int
    assigned: int
    rate: float


class Progress(Struct, frozen=True):
    """The progress of a download, ``seconds`` after its first request.

    ``bytes`` of ``total`` are verified; ``reused_bytes`` of them were found on the disk. ``rate`` is in bytes a second,
    received and verified since the first request. ``wasted_bytes`` were received but are duplicate or corrupt.
    """

    bytes: int
    total: int
    reused_bytes: int
    seconds: float
    rate: float
    workers: tuple[WorkerProgress, ...]
    wasted_bytes: int = 0


class Sampled(Struct, frozen=True):
    """The progress up to ten times a second, for reports and charts; independent of the interval of ``Progress``."""

    progress: Progress


class WorkerChanged(Struct, frozen=True):
    """The state of a worker, or of ``server 5``, changed.

    ``state`` is ``ready``, ``lost`` (the connection was lost), ``set aside`` (the client banned the worker), or what
    server 5 reports: ``asleep``, ``silent``, ``dead`` or ``failed``. ``detail`` is the reason as text. ``segments`` is
    the number of outstanding segments that are reassigned because the connection was lost.
    """

    name: str
    state: str
    detail: str = ""
    segments: int = 0


class Waiting(Struct, frozen=True):
    """The download has made no progress for ``seconds``; ``reason`` is text."""

    reason: str
    seconds: float


class Retried(Struct, frozen=True):
    """A segment will be requested again: ``worker`` refused it or sent corrupt data.

    ``cause`` is ``corrupt`` or a ``RefusalReason``; ``detail`` is the worker's explanation.
    """

    worker: str
    segment: int
    cause: str
    detail: str = ""


class Syncing(Struct, frozen=True):
    """All segments are verified; the client waits for the disk."""


class WorkerReport(Struct):
    """The totals of one worker.

    ``bytes`` and ``segments`` were verified. ``failures`` counts connections lost with outstanding requests,
    ``corrupt`` the corrupt segments.
    """

    bytes: int = 0
    segments: int = 0
    failures: int = 0
    corrupt: int = 0


class Report(Struct, frozen=True):
    """The result of a download. ``seconds`` runs from the first request to the rename.

    ``retries`` counts the retried segments by cause. ``waited_seconds`` sums up the periods of more than one second
    without progress. ``rate_p50`` and ``rate_peak`` are the median and the highest rate, in bytes a second, over the
    seconds in which data arrived. ``unchanged`` is True if an update found the output up to date.
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
