"""Decides which version of which file to download, and verifies its manifest. Pure.

Workers may describe different versions of a file. If the user gave an id, the version with that id is chosen.
Otherwise the current version is chosen: the one described by a worker that serves the catalogue published by server 5
or, without such a worker, the one described by most of the answering workers. A manifest is accepted only if its
digests hash to its id.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from msd.client.network_events import (
    ConnectionClosed,
    ConnectionOpened,
    NetworkEvent,
    Payload,
    ReplyReceived,
    SnapshotReceived,
)
from msd.wire.errors import MsdError, NotFoundError, ProtocolError, SourceError, UsageError
from msd.wire.protocol.messages import CataloguePage, DataReply, Described, DigestPage, Refusal, Welcome
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_FILE_SIZE, Manifest, file_id, segment_count, segment_size
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Core, TimePassed
from msd.wire.support.presentable_names import is_presentable

#: Seconds to wait for further answers before the majority decides.
MAJORITY_TIMEOUT_S = 0.5
#: The same while server 5 publishes a catalogue. Longer, because the answer of a worker that serves this catalogue is
#: preferred.
PUBLISHED_TIMEOUT_S = 2.0
#: Seconds to wait for digests or names before asking another worker.
REPLY_TIMEOUT_S = 1.0
#: Seconds before digests are requested again after a temporary refusal.
RETRY_DELAY_S = 0.1


Event = NetworkEvent | TimePassed


# Actions.


class RequestDescription(Struct, frozen=True):
    """Request the description of the file ``name``; None requests the only file, or the one with the user's id."""

    worker: int
    name: str | None


class RequestDigests(Struct, frozen=True):
    """Request the digests of the file with this id, starting at segment ``start``."""

    worker: int
    id: bytes
    start: int


class RequestNames(Struct, frozen=True):
    """Request the first file names in the catalogue, to suggest them in the error about an unknown name."""

    worker: int


class Found(Struct, frozen=True):
    """The manifest is complete and verified."""

    manifest: Manifest


class Fail(Struct, frozen=True):
    """No manifest can be found; ``error`` says why."""

    error: MsdError


Action = RequestDescription | RequestDigests | RequestNames | Found | Fail


class Phase(enum.StrEnum):
    """What the resolver is waiting for."""

    COLLECTING = "collecting answers"  #: descriptions of the file, until one of them is chosen
    DIGESTS = "fetching digests"  #: the digests of the chosen version
    NAMES = "fetching names"  #: the names of the shared files, because the requested file is not shared
    DONE = "done"  #: nothing: the manifest was found, or the resolver failed


#: The possible phase changes, and the reasons for each.
TRANSITIONS: dict[tuple[Phase, Phase], tuple[str, ...]] = {
    (Phase.COLLECTING, Phase.DIGESTS): ("version chosen",),
    (Phase.COLLECTING, Phase.NAMES): ("file not shared",),
    (Phase.COLLECTING, Phase.DONE): ("no name given", "all workers banned"),
    (Phase.DIGESTS, Phase.COLLECTING): ("no worker left with this version",),
    (Phase.DIGESTS, Phase.DONE): ("digests verified",),
    (Phase.NAMES, Phase.COLLECTING): ("worker lost or silent",),
    (Phase.NAMES, Phase.DIGESTS): ("version chosen",),
    (Phase.NAMES, Phase.DONE): ("names received or refused", "all workers banned"),
}


class ManifestResolver(Core[Event, Action]):
    """Finds the manifest of the file ``name`` in the version ``id`` (None: the current version).

    ``workers`` are the numbers of the workers that are known before the first snapshot. Without ``name``, the file is
    the only shared file or, if several are shared, the one named ``fallback_name``.
    """

    def __init__(
        self, name: str | None, id: bytes | None, workers: Iterable[int], fallback_name: str | None = None
    ) -> None:
        super().__init__()
        self.phase = Phase.COLLECTING
        self._name = name
        self._id = id
        self._fallback_name = fallback_name
        self._known = {*workers}
        #: The digest of the catalogue in the latest snapshot of server 5; empty if unknown.
        self._published = b""
        #: The digest of the catalogue that server 5 published when the version was chosen; empty if unknown.
        self.catalogue = b""
        #: The ``welcome`` of each connected worker, by worker number.
        self._welcomes: dict[int, Welcome] = {}
        #: The file name in the request to each connected worker; None if the request contains no name.
        self._requested_names: dict[int, str | None] = {}
        #: The answers from connected workers: a description, or None for "no such file". The preferred worker comes
        #: first.
        self._answers: dict[int, Described | None] = {}
        self._first_answer_at = 0.0
        #: Workers that sent invalid replies. They are ignored until the manifest is found.
        self._banned: set[int] = set()
        #: Workers that described the file, but then refused its digests as unknown. The second time, a worker is
        #: banned.
        self._redescribed: set[int] = set()
        #: The worker from which digests or names are requested, and the time of the request; infinity if none is
        #: outstanding.
        self._source: int | None = None
        self._requested_at = math.inf
        #: The chosen description, the digests received so far, and the workers that sent these digests.
        self._chosen: Described | None = None
        self._digests = b""
        self._digest_senders: set[int] = set()
        #: When digests may be requested again after a temporary refusal.
        self._retry_at = 0.0

    def handle(self, event: Event, now: float) -> list[Action]:
        actions = super().handle(event, now)
        if isinstance(event, ReplyReceived):
            # Do not keep the payload: the worker determines its size.
            self._decisions[-1] = (now, replace(event, payload=None), actions)
        return actions

    def next_deadline(self, now: float) -> float | None:
        return min((time for time, _ in self._steps(now)), default=None)

    def _decide(self, event: Event, now: float) -> list[Action]:
        if self.phase is Phase.DONE:
            return []
        match event:
            case ConnectionOpened(worker, welcome):
                self._welcomes[worker] = welcome
                if worker in self._banned:
                    return []
                name = self._name
                if name is None and self._id is None and welcome.files > 1:
                    name = self._fallback_name
                self._requested_names[worker] = name
                if name is not None or self._id is not None or welcome.files == 1:
                    return [RequestDescription(worker, name)]
                self._record_answer(worker, None, now)
            case ConnectionClosed(worker):
                self._welcomes.pop(worker, None)
                self._answers.pop(worker, None)
                if worker == self._source:
                    self._drop_source()
            case SnapshotReceived(status):
                self._published = status.catalogue
                self._known.update(reported.number for reported in status.workers)
            case ReplyReceived(worker, _, reply, payload) if worker in self._welcomes and worker not in self._banned:
                if action := self._on_reply(worker, reply, payload, now):
                    return [action]
        actions: list[Action] = []
        while step := next((step for time, step in self._steps(now) if now >= time), None):
            actions += step()
        return actions

    def _steps(self, now: float) -> Iterator[tuple[float, Callable[[], list[Action]]]]:
        """Yields the steps that need no further event, each with the time when it is due."""
        if self.phase in (Phase.COLLECTING, Phase.NAMES):
            if len(self._banned) >= len(self._known) > 0:
                yield -math.inf, self._fail_without_workers
            elif choice := self._choose():
                time, worker = choice
                if self.phase is Phase.COLLECTING or self._answers[worker] is not None:
                    yield time, partial(self._use_answer, worker, now)
        if self._requested_at < math.inf:
            yield self._requested_at + REPLY_TIMEOUT_S, self._ask_another_worker
        elif self.phase is Phase.DIGESTS:
            if self._source is not None:
                yield -math.inf, partial(self._request_digests, now)
            elif self._digest_sources():
                yield self._retry_at, partial(self._request_digests, now)
            else:
                yield -math.inf, partial(self._choose_again, now)

    def _assert_invariants(self) -> None:
        assert (self._chosen is not None) == (self.phase is Phase.DIGESTS), self.phase
        assert self._source is None or self.phase in (Phase.DIGESTS, Phase.NAMES), self.phase
        assert self._source is not None or self._requested_at == math.inf, self._requested_at
        assert self._source is not None or self.phase is not Phase.NAMES
        assert self.phase is Phase.DIGESTS or not self._digests
        assert not self._banned & self._answers.keys()

    # Phases and sources.

    def _enter(self, phase: Phase, chosen: Described | None = None) -> None:
        """Changes the phase, as the table ``TRANSITIONS`` allows, and forgets the source and the digests."""
        assert (self.phase, phase) in TRANSITIONS
        self.phase = phase
        self._chosen = chosen
        self._discard_digests()

    def _discard_digests(self) -> None:
        self._source = None
        self._requested_at = math.inf
        self._digests = b""
        self._digest_senders.clear()

    def _drop_source(self) -> None:
        """Forgets the worker from which digests or names are requested."""
        self._source = None
        self._requested_at = math.inf
        if self.phase is Phase.NAMES:
            self._enter(Phase.COLLECTING)

    def _demote(self, worker: int) -> None:
        """Moves the worker's answer to the end, so that another worker, if any, is asked next."""
        if worker in self._answers:
            self._answers[worker] = self._answers.pop(worker)

    def _ban(self, worker: int) -> None:
        """Ignores the worker until the manifest is found."""
        self._banned.add(worker)
        self._answers.pop(worker, None)
        if worker == self._source:
            self._drop_source()
            self._discard_digests()

    def _end(self, action: Found | Fail) -> list[Action]:
        self._enter(Phase.DONE)
        return [action]

    # Replies.

    def _record_answer(self, worker: int, answer: Described | None, now: float) -> None:
        if not self._answers:
            self._first_answer_at = now
        self._answers[worker] = answer

    def _on_reply(
        self, worker: int, reply: DataReply, payload: Payload | None, now: float
    ) -> Fail | RequestDescription | None:
        is_digest_source = worker == self._source and self.phase is Phase.DIGESTS
        match reply:
            case Described():
                if self._is_acceptable(reply, self._requested_names[worker]):
                    self._record_answer(worker, reply, now)
                else:
                    self._ban(worker)
            case Refusal() | CataloguePage() if worker == self._source and self.phase is Phase.NAMES:
                entries = reply.entries if isinstance(reply, CataloguePage) else []
                self._enter(Phase.DONE)
                return Fail(self._not_found(self._requested_names[worker], [entry.name for entry in entries]))
            case Refusal(reason=RefusalReason.UNKNOWN) if not is_digest_source:
                self._record_answer(worker, None, now)
            case Refusal(reason=RefusalReason.UNKNOWN) if worker in self._redescribed:
                self._ban(worker)
            case Refusal(reason=RefusalReason.UNKNOWN):
                # The file has changed since the worker described it.
                self._redescribed.add(worker)
                self._answers.pop(worker)
                self._discard_digests()
                return RequestDescription(worker, self._requested_names[worker])
            case Refusal() if is_digest_source:
                self._drop_source()
                self._retry_at = now + RETRY_DELAY_S
                self._demote(worker)
            # A different start means a stale reply from a worker that was asked twice.
            case DigestPage(start=start) if is_digest_source and start * DIGEST_SIZE == len(self._digests):
                page = payload.bytes if payload is not None else b""
                if not page or len(page) % DIGEST_SIZE:
                    self._ban(worker)
                else:
                    self._digests += page
                    self._digest_senders.add(worker)
                    self._requested_at = math.inf
        return None

    def _is_acceptable(self, description: Described, requested_name: str | None) -> bool:
        """True if a description is consistent, is for the requested file, and contains a name that is safe to print."""
        return (
            description.size <= MAX_FILE_SIZE
            and description.segment_size == segment_size(description.size)
            and is_presentable(description.name)
            and (description.size > 0 or description.id == file_id(0, b""))
            and requested_name in (None, description.name)
            and self._id in (None, description.id)
        )

    # Steps.

    def _fail_without_workers(self) -> list[Action]:
        return self._end(Fail(SourceError("no worker returned a valid description of the file: see msd status")))

    def _choose(self) -> tuple[float, int] | None:
        """Returns the time when an answer may be used, and the worker that sent it; None if there is no answer."""
        answers = self._answers
        for worker, answer in answers.items():
            if self._id is not None and answer is not None:
                return -math.inf, worker
            if self._id is None and self._published and self._welcomes[worker].catalogue == self._published:
                return -math.inf, worker
        if not answers:
            return None
        ids = {worker: answer.id if answer else None for worker, answer in answers.items()}
        winner = Counter(ids.values()).most_common(1)[0][0]
        worker = next(worker for worker, id in ids.items() if id == winner)
        timeout = PUBLISHED_TIMEOUT_S if self._published else MAJORITY_TIMEOUT_S
        all_answered = len(answers) + len(self._banned) >= len(self._known)
        return -math.inf if all_answered else self._first_answer_at + timeout, worker

    def _use_answer(self, worker: int, now: float) -> list[Action]:
        """Uses the worker's answer: fetches the digests or, if the file is not shared, fails.

        If the user gave a name or an id, fetches the names of the shared files for the error before failing.
        """
        description = self._answers[worker]
        if description is not None:
            self._enter(Phase.DIGESTS, description)
            self.catalogue = self._published
            return []
        if self._requested_names[worker] is None and self._id is None:
            files = self._welcomes[worker].files
            if files:
                return self._end(Fail(UsageError(f"{files} files are shared: name one of them; msd list shows them")))
            return self._end(Fail(NotFoundError("no file is shared")))
        self._enter(Phase.NAMES)
        self._source, self._requested_at = worker, now
        return [RequestNames(worker)]

    def _choose_again(self, now: float) -> list[Action]:
        """All workers with the chosen version are gone: chooses again among the other workers."""
        self._enter(Phase.COLLECTING)
        self._first_answer_at = now
        return []

    def _ask_another_worker(self) -> list[Action]:
        """Stops waiting for the reply of the current worker."""
        if self._source is not None:
            self._demote(self._source)
        self._drop_source()
        return []

    def _digest_sources(self) -> list[int]:
        """The workers that described the chosen version, the preferred one first."""
        chosen = self._chosen
        return [worker for worker, answer in self._answers.items() if chosen and answer and answer.id == chosen.id]

    def _request_digests(self, now: float) -> list[Action]:
        """Requests the next digests, or verifies the digests if all have arrived."""
        assert self._chosen is not None
        if len(self._digests) >= DIGEST_SIZE * segment_count(self._chosen.size):
            return self._verify_digests(self._chosen)
        if self._source is None:
            self._source = self._digest_sources()[0]
        self._requested_at = now
        return [RequestDigests(self._source, self._chosen.id, len(self._digests) // DIGEST_SIZE)]

    def _verify_digests(self, chosen: Described) -> list[Action]:
        try:
            manifest = Manifest.build(chosen.name, chosen.size, self._digests)
        except ProtocolError:
            manifest = None
        if manifest is not None and manifest.id == chosen.id:
            return self._end(Found(manifest))
        if len(self._digest_senders) == 1:
            self._ban(*self._digest_senders)
        # If several workers sent pages, it is unknown which page was wrong; refetch all pages from one worker.
        self._discard_digests()
        return []

    def _not_found(self, name: str | None, shared_names: list[str]) -> NotFoundError:
        """Returns the error for a file that no worker shares, with the names of shared files."""
        if name is None or name in shared_names:
            version = self._id.hex() if self._id else ""
            return NotFoundError(f"no worker shares version {version}: msd list --json shows the ids")
        return NotFoundError(f"{name!r} is not shared", name=name, names=shared_names)
