"""The manifest of a shared file: joins the decisions of ``client/manifest/resolver.py`` to the connections."""

from __future__ import annotations

import time

from msd.client.events import OnEvent
from msd.client.manifest import resolver
from msd.client.network.connection import new_rid
from msd.client.network.pool import ConnectionPool
from msd.client.network.progress_timeout import ProgressTimeout
from msd.client.network.transport import LinkClosed, LinkOpened, ReplyReceived, TransportEvent
from msd.wire.errors import NotFoundError
from msd.wire.protocol.messages import MAX_NAME, CataloguePage, Describe, Described, DigestPage, Digests, List, Refusal
from msd.wire.protocol.segments import Manifest
from msd.wire.support.text import is_presentable


def find_manifest(
    peers: ConnectionPool,
    name: str | None,
    id: bytes | None,
    *,
    timeout: float | None,
    on_event: OnEvent,
    guess: str | None = None,
) -> tuple[Manifest, bytes]:
    """The manifest of the file ``name`` (None: the only one, or of several the one called ``guess``) in the
    version ``id`` (None: the right one), and the catalogue that server 5 vouched for when it was chosen, empty if
    it had not said.

    Raises ``MsdError``; ``timeout`` is in seconds without progress, None for ever.
    """
    if name is not None and not _may_be_shared(name):
        raise NotFoundError(f"{name[:100]!r} cannot be the name of a shared file: msd list shows what is shared")
    if guess is not None and not _may_be_shared(guess):
        guess = None
    finder = resolver.ManifestResolver(name, id, guess)
    patience = ProgressTimeout(timeout, time.monotonic())
    actions: list[resolver.Action] = []
    while True:
        vouched = peers.status.catalogue if peers.status else b""
        actions += finder.handle(resolver.Vouched(vouched or None, len(peers.numbers)), time.monotonic())
        for action in actions:
            rid = new_rid()
            match action:
                case resolver.AskDescribe(worker, wanted):
                    peers.request(worker, Describe(rid=rid, name=wanted, id=id))
                case resolver.AskDigests(worker, file, start):
                    peers.request(worker, Digests(rid=rid, id=file, start=start))
                case resolver.AskNames(worker):
                    peers.request(worker, List(rid=rid))
                case resolver.Found(manifest):
                    return manifest, finder.catalogue
                case resolver.Fail(error):
                    raise error
        actions = []
        due = [time for time in (finder.next_deadline(), patience.next_deadline()) if time is not None]
        for event in peers.turn(min(due)):
            if (translated := _for_finder(event)) is not None:
                if isinstance(translated, resolver.Answered) and not isinstance(translated.reply, Refusal):
                    patience.moved(time.monotonic())
                actions += finder.handle(translated, time.monotonic())
        patience.excuse(peers.stalled)
        if news := peers.news():
            on_event(news)
        if waiting := patience.check(peers.looked_at, peers.why_waiting()):
            on_event(waiting)


def _may_be_shared(name: str) -> bool:
    """True if this can be the name of a shared file."""
    return 0 < len(name) <= MAX_NAME and is_presentable(name)


def _for_finder(event: TransportEvent) -> resolver.Event | None:
    match event:
        case LinkOpened(worker, welcome, _):
            return resolver.WorkerReady(worker, welcome)
        case LinkClosed(worker):
            return resolver.WorkerLost(worker)
        case ReplyReceived(worker, _, Described() | DigestPage() | CataloguePage() | Refusal() as reply, payload):
            return resolver.Answered(worker, reply, payload.bytes if payload else b"")
        case _:
            return None
