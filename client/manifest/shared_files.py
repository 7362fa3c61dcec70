"""The files and folders of all catalogues that the workers serve, and how many workers have each. Pure.

Workers of one broker serve one catalogue; those on other hosts may have other files, or other versions of them. Lists
nothing itself: ``client/manifest/listing.py`` does.
"""

from __future__ import annotations

import heapq
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from msd.client.manifest.awaited_workers import SERVING_STATES
from msd.client.plan.plan import Plan
from msd.wire.protocol.messages import Entry, Status, Welcome


class SharedFiles:
    """The files and folders of any number of catalogues, sorted by name.

    An entry is one version of a file: several versions of a name follow one another. Its other values are those of the
    catalogue that was added first.
    """

    def __init__(self) -> None:
        self.plan = Plan(has_units=False)
        #: The number of workers whose catalogues were added.
        self.workers = 0
        #: How many of them have each entry of the plan.
        self._counts = array("H")

    @property
    def is_uniform(self) -> bool:
        """True if all workers have all entries."""
        return all(count == self.workers for count in self._counts)

    def __iter__(self) -> Iterator[tuple[Entry, int]]:
        """Yields each entry, and the number of workers that have it."""
        return ((self.plan.entry(number), count) for number, count in enumerate(self._counts))

    def add(self, plan: Plan, workers: int) -> None:
        """Adds a catalogue that so many workers serve."""
        self.workers += workers
        if not len(self.plan):
            self.plan, self._counts = plan, array("H", [workers]) * len(plan)
            return
        added = ((plan.entry(number), workers) for number in range(len(plan)))
        merged, counts = Plan(has_units=False), array("H")
        for _, entries in groupby(heapq.merge(self, added, key=_name), key=_name):
            for entry, count in _versions(entries):
                merged.add((entry,))
                counts.append(count)
        self.plan, self._counts = merged, counts


def _name(counted: tuple[Entry, int]) -> str:
    return counted[0].name


def _versions(entries: Iterable[tuple[Entry, int]]) -> Iterator[tuple[Entry, int]]:
    """Yields each version of a name once, with the number of workers that have it; the most frequent ones first."""
    versions: dict[bytes | None, tuple[Entry, int]] = {}
    for entry, count in entries:
        first, before = versions.get(entry.id, (entry, 0))
        versions[entry.id] = (first, before + count)
    # Equally frequent ones in the order of their ids, whichever catalogue was listed first.
    yield from sorted(versions.values(), key=lambda counted: (-counted[1], counted[0].id or b""))


def workers_by_catalogue(status: Status | None, welcomes: Mapping[int, Welcome]) -> dict[bytes, list[int]]:
    """Returns the catalogues that workers serve now, each with these workers; the most frequent ones first.

    Without a snapshot these are the connected workers. A process that the broker has started serves the catalogue of
    server 5: it may still load the latest edition.
    """
    served = {number: welcome.catalogue for number, welcome in welcomes.items()}
    if status is not None:
        serving = [worker for worker in status.workers if worker.state in SERVING_STATES]
        served = {w.number: w.catalogue if w.host else status.catalogue for w in serving}
    numbers: defaultdict[bytes, list[int]] = defaultdict(list)
    for number, catalogue in served.items():
        if catalogue:
            numbers[catalogue].append(number)
    return dict(sorted(numbers.items(), key=lambda item: -len(item[1])))
