"""``download_files()``: downloads several files and folders into a folder, in one session."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from msd.client.events import OnEvent, Warned
from msd.client.network.pool import ConnectionPool
from msd.client.network.session import Session
from msd.client.operations.selection_download import SelectionDownload
from msd.client.operations.transfer import Transfer
from msd.client.storage.folder import Folder
from msd.wire.config.servers import Servers
from msd.wire.errors import Interrupted, MsdError
from msd.wire.support.units import format_count

#: How long to wait for the broker to confirm ``done``.
DONE_TIMEOUT_S = 1.0


class FilesReport(Struct, frozen=True):
    """The result of a download of several files: the number of ``files`` that are in place, their ``bytes``, the bytes
    received, the duration in seconds, and the error of each file or name that failed.
    """

    output: Path
    files: int
    bytes: int
    received_bytes: int
    seconds: float
    failed: Mapping[str, MsdError]


def download_files(
    servers: Servers,
    names: Sequence[str],
    output: Path,
    *,
    exclude: Sequence[str] = (),
    force: bool = False,
    timeout: float | None = None,
    sync: bool = True,
    memory: int = 64 << 20,
    max_rate: float | None = None,
    on_event: OnEvent = lambda event: None,
) -> FilesReport:
    """Downloads what ``names`` select (files, folders ending in ``/``, globs) and ``exclude`` does not, into the folder
    ``output``: each file under its shared name. The other arguments are those of ``download()``.

    Raises ``MsdError``. A file that fails does not end the download: see ``FilesReport.failed``.
    """
    with ExitStack() as resources:
        folder = Folder(output, replace=force, sync=sync, on_warning=lambda text: on_event(Warned(text)))
        resources.callback(folder.close)
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
            folder,
            memory=memory,
            on_event=on_event,
        )
        session.start(transfer)
        try:
            session.run(selection)
        except Interrupted as error:
            message = f"interrupted: {format_count(selection.files, 'file')} complete in {output}"
            raise Interrupted(message, error.exit_code - 128) from None
        transfer.emit_progress(is_complete=True)
        if pool.control is not None and not selection.failed:
            pool.transport.report_done(pool.control, DONE_TIMEOUT_S)
        seconds = time.monotonic() - transfer.started
        return FilesReport(output, selection.files, selection.size, transfer.received, seconds, selection.failed)
