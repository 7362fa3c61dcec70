"""``download()``: one file from all workers at once, verified, under its name.

Finds the manifest, has it transferred into the part file, and gives that its name.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from client import finding
from client.connection import new_rid
from client.events import Report, Started, Syncing
from client.partfile import PartFile, check_output
from client.patience import Patience
from client.peers import Peers
from client.transfer import OnEvent, Transfer
from client.transport import LinkClosed, LinkOpened, ReplyReceived, TransportEvent
from client.update import Update
from wire.config import Servers
from wire.errors import MsdError, NotFoundError
from wire.messages import MAX_NAME, Catalog, Describe, Described, DigestPage, Digests, List, Refusal
from wire.names import is_presentable
from wire.segments import Manifest

#: Seconds the broker has to answer ``done``; it may be frozen.
DONE_PATIENCE = 1.0


def download(
    servers: Servers,
    name: str | None = None,
    output: Path | None = None,
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
    """Downloads one file from all workers of ``servers`` and returns what happened.

    ``name`` may be left out where one file is shared; ``output`` defaults to the base name of the
    file in the current folder, and replaces a file only with ``force``, or with ``update``, which
    fetches no segment that this file has, and leaves it alone if it is right. ``id`` asks for one
    version by its 32 bytes. ``timeout`` is in seconds without progress, None for ever. ``sync`` False leaves
    it to the system when the data reaches the disk. ``interval`` is the time between two
    ``Progress`` events in seconds; ``memory`` bounds what may be outstanding, in bytes.
    ``on_event`` is called from this thread and must not block.

    Raises ``MsdError``; the part file stays then, and the next call goes on from it.
    """
    if name is not None and not _can_be_shared(name):
        raise NotFoundError(f"{name[:100]!r} cannot be the name of a shared file: msd list shows what is shared")
    replace = force or update
    if output is not None:
        check_output(output, replace=replace)
    peers = Peers(servers, download=True)
    try:
        manifest = _find(peers, name, id, timeout, on_event)
        target = output if output is not None else Path(safe_name(manifest.name))
        check_output(target, replace=replace)
        part = Update(target, manifest) if update and target.exists() else PartFile(target, manifest)
        try:
            on_event(Started(manifest.name, target, manifest.id.hex(), manifest.size, manifest.segments))
            transfer = Transfer(
                peers, manifest, part, timeout=timeout, interval=interval, memory=memory, on_event=on_event
            )
            transfer.run()
            if sync:
                on_event(Syncing())
                _in_thread(part)
            part.publish(replace=replace, sync=sync)
        finally:
            part.close()
        seconds = time.monotonic() - transfer.started
        if peers.control is not None:
            peers.transport.tell_done(peers.control, DONE_PATIENCE)
        return Report(
            file=manifest.name,
            output=target,
            id=manifest.id.hex(),
            bytes=manifest.size,
            seconds=seconds,
            received_bytes=transfer.received,
            wasted_bytes=transfer.wasted,
            reused_bytes=transfer.reused,
            workers={str(number): report for number, report in sorted(transfer.workers.items())},
        )
    finally:
        peers.close()


def _can_be_shared(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and is_presentable(name)


def safe_name(name: str) -> str:
    """The base name of a shared file, fit to be a file in the current folder: without separators
    and control characters, and never empty or only dots.
    """
    base = re.sub(r"[\x00-\x1f\x7f/\\]", "_", name.rsplit("/", 1)[-1])
    return base if base.strip(".") else "download"


def _find(peers: Peers, name: str | None, id: bytes | None, timeout: float | None, on_event: OnEvent) -> Manifest:
    """The manifest of the file to download."""
    finder = finding.Finder(name, id)
    patience = Patience(timeout, time.monotonic())
    actions: list[finding.Action] = []
    while True:
        vouched = peers.status.catalogue if peers.status else b""
        actions += finder.handle(finding.Vouched(vouched or None, len(peers.numbers)), time.monotonic())
        for action in actions:
            rid = new_rid()
            match action:
                case finding.AskDescribe(worker):
                    peers.request(worker, Describe(rid=rid, name=name, id=id))
                case finding.AskDigests(worker, file, start):
                    peers.request(worker, Digests(rid=rid, id=file, start=start))
                case finding.AskNames(worker):
                    peers.request(worker, List(rid=rid))
                case finding.Found(manifest):
                    return manifest
                case finding.Fail(error):
                    raise error
        actions = []
        due = [time for time in (finder.next_deadline(), patience.next_deadline()) if time is not None]
        for event in peers.turn(min(due)):
            if (translated := _for_finder(event)) is not None:
                if isinstance(translated, finding.Answered) and not isinstance(translated.reply, Refusal):
                    patience.moved(time.monotonic())
                actions += finder.handle(translated, time.monotonic())
        patience.excuse(peers.stalled)
        if news := peers.news():
            on_event(news)
        if waiting := patience.check(time.monotonic(), peers.why_waiting()):
            on_event(waiting)


def _for_finder(event: TransportEvent) -> finding.Event | None:
    match event:
        case LinkOpened(worker, welcome, _):
            return finding.WorkerReady(worker, welcome)
        case LinkClosed(worker):
            return finding.WorkerLost(worker)
        case ReplyReceived(worker, _, Described() | DigestPage() | Catalog() | Refusal() as reply, payload):
            return finding.Answered(worker, reply, payload.bytes if payload else b"")
        case _:
            return None


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
