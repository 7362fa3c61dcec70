"""``download_files()``: downloads several files and folders into a folder, in one session."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from msd.client.events import Event, FilesReport, FilesStarted, OnEvent, Progress, Syncing, Totals, Warned
from msd.client.network.pool import ConnectionPool
from msd.client.network.session import Session
from msd.client.network_events import sender_name
from msd.client.operations.progress_reports import ProgressReports
from msd.client.operations.selection_download import SelectionDownload
from msd.client.operations.transfer import Transfer
from msd.client.plan.selection import normalized
from msd.client.report.totals import RunningTotals
from msd.client.storage.existing_file import Policy
from msd.client.storage.tree import Tree
from msd.wire.config.argument_types import check_ranges, check_types, optional
from msd.wire.config.servers import Servers
from msd.wire.errors import Interrupted, MsdError, UsageError
from msd.wire.support.units import format_count

if TYPE_CHECKING:
    from msd.client.operations.passing_on import PassingOn
    from msd.client.operations.selection_passing import SelectionPassing

#: How long to wait for the broker to confirm ``done``.
DONE_TIMEOUT_S = 1.0
#: The arguments of ``download_files()``.
_ARGUMENT_TYPES = {
    "servers": ((Servers,), "the result of Servers.find()"),
    "names": ((Sequence,), "names of shared files and folders, and globs"),
    "output": optional(str, Path, takes="the path of a folder"),
    "exclude": ((Sequence,), "globs"),
    "update": ((bool,), "True or False"),
    "force": ((bool,), "True or False"),
    "checksum": ((bool,), "True or False"),
    "dry_run": ((bool,), "True or False"),
    "timeout": optional(int, float, takes="a number of seconds, or None for no limit"),
    "sync": ((bool,), "True or False"),
    "check_space": ((bool,), "True or False"),
    "memory": ((int,), "a number of bytes"),
    "max_rate": optional(int, float, takes="a number of bytes per second; None or 0 for no limit"),
    "pass_on": ((bool,), "True or False"),
    "listen": optional(str, takes="a port, or an address with a port"),
    "max_upload": optional(int, float, takes="a number of bytes per second; None or 0 for no limit"),
    "keep_serving": ((int, float), "a number of seconds"),
    "on_event": ((Callable,), "a function that takes an event"),
}


def download_files(
    servers: Servers,
    names: Sequence[str],
    output: str | Path | None = None,
    *,
    exclude: Sequence[str] = (),
    update: bool = False,
    force: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    timeout: float | None = None,
    sync: bool = True,
    check_space: bool = True,
    memory: int = 64 << 20,
    max_rate: float | None = None,
    pass_on: bool = False,
    listen: str | None = None,
    max_upload: float | None = None,
    keep_serving: float = 0.0,
    on_event: OnEvent = lambda event: None,
) -> FilesReport:
    """Downloads what ``names`` select and ``exclude`` does not into the folder ``output``, by default the current one:
    each file under its shared name. Missing folders are made.

    ``names`` are files, folders (which may end in ``/``) and globs such as ``*.jpg`` and ``**/*.jpg``; ``.`` selects
    everything. ``exclude`` are globs with the rules of a ``.gitignore`` file.

    A file that exists with the size and time of the shared one is kept, with ``checksum`` only if it has the same
    content. One that differs is replaced only with ``update``, which fetches only the segments of it that differ, or
    with ``force``. With ``dry_run`` nothing is written: see ``FilesReport.wanted``. With ``pass_on``, what is verified
    is passed on to others that download the same content. The other arguments are those of ``download()``.

    Raises ``MsdError``. A file that fails does not end the download: see ``FilesReport.errors``. The next call with
    the same arguments resumes a download that ended early.
    """
    check_types(locals(), _ARGUMENT_TYPES)
    check_ranges(locals(), positive=("timeout", "memory"), not_negative=("max_rate", "max_upload", "keep_serving"))
    _check_values(names, output, exclude)
    limit = math.ceil(max_rate) if max_rate and max_rate < math.inf else None
    totals = RunningTotals()
    reports: ProgressReports | None = None

    def emit(event: Event) -> None:
        if isinstance(event, Progress):
            event = replace(event, files=selection.progress())
        if reports is not None:
            reports.handle(event)
        totals.handle(event, time.monotonic())
        on_event(event)

    folder = Path(output) if output is not None else Path()
    with ExitStack() as resources:
        passing: PassingOn | None = None
        if pass_on and not dry_run:
            from msd.client.operations.passing_on import PassingOn, passing_options

            passing = PassingOn(passing_options(listen, max_upload, keep_serving), emit)
            resources.callback(passing.close)
        tree = Tree(
            folder,
            policy=Policy(update=update, force=force, checksum=checksum),
            make=not dry_run,
            sync=sync,
            check_space=check_space,
            on_warning=lambda text: emit(Warned(text)),
        )
        resources.callback(tree.close)
        pool = ConnectionPool(servers, download=True, passes_on=passing is not None, timeout=timeout, on_event=emit)
        resources.callback(pool.close)
        if passing is not None:
            resources.callback(passing.stop)
        reports = ProgressReports(pool, servers.client_name)
        resources.enter_context(reports)
        session = Session(pool)
        transfer = Transfer(session, memory=memory, max_rate=limit, on_event=emit)
        selection_passing: SelectionPassing | None = None
        if passing is not None:
            from msd.client.operations.selection_passing import SelectionPassing

            selection_passing = SelectionPassing(session, transfer, passing, tree.fd)
        selection = SelectionDownload(
            session,
            transfer,
            [*map(normalized, names)],
            exclude,
            tree,
            memory=memory,
            on_event=emit,
            fetches=not dry_run,
            passing=selection_passing,
        )
        emit(FilesStarted(tuple(names), tuple(exclude), folder, limit or 0, dry_run))
        _run(session, selection, transfer, tree)
        if not dry_run:
            if sync and selection.counts.fetched:
                emit(Syncing())
            if sync:
                tree.sync_names()
            tree.remove_leftovers(selection.new_selection().selects)
        ended = time.monotonic()
        reports.end(next((error.exit_code for error in selection.errors.values()), 0))
        if pool.control is not None and not selection.errors:
            pool.transport.report_done(pool.control, DONE_TIMEOUT_S)
        total = totals.compute(ended)
        if passing is not None:
            passing.keep_serving(session, f"{format_count(selection.counts.done, 'file')} complete")
            passing.stop()
        passed_on = passing.sent_bytes if passing is not None else 0
        return _report(folder, selection, transfer, total, ended, passed_on)


def _check_values(names: Sequence[str], output: str | Path | None, exclude: Sequence[str]) -> None:
    """Raises ``UsageError`` if an argument has a value that is not allowed."""
    if isinstance(names, str) or isinstance(exclude, str):
        raise UsageError("names and exclude take lists of names: put the name in a list")
    if not names:
        raise UsageError("names is empty: give the names of shared files, or '.' for all")
    if output == "":
        raise UsageError("output is empty: give the name of a folder", arguments=("output",))


def _run(session: Session, selection: SelectionDownload, transfer: Transfer, tree: Tree) -> None:
    """Runs the download, and emits its last progress. What is complete is put in place also if the download fails, but
    not if it is interrupted, for that may take time. Adds the progress to an ``Interrupted`` error.
    """
    transfer.expects_groups = True
    try:
        session.start(transfer)
        session.run(selection)
        if selection.counts.listed and selection.fetches:
            transfer.emit_progress(is_complete=True)
    except Interrupted as error:
        progress = f"{format_count(selection.counts.done, 'file')} complete; run the same command to resume"
        raise Interrupted(f"interrupted: {progress}", error.exit_code - 128) from None
    except MsdError:
        with contextlib.suppress(MsdError):
            tree.complete()
        raise


def _report(
    output: Path, selection: SelectionDownload, transfer: Transfer, totals: Totals, ended: float, passed_on: int
) -> FilesReport:
    return FilesReport(
        output=output,
        counts=selection.counts,
        errors=selection.errors,
        seconds=ended - transfer.started,
        received_bytes=transfer.received,
        wasted_bytes=transfer.wasted + transfer.outdated,
        reused_bytes=transfer.reused,
        workers={sender_name(number): report for number, report in sorted(transfer.workers.items())},
        totals=totals,
        transfer_seconds=transfer.seconds,
        rate=transfer.rate,
        zero_bytes=transfer.zeros,
        dry_run=not selection.fetches,
        wanted=selection.wanted,
        passed_on_bytes=passed_on,
    )
