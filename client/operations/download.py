"""``download()``: one file from all workers at once, verified, under its name.

Finds the manifest, has it transferred into the part file, and gives that its name.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from msd.client.events import Event, OnEvent, Report, Started, Syncing
from msd.client.manifest.fetch import find_manifest
from msd.client.network.pool import ConnectionPool
from msd.client.operations.transfer import Transfer
from msd.client.report.totals import RunningTotals
from msd.client.storage.part_file import PartFile, check_output
from msd.client.storage.update import UpdateFile
from msd.wire.config.settings import Servers
from msd.wire.errors import Interrupted, MsdError
from msd.wire.protocol.segments import Manifest
from msd.wire.support.units import amount

#: Seconds the broker has to answer ``done``; it may be frozen.
DONE_PATIENCE = 1.0


def download(
    servers: Servers,
    name: str | None = None,
    output: str | Path | None = None,
    *,
    id: bytes | None = None,
    force: bool = False,
    update: bool = False,
    timeout: float | None = None,
    sync: bool = True,
    interval: float = 1.0,
    memory: int = 64 << 20,
    on_event: OnEvent = lambda event: None,
) -> Report:
    """Downloads one file from all workers of ``servers`` and returns a report.

    ``name`` may be omitted if only one file is shared. ``output`` defaults to the base name of the shared file, in the
    current folder. An existing file is replaced only with ``force``, or with ``update``, which fetches only the
    segments that differ and leaves an up-to-date file alone.

    ``id`` asks for one version of the file by its 32 bytes. ``timeout`` is how many seconds the download waits without
    progress; None waits for ever. With ``sync`` False the download does not wait until the data is on the disk.
    ``interval`` is the time between two ``Progress`` events in seconds. ``memory`` bounds the bytes of outstanding
    requests. ``on_event`` is called from this thread and must not block.

    Raises ``MsdError``. The part file then stays, and the next call continues from it.
    """
    output = Path(output) if output is not None else None
    replace = force or update
    if output is not None:
        check_output(output, replace=replace)
    summary = RunningTotals()

    def tell(event: Event) -> None:
        summary.take(event, time.monotonic())
        on_event(event)

    peers = ConnectionPool(servers, download=True)
    try:
        manifest, catalogue = find_manifest(peers, name, id, timeout=timeout, on_event=tell)
        target = output if output is not None else Path(safe_name(manifest.name))
        check_output(target, replace=replace)
        part = UpdateFile(target, manifest) if update and target.exists() else PartFile(target, manifest)
        try:
            tell(Started(manifest.name, target, manifest.id.hex(), manifest.size, manifest.segments))
            transfer = Transfer(
                peers,
                manifest,
                part,
                catalogue=catalogue,
                timeout=timeout,
                interval=interval,
                memory=memory,
                on_event=tell,
            )
            _fetch(transfer, part, manifest, sync=sync, tell=tell)
            part.publish(replace=replace, sync=sync)
        finally:
            part.close()
        ended = time.monotonic()
        if peers.control is not None:
            peers.transport.tell_done(peers.control, DONE_PATIENCE)
        return _report(target, manifest, transfer, summary, ended, unchanged=part.is_same)
    finally:
        peers.close()


def _fetch(transfer: Transfer, part: PartFile, manifest: Manifest, *, sync: bool, tell: OnEvent) -> None:
    """Has every segment in the part file, and with ``sync`` on the disk. Who interrupts it is told what stays."""
    try:
        transfer.run()
        if sync:
            tell(Syncing())
            _in_thread(part)
    except Interrupted as error:
        told = f"interrupted: {amount(transfer.verified)} of {amount(manifest.size)} verified so far"
        kept = "" if part.is_same else f"what {part.path} holds stays, "
        told = f"{told}; {kept}run the same command again to go on"
        raise Interrupted(told, error.exit_code - 128) from None


def _report(
    output: Path, manifest: Manifest, transfer: Transfer, summary: RunningTotals, ended: float, *, unchanged: bool
) -> Report:
    totals = summary.totals(ended)
    return Report(
        file=manifest.name,
        output=output,
        id=manifest.id.hex(),
        bytes=manifest.size,
        seconds=ended - transfer.started,
        received_bytes=transfer.received,
        wasted_bytes=transfer.wasted,
        reused_bytes=transfer.reused,
        workers={str(number): report for number, report in sorted(transfer.workers.items())},
        retries=totals.retries,
        waited_seconds=totals.waited_seconds,
        rate_p50=totals.rate_p50,
        rate_peak=totals.rate_peak,
        unchanged=unchanged,
    )


def safe_name(name: str) -> str:
    """The base name of a shared file, fit to be a file in the current folder: without separators
    and control characters, and never empty or only dots.
    """
    base = re.sub(r"[\x00-\x1f\x7f/\\]", "_", name.rsplit("/", 1)[-1])
    return base if base.strip(".") else "download"


def _in_thread(part: PartFile) -> None:
    """Syncs in a thread: the main one stays open to signals, and to the display."""
    errors: list[MsdError] = []

    def work() -> None:
        try:
            part.sync()
        except MsdError as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="sync")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
