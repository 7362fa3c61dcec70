"""Finds out which version of which file to download, and fetches its manifest: a pure core.

Servers may differ. The right id is the one the user gave; else what the workers say whose
catalogue server 5 vouches for; else what the majority of the workers that answer says. A manifest
is believed only if its digests hash to its id.
"""

from __future__ import annotations

import math
from collections import Counter

from msgspec import Struct

from msd.wire.errors import MsdError, NotFoundError, ProtocolError, SourceError, UsageError
from msd.wire.protocol.messages import CataloguePage, Described, DigestPage, Refusal, Welcome
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_FILE_SIZE, Manifest, file_id, segment_count, segment_size
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.text import is_presentable
from msd.wire.support.time_passed import TimePassed

#: Seconds to wait for more workers' answers before the majority of those that came decides.
GRACE = 0.5
#: Seconds after which the majority decides although server 5 vouches for a catalogue that no
#: worker has shown.
VOUCHED_GRACE = 2.0
#: Seconds after which another worker is asked for a page of digests, or for names.
ANSWER_PATIENCE = 1.0
#: Seconds after which a worker that refused a page of digests for now, or another, is asked again.
RETRY = 0.1


# Events.


class WorkerReady(Struct, frozen=True):
    worker: int
    welcome: Welcome


class WorkerLost(Struct, frozen=True):
    worker: int


class Answered(Struct, frozen=True):
    """A reply to one of the requests below; ``payload`` is the bytes of a page of digests."""

    worker: int
    reply: Described | DigestPage | CataloguePage | Refusal
    payload: bytes = b""


class Vouched(Struct, frozen=True):
    """What is known of the servers now: the catalogue that server 5 names (None while it says
    nothing), and the number of workers that may answer.
    """

    catalogue: bytes | None
    workers: int


Event = WorkerReady | WorkerLost | Answered | Vouched | TimePassed


# Actions.


class AskDescribe(Struct, frozen=True):
    """Ask for the description of the file ``name``; None: of the only one."""

    worker: int
    name: str | None


class AskDigests(Struct, frozen=True):
    worker: int
    id: bytes
    start: int


class AskNames(Struct, frozen=True):
    """Ask for the first names of the catalogue, to suggest some."""

    worker: int


class Found(Struct, frozen=True):
    manifest: Manifest


class Fail(Struct, frozen=True):
    error: MsdError


Action = AskDescribe | AskDigests | AskNames | Found | Fail


class ManifestResolver:
    """Looks for the file ``name`` (None: the only one, or where there are several the one called ``guess``, if
    there is a guess) in the version ``id`` (None: the right one).
    """

    def __init__(self, name: str | None, id: bytes | None, guess: str | None = None) -> None:
        self._name = name
        self._id = id
        self._guess = guess
        self._workers = 0
        self._vouched: bytes | None = None
        #: What server 5 vouched for when the version was chosen; empty if it had not said.
        self.catalogue = b""
        #: The workers that are connected.
        self._welcomes: dict[int, Welcome] = {}
        #: The name that each of them is asked for; None for its only file.
        self._wanted: dict[int, str | None] = {}
        #: What connected workers answered: a description, or None for "no such file".
        self._answers: dict[int, Described | None] = {}
        #: Workers that said something impossible; they are not listened to.
        self._liars: set[int] = set()
        #: Workers that did not know any more what they had described; that may happen once.
        self._forgetful: set[int] = set()
        self._first_answer: float | None = None
        #: The description believed so far, who is asked for its digests, and those that came.
        self._chosen: Described | None = None
        self._source: int | None = None
        self._digests = b""
        #: Who sent these digests.
        self._senders: set[int] = set()
        #: How many bytes of digests there were when the last page was asked for.
        self._asked_for = -1
        #: When a page or names were asked for.
        self._asked_at = math.inf
        #: When a page that was refused may be asked for again.
        self._retry_at = 0.0
        #: Who is asked for the names to suggest.
        self._names_from: int | None = None

    def handle(self, event: Event, now: float) -> list[Action]:
        match event:
            case WorkerReady(worker, welcome):
                self._welcomes[worker] = welcome
                if worker in self._liars:
                    return []
                wanted = self._name
                if wanted is None and self._id is None and welcome.files > 1:
                    wanted = self._guess
                self._wanted[worker] = wanted
                if wanted is None and self._id is None and welcome.files != 1:
                    self._answer(worker, None, now)
                else:
                    return [AskDescribe(worker, wanted)]
            case WorkerLost(worker):
                self._welcomes.pop(worker, None)
                self._answers.pop(worker, None)
                if worker == self._source:
                    self._source = None
                if worker == self._names_from:
                    self._names_from = None
            case Vouched(catalogue, workers):
                self._vouched, self._workers = catalogue, workers
            case Answered(worker, reply, payload):
                if action := self._take(worker, reply, payload, now):
                    return [action]
            case TimePassed():
                pass
        self._lose_patience(now)
        return self._proceed(now)

    def next_deadline(self) -> float | None:
        """When ``TimePassed`` may have an effect."""
        if self._names_from is not None:
            return self._asked_at + ANSWER_PATIENCE
        if self._chosen is not None:
            return self._retry_at if self._source is None else self._asked_at + ANSWER_PATIENCE
        if self._first_answer is None or not self._answers:
            return None
        return self._first_answer + (VOUCHED_GRACE if self._vouched else GRACE)

    def _lose_patience(self, now: float) -> None:
        """Turns to another worker where one was asked and says nothing; there may be nobody else."""
        if now < self._asked_at + ANSWER_PATIENCE:
            return
        for silent in (self._source, self._names_from):
            if silent is not None and silent in self._answers:
                self._answers[silent] = self._answers.pop(silent)
        self._source = self._names_from = None
        self._asked_at = math.inf

    def _answer(self, worker: int, answer: Described | None, now: float) -> None:
        if not self._answers:
            self._first_answer = now
        self._answers[worker] = answer

    def _take(
        self, worker: int, reply: Described | DigestPage | CataloguePage | Refusal, payload: bytes, now: float
    ) -> Fail | AskDescribe | None:
        if worker not in self._welcomes or worker in self._liars:
            return None
        match reply:
            case Described():
                if self._is_possible(reply, self._wanted[worker]):
                    self._answer(worker, reply, now)
                else:
                    self._distrust(worker)
            case Refusal() | CataloguePage() if worker == self._names_from:
                self._names_from = None
                if self._chosen is None:
                    entries = reply.entries if isinstance(reply, CataloguePage) else []
                    return Fail(self._not_found(self._wanted[worker], [entry.name for entry in entries]))
            case Refusal(reason=RefusalReason.UNKNOWN):
                if worker != self._source:
                    self._answer(worker, None, now)
                elif worker in self._forgetful:
                    self._distrust(worker)
                else:
                    # The file has changed since the worker described it.
                    self._forgetful.add(worker)
                    self._answers.pop(worker)
                    self._forget_digests()
                    return AskDescribe(worker, self._wanted[worker])
            case Refusal():
                if worker == self._source:
                    self._source = None
                    self._retry_at = now + RETRY
                    # The others come first then.
                    self._answers[worker] = self._answers.pop(worker)
            case DigestPage(start=start):
                # Another start: a late one, of a worker that was asked twice.
                if worker == self._source and start * DIGEST_SIZE == len(self._digests):
                    if not payload or len(payload) % DIGEST_SIZE:
                        self._distrust(worker)
                    else:
                        self._digests += payload
                        self._senders.add(worker)
        return None

    def _distrust(self, worker: int) -> None:
        self._liars.add(worker)
        self._answers.pop(worker, None)
        if worker == self._source:
            self._forget_digests()

    def _forget_digests(self) -> None:
        self._source = None
        self._digests = b""
        self._senders.clear()

    def _proceed(self, now: float) -> list[Action]:
        if self._chosen is None:
            if len(self._liars) >= self._workers > 0:
                return [Fail(SourceError("no worker describes the file as it can be: check them with msd status"))]
            decided = self._decide(now)
            if decided is None:
                return []
            worker, description = decided
            if description is None:
                return self._fail(worker, now)
            self._chosen = description
            self.catalogue = self._vouched or b""
        return self._fetch(self._chosen, now)

    def _decide(self, now: float) -> tuple[int, Described | None] | None:
        """Who is right, and what it says; None while that is open."""
        answers = self._answers
        if self._id is not None:
            for worker, answer in answers.items():
                if answer is not None:
                    return worker, answer
        elif self._vouched:
            for worker, answer in answers.items():
                if self._welcomes[worker].catalogue == self._vouched:
                    return worker, answer
        if not answers or self._first_answer is None:
            return None
        grace = VOUCHED_GRACE if self._vouched else GRACE
        if now < self._first_answer + grace and len(answers) + len(self._liars) < self._workers:
            return None
        ids = Counter(answer.id if answer else None for answer in answers.values())
        winner = ids.most_common(1)[0][0]
        return next((w, a) for w, a in answers.items() if (a.id if a else None) == winner)

    def _fetch(self, chosen: Described, now: float) -> list[Action]:
        if len(self._digests) >= DIGEST_SIZE * segment_count(chosen.size):
            return self._finish(chosen, now)
        if self._source is None:
            same = [w for w, a in self._answers.items() if a and a.id == chosen.id]
            if not same:
                # Everyone who knew it is gone; start over with whoever is there, or comes.
                self._chosen = None
                self._first_answer = now
                self._forget_digests()
                return self._proceed(now)
            if now < self._retry_at:
                return []
            self._source = same[0]
            self._asked_for = -1
        if self._asked_for == len(self._digests):
            return []  # That page is on its way.
        self._asked_for = len(self._digests)
        self._asked_at = now
        return [AskDigests(self._source, chosen.id, len(self._digests) // DIGEST_SIZE)]

    def _finish(self, chosen: Described, now: float) -> list[Action]:
        try:
            manifest = Manifest.build(chosen.name, chosen.size, self._digests)
        except ProtocolError:
            manifest = None
        if manifest is not None and manifest.id == chosen.id:
            return [Found(manifest)]
        if len(self._senders) == 1:
            self._distrust(*self._senders)
        # Of several it is not known which one lied: the next one sends them all.
        self._forget_digests()
        return self._fetch(chosen, now)

    def _fail(self, worker: int, now: float) -> list[Action]:
        if self._wanted[worker] is None and self._id is None:
            files = self._welcomes[worker].files
            if files:
                return [Fail(UsageError(f"{files} files are shared: name one of them; msd list shows them"))]
            return [Fail(NotFoundError("no file is shared"))]
        if self._names_from is not None:
            return []
        self._names_from = worker
        self._asked_at = now
        return [AskNames(worker)]

    def _is_possible(self, description: Described, wanted: str | None) -> bool:
        """True if a worker's description can be true, is of what it was asked for, and safe to show."""
        return (
            description.size <= MAX_FILE_SIZE
            and description.segment_size == segment_size(description.size)
            and is_presentable(description.name)
            and (description.size > 0 or description.id == file_id(0, b""))
            and wanted in (None, description.name)
            and self._id in (None, description.id)
        )

    def _not_found(self, wanted: str | None, names: list[str]) -> MsdError:
        if wanted is None or wanted in names:
            version = self._id.hex() if self._id else ""
            return NotFoundError(f"no worker shares the version {version}: msd list --json shows the ids")
        import difflib  # Seldom needed, and slow to load.

        near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "; msd list shows what is"
        if self._name is None:
            return UsageError(f"none of the shared files is called {wanted!r}: name the one that is meant{hint}")
        return NotFoundError(f"{wanted!r} is not shared{hint}")
