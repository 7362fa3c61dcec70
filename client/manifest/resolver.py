"""Decides which version of which file to download, and verifies its manifest. Pure.

Workers may describe different versions of a file. If the user gave an id, that version is chosen. Otherwise the choice
is the current version: the one described by a worker that serves the catalogue published by server 5 or, without such
a worker, the one described by most of the answering workers. A manifest is accepted only if its digests hash to its id.
"""

from __future__ import annotations

import math
from collections import Counter

from msgspec import Struct

from msd.client.network.network_events import ConnectionClosed, ConnectionOpened, Payload, ReplyReceived
from msd.wire.errors import MsdError, NotFoundError, ProtocolError, SourceError, UsageError
from msd.wire.protocol.messages import CataloguePage, DataReply, Described, DigestPage, Refusal, Welcome
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_FILE_SIZE, Manifest, file_id, segment_count, segment_size
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import TimePassed
from msd.wire.support.presentable_names import is_presentable

#: Seconds to wait for further answers before the majority decides.
MAJORITY_TIMEOUT_S = 0.5
#: The same if server 5 publishes a catalogue: a worker that serves this catalogue gets more time to answer.
PUBLISHED_TIMEOUT_S = 2.0
#: Seconds to wait for digests or names before asking another worker.
REPLY_TIMEOUT_S = 1.0
#: Seconds before digests are requested again after a temporary refusal.
RETRY_DELAY_S = 0.1


# Events, in addition to those of the network.


class StatusUpdated(Struct, frozen=True):
    """The catalogue that server 5 publishes (None if unknown) and the number of known workers."""

    catalogue: bytes | None
    workers: int


Event = ConnectionOpened | ConnectionClosed | ReplyReceived | StatusUpdated | TimePassed


# Actions.


class RequestDescription(Struct, frozen=True):
    """Request the description of the file ``name``; None requests the only file, or the file with the given id."""

    worker: int
    name: str | None


class RequestDigests(Struct, frozen=True):
    """Request the digests of the file with this id, starting at segment ``start``."""

    worker: int
    id: bytes
    start: int


class RequestNames(Struct, frozen=True):
    """Request the first file names of the catalogue, to suggest similar names to the user."""

    worker: int


class Found(Struct, frozen=True):
    """The manifest is complete and verified."""

    manifest: Manifest


class Fail(Struct, frozen=True):
    """No manifest can be found; ``error`` says why."""

    error: MsdError


Action = RequestDescription | RequestDigests | RequestNames | Found | Fail


class ManifestResolver:
    """Finds the manifest of the file ``name`` in the version ``id`` (None: the current version).

    Without ``name``, the file is the only shared file or, if several are shared, the one named ``fallback_name``.
    """

    def __init__(self, name: str | None, id: bytes | None, fallback_name: str | None = None) -> None:
        self._name = name
        self._id = id
        self._fallback_name = fallback_name
        self._worker_count = 0
        self._published: bytes | None = None
        #: The catalogue that server 5 published when the version was chosen; empty if unknown.
        self.catalogue = b""
        #: The connected workers.
        self._welcomes: dict[int, Welcome] = {}
        #: The name requested from each of them; None if the request has no name.
        self._requested_names: dict[int, str | None] = {}
        #: The answers of connected workers: a description, or None for "no such file". The preferred digest source
        #: comes first.
        self._answers: dict[int, Described | None] = {}
        #: Workers that sent invalid replies. They are ignored until the manifest is found.
        self._banned: set[int] = set()
        #: Workers that described the file, then did not know it. If this happens again, the worker is banned.
        self._redescribed: set[int] = set()
        self._first_answer_at: float | None = None
        #: The chosen description, the worker from which its digests are requested, and the digests received.
        self._chosen: Described | None = None
        self._digest_source: int | None = None
        self._digests = b""
        #: The workers that sent these digests.
        self._digest_senders: set[int] = set()
        #: How many bytes of digests had been received at the last request for digests.
        self._requested_offset = -1
        #: When digests or names were last requested.
        self._requested_at = math.inf
        #: When digests may be requested again after a temporary refusal.
        self._retry_at = 0.0
        #: The worker from which names are requested.
        self._names_source: int | None = None

    def handle(self, event: Event, now: float) -> list[Action]:
        """Updates the state and returns the actions to perform."""
        match event:
            case ConnectionOpened(worker, welcome):
                self._welcomes[worker] = welcome
                if worker in self._banned:
                    return []
                name = self._name
                if name is None and self._id is None and welcome.files > 1:
                    name = self._fallback_name
                self._requested_names[worker] = name
                if name is None and self._id is None and welcome.files != 1:
                    self._record_answer(worker, None, now)
                else:
                    return [RequestDescription(worker, name)]
            case ConnectionClosed(worker):
                self._welcomes.pop(worker, None)
                self._answers.pop(worker, None)
                if worker == self._digest_source:
                    self._digest_source = None
                if worker == self._names_source:
                    self._names_source = None
            case StatusUpdated(catalogue, workers):
                self._published, self._worker_count = catalogue, workers
            case ReplyReceived(worker, _, reply, payload):
                if action := self._on_reply(worker, reply, payload, now):
                    return [action]
            case TimePassed():
                pass
        self._check_reply_timeout(now)
        return self._advance(now)

    def next_deadline(self) -> float | None:
        """Returns when ``TimePassed`` may next have an effect; None if only other events can."""
        if self._names_source is not None:
            return self._requested_at + REPLY_TIMEOUT_S
        if self._chosen is not None:
            return self._retry_at if self._digest_source is None else self._requested_at + REPLY_TIMEOUT_S
        if self._first_answer_at is None or not self._answers:
            return None
        return self._first_answer_at + (PUBLISHED_TIMEOUT_S if self._published else MAJORITY_TIMEOUT_S)

    def _check_reply_timeout(self, now: float) -> None:
        """On timeout, moves the silent worker to the end of the list, so that another worker, if any, is asked next."""
        if now < self._requested_at + REPLY_TIMEOUT_S:
            return
        for silent in (self._digest_source, self._names_source):
            if silent is not None and silent in self._answers:
                self._answers[silent] = self._answers.pop(silent)
        self._digest_source = self._names_source = None
        self._requested_at = math.inf

    def _record_answer(self, worker: int, answer: Described | None, now: float) -> None:
        if not self._answers:
            self._first_answer_at = now
        self._answers[worker] = answer

    def _on_reply(
        self, worker: int, reply: DataReply, payload: Payload | None, now: float
    ) -> Fail | RequestDescription | None:
        if worker not in self._welcomes or worker in self._banned:
            return None
        match reply:
            case Described():
                if self._is_acceptable(reply, self._requested_names[worker]):
                    self._record_answer(worker, reply, now)
                else:
                    self._ban(worker)
            case Refusal() | CataloguePage() if worker == self._names_source:
                self._names_source = None
                if self._chosen is None:
                    entries = reply.entries if isinstance(reply, CataloguePage) else []
                    return Fail(self._not_found(self._requested_names[worker], [entry.name for entry in entries]))
            case Refusal(reason=RefusalReason.UNKNOWN):
                if worker != self._digest_source:
                    self._record_answer(worker, None, now)
                elif worker in self._redescribed:
                    self._ban(worker)
                else:
                    # The file changed since the worker described it.
                    self._redescribed.add(worker)
                    self._answers.pop(worker)
                    self._discard_digests()
                    return RequestDescription(worker, self._requested_names[worker])
            case Refusal():
                if worker == self._digest_source:
                    self._digest_source = None
                    self._retry_at = now + RETRY_DELAY_S
                    # Ask the other workers first.
                    self._answers[worker] = self._answers.pop(worker)
            case DigestPage(start=start):
                # A different start means a stale reply from a worker that was asked twice.
                if worker == self._digest_source and start * DIGEST_SIZE == len(self._digests):
                    page = payload.bytes if payload is not None else b""
                    if not page or len(page) % DIGEST_SIZE:
                        self._ban(worker)
                    else:
                        self._digests += page
                        self._digest_senders.add(worker)
        return None

    def _ban(self, worker: int) -> None:
        """Ignores the worker until the manifest is found."""
        self._banned.add(worker)
        self._answers.pop(worker, None)
        if worker == self._digest_source:
            self._discard_digests()

    def _discard_digests(self) -> None:
        self._digest_source = None
        self._digests = b""
        self._digest_senders.clear()

    def _advance(self, now: float) -> list[Action]:
        """Chooses a version if none is chosen yet, then requests the next digests of the chosen version."""
        if self._chosen is None:
            if len(self._banned) >= self._worker_count > 0:
                return [Fail(SourceError("no worker returned a valid description of the file: see msd status"))]
            choice = self._choose(now)
            if choice is None:
                return []
            worker, description = choice
            if description is None:
                return self._fail(worker, now)
            self._chosen = description
            self.catalogue = self._published or b""
        return self._request_digests(self._chosen, now)

    def _choose(self, now: float) -> tuple[int, Described | None] | None:
        """Returns the chosen answer and its worker; None if the choice is not possible yet."""
        answers = self._answers
        if self._id is not None:
            for worker, answer in answers.items():
                if answer is not None:
                    return worker, answer
        elif self._published:
            for worker, answer in answers.items():
                if self._welcomes[worker].catalogue == self._published:
                    return worker, answer
        if not answers or self._first_answer_at is None:
            return None
        timeout = PUBLISHED_TIMEOUT_S if self._published else MAJORITY_TIMEOUT_S
        if now < self._first_answer_at + timeout and len(answers) + len(self._banned) < self._worker_count:
            return None
        ids = Counter(answer.id if answer else None for answer in answers.values())
        winner = ids.most_common(1)[0][0]
        return next((w, a) for w, a in answers.items() if (a.id if a else None) == winner)

    def _request_digests(self, chosen: Described, now: float) -> list[Action]:
        """Requests the next digests, or verifies the digests if all have arrived."""
        if len(self._digests) >= DIGEST_SIZE * segment_count(chosen.size):
            return self._verify_digests(chosen, now)
        if self._digest_source is None:
            sources = [w for w, a in self._answers.items() if a and a.id == chosen.id]
            if not sources:
                # All workers with this version are gone: choose again among the remaining and new workers.
                self._chosen = None
                self._first_answer_at = now
                self._discard_digests()
                return self._advance(now)
            if now < self._retry_at:
                return []
            self._digest_source = sources[0]
            self._requested_offset = -1
        if self._requested_offset == len(self._digests):
            return []  # These digests are already requested.
        self._requested_offset = len(self._digests)
        self._requested_at = now
        return [RequestDigests(self._digest_source, chosen.id, len(self._digests) // DIGEST_SIZE)]

    def _verify_digests(self, chosen: Described, now: float) -> list[Action]:
        try:
            manifest = Manifest.build(chosen.name, chosen.size, self._digests)
        except ProtocolError:
            manifest = None
        if manifest is not None and manifest.id == chosen.id:
            return [Found(manifest)]
        if len(self._digest_senders) == 1:
            self._ban(*self._digest_senders)
        # If several workers sent pages, it is unknown which was wrong; refetch all pages from one worker.
        self._discard_digests()
        return self._request_digests(chosen, now)

    def _fail(self, worker: int, now: float) -> list[Action]:
        """Handles a file that does not exist: fails, or first requests file names from the worker for suggestions."""
        if self._requested_names[worker] is None and self._id is None:
            files = self._welcomes[worker].files
            if files:
                return [Fail(UsageError(f"{files} files are shared: name one of them; msd list shows them"))]
            return [Fail(NotFoundError("no file is shared"))]
        if self._names_source is not None:
            return []
        self._names_source = worker
        self._requested_at = now
        return [RequestNames(worker)]

    def _is_acceptable(self, description: Described, requested_name: str | None) -> bool:
        """True if a description is consistent, describes the requested file, and its name is safe to print."""
        return (
            description.size <= MAX_FILE_SIZE
            and description.segment_size == segment_size(description.size)
            and is_presentable(description.name)
            and (description.size > 0 or description.id == file_id(0, b""))
            and requested_name in (None, description.name)
            and self._id in (None, description.id)
        )

    def _not_found(self, name: str | None, shared_names: list[str]) -> MsdError:
        """The error for a file that no worker has, with suggestions from ``shared_names``."""
        if name is None or name in shared_names:
            version = self._id.hex() if self._id else ""
            return NotFoundError(f"no worker shares version {version}: msd list --json shows the ids")
        import difflib  # Rarely needed, and slow to import.

        similar = difflib.get_close_matches(name, shared_names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, similar))}?" if similar else "; msd list shows the shared files"
        if self._name is None:
            return UsageError(f"no shared file is named {name!r}: give the name of a shared file{hint}")
        return NotFoundError(f"{name!r} is not shared{hint}")
