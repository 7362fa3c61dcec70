"""Looks up a shared file and fetches its manifest: sends the requests that ``client/manifest/resolver.py`` decides on.

Makes no decisions itself.
"""

from __future__ import annotations

import math
import time

from msd.client.manifest import resolver
from msd.client.manifest.awaited_workers import Majority
from msd.client.network.progress_timeout import ProgressMade
from msd.client.network.session import Session, Task
from msd.client.network_events import NetworkEvent, ReplyReceived
from msd.wire.errors import MsdError, NotFoundError, UsageError
from msd.wire.protocol.messages import MAX_NAME, CataloguePage, Described, DigestPage, Refusal
from msd.wire.protocol.segments import Manifest
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Stalled, TimePassed
from msd.wire.support.presentable_names import is_presentable


class LookUp(Task):
    """Looks up a file and fetches its manifest. See ``find_manifest`` for the arguments.

    If the version is that of ``known``, its digests are not fetched again, and the look-up is no progress.
    """

    def __init__(
        self,
        session: Session,
        name: str | None,
        id: bytes | None,
        *,
        fallback_name: str | None = None,
        known: Manifest | None = None,
    ) -> None:
        self._session = session
        self._resolver = resolver.ManifestResolver(name, id, session.pool.worker_numbers, fallback_name, known)
        #: The replies that are progress.
        self._useful_replies = (Described, DigestPage, CataloguePage) if known is None else DigestPage
        self._manifest: Manifest | None = None
        self._error: MsdError | None = None

    @property
    def result(self) -> tuple[Manifest, bytes]:
        """The manifest, and the digest of the catalogue that server 5 published when the version was chosen; empty if
        unknown. Raises the ``MsdError`` of a look-up that failed.
        """
        if self._error is not None:
            raise self._error
        assert self._manifest is not None, "the look-up is not done"
        return self._manifest, self._resolver.catalogue

    @property
    def majority(self) -> Majority | None:
        """Who has the version that was found, if server 5 is known not to vouch for it."""
        return self._resolver.majority

    def handle(self, event: NetworkEvent | Stalled) -> None:
        if isinstance(event, Stalled):
            return
        now = time.monotonic()
        if isinstance(event, ReplyReceived) and isinstance(event.reply, self._useful_replies):
            self._session.pool.progress_timeout.handle(ProgressMade(), now)
        if isinstance(event, ReplyReceived):
            self._note_read_error(event)
        self._perform(self._resolver.handle(event, now))

    def _note_read_error(self, event: ReplyReceived) -> None:
        """Tells the pool whether a worker can read its files: it reads a small one to answer with its digests."""
        match event.reply:
            case Refusal(reason=RefusalReason.UNAVAILABLE, detail=detail):
                self._session.pool.read_errors[event.worker] = detail
            case DigestPage():
                self._session.pool.read_errors.pop(event.worker, None)

    def pass_time(self) -> float:
        now = time.monotonic()
        self._perform(self._resolver.handle(TimePassed(), now))
        deadline = self._resolver.next_deadline(now)
        return math.inf if deadline is None else deadline

    def _perform(self, actions: list[resolver.Action]) -> None:
        for action in actions:
            match action:
                case resolver.Request(worker, request):
                    self._session.request(self, worker, request)
                case resolver.Found(manifest):
                    self._manifest, self.is_done = manifest, True
                case resolver.Fail(error):
                    self._error, self.is_done = error, True


def find_manifest(
    session: Session,
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
    if name is not None:
        check_name(name)
    if fallback_name is not None and not _is_valid_name(fallback_name):
        fallback_name = None
    look_up = LookUp(session, name, id, fallback_name=fallback_name, known=known)
    session.run(look_up)
    return look_up.result


def check_name(name: str) -> None:
    """Raises ``MsdError`` if no shared file can have this name."""
    if name == "":
        raise UsageError("the name is empty: give the name of a shared file; msd list shows them")
    if not _is_valid_name(name):
        raise NotFoundError(f"{name[:100]!r} cannot be the name of a shared file: msd list shows the shared files")


def find_version(session: Session, digits: str, name: str | None) -> bytes:
    """Returns the id that begins with ``digits``, which must be from ``parse_id``. Unless they are all of its digits,
    searches the shared files, or only the one called ``name`` if it is not None. Raises ``MsdError``.
    """
    # Few downloads name a version.
    from msd.client.manifest.id_prefix import MAX_DIGITS, select_version
    from msd.client.manifest.listing import fetch_listing

    if len(digits) == MAX_DIGITS:
        return bytes.fromhex(digits)
    return select_version(fetch_listing(session), digits, name)


def _is_valid_name(name: str) -> bool:
    """True if a shared file can have this name."""
    return 0 < len(name) <= MAX_NAME and is_presentable(name)
