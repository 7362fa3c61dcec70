"""Fetches the manifest of a shared file: sends the requests that ``client/manifest/resolver.py`` decides on.

Makes no decisions itself.
"""

from __future__ import annotations

import time

from msd.client.manifest import resolver
from msd.client.manifest.id_prefix import MAX_DIGITS, select_version
from msd.client.manifest.listing import fetch_listing
from msd.client.network.pool import ConnectionPool
from msd.client.network.progress_timeout import ProgressMade
from msd.client.network_events import ReplyReceived
from msd.wire.errors import NotFoundError, UsageError
from msd.wire.protocol.messages import MAX_NAME, CataloguePage, Described, DigestPage
from msd.wire.protocol.segments import Manifest
from msd.wire.support.core import TimePassed
from msd.wire.support.presentable_names import is_presentable


def find_manifest(
    pool: ConnectionPool,
    name: str | None,
    id: bytes | None,
    *,
    fallback_name: str | None = None,
    known: Manifest | None = None,
) -> tuple[Manifest, bytes]:
    """Returns a file's manifest, and the digest of the catalogue that server 5 published when the version was chosen.

    Without ``name``, the file is the only shared file or, if several are shared, the one named ``fallback_name``.
    ``id`` selects a version; None selects the current one. The catalogue's digest is empty if unknown. If the version
    is that of ``known``, its digests are not fetched again, and the look-up is no progress.

    Raises ``MsdError``.
    """
    if name == "":
        raise UsageError("the name is empty: give the name of a shared file; msd list shows them")
    if name is not None and not _is_valid_name(name):
        raise NotFoundError(f"{name[:100]!r} cannot be the name of a shared file: msd list shows the shared files")
    if fallback_name is not None and not _is_valid_name(fallback_name):
        fallback_name = None
    manifest_resolver = resolver.ManifestResolver(name, id, pool.worker_numbers, fallback_name, known)
    replies = (Described, DigestPage, CataloguePage) if known is None else DigestPage
    events = pool.current_state()
    while True:
        actions: list[resolver.Action] = []
        for event in events:
            if isinstance(event, ReplyReceived) and isinstance(event.reply, replies):
                pool.progress_timeout.handle(ProgressMade(), time.monotonic())
            actions += manifest_resolver.handle(event, time.monotonic())
        actions += manifest_resolver.handle(TimePassed(), time.monotonic())
        for action in actions:
            match action:
                case resolver.Request(worker, request):
                    pool.request(worker, request)
                case resolver.Found(manifest):
                    return manifest, manifest_resolver.catalogue
                case resolver.Fail(error):
                    raise error
        events = pool.poll(manifest_resolver.next_deadline(time.monotonic()))


def find_version(pool: ConnectionPool, digits: str, name: str | None) -> bytes:
    """Returns the id that begins with ``digits``, which must be from ``parse_id``. Unless they are all of its digits,
    searches the shared files, or only the one called ``name`` if it is not None. Raises ``MsdError``.
    """
    if len(digits) == MAX_DIGITS:
        return bytes.fromhex(digits)
    return select_version(fetch_listing(pool), digits, name)


def _is_valid_name(name: str) -> bool:
    """True if a shared file can have this name."""
    return 0 < len(name) <= MAX_NAME and is_presentable(name)
