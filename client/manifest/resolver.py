"""Decides which version of which file to download, and verifies its manifest. Pure.

Workers may describe different versions of a file. If the user gave an id, the version with that id is chosen.
Otherwise the current version is chosen: the one described by a worker that serves the catalogue published by server 5.
Without such a worker, or if that catalogue lacks the file, it is the one described by most of the workers that have the
file. A manifest is accepted only if its digests hash to its id.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from msd.client.manifest.awaited_workers import AwaitedWorkers, Majority
from msd.client.network_events import ConnectionClosed, ConnectionOpened, NetworkEvent, ReplyReceived
from msd.wire.errors import MsdError, NotFoundError, ProtocolError, SourceError, UsageError
from msd.wire.protocol.messages import (
    CataloguePage,
    Correlated,
    Describe,
    Described,
    DigestPage,
    Digests,
    Entry,
    List,
    Refusal,
    new_rid,
)
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_FILE_SIZE, Manifest, file_id, segment_count, segment_size
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Core, TimePassed
from msd.wire.support.presentable_names import is_presentable

#: Seconds to wait for further answers before the majority decides: a distant host needs several round
#: trips.
MAJORITY_TIMEOUT_S = 1.0
#: The same while server 5 publishes a catalogue. Longer, because the answer of a worker that serves this catalogue is
#: preferred.
PUBLISHED_TIMEOUT_S = 2.0
#: Seconds to wait for digests or names before asking another worker.
REPLY_TIMEOUT_S = 1.0
#: Seconds before digests are requested again after a temporary refusal.
RETRY_DELAY_S = 0.1
#: How often a worker may refuse the digests of the version that it described, because the file changed in between,
#: before it is banned.
MAX_CHANGES = 5


class DeletedError(NotFoundError):
    """A worker described the file, but now the servers no longer share it."""


Event = NetworkEvent | TimePassed


# Actions.


class Request(Struct, frozen=True):
    """Send the request to the worker.

    It is for a description of the file, for digests of the chosen version or, for the error about an unknown name, for
    the first names in the catalogue.
    """

    worker: int
    message: Correlated


class Found(Struct, frozen=True):
    """The manifest is complete and verified."""

    manifest: Manifest


class Fail(Struct, frozen=True):
    """No manifest can be found; ``error`` says why."""

    error: MsdError


Action = Request | Found | Fail


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
    (Phase.COLLECTING, Phase.DONE): ("manifest known", "no name given", "all workers banned"),
    (Phase.DIGESTS, Phase.COLLECTING): ("no worker left with this version",),
    (Phase.DIGESTS, Phase.DONE): ("digests verified",),
    (Phase.NAMES, Phase.COLLECTING): ("worker lost or silent",),
    (Phase.NAMES, Phase.DIGESTS): ("version chosen",),
    (Phase.NAMES, Phase.DONE): ("manifest known", "names received or refused", "all workers banned"),
}


class ManifestResolver(Core[Event, Action]):
    """Finds the manifest of the file ``name`` in the version ``id`` (None: the current version).

    ``workers`` are the numbers of the workers that are known before the first snapshot. Without ``name``, the file is
    the only shared file or, if several are shared, the one named ``fallback_name``. ``known`` is a manifest whose
    digests need not be fetched again.
    """

    def __init__(
        self,
        name: str | None,
        id: bytes | None,
        workers: Iterable[int],
        fallback_name: str | None = None,
        known: Manifest | None = None,
    ) -> None:
        super().__init__()
        self.phase = Phase.COLLECTING
        self._name = name
        self._id = id
        self._fallback_name = fallback_name
        self._known_manifest = known
        self._workers = AwaitedWorkers(workers)
        #: The digest of the catalogue that server 5 published when the version was chosen; empty if unknown.
        self.catalogue = b""
        #: Who has the version that was chosen, if server 5 is known not to vouch for it.
        self.majority: Majority | None = None
        #: The answers from connected workers: a description, or None for "no such file". The preferred worker comes
        #: first.
        self._answers: dict[int, Described | None] = {}
        self._first_answer_at = 0.0
        #: Workers that sent invalid replies. They are ignored until the manifest is found.
        self._banned: set[int] = set()
        #: True once a worker has described the file.
        self._was_described = False
        #: For each worker, how often it refused the digests of the version that it had described.
        self._changes: Counter[int] = Counter()
        #: The request for digests or names that has no reply yet, and its time.
        self._outstanding: Request | None = None
        self._requested_at = 0.0
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
        actions: list[Action] = []
        self._workers.handle(event)
        match event:
            case ConnectionOpened(worker, welcome):
                if worker not in self._banned:
                    if self._requested_name(worker) is not None or self._id is not None or welcome.files == 1:
                        actions.append(self._request_description(worker))
                    else:
                        self._record_answer(worker, None, now)
            case ConnectionClosed(worker):
                self._answers.pop(worker, None)
                self._drop_request(worker)
            case ReplyReceived(worker) if worker in self._workers.welcomes and worker not in self._banned:
                actions += self._on_reply(event, now)
        while step := next((step for time, step in self._steps(now) if now >= time), None):
            actions += step()
        return actions

    def _steps(self, now: float) -> Iterator[tuple[float, Callable[[], list[Action]]]]:
        """Yields the steps that need no further event, each with the time when it is due."""
        if self.phase in (Phase.COLLECTING, Phase.NAMES):
            if self._banned and self._banned >= self._workers.known:
                yield -math.inf, self._fail_without_workers
            elif choice := self._choose():
                time, worker = choice
                if self.phase is Phase.COLLECTING or self._answers[worker] is not None:
                    yield time, partial(self._use_answer, worker, now)
        if self._outstanding is not None:
            yield self._requested_at + REPLY_TIMEOUT_S, partial(self._ask_another_worker, self._outstanding.worker)
        elif self.phase is Phase.DIGESTS:
            yield self._retry_at, partial(self._continue_digests, now)

    def _assert_invariants(self) -> None:
        assert (self._chosen is not None) == (self.phase is Phase.DIGESTS), self.phase
        assert self._outstanding is None or self.phase in (Phase.DIGESTS, Phase.NAMES), self.phase
        assert self._outstanding is not None or self.phase is not Phase.NAMES
        assert self.phase is Phase.DIGESTS or not self._digests
        assert not self._banned & self._answers.keys()

    # Phases and requests.

    def _enter(self, phase: Phase, chosen: Described | None = None) -> None:
        """Changes the phase, as the table ``TRANSITIONS`` allows, and forgets the request and the digests."""
        assert (self.phase, phase) in TRANSITIONS
        self.phase = phase
        self._chosen = chosen
        self._discard_digests()

    def _discard_digests(self) -> None:
        self._outstanding = None
        self._digests = b""
        self._digest_senders.clear()

    def _requested_name(self, worker: int) -> str | None:
        """The file name in the request for a description to a connected worker; None if it contains no name."""
        is_ambiguous = self._name is None and self._id is None and self._workers.welcomes[worker].files > 1
        return self._fallback_name if is_ambiguous else self._name

    def _request_description(self, worker: int) -> Request:
        return Request(worker, Describe(rid=new_rid(), name=self._requested_name(worker), id=self._id))

    def _send(self, worker: int, message: Correlated, now: float) -> list[Action]:
        """Requests digests or names."""
        self._outstanding, self._requested_at = Request(worker, message), now
        return [self._outstanding]

    def _drop_request(self, worker: int) -> None:
        """Stops waiting for digests or names from the worker."""
        if self._outstanding is not None and self._outstanding.worker == worker:
            self._outstanding = None
            if self.phase is Phase.NAMES:
                self._enter(Phase.COLLECTING)

    def _ban(self, worker: int) -> None:
        """Ignores the worker until the manifest is found."""
        self._banned.add(worker)
        self._answers.pop(worker, None)
        self._drop_request(worker)

    def _end(self, action: Found | Fail) -> list[Action]:
        self._enter(Phase.DONE)
        return [action]

    # Replies.

    def _record_answer(self, worker: int, answer: Described | None, now: float) -> None:
        if not self._answers:
            self._first_answer_at = now
        self._answers[worker] = answer

    def _on_reply(self, event: ReplyReceived, now: float) -> list[Action]:
        worker, page = event.worker, event.payload
        is_awaited = self._outstanding == Request(worker, event.request)
        match event.request, event.reply:
            case Describe(name=name), Described() as description:
                if self._is_acceptable(description, name):
                    self._was_described = True
                    self._record_answer(worker, description, now)
                else:
                    self._ban(worker)
            case Describe(), Refusal(reason=RefusalReason.UNKNOWN | RefusalReason.OTHER | RefusalReason.BAD_REQUEST):
                self._record_answer(worker, None, now)
            case List(), Refusal() | CataloguePage() as reply if is_awaited:
                entries = reply.entries if isinstance(reply, CataloguePage) else []
                return self._end(Fail(self._not_found(self._requested_name(worker), entries)))
            case Digests(), Refusal(reason=RefusalReason.UNKNOWN | RefusalReason.OTHER) if is_awaited:
                # The file has changed since the worker described it.
                self._changes[worker] += 1
                if self._changes[worker] >= MAX_CHANGES:
                    self._ban(worker)
                    return []
                self._answers.pop(worker)
                self._discard_digests()
                return [self._request_description(worker)]
            case Digests(), Refusal() if is_awaited:
                self._retry_at = now + RETRY_DELAY_S
                self._ask_another_worker(worker)
            case Digests(start=start), DigestPage(start=sent_start) if is_awaited:
                self._outstanding = None
                digests = page.bytes if page is not None else b""
                if sent_start != start or not digests or len(digests) % DIGEST_SIZE:
                    self._ban(worker)
                    self._discard_digests()
                else:
                    self._digests += digests
                    self._digest_senders.add(worker)
        return []

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
        answers, workers = self._answers, self._workers
        vouched = [worker for worker in answers if self._id is None and workers.is_vouched_for(worker)]
        for worker, answer in answers.items():
            if answer is not None and (self._id is not None or worker in vouched):
                return -math.inf, worker
        if not answers:
            return None
        worker = next(iter(vouched or answers))
        if ids := {worker: answer.id for worker, answer in answers.items() if answer is not None}:
            winner = Counter(ids.values()).most_common(1)[0][0]
            worker = next(worker for worker, id in ids.items() if id == winner)
        if vouched:
            # The published catalogue lacks the file, but other workers may have it.
            awaited, timeout = workers.with_other_catalogues, MAJORITY_TIMEOUT_S
        elif workers.published:
            awaited, timeout = workers.known, PUBLISHED_TIMEOUT_S
        else:
            awaited, timeout = workers.expected, MAJORITY_TIMEOUT_S
        is_complete = awaited <= answers.keys() | self._banned
        return -math.inf if is_complete else self._first_answer_at + timeout, worker

    def _use_answer(self, worker: int, now: float) -> list[Action]:
        """Uses the worker's answer: fetches the digests or, if the file is not shared, fails.

        If the user gave a name or an id, fetches the names of the shared files for the error before failing.
        """
        description = self._answers[worker]
        if description is not None:
            self.catalogue = self._workers.published
            self.majority = self._majority(worker, description.id)
            if self._known_manifest is not None and description.id == self._known_manifest.id:
                return self._end(Found(self._known_manifest))
            self._enter(Phase.DIGESTS, description)
            return []
        if self._requested_name(worker) is None and self._id is None:
            files = self._workers.welcomes[worker].files
            if files:
                problem = f"{files:,} files are shared: name one of them, or download . for all"
                return self._end(Fail(UsageError(f"{problem}; msd list shows them")))
            return self._end(Fail(NotFoundError("no file is shared")))
        self._enter(Phase.NAMES)
        return self._send(worker, List(rid=new_rid()), now)

    def _majority(self, worker: int, id: bytes) -> Majority | None:
        """Returns who has the version ``id``, which ``worker`` described; None if server 5 or the user vouches for it,
        if it is unknown for what server 5 vouches, or if all workers that have the file agree.
        """
        if self._id is not None or self._workers.is_vouched_for(worker):
            return None
        # Without the answer of a worker that serves the published catalogue, the file may be in it.
        if not self._workers.is_unvouched and not any(map(self._workers.is_vouched_for, self._answers)):
            return None
        ids = [answer.id for answer in self._answers.values() if answer is not None]
        holders = ids.count(id)
        if self._workers.agree(holders, len(ids) - holders, self._answers.keys() | self._banned):
            return None
        return Majority(holders, len(self._answers))

    def _ask_another_worker(self, worker: int) -> list[Action]:
        """Stops waiting for the worker's reply, and moves its answer to the end: another worker, if any, is asked."""
        if worker in self._answers:
            self._answers[worker] = self._answers.pop(worker)
        self._drop_request(worker)
        return []

    def _continue_digests(self, now: float) -> list[Action]:
        """Verifies the digests if all have arrived, or requests the next ones.

        If all workers with the chosen version are gone, chooses again among the other workers.
        """
        chosen = self._chosen
        assert chosen is not None
        if len(self._digests) >= DIGEST_SIZE * segment_count(chosen.size):
            return self._verify_digests(chosen)
        for worker, answer in self._answers.items():
            if answer is not None and answer.id == chosen.id:
                start = len(self._digests) // DIGEST_SIZE
                return self._send(worker, Digests(rid=new_rid(), id=chosen.id, start=start), now)
        self._enter(Phase.COLLECTING)
        self._first_answer_at = now
        return []

    def _verify_digests(self, chosen: Described) -> list[Action]:
        try:
            manifest = Manifest.build(chosen.name, chosen.size, self._digests, chosen.mtime_ns, chosen.mode)
        except ProtocolError:
            manifest = None
        if manifest is not None and manifest.id == chosen.id:
            return self._end(Found(manifest))
        if len(self._digest_senders) == 1:
            self._ban(*self._digest_senders)
        # If several workers sent pages, it is unknown which page was wrong; refetch all pages from one worker.
        self._discard_digests()
        return []

    def _not_found(self, name: str | None, entries: list[Entry]) -> NotFoundError:
        """Returns the error for a file that no worker shares. ``entries`` are shared files, not necessarily all."""
        shared_names = [entry.name for entry in entries if not entry.is_folder]
        if name is None or name in shared_names:
            version = self._id.hex() if self._id else ""
            if name is not None and (other := [entry.name for entry in entries if entry.id == self._id]):
                from msd.client.manifest.id_prefix import other_file_error  # Few downloads name an id.

                return other_file_error(version, other, name)
            return NotFoundError(f"no worker shares version {version}: msd list --json shows the ids")
        # The name of a folder ends in a slash. Only the one that was asked for matters here.
        shared_names += [entry.name for entry in entries if entry.is_folder and entry.name == f"{name}/"]
        error = DeletedError if self._was_described else NotFoundError
        return error(f"{name!r} is not shared", name=name, names=shared_names)
