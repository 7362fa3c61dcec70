"""``download_files()``: downloads several files and folders into a folder, in one session."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from msd.client.events import OnEvent, Syncing, Warned
from msd.client.network.pool import ConnectionPool
from msd.client.network.session import Session
from msd.client.operations.selection_download import Counts, SelectionDownload
from msd.client.operations.transfer import Transfer
from msd.client.storage.existing_file import Policy
from msd.client.storage.tree import Tree
from msd.wire.config.argument_types import check_types, optional
from msd.wire.config.servers import Servers
from msd.wire.errors import Interrupted, MsdError, UsageError
from msd.wire.protocol.messages import Entry
from msd.wire.support.units import format_count

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
    "on_event": ((Callable,), "a function that takes an event"),
}


class FilesReport(Struct, frozen=True):
    """The result of a download of several files.

    ``counts`` are numbers of files, and ``errors`` the error of each file or name that failed, but not more than 1,000.
    ``received_bytes`` were received, ``wasted_bytes`` of them were duplicate or corrupt, in ``seconds``. ``wanted`` are
    the files that a dry run would fetch.
    """

    output: Path
    counts: Counts
    received_bytes: int
    wasted_bytes: int
    seconds: float
    errors: Mapping[str, MsdError]
    wanted: Sequence[Entry] = ()


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
    on_event: OnEvent = lambda event: None,
) -> FilesReport:
    """Downloads what ``names`` select (files, folders ending in ``/``, globs) and ``exclude`` does not, into the folder
    ``output``, by default the current one: each file under its shared name. Missing folders are made.

    A file that exists with the size and time of the shared one is kept, with ``checksum`` only if it has the same
    content. One that differs is replaced only with ``update``, which fetches only the segments of it that differ, or
    with ``force``. With ``dry_run`` nothing is written: see ``FilesReport.wanted``. The other arguments are those of
    ``download()``.

    Raises ``MsdError``. A file that fails does not end the download: see ``FilesReport.errors``. The next call with
    the same arguments resumes a download that ended early.
    """
    check_types(locals(), _ARGUMENT_TYPES)
    if isinstance(names, str) or isinstance(exclude, str):
        raise UsageError("names and exclude take lists of names: put the name in a list")
    if not names:
        raise UsageError("names is empty: give the names of shared files, or '**' for all")
    for argument, value in (("timeout", timeout), ("memory", memory)):
        if value is not None and not value > 0:
            raise UsageError(f"{argument} {value:g}: must be more than 0")
    if max_rate is not None and not max_rate >= 0:
        raise UsageError(f"max_rate {max_rate:g}: must not be negative")
    folder = Path(output) if output is not None else Path()
    with ExitStack() as resources:
        tree = Tree(
            folder,
            policy=Policy(update=update, force=force, checksum=checksum),
            make=not dry_run,
            sync=sync,
            check_space=check_space,
            on_warning=lambda text: on_event(Warned(text)),
        )
        resources.callback(tree.close)
        pool = ConnectionPool(servers, download=True, timeout=timeout, on_event=on_event)
        resources.callback(pool.close)
        session = Session(pool)
        limit = math.ceil(max_rate) if max_rate and max_rate < math.inf else None
        transfer = Transfer(session, memory=memory, max_rate=limit, on_event=on_event)
        selection = SelectionDownload(
            session,
            transfer,
            [name.removeprefix("./") for name in names],
            exclude,
            tree,
            memory=memory,
            on_event=on_event,
            fetches=not dry_run,
        )
        session.start(transfer)
        _run(session, selection, tree)
        transfer.emit_progress(is_complete=True)
        if sync and not dry_run:
            on_event(Syncing())
        tree.sync_names()
        if not dry_run:
            tree.remove_leftovers(selection.new_selection().selects)
        if pool.control is not None and not selection.counts.failed:
            pool.transport.report_done(pool.control, DONE_TIMEOUT_S)
        seconds = time.monotonic() - transfer.started
        return FilesReport(
            output=folder,
            counts=selection.counts,
            received_bytes=transfer.received,
            wasted_bytes=transfer.wasted,
            seconds=seconds,
            errors=selection.errors,
            wanted=selection.wanted,
        )


def _run(session: Session, selection: SelectionDownload, tree: Tree) -> None:
    """Runs the download. What is complete is put in place also if the download fails, but not if it is interrupted,
    for that may take time. Adds the progress to an ``Interrupted`` error.
    """
    try:
        session.run(selection)
    except Interrupted as error:
        progress = f"{format_count(selection.counts.done, 'file')} complete; run the same command to resume"
        raise Interrupted(f"interrupted: {progress}", error.exit_code - 128) from None
    except MsdError:
        with contextlib.suppress(MsdError):
            tree.complete()
        raise
