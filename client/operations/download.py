"""``download()``: downloads one file from all workers at once and verifies it.

Opens the output, has the file fetched into it and gives it its name. ``client/operations/file_download.py`` finds the
versions of the file, ``client/operations/file_transfer.py`` fetches one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from msd.client.events import Event, Hashing, OnEvent, Report, Started, Syncing, Totals, Waiting, Warned
from msd.client.manifest.look_up import check_name, find_version
from msd.client.network.pool import ConnectionPool
from msd.client.network.session import Session
from msd.client.network_events import sender_name
from msd.client.operations.file_download import FileDownload
from msd.client.operations.file_transfer import FileTransfer
from msd.client.operations.progress_reports import ProgressReports
from msd.client.operations.transfer import Transfer
from msd.client.report.progress_throttle import ProgressThrottle
from msd.client.report.totals import RunningTotals
from msd.client.storage.destination import Destination
from msd.client.storage.output import Output
from msd.client.storage.part_file import PartFile
from msd.client.storage.stream import Stream, is_stream, open_stream
from msd.client.storage.stream_output import StreamOutput
from msd.wire.config.argument_types import check_ranges, check_types, optional
from msd.wire.config.servers import Servers
from msd.wire.errors import Interrupted, MsdError, SourceError, UsageError
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import Manifest
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_duration, format_rate, format_size

if TYPE_CHECKING:
    from msd.client.operations.passing_on import PassingOn, PassingOptions

#: How long to wait for the broker to confirm ``done``: the broker may be frozen.
DONE_TIMEOUT_S = 1.0
#: Seconds between two segments above which a limit of the rate may be a mistake, such as 50 instead of 50 MB.
SLOW_SEGMENT_S = 60.0
#: The arguments of ``download()``.
_ARGUMENT_TYPES = {
    "servers": ((Servers,), "the result of Servers.find()"),
    "name": optional(str, takes="the name of a shared file"),
    "output": optional(str, Path, takes="a path"),
    "id": optional(bytes, str, takes="32 bytes or hexadecimal digits"),
    "sha256": optional(str, takes="64 hexadecimal digits"),
    "force": ((bool,), "True or False"),
    "update": ((bool,), "True or False"),
    "checksum": ((bool,), "True or False"),
    "timeout": optional(int, float, takes="a number of seconds, or None for no limit"),
    "sync": ((bool,), "True or False"),
    "check_space": ((bool,), "True or False"),
    "interval": ((int, float), "a number of seconds"),
    "memory": ((int,), "a number of bytes"),
    "max_rate": optional(int, float, takes="a number of bytes per second; None or 0 for no limit"),
    "pass_on": ((bool,), "True or False"),
    "listen": optional(str, takes="a port, or an address with a port"),
    "max_upload": optional(int, float, takes="a number of bytes per second; None or 0 for no limit"),
    "keep_serving": ((int, float), "a number of seconds"),
    "on_event": ((Callable,), "a function that takes an event"),
}


def download(
    servers: Servers,
    name: str | None = None,
    output: str | Path | None = None,
    *,
    id: bytes | str | None = None,
    sha256: str | None = None,
    force: bool = False,
    update: bool = False,
    checksum: bool = False,
    timeout: float | None = None,
    sync: bool = True,
    check_space: bool = True,
    interval: float = 1.0,
    memory: int = 64 << 20,
    max_rate: float | None = None,
    pass_on: bool = False,
    listen: str | None = None,
    max_upload: float | None = None,
    keep_serving: float = 0.0,
    on_event: OnEvent = lambda event: None,
) -> Report:
    """Downloads one file from all workers of ``servers`` and returns a report.

    ``name`` may be omitted if only one file is shared. ``output`` is a file, or a folder that receives the file under
    its base name; the default is the current folder. A string that ends in ``/`` always names a folder, and missing
    folders are made. An existing file is replaced only with ``force``, or with ``update``, which fetches only the
    segments that differ and leaves an up-to-date file unchanged. With ``checksum`` an existing file that has the shared
    content is kept, too.

    The string ``-`` (standard output), a FIFO or a character device is a stream: it receives the segments in order,
    each verified. A download to a stream cannot be resumed.

    ``id`` selects one version of the file: 32 bytes, or the hexadecimal digits of ``Report.id``, of which the first six
    are enough if no other id begins with them. ``sha256`` is the expected SHA-256 of the whole file, as 64 hexadecimal
    digits: if the file has another one, ``output`` is not created (a stream has received the file by then).
    ``timeout`` is the maximum time without progress in seconds; None means no limit. With ``sync`` False the download
    does not wait until the data is on the disk, and with ``check_space`` False it begins although the file system
    reports too little free space. ``interval`` is the time between two ``Progress`` events in seconds;
    there are at most ten a second. ``memory`` limits the outstanding bytes, including, for a stream, those that wait to
    be written. ``max_rate`` limits the rate, in bytes per second; None or 0 means no limit. ``on_event`` is called in
    the caller's thread and must not block.

    With ``pass_on``, this download passes on what it has verified, and gets from others that do; that is not possible
    for a stream. It listens at ``listen``, a port or an address with a port (None: a free port), sends at most
    ``max_upload`` bytes per second (None or 0: no limit), and goes on for ``keep_serving`` seconds after the file is
    complete.

    Raises ``MsdError`` on failure. The part file is then kept, and the next call resumes from it. If the reader of a
    stream closes it, raises ``OutputClosedError``.
    """
    check_types(locals(), _ARGUMENT_TYPES)
    not_negative = ("interval", "max_rate", "max_upload", "keep_serving")
    check_ranges(locals(), positive=("timeout", "memory"), not_negative=not_negative)
    options: PassingOptions | None = None
    if pass_on:
        from msd.client.operations.passing_on import passing_options

        options = passing_options(listen, max_upload, keep_serving)
    if name is not None:
        name = name.removeprefix("./")
        check_name(name)
    limit = math.ceil(max_rate) if max_rate and max_rate < math.inf else None
    digits = None
    if id is not None:
        from msd.client.manifest.id_prefix import parse_id

        digits = parse_id(id)
    expected_sha256 = None
    if sha256 is not None:
        from msd.client.storage.sha256 import parse_sha256

        expected_sha256 = parse_sha256(sha256)
    totals = RunningTotals()
    throttle = ProgressThrottle(on_event, interval)
    reports: ProgressReports | None = None

    def emit(event: Event) -> None:
        totals.handle(event, time.monotonic())
        if reports is not None:
            reports.handle(event)
        throttle.handle(event)

    with ExitStack() as resources:
        # Before the connections are opened: a FIFO may have to wait for its reader.
        destination = _open_destination(output, force=force, update=update, checksum=checksum, on_event=emit)
        if isinstance(destination, Stream):
            resources.callback(destination.close)
            sync = False
            if options is not None:
                raise UsageError("a stream cannot be passed on: give a file", arguments=("output",))
        passing: PassingOn | None = None
        if options is not None:
            from msd.client.operations.passing_on import PassingOn

            passing = PassingOn(options, emit)
            resources.callback(passing.close)
        pool = ConnectionPool(servers, download=True, passes_on=pass_on, timeout=timeout, on_event=emit)
        resources.callback(pool.close)
        if passing is not None:
            resources.callback(passing.stop)
        reports = ProgressReports(pool, servers.client_name)
        resources.enter_context(reports)
        session = Session(pool)
        version = find_version(session, digits, name) if digits is not None else None
        outputs = _Outputs(
            destination,
            session,
            reuses=update or checksum,
            replaces=force or update,
            with_sha256=sha256 is not None,
            check_space=check_space,
            memory=memory,
            limit=limit,
            passing=passing,
            on_event=emit,
        )
        resources.callback(outputs.close)
        pinned_by = "id" if id is not None else "sha256" if sha256 is not None else None
        file_download = FileDownload(
            session,
            name,
            version,
            pinned_by=pinned_by,
            start_transfer=outputs.start_transfer,
            on_warning=lambda text: emit(Warned(text)),
        )
        file_transfer = _run(session, file_download, sha256=expected_sha256, sync=sync, on_event=emit)
        file_transfer.output.publish(replace=force or update, sync=sync)
        ended = time.monotonic()
        total = totals.compute(ended)
        reports.end()
        if pool.control is not None:
            pool.transport.report_done(pool.control, DONE_TIMEOUT_S)
        if passing is not None:
            passing.keep_serving(session, f"{presentable(file_transfer.name)} is complete")
            passing.stop()
        passed_on = passing.sent_bytes if passing is not None else 0
        return _report(outputs.target, file_transfer, total, ended, passed_on)


class _Outputs:
    """Opens the output for each version of the file, and starts its transfer. The caller must ``close()`` it.

    An existing file is compared with the version if ``reuses``, and may be replaced if ``replaces``. ``limit`` is the
    limit of the rate in bytes per second. The other arguments are those of ``download()``.
    """

    def __init__(
        self,
        destination: Destination | Stream,
        session: Session,
        *,
        reuses: bool,
        replaces: bool,
        with_sha256: bool,
        check_space: bool,
        memory: int,
        limit: int | None,
        passing: PassingOn | None,
        on_event: OnEvent,
    ) -> None:
        #: The path of the finished output.
        self.target = Path()
        self._destination = destination
        self._session = session
        self._reuses = reuses
        self._replaces = replaces
        self._with_sha256 = with_sha256
        self._check_space = check_space
        self._memory = memory
        self._limit = limit
        self._passing = passing
        self._on_event = on_event
        self._transfer: Transfer | None = None
        #: Closes the output of the version that is fetched.
        self._opened = ExitStack()

    def close(self) -> None:
        self._opened.close()

    def start_transfer(self, manifest: Manifest, catalogue: bytes, previous: FileTransfer | None) -> FileTransfer:
        """Starts the transfer of a version; ``previous`` is that of the version before."""
        self._opened.close()
        self.target, output = self._open(manifest)
        self._opened.callback(output.close)
        if previous is None:
            self._emit_start(manifest)
        if self._transfer is None:
            self._transfer = Transfer(self._session, memory=self._memory, max_rate=self._limit, on_event=self._on_event)
            self._session.start(self._transfer)
        self._transfer.total = manifest.size
        passing = self._passing
        if passing is not None:
            file = Entry(name=manifest.name, size=manifest.size, mtime_ns=manifest.mtime_ns, id=manifest.id)
            passing.start(self._session, self._transfer, manifest.id, manifest.segments, [file])
            passing.receive(manifest, 0, output.descriptors)
        return FileTransfer(
            self._session,
            self._transfer,
            manifest,
            output,
            catalogue=catalogue,
            memory=self._memory,
            previous=previous,
            on_event=self._on_event,
            passing=(0, passing.add_verified) if passing is not None else None,
        )

    def _emit_start(self, manifest: Manifest) -> None:
        id, limit = manifest.id.hex(), self._limit or 0
        started = Started(manifest.name, self.target, id, manifest.size, manifest.segments, limit)
        self._on_event(started)
        if started.seconds_per_segment > SLOW_SEGMENT_S:
            self._on_event(Warned(_slow_limit(started)))

    def _open(self, manifest: Manifest) -> tuple[Path, Output]:
        """Returns the path of the finished output, and the output to write to."""
        if isinstance(self._destination, Stream):
            return self._destination.path, StreamOutput(self._destination, manifest.size, with_sha256=self._with_sha256)
        target = self._destination.create(manifest.name)
        output_class = PartFile
        if self._reuses and target.exists():
            from msd.client.storage.update import ComparedPartFile, UpdatePartFile

            output_class = UpdatePartFile if self._replaces else ComparedPartFile
        return target, output_class(
            target, manifest, on_warning=lambda text: self._on_event(Warned(text)), check_space=self._check_space
        )


def _slow_limit(started: Started) -> str:
    """Returns the warning about a limit so low that the download seems to stand still."""
    size, duration = format_size(started.bytes / started.segments), format_duration(started.seconds_per_segment)
    limit = format_rate(started.max_rate)
    return f"at {limit}, the limit of the rate, one segment of {size} takes {duration}: check the unit of the limit"


def _open_destination(
    output: str | Path | None, *, force: bool, update: bool, checksum: bool, on_event: OnEvent
) -> Destination | Stream:
    """Opens ``output`` if it is a stream; otherwise checks that a file can be saved there."""
    if output is None or not is_stream(output):
        return Destination(output, replace=force or update or checksum)
    if update:
        raise UsageError(
            f"{output} is a stream, which cannot be updated: choose a file", arguments=("output", "update")
        )
    return open_stream(output, lambda reason: on_event(Waiting(reason, 0.0)))


def _run(
    session: Session, file_download: FileDownload, *, sha256: str | None, sync: bool, on_event: OnEvent
) -> FileTransfer:
    """Downloads the file, compares the SHA-256 if one is given and, with ``sync``, syncs the output. Returns the
    transfer of the complete version. Adds the progress to an ``Interrupted`` error.
    """
    try:
        session.run(file_download)
        transfer = file_download.result
        transfer.transfer.emit_progress(is_complete=True)
        if sha256 is not None:
            on_event(Hashing())
            _check_sha256(transfer.output, transfer.manifest, sha256)
        if sync:
            on_event(Syncing())
            _sync_in_thread(transfer.output)
        return transfer
    except Interrupted as error:
        if file_download.transfer is None:
            raise
        transfer = file_download.transfer
        verified = f"{format_size(transfer.verified)} of {format_size(transfer.manifest.size)} verified"
        message = f"interrupted: {verified}; {transfer.output.saved_progress}"
        raise Interrupted(message, error.exit_code - 128) from None


def _check_sha256(output: Output, manifest: Manifest, expected: str) -> None:
    """Raises ``SourceError`` if the file is not the expected one. Another try would get the same data."""
    actual = output.sha256()
    if actual != expected:
        raise SourceError(
            f"{presentable(manifest.name)}: the SHA-256 is {actual}, but {expected} is expected: the sum is wrong, or"
            f" the servers share other content, id {manifest.id.hex()}: check the sum{output.data_location}"
        )


def _report(output: Path, file_transfer: FileTransfer, totals: Totals, ended: float, passed_on: int) -> Report:
    transfer = file_transfer.transfer
    return Report(
        file=file_transfer.name,
        output=output,
        id=file_transfer.manifest.id.hex(),
        bytes=file_transfer.manifest.size,
        seconds=ended - transfer.started,
        received_bytes=transfer.received,
        wasted_bytes=transfer.wasted + file_transfer.outdated,
        reused_bytes=file_transfer.reused,
        workers={sender_name(number): report for number, report in sorted(transfer.workers.items())},
        totals=totals,
        transfer_seconds=transfer.seconds,
        rate=transfer.rate,
        unchanged=file_transfer.output.output_matches,
        zero_bytes=file_transfer.zeros,
        passed_on_bytes=passed_on,
    )


def _sync_in_thread(output: Output) -> None:
    """Syncs the output in a thread, so that the main thread can handle signals meanwhile."""
    errors: list[MsdError] = []

    def sync() -> None:
        try:
            output.sync()
        except MsdError as error:
            errors.append(error)

    thread = threading.Thread(target=sync, name="sync")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
