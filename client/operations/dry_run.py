"""The dry run of a download of a single file: whether the file would be fetched. Fetches and writes nothing.

``client/operations/download_files.py`` makes dry runs of several files itself.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

from msd.client.events import FileCounts, FileResult, FilesReport, FilesStarted, OnEvent, Outcome
from msd.client.manifest.id_prefix import parse_id
from msd.client.manifest.look_up import find_manifest, find_version
from msd.client.network.pool import ConnectionPool
from msd.client.network.session import Session
from msd.client.operations.verify import compare
from msd.client.storage.destination import Destination
from msd.client.storage.part_file import exists_error
from msd.client.storage.segments_on_disk import disk_errors, read_error
from msd.client.storage.stream import is_stream
from msd.wire.config.servers import Servers
from msd.wire.errors import UsageError
from msd.wire.protocol.segments import Manifest


def dry_run(
    servers: Servers,
    name: str | None,
    output: str | None,
    *,
    id: str | None,
    update: bool,
    force: bool,
    checksum: bool,
    timeout: float | None,
    on_event: OnEvent,
) -> FilesReport:
    """Returns what ``download()`` would do with these arguments: with one file, which it would fetch or keep.

    Raises ``MsdError``, as ``download()`` would.
    """
    if output is not None and is_stream(output):
        raise UsageError(f"{output} is a stream, which takes no dry run: choose a file", arguments=("output",))
    started = time.monotonic()
    destination = Destination(output, replace=force or update or checksum)
    digits = parse_id(id) if id is not None else None
    pool = ConnectionPool(servers, download=True, is_counted=False, timeout=timeout, on_event=on_event)
    with closing(pool):
        session = Session(pool)
        version = find_version(session, digits, name) if digits is not None else None
        manifest, _ = find_manifest(session, name and name.removeprefix("./"), version)
    target = destination.check(manifest.name)
    on_event(FilesStarted((manifest.name,), (), target, dry_run=True))
    outcome = Outcome.MISSING
    if target.exists():
        is_same = (update or checksum) and _has_content(target, manifest)
        if not is_same and not (update or force):
            raise exists_error(target)
        outcome = Outcome.SAME if is_same else Outcome.DIFFERS
    result = FileResult(manifest.name, outcome, manifest.size)
    on_event(result)
    is_kept = outcome is Outcome.SAME
    counts = FileCounts(listed=1, same=int(is_kept))
    seconds = time.monotonic() - started
    return FilesReport(target, counts, {}, seconds, 0, 0, 0, dry_run=True, wanted=[] if is_kept else [result])


def _has_content(path: Path, manifest: Manifest) -> bool:
    with disk_errors(path, read_error):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return compare(fd, manifest).matches
        finally:
            os.close(fd)
