"""Which workers may still answer, and what server 5 vouches for: for choosing between what the workers say. Pure.

Server 5 vouches for one catalogue: its own, or that of a worker that the operator trusts. If it vouches for none, or if
a file is not in that catalogue, most workers decide. Does not choose: ``client/manifest/resolver.py`` chooses the
version of a file, ``client/manifest/lister.py`` the catalogue to list.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from msgspec import Struct

from msd.client.network_events import ConnectionClosed, ConnectionOpened, SnapshotReceived
from msd.wire.protocol.messages import Status, Welcome
from msd.wire.protocol.states import WorkerState

#: The states of a worker in which it serves its catalogue.
SERVING_STATES = (WorkerState.AWAKE, WorkerState.SILENT)
#: The number of workers whose agreement needs no warning, if no worker has another version.
AGREEING_WORKERS = 2
#: The digits of an id that a text for people has.
SHOWN_DIGITS = 12


class Majority(Struct, frozen=True):
    """A choice that server 5 does not vouch for, and that the workers did not make unanimously: of the ``workers`` that
    answered, the ``holders`` have it.
    """

    holders: int
    workers: int

    def warning(self, name: str, id: bytes) -> str:
        """Returns the warning about the choice: the version ``id`` of ``name``, both fit to print."""
        verb = "has" if self.holders == 1 else "have"
        return (
            f"server 5 vouches for no version of {name}: {self.holders} of {self.workers} workers {verb} this one"
            f" (id {id.hex()[:SHOWN_DIGITS]}…)"
        )


class AwaitedWorkers:
    """The workers of a client, from its connections and the snapshots of server 5.

    ``workers`` are the numbers of the workers that are known before the first snapshot.
    """

    def __init__(self, workers: Iterable[int]) -> None:
        #: The ``welcome`` of each connected worker, by worker number.
        self.welcomes: dict[int, Welcome] = {}
        self._initial = {*workers}
        #: The latest snapshot; None before the first one.
        self._status: Status | None = None
        #: The workers to which the last attempt to connect has failed.
        self._failed: set[int] = set()

    def handle(self, event: object) -> None:
        """Records an event of the connections; ignores other events."""
        match event:
            case SnapshotReceived(status):
                self._status = status
            case ConnectionOpened(worker, welcome):
                self.welcomes[worker] = welcome
                self._failed.discard(worker)
            case ConnectionClosed(worker) if self.welcomes.pop(worker, None) is None:
                self._failed.add(worker)

    @property
    def published(self) -> bytes:
        """The digest of the catalogue for which server 5 vouches; empty if unknown, or if there is none."""
        return self._status.catalogue if self._status is not None else b""

    @property
    def is_unvouched(self) -> bool:
        """True if server 5 vouches for no catalogue although workers have some."""
        if self._status is None or self._status.catalogue:
            return False
        return any(worker.catalogue for worker in self._status.workers)

    def is_vouched_for(self, worker: int) -> bool:
        """True if the connected worker serves the catalogue for which server 5 vouches."""
        return bool(self.published) and self.welcomes[worker].catalogue == self.published

    @property
    def known(self) -> set[int]:
        """All workers, whether they can be expected to answer or not."""
        listed = self._initial if self._status is None else {worker.number for worker in self._status.workers}
        return listed | self.welcomes.keys()

    @property
    def expected(self) -> set[int]:
        """The workers that should answer, unless the client cannot connect to them: those that are awake. A silent one
        may just be busy.
        """
        if self._status is None:
            return self._initial - self._failed
        serving = {worker.number for worker in self._status.workers if worker.state in SERVING_STATES}
        return serving - self._failed

    def agree(self, holders: int, others: int, answered: AbstractSet[int]) -> bool:
        """True if the user needs no warning about a choice that server 5 does not vouch for. ``holders`` workers have
        this version, and ``others`` another one; all that can be expected must have ``answered``, and server 5 must
        vouch for no catalogue at all: one that lacks the file was chosen by the operator.
        """
        return self.is_unvouched and holders >= AGREEING_WORKERS and not others and self.expected <= answered

    @property
    def with_other_catalogues(self) -> set[int]:
        """The expected workers that may have files for which server 5 does not vouch. The processes that the broker has
        started have none: they load the catalogue of server 5.
        """
        workers = self._status.workers if self._status is not None else []
        others = {w.number for w in workers if w.host and w.catalogue not in (b"", self.published)}
        return others & self.expected
