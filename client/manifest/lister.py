"""Decides which worker is asked for the next page of a listing. Pure.

The pages are all from one catalogue: the one that server 5 publishes or, if it is unknown or there is none, the one
that most workers have. A worker that does not answer is replaced by another one, which continues in the same catalogue.
If no worker has the catalogue any more, the listing begins again. ``client/plan/planner.py`` says which pages are
needed, and what is selected of them.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from msgspec import Struct

from msd.client.manifest.awaited_workers import AwaitedWorkers, Majority
from msd.client.network_events import ConnectionClosed, ConnectionOpened, NetworkEvent, ReplyReceived
from msd.client.plan.plan import Group
from msd.client.plan.planner import Planner
from msd.wire.errors import MsdError, ProtocolError, SourceError, UsageError
from msd.wire.protocol.messages import CataloguePage, List, Refusal
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.core import Core, TimePassed

#: Seconds to wait for further workers before the majority decides which catalogue is listed: a distant host needs
#: several round trips.
MAJORITY_TIMEOUT_S = 1.0
#: The same while server 5 publishes a catalogue. Longer, because that catalogue is preferred.
PUBLISHED_TIMEOUT_S = 2.0
#: Seconds to wait for a page before another worker is asked.
REPLY_TIMEOUT_S = 1.0
#: Seconds before a page is requested again after a temporary refusal.
RETRY_DELAY_S = 0.1

Event = NetworkEvent | TimePassed


# Actions.


class Request(Struct, frozen=True):
    """Send the request to the worker."""

    worker: int
    message: List


class Listed(Struct, frozen=True):
    """A page was added to the plan; these groups of units are complete now."""

    groups: Sequence[Group]


class Restarted(Struct, frozen=True):
    """The plan is of a catalogue that no worker has any more; the listing begins again with a new plan."""


class Completed(Struct, frozen=True):
    """The plan is complete."""


class Fail(Struct, frozen=True):
    """No worker sends a valid listing."""

    error: MsdError


Action = Request | Listed | Restarted | Completed | Fail


class Phase(enum.StrEnum):
    """What the lister is doing."""

    CHOOSING = "choosing a catalogue"
    LISTING = "listing a catalogue"
    DONE = "done"


#: The possible phase changes, and the reasons for each.
TRANSITIONS: dict[tuple[Phase, Phase], tuple[str, ...]] = {
    (Phase.CHOOSING, Phase.LISTING): ("catalogue chosen",),
    (Phase.CHOOSING, Phase.DONE): ("all workers banned", "no worker has the given catalogue"),
    (Phase.LISTING, Phase.CHOOSING): ("catalogue replaced",),
    (Phase.LISTING, Phase.DONE): ("last page received", "all workers banned", "no worker has the given catalogue"),
}


class Lister(Core[Event, Action]):
    """Lists what ``names`` and ``excludes`` select, and plans its download unless ``has_units`` is False.

    ``workers`` are the numbers of the workers that are known before the first snapshot. With a ``catalogue`` only that
    one is listed, and only by these workers. Raises ``MsdError`` if a name can select nothing.
    """

    def __init__(
        self,
        names: Sequence[str],
        excludes: Sequence[str],
        workers: Iterable[int],
        *,
        has_units: bool = True,
        catalogue: bytes | None = None,
    ) -> None:
        # A page is large.
        super().__init__(max_decisions=2)
        self.phase = Phase.CHOOSING
        self._new_planner = partial(Planner, names, excludes, has_units=has_units)
        self.planner = self._new_planner()
        self.planner.catalogue = catalogue
        #: The workers that list the given catalogue; None if no catalogue is given.
        self._holders = {*workers} if catalogue is not None else None
        #: When the lister began to wait for one of them.
        self._waiting_since: float | None = None
        #: Who has the catalogue that is listed, if server 5 is known to vouch for none.
        self.majority: Majority | None = None
        self._workers = AwaitedWorkers(workers)
        self._connected_at = 0.0
        #: Workers that sent an invalid page.
        self._banned: set[int] = set()
        #: The workers that do not have the catalogue that is listed.
        self._without_catalogue: set[int] = set()
        #: The worker that was asked last.
        self._worker = 0
        #: The request that has no reply yet, and its time.
        self._outstanding: Request | None = None
        self._requested_at = 0.0
        #: When a page may be requested again after a temporary refusal.
        self._retry_at = -math.inf

    def next_deadline(self, now: float) -> float | None:
        return min((time for time, _ in self._steps(now)), default=None)

    def _decide(self, event: Event, now: float) -> list[Action]:
        if self.phase is Phase.DONE:
            return []
        actions: list[Action] = []
        if self._waiting_since is None:
            self._waiting_since = now
        if isinstance(event, ConnectionOpened) and not self._workers.welcomes:
            self._connected_at = now
        self._workers.handle(event)
        match event:
            case ConnectionClosed(worker):
                self._without_catalogue.discard(worker)
                self._drop_request(worker)
            case ReplyReceived(worker, List() as request, reply) if self._outstanding == Request(worker, request):
                self._outstanding = None
                actions += self._on_reply(worker, reply, now)
        while step := next((step for time, step in self._steps(now) if now >= time), None):
            actions += step()
        return actions

    def _steps(self, now: float) -> Iterator[tuple[float, Callable[[], list[Action]]]]:
        """Yields the steps that need no further event, each with the time when it is due."""
        if self.phase is Phase.DONE:
            return
        if self._banned and self._banned >= self._workers.known:
            yield -math.inf, self._fail
        elif self.phase is Phase.CHOOSING:
            if choice := self._choose():
                time, worker = choice
                yield time, partial(self._begin, worker)
            elif self._holders is not None and self._waiting_since is not None:
                yield self._waiting_since + PUBLISHED_TIMEOUT_S, self._fail
        elif self._outstanding is not None:
            yield self._requested_at + REPLY_TIMEOUT_S, partial(self._drop_request, self._outstanding.worker)
        elif candidates := self._candidates():
            yield self._retry_at, partial(self._ask, candidates, now)
        elif self._holders is not None:
            yield -math.inf, self._fail
        elif self._usable():
            yield -math.inf, self._restart

    def _assert_invariants(self) -> None:
        assert self._outstanding is None or self.phase is Phase.LISTING, self.phase
        assert self._outstanding is None or self._outstanding.worker in self._workers.welcomes

    def _enter(self, phase: Phase) -> None:
        assert (self.phase, phase) in TRANSITIONS, (self.phase, phase)
        self.phase = phase

    # Workers.

    def _usable(self) -> list[int]:
        """The connected workers that may be asked and have sent no invalid page."""
        usable = [worker for worker in self._workers.welcomes if worker not in self._banned]
        return usable if self._holders is None else [worker for worker in usable if worker in self._holders]

    def _choose(self) -> tuple[float, int] | None:
        """Returns the time when the listing may begin, and the worker to ask first; None if no worker is usable."""
        usable, workers = self._usable(), self._workers
        for worker in usable:
            if self._holders is not None or workers.is_vouched_for(worker):
                return -math.inf, worker
        if not usable:
            return None
        catalogues = Counter(workers.welcomes[worker].catalogue for worker in usable)
        winner = catalogues.most_common(1)[0][0]
        worker = next(worker for worker in usable if workers.welcomes[worker].catalogue == winner)
        if workers.published:
            return self._connected_at + PUBLISHED_TIMEOUT_S, worker
        is_complete = workers.expected <= self._banned.union(usable)
        return (-math.inf if is_complete else self._connected_at + MAJORITY_TIMEOUT_S), worker

    def _candidates(self) -> list[int]:
        """The workers that can be asked for the next page: those after the one that was asked last come first."""
        candidates = [worker for worker in self._usable() if worker not in self._without_catalogue]
        return sorted(candidates, key=lambda worker: (worker <= self._worker, worker))

    # Steps.

    def _begin(self, worker: int) -> list[Action]:
        self._enter(Phase.LISTING)
        self._worker = worker - 1  # The worker itself is asked first.
        if self._workers.is_unvouched and self._holders is None:
            welcomes = self._workers.welcomes
            usable = self._usable()
            holders = sum(welcomes[other].catalogue == welcomes[worker].catalogue for other in usable)
            is_agreed = self._workers.agree(holders, len(usable) - holders, self._banned.union(usable))
            self.majority = None if is_agreed else Majority(holders, len(usable))
        return []

    def _ask(self, candidates: list[int], now: float) -> list[Action]:
        message = self.planner.next_request()
        if message is None:
            return [*self._end(Completed())]
        self._worker = candidates[0]
        self._outstanding, self._requested_at = Request(self._worker, message), now
        return [self._outstanding]

    def _drop_request(self, worker: int) -> list[Action]:
        """Stops waiting for a page from the worker; another worker is asked next."""
        if self._outstanding is not None and self._outstanding.worker == worker:
            self._outstanding = None
        return []

    def _restart(self) -> list[Action]:
        """No worker has the catalogue any more."""
        self._enter(Phase.CHOOSING)
        self.planner = self._new_planner()
        self._without_catalogue.clear()
        return [Restarted()]

    def _fail(self) -> list[Action]:
        return self._end(Fail(SourceError("no worker returned a valid list of the shared files: see msd status")))

    def _end(self, action: Completed | Fail) -> list[Action]:
        self._outstanding = None
        self._enter(Phase.DONE)
        return [action]

    # Replies.

    def _on_reply(self, worker: int, reply: object, now: float) -> list[Action]:
        match reply:
            case CataloguePage() as page:
                try:
                    groups = self.planner.add_page(page)
                except ProtocolError:
                    self._banned.add(worker)
                    return []
                except UsageError as error:
                    return self._end(Fail(error))
                self._worker = worker - 1  # The same worker continues.
                return [Listed(groups)]
            case Refusal(reason=RefusalReason.UNKNOWN):
                self._without_catalogue.add(worker)
            case _:
                self._retry_at = now + RETRY_DELAY_S
        return []
