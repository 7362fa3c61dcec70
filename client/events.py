"""The events of a download, and the report at its end. Plain values.

``client/display/printers.py`` converts them to text, ``client/report/json_values.py`` converts them to JSON. The tags,
and the explicit field names (``field(name=…)``), are those used in the JSON.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from msgspec import Struct, field

from msd.wire.errors import MsdError
from msd.wire.net.diagnosis import Contact

#: Lower bound for a time span in seconds, so that a rate computed from it stays finite.
MIN_SPAN_S = 1e-6
#: The path that ``Started`` and ``Report`` give for a download to standard output. A file may be called ``-``.
STANDARD_OUTPUT = Path("/dev/stdout")


class Started(Struct, frozen=True, tag_field="event", tag="start"):
    """The file is known; the first request follows. ``bytes`` is the file's size, ``max_rate`` the limit of the rate in
    bytes per second, 0 without a limit.
    """

    name: str = field(name="file")
    output: Path
    id: str
    bytes: int
    segments: int
    max_rate: int = 0

    @property
    def seconds_per_segment(self) -> float:
        """The time between two segments at the limit of the rate; 0 without a limit."""
        return self.bytes / self.segments / self.max_rate if self.segments and self.max_rate else 0.0


class FilesStarted(Struct, frozen=True, tag_field="event", tag="selection"):
    """A download of several files begins: of those that ``names`` select and ``exclude`` does not. ``output`` is the
    folder that receives them, ``max_rate`` the limit of the rate in bytes per second, 0 without a limit. In a dry run
    nothing is fetched.
    """

    names: tuple[str, ...]
    exclude: tuple[str, ...]
    output: Path
    max_rate: int = 0
    dry_run: bool = False


class Outcome(enum.StrEnum):
    """The result for one of several files: it was fetched and is in place; it has the size and time of the shared file
    and was kept; its content was compared and is the same; or it failed. In a dry run a file that would be fetched is
    missing, or it exists and differs.
    """

    FETCHED = "fetched"
    KEPT = "kept"
    SAME = "same"
    FAILED = "failed"
    MISSING = "missing"
    DIFFERS = "differs"


class FileResult(Struct, frozen=True, tag_field="event", tag="file"):
    """The result for one of several files, of ``bytes`` bytes. A folder that cannot be made, and a name that selects
    nothing, have failed. ``error`` is why.
    """

    name: str = field(name="file")
    outcome: Outcome
    bytes: int = 0
    error: MsdError | None = None


class FileCounts(Struct):
    """Numbers of files: those that are listed and selected, and those with each outcome. ``size`` is the number of
    bytes of the fetched ones.
    """

    listed: int = 0
    fetched: int = 0
    kept: int = 0
    same: int = 0
    failed: int = 0
    size: int = 0

    @property
    def done(self) -> int:
        """The number of files that are in place."""
        return self.fetched + self.kept + self.same


class FileProgress(Struct, frozen=True):
    """A file that is being fetched by segments: ``bytes`` of ``total`` are verified."""

    name: str = field(name="file")
    bytes: int
    total: int


class FilesProgress(Struct, frozen=True):
    """The progress of a download of several files. ``is_listed`` is False while more files may be listed. ``in_flight``
    are the largest of the files of which segments have arrived.
    """

    counts: FileCounts
    is_listed: bool
    in_flight: tuple[FileProgress, ...]

    @property
    def is_complete(self) -> bool:
        """True if each file is in place or has failed."""
        return self.is_listed and self.counts.done + self.counts.failed >= self.counts.listed


def is_peer_name(name: str) -> bool:
    """True if this is the name of a peer, another receiver that passes on what it has, and not that of a worker."""
    return name.startswith("peer ")


class WorkerProgress(Struct, frozen=True):
    """The progress of one worker, or of a peer.

    ``received`` counts the verified bytes that the worker delivered; ``assigned`` also counts the outstanding bytes and
    those of segments that are not complete. ``rate`` is the worker's current rate in bytes per second, measured over
    its last arrivals; 0 if it is known to send nothing (``client/report/rate_meter.py``).
    """

    name: str
    received: int
    assigned: int
    rate: float


class Progress(Struct, frozen=True, tag_field="event", tag="progress"):
    """The progress of a download, ``seconds`` after its first request.

    ``bytes`` of ``total`` are verified; ``reused_bytes`` of them were found on the disk. ``rate`` is the average
    rate of received and verified bytes since the first request, in bytes per second. ``wasted_bytes`` were received but
    are duplicate, corrupt or of an earlier version. ``zero_bytes`` of ``reused_bytes`` are zeros, which a new file has
    from the beginning. ``received_bytes`` came over the network, the wasted ones included. ``files`` is None in a
    download of a single file; ``total`` is then its size. Of several files,
    ``total`` is the number of bytes that are to be fetched as far as it is known.
    """

    bytes: int
    total: int
    reused_bytes: int
    wasted_bytes: int
    seconds: float
    rate: float
    workers: tuple[WorkerProgress, ...]
    zero_bytes: int = 0
    files: FilesProgress | None = None
    received_bytes: int = 0

    @property
    def is_complete(self) -> bool:
        """True for the last event of a download that succeeds."""
        return self.bytes == self.total and (self.files is None or self.files.is_complete)

    @property
    def current_rate(self) -> float:
        """The current rate of the download: the sum of the workers' rates."""
        return sum(worker.rate for worker in self.workers)


class FileChanged(Struct, frozen=True, tag_field="event", tag="changed"):
    """The file changed on the servers for the ``changes``-th time; the download goes on with the new version.

    ``id``, ``bytes`` and ``segments`` describe the new version. ``kept_bytes`` of it are verified already: they were
    found on the disk. The next ``Progress`` may report fewer verified bytes than the last one.
    """

    name: str = field(name="file")
    changes: int
    id: str
    bytes: int
    segments: int
    kept_bytes: int


class WorkerChanged(Struct, frozen=True, tag_field="event", tag="worker"):
    """The state of a worker, or of ``server 5``, changed.

    ``state`` is ``ready``, ``lost`` (the connection was lost), ``unreachable`` (the client cannot connect to it, but to
    others), ``set aside`` (the client banned the worker), ``unavailable`` (it cannot read its files at the moment), or
    a state that server 5 reports: ``asleep``, ``silent``, ``dead``, ``failed``, ``lost`` or ``unreachable``. ``detail``
    is the reason as text. ``segments`` is the number of outstanding segments that are reassigned because the connection
    was lost. ``place`` is the name and the host of a worker that has joined from another host, such as ``attic,
    192.0.2.7``; otherwise empty.
    """

    name: str
    state: str
    detail: str = ""
    segments: int = 0
    place: str = ""

    @property
    def label(self) -> str:
        """How the worker, or server 5, is called in a text for people."""
        label = f"worker {self.name}" if self.name.isdigit() else self.name
        return f"{label} ({self.place})" if self.place else label


class Waiting(Struct, frozen=True, tag_field="event", tag="waiting"):
    """The download has made no progress for ``seconds``; ``reason`` explains why.

    ``addresses`` is what came back from each address, if no server answers. The download gives up after ``timeout``
    seconds without progress; None means that it never gives up.
    """

    reason: str
    seconds: float
    addresses: tuple[Contact, ...] = ()
    timeout: float | None = None


class Retried(Struct, frozen=True, tag_field="event", tag="retry"):
    """A segment will be requested again: ``worker`` refused the request or sent corrupt data. If the segment arrived in
    parts, ``worker`` names all of their senders, such as ``1 or 2``.

    ``cause`` is ``corrupt`` or a ``RefusalReason``; ``detail`` is the worker's explanation.
    """

    worker: str
    segment: int
    cause: str
    detail: str = ""


class Warned(Struct, frozen=True, tag_field="event", tag="warning"):
    """The download goes on, or is complete, but ``text`` should be known: the file system lacks an operation, another
    program touched the part file, a limit is very low, or something failed after the output was in place.
    """

    text: str


class Hashing(Struct, frozen=True):
    """All segments are verified; the client computes the SHA-256 of the whole file. ``reason`` says so to the user."""

    reason: ClassVar[str] = "computing the SHA-256"


class Syncing(Struct, frozen=True):
    """All segments are verified; the client waits until they are on the disk. ``reason`` says so to the user."""

    reason: ClassVar[str] = "syncing to disk"


class WorkerReport(Struct):
    """The totals of one worker.

    ``bytes`` and ``segments`` count verified data, ``failures`` counts the connections lost while requests were
    outstanding, and ``corrupt`` counts the corrupt segments.
    """

    bytes: int = 0
    segments: int = 0
    failures: int = 0
    corrupt: int = 0


class Totals(Struct, frozen=True):
    """Totals computed from the events of a download.

    ``retries`` counts the retried segments by cause; ``lost`` stands for a lost connection. ``waited_seconds`` is the
    total length of all periods of more than one second without progress. ``rate_p50`` and ``rate_peak`` are the median
    and the largest of the current rates in bytes per second; times in which no data arrived are not counted.
    """

    retries: dict[str, int] = field(default_factory=dict)
    waited_seconds: float = 0.0
    rate_p50: float = 0.0
    rate_peak: float = 0.0


class Report(Struct, frozen=True):
    """The result of a download. ``seconds`` is the time from the first request until the output is in place.

    ``transfer_seconds`` is the time until the last segment was verified, and ``rate`` the average rate of received and
    verified bytes in that time, in bytes per second. ``unchanged`` is True if an update found the output up to date.
    ``zero_bytes`` of ``reused_bytes`` are zeros, which a new file has from the beginning. ``passed_on_bytes`` is what
    others got from this download. ``workers`` also has the peers from which it got something.
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
    totals: Totals = field(default_factory=Totals)
    transfer_seconds: float = 0.0
    rate: float = 0.0
    unchanged: bool = False
    zero_bytes: int = 0
    passed_on_bytes: int = 0


class FilesReport(Struct, frozen=True):
    """The result of a download of several files into the folder ``output``.

    ``counts`` are numbers of files, and ``errors`` the error of each file, folder or name that failed, at most 1,000.
    ``wanted`` are the files that a dry run would fetch. ``seconds`` is the time from the first request until all files
    are in place. The other fields are as in ``Report``.
    """

    output: Path
    counts: FileCounts
    errors: Mapping[str, MsdError]
    seconds: float
    received_bytes: int
    wasted_bytes: int
    reused_bytes: int
    workers: dict[str, WorkerReport] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    transfer_seconds: float = 0.0
    rate: float = 0.0
    dry_run: bool = False
    wanted: Sequence[FileResult] = ()
    zero_bytes: int = 0
    passed_on_bytes: int = 0


Event = (
    Started
    | FilesStarted
    | Progress
    | FileResult
    | FileChanged
    | WorkerChanged
    | Waiting
    | Retried
    | Warned
    | Hashing
    | Syncing
)
OnEvent = Callable[[Event], None]
